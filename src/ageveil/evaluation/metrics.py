"""Scores of age estimates against true ages: pure functions on arrays.

N is the number of faces. Groups are indices 0..7 into `AGE_GROUPS`; -1 marks an age between the groups, and
whoever scores groups leaves those faces out first:

>>> ages, predicted = np.array([1, 35, 70, 13]), np.array([0, 4, 6, 2])
>>> true = bin_indices(ages, ages, AGE_GROUPS)
>>> scored = true != BETWEEN_GROUPS
>>> round(exact_accuracy(predicted[scored], true[scored]), 3)
0.667

Scores of groups serve other bins of ages as well, such as `FAIRFACE_BINS`: `classes` says how many there are.

Every score takes `weights`, shape (N,): how much each face counts, 0 or more, with a finite sum above 0.
Whole numbers act as if each face stood there that often. A bootstrap resample is such an array
(`ageveil.evaluation.intervals.bootstrap`). Shares are fractions in [0, 1].

Every function raises ValueError for an empty array, for arrays of other or differing shapes, for groups or
ages that are not whole numbers within their range, and for weights other than these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ageveil.types import AGE_GROUPS, MAX_AGE

Bins = Sequence[tuple[int, int]]
"""Runs of whole years, both ends included, in ascending order and without overlap."""

BETWEEN_GROUPS = -1
"""Stands for the group of an age that lies in none."""

OLDEST = 116
"""The oldest true age that is scored, in years: that of the oldest face in UTKFace."""

FAIRFACE_BINS: tuple[tuple[int, int], ...] = (
    (0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, MAX_AGE),
)  # fmt: skip
"""FairFace's own nine bins; its last is "more than 70"."""

_GROUPS = len(AGE_GROUPS)

_LEAST_BELIEF = 1e-6  # in the true group: one face that was thought impossible must not outweigh all others


def exact_accuracy(
    predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None, classes: int = _GROUPS
) -> float:
    """Share of faces whose predicted group is the true one.

    >>> exact_accuracy([0, 2, 7, 4], [0, 3, 7, 4])
    0.75

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..classes - 1.
        true: True groups, shape (N,), integers in 0..classes - 1.
        weights: How much each face counts, shape (N,); None counts each once.
        classes: Number of groups.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.

    Source:
        Ye et al. 2018, section IV-A2.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights, classes)
    return _share(predicted == true, weights)


def one_off_accuracy(
    predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None, classes: int = _GROUPS
) -> float:
    """Share of faces whose predicted group is the true one or a neighbour; 0 and 7 are no neighbours.

    >>> one_off_accuracy([0, 2, 7, 7], [1, 3, 5, 0])
    0.5

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..classes - 1.
        true: True groups, shape (N,), integers in 0..classes - 1.
        weights: How much each face counts, shape (N,); None counts each once.
        classes: Number of groups.

    Returns:
        A fraction in [0, 1], never less than the exact accuracy.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.

    Source:
        Ye et al. 2018, section IV-A2.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights, classes)
    return _share(np.abs(predicted - true) <= 1, weights)


def recall_by_group(
    predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None, classes: int = _GROUPS
) -> NDArray[np.float64]:
    """Exact accuracy within each true group.

    >>> recall_by_group([0, 2, 7, 7], [0, 2, 2, 7]).tolist()
    [1.0, nan, 0.5, nan, nan, nan, nan, 1.0]

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..classes - 1.
        true: True groups, shape (N,), integers in 0..classes - 1.
        weights: How much each face counts, shape (N,); None counts each once.
        classes: Number of groups.

    Returns:
        Shape (classes,): fractions in [0, 1]; NaN for a group in which no face has a weight above 0.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights, classes)
    faces = np.bincount(true, weights, minlength=classes)
    hits = np.bincount(true, weights * (predicted == true), minlength=classes)
    recalls = np.full(classes, np.nan)
    np.divide(hits, faces, out=recalls, where=faces > 0)
    return recalls


def macro_exact_accuracy(
    predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None, classes: int = _GROUPS
) -> float:
    """Mean of the recalls of the groups that occur, so that rare groups count as much as common ones.

    >>> macro_exact_accuracy([4, 4, 4, 4], [4, 4, 4, 0])
    0.5

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..classes - 1.
        true: True groups, shape (N,), integers in 0..classes - 1.
        weights: How much each face counts, shape (N,); None counts each once. A group whose faces all have
            weight 0 does not occur.
        classes: Number of groups.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    return float(np.nanmean(recall_by_group(predicted, true, weights=weights, classes=classes)))


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


