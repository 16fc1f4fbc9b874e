"""Name anonymized faces: scores of attackers who know, adapt or learn, and the figures of their success.

N is the number of faces, P of probes, K of people, D of an embedding's dimensions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ageveil.evaluation.intervals import Estimate, Statistic, bootstrap, widened

Embeddings = NDArray[np.float32]
"""One row for each face, shape (N, D)."""

_SHRINKAGE = 0.3  # share of the mean variance that is added to every direction of the scatter within people


def normalized(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float64)


def templates(gallery: NDArray[np.floating], person: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """What an attacker knows of each person: the mean of the gallery embeddings, of length 1.

    Args:
        gallery: Shape (N, D).
        person: Whose each is, shape (N,), in 0..count - 1; everybody occurs.
        count: Number of people K.

    Returns:
        Shape (K, D).
    """
    rows = normalized(gallery)
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, person, rows)
    return normalized(sums)


def cosine_scores(
    probes: NDArray[np.floating], gallery: NDArray[np.floating], person: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """How much each probe resembles each person: cosine to the person's template, shape (P, K)."""
    return normalized(probes) @ templates(gallery, person, count).T


def distance_scores(
    probes: NDArray[np.floating], gallery: NDArray[np.floating], person: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """How near each probe lies to each person: minus the squared distance to the mean of the gallery.

    Where an approach leaves a number or two, the angle between embeddings is next to nothing of what it
    leaves.

    Args:
        probes: Shape (P, D).
        gallery: Shape (N, D).
        person: Whose each of the gallery is, shape (N,), in 0..count - 1; everybody occurs.
        count: Number of people K.

    Returns:
        Shape (P, K).
    """
    means = np.zeros((count, gallery.shape[1]))
    np.add.at(means, person, gallery)
    means /= np.bincount(person, minlength=count)[:, None]
    squares = (np.square(probes).sum(1)[:, None] + np.square(means).sum(1)) - 2 * probes @ means.T
    return np.asarray(-np.maximum(squares, 0), np.float64)


_WAYS = {"cosine": cosine_scores, "distance": distance_scores}


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """What an attacker learned of how faces of one person differ.

    Attributes:
        centres: Mean embedding of each kind of face ("clear" or "anonymized"), which is taken away first.
        directions: Shape (D, M): embeddings are multiplied by it before they are compared.
    """

    centres: Mapping[str, NDArray[np.float64]]
    directions: NDArray[np.float64]

    def apply(self, embeddings: NDArray[np.floating], kind: str) -> NDArray[np.float64]:
        """Embeddings of one kind as the attacker compares them, shape (N, M)."""
        return (normalized(embeddings) - self.centres[kind]) @ self.directions


def learn_metric(kinds: Mapping[str, NDArray[np.floating]], person: NDArray[np.int64]) -> Metric:
    """Linear discriminant analysis over faces of people who are not attacked.

    Each kind is centred by itself, so that what anonymization does to every face alike goes away; then the
    scatter within people is whitened, and the directions in which people differ most are kept.

    Args:
        kinds: Embeddings of the same faces, clear and anonymized, each of shape (N, D).
        person: Whose each face is, shape (N,); two people or more.

    Raises:
        ValueError: There are fewer than two people.

    Source:
        Fisher 1936; Belhumeur, Hespanha and Kriegman 1997, "Eigenfaces vs. Fisherfaces".
    """
    people, number = np.unique(person, return_inverse=True)
    if len(people) < 2:
        raise ValueError(f"expected faces of two people or more, got {len(people)}")
    rows = {kind: normalized(embeddings) for kind, embeddings in kinds.items()}
    centres = {kind: row.mean(0) for kind, row in rows.items()}
    joined = np.concatenate([rows[kind] - centres[kind] for kind in rows])
    whose = np.tile(number, len(rows))
    counts = np.bincount(whose).astype(np.float64)
    means = np.zeros((len(people), joined.shape[1]))
    np.add.at(means, whose, joined)
    means /= counts[:, None]
    rest = joined - means[whose]
    within = rest.T @ rest / len(joined)
    size = len(within)
    within += np.eye(size) * (_SHRINKAGE * np.trace(within) / size + 1e-12)
    # Any root whitens alike but for a turn, which the next step takes out; this one is quick to find.
    whiten = np.linalg.inv(np.linalg.cholesky(within)).T
    _, _, axes = np.linalg.svd(np.sqrt(counts)[:, None] * (means @ whiten), full_matrices=False)
    kept = min(len(people) - 1, size)
    return Metric(centres, whiten @ axes[:kept].T)


def adapted_scores(
    kinds: Mapping[str, NDArray[np.floating]],
    person: NDArray[np.int64],
    fold: NDArray[np.int64],
    gallery: NDArray[np.bool_],
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Scores of anonymized probes under learned metrics, against each kind of gallery.

    By angle, a metric has learned from everybody but the people in the probe's fold. By distance, it has not
    learned from those in the fold of the person it is compared with either: a metric draws together those
    that it learned from, which would leave only the others to choose from.

    Args:
        kinds: Embeddings of the same faces, "clear" and "anonymized", each of shape (N, D).
        person: Whose each face is, shape (N,), in 0..K - 1; everybody is in the gallery.
        fold: Part of each face's person, shape (N,); of three parts or more.
        gallery: Which faces are known by name, shape (N,); the other P are probes.

    Returns:
        (kind of gallery, "cosine" or "distance") -> scores, shape (P, K).

    Raises:
        ValueError: Two folds hold all people but one.
    """
    count = int(person.max()) + 1
    fold_of = np.empty(count, np.int64)
    fold_of[person] = fold
    parts = np.unique(fold).tolist()

    @functools.cache
    def without(*unseen: int) -> Metric:
        learned = ~np.isin(fold, unseen)
        return learn_metric({kind: rows[learned] for kind, rows in kinds.items()}, person[learned])

    asked = fold[~gallery]
    found = {(kind, name): np.empty((len(asked), count)) for kind in kinds for name in _WAYS}

    def compare(name: str, part: int, metric: Metric, others: NDArray[np.bool_]) -> None:
        """Compare the probes of a part with some of the people."""
        probes = metric.apply(kinds["anonymized"][~gallery][asked == part], "anonymized")
        for kind, rows in kinds.items():
            scores = _WAYS[name](probes, metric.apply(rows[gallery], kind), person[gallery], count)
            found[kind, name][np.ix_(asked == part, others)] = scores[:, others]

    for place, part in enumerate(parts):
        compare("cosine", part, without(part), np.ones(count, np.bool_))
        for other in parts:
            beside = parts[(place + 1) % len(parts)] if other == part else other
            compare("distance", part, without(min(part, beside), max(part, beside)), fold_of == other)
    return found


Figure = Literal["rank1", "rank5", "tar_far_1e2", "tar_far_1e3"]
FIGURES: tuple[Figure, ...] = ("rank1", "rank5", "tar_far_1e2", "tar_far_1e3")
"""Of `Success`."""


@dataclass(frozen=True, slots=True)
class Success:
    """How often an attacker is right, in percent with 95 % bootstrap intervals over people.

    Attributes:
        rank1: Probes whose person scores highest of all.
        rank5: Probes whose person is among the five highest.
        tar_far_1e2: Probes accepted as their person where one in a hundred others would be; None where there
            are too few others to tell.
        tar_far_1e3: The same for one in a thousand.
        roc: Shares of others and of own people accepted, in percent, from strict to lax.
    """

    rank1: Estimate
    rank5: Estimate
    tar_far_1e2: Estimate | None
    tar_far_1e3: Estimate | None
    roc: tuple[tuple[float, float], ...]


def strongest(reached: Sequence[Success]) -> Success:
    """The highest of each figure that any of several attempts reached, with the curve of the best rank-1."""
    found: dict[str, Any] = {
        figure: highest([getattr(success, figure) for success in reached]) for figure in FIGURES
    }
    return replace(max(reached, key=lambda success: success.rank1.value), **found)


def highest(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """The estimate with the highest value; None where there is none."""
    known = [estimate for estimate in estimates if estimate is not None]
    return max(known, key=lambda estimate: estimate.value) if known else None


def places(scores: NDArray[np.floating], true: NDArray[np.int64]) -> NDArray[np.int64]:
    """At which place the true person comes for each probe, from 1; who scores alike comes before.

    Args:
        scores: Shape (P, K).
        true: Number of each probe's person, shape (P,).
    """
    own = scores[np.arange(len(true)), true]
    return np.asarray((scores >= own[:, None]).sum(1), np.int64)


def accepted_share(
    own: NDArray[np.floating],
    others: NDArray[np.floating],
    far: float,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """True accept rate: share of own scores above the threshold that at most `far` of the others pass.

    Args:
        own: Scores of probes with their own person, shape (P,).
        others: Scores of probes with other people, shape (P, K - 1).
        far: False accept rate, in (0, 1).
        weights: How often each probe counts, shape (P,).
    """
    return _Curve.of(own, others).share(far, np.ones(len(own)) if weights is None else weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Scores of others from high to low, with the probe of each: sorted once, for all resamples."""

    own: NDArray[np.floating]
    scores: NDArray[np.floating]
    probes: NDArray[np.int64]
    width: int

    @classmethod
    def of(cls, own: NDArray[np.floating], others: NDArray[np.floating]) -> _Curve:
        order = np.argsort(others, axis=None)[::-1]
        return cls(own, others.ravel()[order], order // others.shape[1], others.shape[1])

    def share(self, far: float, weights: NDArray[np.float64]) -> float:
        allowed = far * weights.sum() * self.width
        # Only the highest scores matter where few may pass.
        top = len(self.scores)
        if far < 0.1:
            top = min(top, int(4 * far * top) + 100)
        passed = np.cumsum(weights[self.probes[:top]])
        if passed[-1] <= allowed:
            passed = np.cumsum(weights[self.probes])
        stop = int(np.searchsorted(passed, allowed, side="right"))
        threshold = self.scores[stop] if stop < len(self.scores) else -np.inf  # the first that may not pass
        return float(np.average(self.own > threshold, weights=weights))


def measure(
    scores: NDArray[np.floating], true: NDArray[np.int64], *, seed: int = 0, resamples: int = 1000
) -> Success:
    """The figures of an attacker.

    Args:
        scores: Of each probe with each person, shape (P, K), higher for likelier.
        true: Number of each probe's person, shape (P,).
        seed: Of the bootstrap, which draws people with all their probes. Where it has no width, since all
            are right or none is, the interval is the exact one for as many faces as there are people.
        resamples: Of the bootstrap.

    Raises:
        ValueError: A score is not finite, or there are fewer than two people.
    """
    if scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores of two people or more, got shape {scores.shape}")
    place = places(scores, true)
    own = scores[np.arange(len(true)), true]
    others = scores[np.arange(scores.shape[1]) != true[:, None]].reshape(len(true), -1)
    curve = _Curve.of(own, others)
    people = len(np.unique(true))

    def estimate(statistic: Statistic) -> Estimate:
        return widened(bootstrap(statistic, len(true), seed=seed, resamples=resamples, people=true), people)

    def within(rank: int) -> Estimate:
        hits = place <= rank
        return estimate(lambda weights: 100 * float(np.average(hits, weights=weights)))

    def accepted(far: float) -> Estimate | None:
        if others.size * far < 1:
            return None
        return estimate(lambda weights: 100 * curve.share(far, weights))

    rates = [float(far) for far in np.logspace(-4, 0, 33)[:-1] if others.size * far >= 1]
    roc = tuple((100 * far, 100 * curve.share(far, np.ones(len(own)))) for far in rates)
    return Success(within(1), within(5), accepted(1e-2), accepted(1e-3), roc)
