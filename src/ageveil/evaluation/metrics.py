"""Scores of age estimates against true ages: pure functions on arrays.

N is the number of faces. Groups are indices 0..7 into `AGE_GROUPS`; -1 marks an age between the groups, and
whoever scores groups leaves those faces out first:

>>> ages, predicted = np.array([1, 35, 70, 13]), np.array([0, 4, 6, 2])
>>> true = group_indices(ages)
>>> scored = true != BETWEEN_GROUPS
>>> round(exact_accuracy(predicted[scored], true[scored]), 3)
0.667

Every score takes `weights`, shape (N,): how much each face counts, 0 or more, with a finite sum above 0.
Whole numbers act as if each face stood there that often. A bootstrap resample is such an array
(`ageveil.evaluation.intervals.bootstrap`). Shares are fractions in [0, 1].

Every function raises ValueError for an empty array, for arrays of other or differing shapes, for groups or
ages that are not whole numbers within their range, and for weights other than these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ageveil.types import AGE_GROUPS, age_group

BETWEEN_GROUPS = -1
"""Stands for the group of an age that lies in none."""

OLDEST = 116
"""The oldest true age that is scored, in years: that of the oldest face in UTKFace."""

_GROUP_OF_AGE = np.array(
    [BETWEEN_GROUPS if (group := age_group(age)) is None else group for age in range(OLDEST + 1)]
)


def group_indices(ages: ArrayLike) -> NDArray[np.int64]:
    """Find the group of each age.

    >>> group_indices([2, 3, 4, 116]).tolist()
    [0, -1, 1, 7]

    Args:
        ages: True ages in whole years, shape (N,), integers in 0..116.

    Returns:
        Shape (N,): index in `AGE_GROUPS`, or `BETWEEN_GROUPS`.

    Raises:
        ValueError: `ages` is empty or not such an array.
    """
    return _GROUP_OF_AGE[_whole_numbers(ages, "ages", OLDEST)]


def exact_accuracy(predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Share of faces whose predicted group is the true one.

    >>> exact_accuracy([0, 2, 7, 4], [0, 3, 7, 4])
    0.75

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..7.
        true: True groups, shape (N,), integers in 0..7.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.

    Source:
        Ye et al. 2018, section IV-A2.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights)
    return _share(predicted == true, weights)


def one_off_accuracy(predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Share of faces whose predicted group is the true one or a neighbour; 0 and 7 are no neighbours.

    >>> one_off_accuracy([0, 2, 7, 7], [1, 3, 5, 0])
    0.5

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..7.
        true: True groups, shape (N,), integers in 0..7.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        A fraction in [0, 1], never less than the exact accuracy.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.

    Source:
        Ye et al. 2018, section IV-A2.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights)
    return _share(np.abs(predicted - true) <= 1, weights)


def recall_by_group(
    predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Exact accuracy within each true group.

    >>> recall_by_group([0, 2, 7, 7], [0, 2, 2, 7]).tolist()
    [1.0, nan, 0.5, nan, nan, nan, nan, 1.0]

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..7.
        true: True groups, shape (N,), integers in 0..7.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        Shape (8,): fractions in [0, 1]; NaN for a group in which no face has a weight above 0.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights)
    faces = np.bincount(true, weights, minlength=len(AGE_GROUPS))
    hits = np.bincount(true, weights * (predicted == true), minlength=len(AGE_GROUPS))
    recalls = np.full(len(AGE_GROUPS), np.nan)
    np.divide(hits, faces, out=recalls, where=faces > 0)
    return recalls


def macro_exact_accuracy(predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean of the recalls of the groups that occur, so that rare groups count as much as common ones.

    >>> macro_exact_accuracy([4, 4, 4, 4], [4, 4, 4, 0])
    0.5

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..7.
        true: True groups, shape (N,), integers in 0..7.
        weights: How much each face counts, shape (N,); None counts each once. A group whose faces all have
            weight 0 does not occur.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    return float(np.nanmean(recall_by_group(predicted, true, weights=weights)))


def mean_absolute_error(expected: ArrayLike, ages: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean distance between expected and true age, over all faces, those between the groups too.

    A true age over 100 stays as it is, although no age distribution reaches it.

    >>> mean_absolute_error([20.5, 41.0], [22, 40])
    1.25

    Args:
        expected: Expected ages in years, shape (N,), finite.
        ages: True ages in whole years, shape (N,), integers in 0..116.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        Years, 0 or more.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    ages = _whole_numbers(ages, "ages", OLDEST)
    expected = np.asarray(expected, np.float64)
    if expected.shape != ages.shape:
        raise ValueError(f"expected one estimate for each age, got shapes {expected.shape} and {ages.shape}")
    if not np.isfinite(expected).all():
        raise ValueError("expected finite estimates, got NaN or infinity")
    return _share(np.abs(expected - ages), _checked_weights(weights, len(ages)))


def _share(values: NDArray[Any], weights: NDArray[np.float64]) -> float:
    """Weighted mean. Both sums run in the same order, so that rounding never lifts a share above 1."""
    return float((weights * values).sum() / weights.sum())


def _scored_groups(
    predicted: ArrayLike, true: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    last = len(AGE_GROUPS) - 1
    predicted = _whole_numbers(predicted, "predicted groups", last)
    true = _whole_numbers(true, "true groups", last)
    if predicted.shape != true.shape:
        raise ValueError(
            f"expected one predicted group for each true one, got shapes {predicted.shape} and {true.shape}"
        )
    return predicted, true, _checked_weights(weights, len(true))


def _whole_numbers(values: ArrayLike, name: str, highest: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected {name} of shape (N,) with N of 1 or more, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"expected {name} as integers, got {array.dtype}")
    lowest_found, highest_found = array.min(), array.max()
    if lowest_found < 0 or highest_found > highest:
        raise ValueError(f"expected {name} in 0..{highest}, got {lowest_found} to {highest_found}")
    # Signed and wide, since differences of small unsigned numbers would wrap around.
    return array.astype(np.int64, copy=False)


def _checked_weights(weights: ArrayLike | None, faces: int) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(faces)
    array = np.asarray(weights, np.float64)
    if array.shape != (faces,):
        raise ValueError(f"expected weights of shape ({faces},), got shape {array.shape}")
    with np.errstate(over="ignore"):  # a sum beyond the largest float is refused below
        total = array.sum()
    if array.min() < 0 or not 0 < total < np.inf:  # false for NaN too
        raise ValueError(
            f"expected weights of 0 or more with a finite sum above 0, got {array.min()} to {array.max()} "
            f"with sum {total}"
        )
    return array
