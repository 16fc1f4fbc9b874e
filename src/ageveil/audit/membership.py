"""Whom an estimator was trained on, told by its error on a face."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ageveil import estimation
from ageveil.errors import DataError
from ageveil.evaluation import accuracy
from ageveil.evaluation.accuracy import Faces
from ageveil.evaluation.intervals import Estimate, Statistic, bootstrap
from ageveil.training.splits import left_out
from ageveil.types import MAX_AGE, AgeDistribution, age_group


@dataclass(frozen=True, slots=True)
class Membership:
    """How well an attacker tells faces that a model was trained on from others, by the model's error.

    Attributes:
        auc: Chance in percent that a trained face has a smaller error than another; 50 is guessing.
        advantage: Largest share of trained faces over share of others below a threshold, in points; 0 is
            guessing. The threshold is the attacker's best in hindsight, so that a small sample shows some.
        trained: Faces that were trained on.
        others: Faces that were not.
    """

    auc: Estimate
    advantage: Estimate
    trained: int
    others: int


def membership(
    trained: NDArray[np.floating], others: NDArray[np.floating], *, seed: int = 0, resamples: int = 500
) -> Membership:
    """Tell trained faces from others by a threshold on the model's error.

    Args:
        trained: Errors on faces that the model was trained on, shape (N,): -log of the probability of the
            true age, or anything that is smaller where the model is surer and right.
        others: The same on faces like them that it was not trained on, shape (M,).
        seed: Of the bootstrap over faces.
        resamples: Of the bootstrap.

    Raises:
        ValueError: One of the two is empty, or an error is not finite.

    Source:
        Yeom et al. 2018, "Privacy risk in machine learning: analyzing the connection to overfitting".
    """
    errors = np.concatenate([trained, others])
    if not len(trained) or not len(others) or not np.isfinite(errors).all():
        raise ValueError(f"expected finite errors of both kinds, got {len(trained)} and {len(others)}")
    inside = np.arange(len(errors)) < len(trained)
    levels, place = np.unique(errors, return_inverse=True)

    def at_levels(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How many faces of each kind have each error; whole numbers, so that sums are exact."""
        mine: NDArray[np.float64] = np.bincount(place, weights * inside, len(levels)).astype(np.float64)
        theirs: NDArray[np.float64] = np.bincount(place, weights * ~inside, len(levels)).astype(np.float64)
        return mine, theirs

    def auc(weights: NDArray[np.float64]) -> float:
        mine, theirs = at_levels(weights)
        above = theirs.sum() - np.cumsum(theirs)
        pairs = max(float(mine.sum() * theirs.sum()), 1)
        return 100 * float(mine @ (2 * above + theirs)) / (2 * pairs)

    def advantage(weights: NDArray[np.float64]) -> float:
        below = [np.cumsum(kind) / max(kind.sum(), 1) for kind in at_levels(weights)]
        return 100 * max(0.0, float((below[0] - below[1]).max()))

    def estimate(figure: Statistic) -> Estimate:
        return bootstrap(figure, len(errors), seed=seed, resamples=resamples)

    return Membership(estimate(auc), estimate(advantage), len(trained), len(others))


def trained_and_others(faces: Faces, model: str) -> tuple[list[int], list[int]]:
    """Which faces of its data set an estimator was trained on, and which its recipe left out.

    Ages of which a larger share was left out do not take part: they would be told by their age.

    Args:
        faces: The data set that the model was trained on.
        model: Name in `ageveil.estimation.MODELS` or path.

    Raises:
        DataError: The model does not say on which faces it was trained, or none of one kind is there.
    """
    split = estimation.split_of(model)
    if split is None:
        raise DataError(f"{model} does not say which faces its training left out")
    out = set(left_out(faces.images, **asdict(split)).tolist())
    held = [span for span, share in split.hold_out.items() if share != split.share]
    usual = [
        index
        for index, image in enumerate(faces.images)
        if image.age is not None and not any(low <= image.age <= high for low, high in held)
    ]
    trained = [index for index in usual if index not in out]
    others = [index for index in usual if index in out]
    if not trained or not others:
        raise DataError("the data set holds no face that trained the model, or none that it left out")
    return trained, others


def memberships(
    faces: Faces,
    approaches: Sequence[str],
    model: str,
    *,
    limit: int = 2000,
    seed: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Membership]:
    """Tell an estimator's training faces from those that its recipe left out.

    Ages of which a larger share was left out do not take part: they would be told by their age.

    Args:
        faces: The data set that the model was trained on.
        approaches: Names in `ageveil.anonymization.APPROACHES`.
        model: Name in `ageveil.estimation.MODELS` or path; it says what its recipe left out.
        limit: Only so many faces of each kind, drawn at random.
        seed: Of the draws.
        workers: Threads that prepare faces.
        advance: Called after each face.

    Raises:
        DataError: The model does not say on which faces it was trained, or none of one kind is there.
    """
    rng = np.random.default_rng(seed)
    kinds = trained_and_others(faces, model)
    drawn = [sorted(rng.permutation(kind)[:limit].tolist()) for kind in kinds]
    chosen = sorted(index for part in drawn for index in part)
    estimates = accuracy.estimate_all(
        accuracy.part(faces, chosen), [(name, model) for name in approaches], seed=seed, workers=workers,
        advance=advance,
    )  # fmt: skip
    trained = {faces.images[index].path for index in drawn[0]}
    found = {}
    for (approach, _), answers in estimates.items():
        errors = np.array(
            [_surprise(d, i.age or 0) for d, i in zip(answers.distributions, answers.images, strict=True)]
        )
        inside = np.array([image.path in trained for image in answers.images])
        found[approach] = membership(errors[inside], errors[~inside], seed=seed)
    return found


def _surprise(distribution: AgeDistribution, age: int) -> float:
    """-log of the probability of the true age, or of its group where the model knows groups alone."""
    if distribution.years is not None:
        probability = distribution.years[min(age, MAX_AGE)]
    else:
        group = age_group(age)
        probability = 1.0 if group is None else distribution.groups[group]
    return -math.log(max(float(probability), 1e-9))