def bin_indices(low: ArrayLike, high: ArrayLike, bins: Bins) -> NDArray[np.int64]:
    """Find the bin that holds the whole of each label.

    The last bin holds every older age too, as `MAX_AGE` stands for whoever is older.

    >>> bin_indices([0, 10, 8, 71], [2, 19, 12, 116], FAIRFACE_BINS).tolist()
    [0, 2, -1, 8]

    Args:
        low: Youngest ages that the labels allow, shape (N,), integers in 0..116.
        high: Oldest ages, included; shape (N,), integers in 0..116, none below its `low`.
        bins: The bins.

    Returns:
        Shape (N,): index in `bins`, or -1 where no bin holds the label.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    low, high = _whole_numbers(low, "ages", OLDEST), _whole_numbers(high, "ages", OLDEST)
    if low.shape != high.shape or (high < low).any():
        raise ValueError("expected a highest age for each lowest one, and none below it")
    starts = np.array([start for start, _ in bins])
    ends = np.array([end for _, end in bins[:-1]] + [OLDEST])
    holds = (low[:, None] >= starts) & (high[:, None] <= ends)
    return np.where(holds.any(axis=1), holds.argmax(axis=1), BETWEEN_GROUPS)


def bin_probabilities(years: ArrayLike, bins: Bins) -> NDArray[np.float64]:
    """Sum distributions over years into bins.

    Args:
        years: Probabilities of the years 0..100, shape (N, 101).
        bins: The bins.

    Returns:
        Shape (N, B): the probability of each bin; what lies between bins is in none.

    Raises:
        ValueError: `years` is empty or of another shape.
    """
    years = np.asarray(years, np.float64)
    if years.ndim != 2 or years.shape[1] != MAX_AGE + 1 or len(years) == 0:
        raise ValueError(f"expected years of shape (N, {MAX_AGE + 1}) with N of 1 or more, got {years.shape}")
    return np.stack([years[:, low : high + 1].sum(axis=1) for low, high in bins], axis=1)


def confusion_matrix(
    predicted: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None, classes: int = _GROUPS
) -> NDArray[np.float64]:
    """Count how often each true group was taken for each group.

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], classes=2).tolist()
    [[1.0, 1.0], [0.0, 1.0]]

    Args:
        predicted: Most probable groups, shape (N,), integers in 0..classes - 1.
        true: True groups, shape (N,), integers in 0..classes - 1.
        weights: How much each face counts, shape (N,); None counts each once.
        classes: Number of groups.

    Returns:
        Shape (classes, classes): a row for each true group, a column for each predicted one.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    predicted, true, weights = _scored_groups(predicted, true, weights, classes)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (true, predicted), weights)
    return counts


@dataclass(frozen=True, slots=True)
class GuessRow:
    """What a guess that looks at no face scores: fractions in [0, 1].

    Attributes:
        exact: Share exact.
        one_off: Share exact or one group off.
    """

    exact: float
    one_off: float


def majority_row(true: ArrayLike, *, classes: int = _GROUPS) -> GuessRow:
    """Score the guess that always says the most common true group (the youngest of equally common ones).

    >>> majority_row([4, 4, 4, 5, 0])
    GuessRow(exact=0.6, one_off=0.8)

    Args:
        true: True groups, shape (N,), integers in 0..classes - 1.
        classes: Number of groups.

    Raises:
        ValueError: `true` is empty or not such an array.
    """
    true = _whole_numbers(true, "true groups", classes - 1)
    guess = np.full(len(true), np.bincount(true).argmax())
    return GuessRow(
        exact_accuracy(guess, true, classes=classes), one_off_accuracy(guess, true, classes=classes)
    )


