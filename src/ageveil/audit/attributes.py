"""What else an anonymized face tells of a person: gender and race, read off its embedding.

N is the number of faces, D of an embedding's dimensions.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ageveil.audit.recognition import Recogniser
from ageveil.audit.reidentification import normalized
from ageveil.audit.releases import seen
from ageveil.errors import FaceError, ImageError
from ageveil.evaluation.accuracy import Faces
from ageveil.evaluation.intervals import Estimate, bootstrap

_FOLDS = 5
_BATCH = 64
_RIDGE = 0.01  # of the mean variance; keeps directions that hardly vary from deciding


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
    values = _common(labels)
    if len(values) < 2:
        raise ValueError(f"expected two values or more with {_FOLDS} faces each, got {len(values)}")
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


def _common(labels: Sequence[str | None]) -> tuple[str, ...]:
    """The values that have a face for each part, sorted."""
    counts = Counter(label for label in labels if label is not None)
    return tuple(sorted(value for value, count in counts.items() if count >= _FOLDS))


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
    recognisers: Sequence[Recogniser],
    *,
    limit: int = 1000,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Attribute]]:
    """Read gender and race off anonymized faces.

    Args:
        faces: Say what they know of each person.
        approaches: Names in `ageveil.anonymization.APPROACHES`.
        recognisers: Look at the faces, those that have learned to see behind some approaches behind these
            alone; of each attribute the best reading counts. One or more look behind every approach.
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
    looking = {
        approach: [entry for entry in recognisers if entry.approaches is None or approach in entry.approaches]
        for approach in approaches
    }
    rows: dict[str, list[list[NDArray[np.float32]]]] = {
        approach: [[] for _ in entries] for approach, entries in looking.items()
    }
    labels: dict[str, list[str | None]] = {"gender": [], "race": []}
    for start in range(0, len(order), _BATCH):
        crops = {}
        for face in order[start : start + _BATCH]:
            with contextlib.suppress(FaceError, ImageError):  # faces that cannot be used tell nothing
                crops[face] = faces.crop(face)
        for trait, stated in labels.items():
            stated += [getattr(faces.images[face], trait) for face in crops]
        for approach in approaches if crops else ():
            for recogniser, parts in zip(looking[approach], rows[approach], strict=True):
                looked = seen(crops.__getitem__, list(crops), approach, (1,), recogniser, seed=seed)
                parts.append(looked[:, 0, 0])
            for _ in crops:
                advance()
    enough = [trait for trait, stated in labels.items() if len(_common(stated)) > 1]
    return {
        approach: {
            trait: max(
                (read_attribute(np.concatenate(parts), labels[trait], seed=seed) for parts in looks),
                key=lambda read: read.recall.value,
            )
            for trait in enough
        }
        for approach, looks in rows.items()
    }
