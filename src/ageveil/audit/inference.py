"""What else an anonymized face, or an estimator, gives away: whom it was trained on, gender, race.

N is the number of faces, D of an embedding's dimensions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ageveil import estimation
from ageveil.audit.recognition import Recogniser
from ageveil.audit.reidentification import normalized
from ageveil.audit.releases import seen
from ageveil.errors import DataError, FaceError, ImageError
from ageveil.evaluation import accuracy
from ageveil.evaluation.accuracy import Faces
from ageveil.evaluation.intervals import Estimate, Statistic, bootstrap
from ageveil.training.splits import left_out
from ageveil.types import MAX_AGE, AgeDistribution, age_group

_FOLDS = 5
_BATCH = 64
_RIDGE = 0.01  # of the mean variance; keeps directions that hardly vary from deciding


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


@dataclass(frozen=True, slots=True)
class Attribute:
    """How well an attacker reads an attribute off a face.

    Attributes:
        recall: Mean over the values of the share that is told rightly, in percent.
        guessing: What guessing reaches: 100 by the number of values.
        values: The values that were told apart.
        faces: Faces that state one.
    """

    recall: Estimate
    guessing: float
    values: tuple[str, ...]
    faces: int


def read_attribute(
    embeddings: NDArray[np.floating],
    labels: Sequence[str | None],
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Attribute:
    """Learn an attribute from four fifths of the faces, tell it of the rest, in turn.

    A linear classifier by least squares with a ridge, each value weighing alike.

    Args:
        embeddings: Of anonymized faces, shape (N, D).
        labels: What the data set says of each; None where it says nothing.
        seed: Of the parts and of the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        ValueError: Fewer than two values have a face for each part.
    """
    counts: dict[str, int] = {}
    for label in labels:
        if label is not None:
            counts[label] = counts.get(label, 0) + 1
    values = tuple(sorted(value for value, count in counts.items() if count >= _FOLDS))
    if len(values) < 2:
        raise ValueError(f"expected two values or more with {_FOLDS} faces each, got {counts}")
    known = np.flatnonzero([label in values for label in labels])
    true = np.array([values.index(str(labels[face])) for face in known.tolist()])
    rows = normalized(np.asarray(embeddings)[known])
    part = _parts(true, seed)
    said = np.empty(len(known), np.int64)
    for fold in range(_FOLDS):
        learn, tell = part != fold, part == fold
        said[tell] = _classify(rows[learn], true[learn], rows[tell], len(values))

    def recall(weights: NDArray[np.float64]) -> float:
        totals = np.bincount(true, weights, len(values))
        right = np.bincount(true, weights * (said == true), len(values))
        return 100 * float(np.mean(right[totals > 0] / totals[totals > 0]))

    estimate = bootstrap(recall, len(known), seed=seed, resamples=resamples)
    return Attribute(estimate, 100 / len(values), values, len(known))


def _parts(true: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Which fifth each face is in; every value is spread over all."""
    rng = np.random.default_rng(seed)
    part = np.empty(len(true), np.int64)
    for value in np.unique(true):
        mine = rng.permutation(np.flatnonzero(true == value))
        part[mine] = np.arange(len(mine)) % _FOLDS
    return part


def _classify(
    rows: NDArray[np.float64], true: NDArray[np.int64], others: NDArray[np.float64], values: int
) -> NDArray[np.int64]:
    mean = rows.mean(0)
    centred = rows - mean
    weights = 1 / np.bincount(true, minlength=values)[true]
    wanted = np.eye(values)[true] - 1 / values
    spread = (centred * weights[:, None]).T @ centred
    spread += np.eye(len(spread)) * (_RIDGE * np.trace(spread) / len(spread) + 1e-12)
    directions = np.linalg.solve(spread, (centred * weights[:, None]).T @ wanted)
    return np.asarray(((others - mean) @ directions).argmax(1), np.int64)


def attributes(
    faces: Faces,
    approaches: Sequence[str],
    recogniser: Recogniser,
    *,
    limit: int = 1000,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Attribute]]:
    """Read gender and race off anonymized faces.

    Args:
        faces: Say what they know of each person.
        approaches: Names in `ageveil.anonymization.APPROACHES`.
        recogniser: Looks at the faces.
        limit: Only so many faces, drawn at random.
        seed: Of the draws and of the parts.
        advance: Called after each face behind each approach.

    Returns:
        Approach -> attribute -> how well it is read; without those that the data set does not tell, or that
        too few faces state.

    Raises:
        ModelError: As `ageveil.audit.recognition.embed`.
    """
    order = np.random.default_rng(seed).permutation(len(faces.images))[:limit].tolist()
    rows: dict[str, list[NDArray[np.float32]]] = {approach: [] for approach in approaches}
    labels: dict[str, list[str | None]] = {"gender": [], "race": []}
    for start in range(0, len(order), _BATCH):
        crops = {}
        for face in order[start : start + _BATCH]:
            with contextlib.suppress(FaceError, ImageError):  # faces that cannot be used tell nothing
                crops[face] = faces.crop(face)
        for trait, stated in labels.items():
            stated += [getattr(faces.images[face], trait) for face in crops]
        for approach in approaches if crops else ():
            looked = seen(crops.__getitem__, list(crops), approach, (1,), recogniser, seed=seed)
            rows[approach].append(looked[:, 0, 0])
            for _ in crops:
                advance()
    found: dict[str, dict[str, Attribute]] = {}
    for approach, parts in rows.items():
        found[approach] = {}
        for trait, stated in labels.items():
            with contextlib.suppress(ValueError):  # too few of them
                found[approach][trait] = read_attribute(np.concatenate(parts), stated, seed=seed)
    return found


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
    rng = np.random.default_rng(seed)
    kinds = [[index for index in usual if (index in out) == other] for other in (False, True)]
    if not all(kinds):
        raise DataError("the data set holds no face that trained the model, or none that it left out")
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