def uniform_row(true: ArrayLike, *, classes: int = _GROUPS) -> GuessRow:
    """Score, on average, the guess that says each group equally often.

    The first and the last group have one neighbour, so that the share one off is below 3 / classes (the
    paper's 37.5 %) as soon as one of them occurs.

    >>> uniform_row([3, 3, 3, 7])
    GuessRow(exact=0.125, one_off=0.34375)

    Args:
        true: True groups, shape (N,), integers in 0..classes - 1.
        classes: Number of groups.

    Raises:
        ValueError: `true` is empty or not such an array.
    """
    true = _whole_numbers(true, "true groups", classes - 1)
    hits = 1 + (true > 0).astype(np.int64) + (true < classes - 1)
    return GuessRow(1 / classes, float(hits.mean()) / classes)


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How often events happened that were said to have some probability.

    Attributes:
        edges: Shape (B + 1,): ends of the bins of probability, 0 to 1.
        counts: Shape (B,): events in each bin.
        said: Shape (B,): mean probability in each bin; NaN where it is empty.
        happened: Shape (B,): share of the bin's events that happened; NaN where it is empty.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    said: NDArray[np.float64]
    happened: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between said and happened, in [0, 1].

        Source:
            Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
            Binning".
        """
        gaps = np.nan_to_num(np.abs(self.said - self.happened))
        return float(gaps @ self.counts / self.counts.sum())


def reliability(probabilities: ArrayLike, happened: ArrayLike, *, bins: int = 15) -> Reliability:
    """Sort probabilities into bins of equal width and compare each with what happened.

    For P(group) give the probability of the most probable group and whether it was the true one; for
    P(age >= T) that probability and whether the age was.

    >>> sorted_in_two = reliability([0.2, 0.4, 0.9, 0.7], [False, True, True, True], bins=2)
    >>> sorted_in_two.happened.tolist(), round(sorted_in_two.error, 3)
    ([0.5, 1.0], 0.2)

    Args:
        probabilities: Shape (N,), in [0, 1].
        happened: Shape (N,), bool.
        bins: Number of bins, 1 or more; each holds its upper edge, the first its lower one too.

    Raises:
        ValueError: An argument is empty or not such an array, the shapes differ, or `bins` is below 1.
    """
    probabilities, happened = _events(probabilities, happened)
    if bins < 1:
        raise ValueError(f"expected 1 bin or more, got {bins}")
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], probabilities)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(index, probabilities, minlength=bins) / counts
        share = np.bincount(index, happened, minlength=bins) / counts
    return Reliability(edges, counts, said, share)


def brier_score(probabilities: ArrayLike, happened: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean squared distance between probabilities and what happened.

    >>> brier_score([0.5, 1.0], [True, True])
    0.125

    Args:
        probabilities: Shape (N,), in [0, 1].
        happened: Shape (N,), bool.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        A number in [0, 1]; 0 is perfect, always saying 0.5 gives 0.25.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.

    Source:
        Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    probabilities, happened = _events(probabilities, happened)
    return _share((probabilities - happened) ** 2, _checked_weights(weights, len(happened)))


def log_loss(probabilities: ArrayLike, true: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean negative logarithm of the probability of the true group, in nats.

    Good for choosing between estimators: unlike a share of hits it tells certainty from a guess, so that
    fewer faces suffice.

    >>> log_loss([[0.5, 0.5], [0.25, 0.0]], [1, 0])
    0.34657359027997264

    Args:
        probabilities: Shape (N, K), 0 or more, what one face's groups share among them; each row is scaled to
            sum 1, since the face's age is known to lie in one of the groups.
        true: True groups, shape (N,), integers in 0..K - 1.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        0 or more; 0 is perfect. No group is held to be less probable than one in a million.

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.

    Source:
        Good 1952, "Rational decisions".
    """
    array = np.asarray(probabilities, np.float64)
    if array.ndim != 2 or array.size == 0 or not (array >= 0).all() or not np.isfinite(array).all():
        raise ValueError("expected probabilities of 0 or more, of shape (N, K) with N and K of 1 or more")
    true = _whole_numbers(true, "true groups", array.shape[1] - 1)
    if len(true) != len(array):
        raise ValueError(f"expected one true group for each row, got {len(true)} for {len(array)}")
    sums = array.sum(1)
    # Who puts nothing into any group says nothing of which it is.
    said = np.full(len(array), 1 / array.shape[1])
    np.divide(array[np.arange(len(true)), true], sums, out=said, where=sums > 0)
    return _share(-np.log(np.maximum(said, _LEAST_BELIEF)), _checked_weights(weights, len(true)))


def misjudged_share(
    probabilities: ArrayLike, happened: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Share of events that lie on the other side of one half than their probability; one half says yes.

    >>> misjudged_share([0.5, 0.4, 0.9], [True, True, False])
    0.6666666666666666

    Args:
        probabilities: Shape (N,), in [0, 1].
        happened: Shape (N,), bool.
        weights: How much each face counts, shape (N,); None counts each once.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: An argument is empty or not such an array, or the shapes differ.
    """
    probabilities, happened = _events(probabilities, happened)
    return _share((probabilities >= 0.5) != happened, _checked_weights(weights, len(happened)))


@dataclass(frozen=True, slots=True, eq=False)
class OperatingCurve:
    """What each threshold on P(age >= T) lets through.

    Attributes:
        thresholds: Shape (K,), descending; a face passes from its threshold on. The first is infinity.
        false_accepts: Shape (K,): share of those under T that pass.
        passed: Shape (K,): share of those who should pass that do.
    """

    thresholds: NDArray[np.float64]
    false_accepts: NDArray[np.float64]
    passed: NDArray[np.float64]


def operating_curve(probabilities: ArrayLike, *, under: ArrayLike, entitled: ArrayLike) -> OperatingCurve:
    """Follow the threshold on P(age >= T) from passing nobody to passing everybody.

    Args:
        probabilities: P(age >= T), shape (N,), in [0, 1].
        under: Who is under T, shape (N,), bool.
        entitled: Who ought to pass, shape (N,), bool: those of T and over, or only those of 25 and over
            where borderline ages are asked for another proof anyway.

    Raises:
        ValueError: An argument is empty or not such an array, the shapes differ, or nobody is under T or
            nobody is entitled.
    """
    probabilities, under, entitled = _probabilities(probabilities), _masks(under), _masks(entitled)
    if not probabilities.shape == under.shape == entitled.shape:
        raise ValueError("expected one mark of each kind for each probability")
    if not under.any() or not entitled.any():
        raise ValueError("an operating curve needs faces under the age and entitled ones")
    thresholds = np.unique(probabilities[under | entitled])[::-1]
    shares = []
    for mask in (under, entitled):
        ascending = np.sort(probabilities[mask])
        at_least = len(ascending) - np.searchsorted(ascending, thresholds, side="left")
        shares.append(np.concatenate([[0.0], at_least / len(ascending)]))
    return OperatingCurve(np.concatenate([[np.inf], thresholds]), shares[0], shares[1])


@dataclass(frozen=True, slots=True)
class MinorsJudgedOver:
    """How many minors pass for 18 at a threshold.

    Attributes:
        threshold: On P(age >= 18): whoever reaches it passes.
        passed: Share of those aged `pass_from` and over that pass here; NaN where there are none.
        judged_over: Minors that pass.
        minors: Minors in all.
    """

    threshold: float
    passed: float
    judged_over: int
    minors: int


def minors_judged_over(
    p_at_least_18: ArrayLike,
    ages: ArrayLike,
    *,
    threshold: float,
    pass_from: int = 25,
    minors: tuple[int, int] = (13, 17),
) -> MinorsJudgedOver:
    """Count the minors judged 18 or over at a threshold, such as that where most adults pass.

    >>> said, ages = [0.2, 0.6, 0.5, 0.9], [15, 17, 30, 40]
    >>> minors_judged_over(said, ages, threshold=pass_threshold([0.5, 0.9], 1.0))
    MinorsJudgedOver(threshold=0.5, passed=1.0, judged_over=1, minors=2)

    Args:
        p_at_least_18: P(age >= 18), shape (N,), in [0, 1].
        ages: True ages, shape (N,), integers in 0..116.
        threshold: Of P(age >= 18); `pass_threshold` finds one, on validation faces.
        pass_from: Age from which on faces count as adults here, in years.
        minors: Youngest and oldest age that counts as a minor, both included.

    Raises:
        ValueError: An argument is empty or not such an array, the shapes differ, or there is no minor.
    """
    probabilities, ages = _probabilities(p_at_least_18), _whole_numbers(ages, "ages", OLDEST)
    if probabilities.shape != ages.shape:
        raise ValueError(f"expected one probability for each age, got shape {probabilities.shape}")
    adults = probabilities[ages >= pass_from]
    young = probabilities[(ages >= minors[0]) & (ages <= minors[1])]
    if not young.size:
        raise ValueError(f"expected faces aged {minors[0]} to {minors[1]}, got none")
    passed = float((adults >= threshold).mean()) if adults.size else math.nan
    return MinorsJudgedOver(threshold, passed, int((young >= threshold).sum()), len(young))


def pass_threshold(probabilities: ArrayLike, pass_share: float) -> float:
    """Find the highest threshold that at least this share of probabilities reaches.

    >>> pass_threshold([0.1, 0.7, 0.8, 0.9], 0.75)
    0.7

    Args:
        probabilities: Shape (N,), in [0, 1].
        pass_share: In (0, 1].

    Raises:
        ValueError: `probabilities` is empty or not such an array, or the share lies outside.
    """
    adults = _probabilities(probabilities)
    if not 0 < pass_share <= 1:
        raise ValueError(f"a share to pass lies in (0, 1], got {pass_share}")
    # Rounded, so that 90 % of 10 is not 9.000000000000002.
    needed = math.ceil(round(pass_share * len(adults), 9))
    return float(np.sort(adults)[::-1][needed - 1])


def _events(probabilities: ArrayLike, happened: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    probabilities, happened = _probabilities(probabilities), _masks(happened)
    if probabilities.shape != happened.shape:
        raise ValueError(f"expected one outcome for each probability, got shape {happened.shape}")
    return probabilities, happened


def _probabilities(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError("expected probabilities in [0, 1] of shape (N,) with N of 1 or more")
    return array


def _masks(values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype != np.bool_:
        raise ValueError(f"expected truth values of shape (N,), got {array.dtype} of shape {array.shape}")
    return array


def _share(values: NDArray[Any], weights: NDArray[np.float64]) -> float:
    """Weighted mean. Both sums run in the same order, so that rounding never lifts a share above 1."""
    return float((weights * values).sum() / weights.sum())


def _scored_groups(
    predicted: ArrayLike, true: ArrayLike, weights: ArrayLike | None, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    last = classes - 1
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
