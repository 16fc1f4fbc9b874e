"""Rebuild a face from nothing but an estimator's answers, and see whether it tells who the face was.

T is the number of targets, C of classes, K of an eigenface's codes, N of people.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import estimation
from ageveil.alignment import CROP_SIZE
from ageveil.audit.membership import trained_and_others
from ageveil.audit.recognition import Recogniser, embed
from ageveil.audit.reidentification import normalized, places
from ageveil.errors import FaceError, ImageError
from ageveil.evaluation.accuracy import Faces
from ageveil.evaluation.intervals import Estimate, bootstrap, clopper_pearson
from ageveil.training.faces import hide
from ageveil.types import CanonicalCrop, Image

Ask = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""Pictures, shape (N, S, S, 3), uint8 RGB -> probabilities, shape (N, C)."""

_SIDE = 64  # pixels across in which faces are rebuilt: an estimator says too little for more
_OTHERS = 400  # faces that did not train, from which the attacker learns what faces look like
_FURTHEST = 2.5  # standard deviations that a code may be from the mean face


@dataclass(frozen=True, slots=True)
class Search:
    """How an attacker searches; all asking is counted.

    Attributes:
        shared: Random faces whose answers serve for every target.
        rounds: Of the search for one target.
        group: Faces that are asked about in a round.
        kept: The best of them, around which the next round is drawn.

    Raises:
        ValueError: A number is below 1, or more are kept than asked about.
    """

    shared: int = 800
    rounds: int = 8
    group: int = 12
    kept: int = 4

    def __post_init__(self) -> None:
        if min(self.shared, self.rounds, self.group, self.kept) < 1 or self.kept > self.group:
            raise ValueError(f"expected numbers of 1 or more and at most as many kept as asked, got {self}")

    def queries(self, targets: int) -> int:
        """How often the estimator is asked about a face, for so many targets."""
        return self.shared + targets * self.rounds * self.group


@dataclass(frozen=True, slots=True, eq=False)
class Eigenfaces:
    """Faces as sums of a few pictures, learned from people who are not the targets.

    Attributes:
        mean: The mean face, shape (P,), float32 in [0, 255].
        directions: Shape (K, P): by how much each number of a code changes it, for one standard deviation.

    Source:
        Turk and Pentland 1991, "Eigenfaces for recognition".
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]

    @classmethod
    def of(cls, crops: Sequence[Image], count: int = 48) -> Eigenfaces:
        """Learn them.

        Args:
            crops: Bare faces of two people or more, each of shape (S, S, 3).
            count: Numbers in a code, at most; fewer faces give fewer.

        Raises:
            ValueError: There are fewer than two faces.
        """
        if len(crops) < 2:
            raise ValueError(f"eigenfaces are learned from two faces or more, got {len(crops)}")
        size = (_SIDE, _SIDE)
        rows = np.stack(
            [
                cv2.resize(crop, size, interpolation=cv2.INTER_AREA).ravel().astype(np.float32)
                for crop in crops
            ]
        )
        mean = rows.mean(0)
        _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=False)
        kept = min(count, len(crops) - 1)
        spread = lengths[:kept] / math.sqrt(len(crops))
        return cls(mean, (spread[:, None] * axes[:kept]).astype(np.float32))

    def pictures(self, codes: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Faces of codes, shape (N, K): canonical crops, shape (N, S, S, 3), uint8 RGB."""
        rows = np.clip(self.mean + codes.astype(np.float32) @ self.directions, 0, 255)
        small = rows.reshape(-1, _SIDE, _SIDE, 3)
        size = (CROP_SIZE, CROP_SIZE)
        large = [cv2.resize(face, size, interpolation=cv2.INTER_CUBIC) for face in small]
        return np.clip(np.rint(large), 0, 255).astype(np.uint8)


def invert(
    ask: Ask,
    wanted: NDArray[np.floating],
    basis: Eigenfaces,
    *,
    search: Search = Search(),
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Find, for each target, a face of which the estimator says what it said of the target.

    A black box: only answers are seen, no gradients. Random faces come first, and what is said of them serves
    for every target; then each target's best are refined by the cross-entropy method.

    Args:
        ask: The estimator.
        wanted: What it said of each target, shape (T, C).
        basis: In which faces are searched.
        search: How long.
        rng: Draws the faces that are asked about.
        advance: Called with the number of faces that were asked about since the last call.

    Returns:
        Codes of the faces that come nearest, shape (T, K).

    Source:
        Fredrikson, Jha and Ristenpart 2015, "Model inversion attacks that exploit confidence information";
        Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization".
    """
    numbers = len(basis.directions)

    def surprise(codes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithms of what is said of some faces, shape (N, C)."""
        answers = ask(basis.pictures(codes))
        advance(len(codes))
        return np.log(np.maximum(answers, 1e-9))

    def drawn(*shape: int) -> NDArray[np.float64]:
        return rng.standard_normal((*shape, numbers))

    shared = np.clip(drawn(search.shared), -_FURTHEST, _FURTHEST)
    shared[0] = 0  # the mean face
    loss = -wanted @ surprise(shared).T  # (T, shared)
    order = np.argsort(loss, 1, kind="stable")[:, : search.kept]
    best, reached = shared[order], np.take_along_axis(loss, order, 1)  # (T, kept, K), (T, kept)
    for turn in range(search.rounds):
        width = 0.8 * (1 - turn / search.rounds) + 0.1
        codes = best.mean(1, keepdims=True) + width * drawn(len(wanted), search.group)
        codes = np.clip(codes, -_FURTHEST, _FURTHEST)
        said = surprise(codes.reshape(-1, numbers)).reshape(len(wanted), search.group, -1)
        new = -np.einsum("tc,tgc->tg", wanted, said)
        # The best of earlier rounds stay until they are beaten.
        codes, new = np.concatenate([best, codes], 1), np.concatenate([reached, new], 1)
        order = np.argsort(new, 1, kind="stable")[:, : search.kept]
        best, reached = np.take_along_axis(codes, order[..., None], 1), np.take_along_axis(new, order, 1)
    return best[:, 0]


@dataclass(frozen=True, slots=True)
class Inversion:
    """Whether faces that were rebuilt from answers tell whose they are, in percent with 95 % intervals.

    Attributes:
        rank1: Targets that their rebuilt face resembles most of all people.
        advantage: That, less guessing, in points.
        likeness: Chance that a rebuilt face resembles its target more than another person; 50 is guessing.
            An answer that tells an age already tells old from young.
        confidence: Mean probability of the class that the estimator holds most likely for the target: for the
            mean face, for the rebuilt one, and for the target's own.
        chance: Rank-1 of guessing.
        targets: Faces that were rebuilt.
        people: Among whom they were looked for.
        recogniser: Which told most.
    """

    rank1: Estimate
    advantage: Estimate
    likeness: Estimate
    confidence: tuple[Estimate, Estimate, Estimate]
    chance: float
    targets: int
    people: int
    recogniser: str


def tell(
    rebuilt: NDArray[np.uint8],
    clear: NDArray[np.uint8],
    recognisers: Sequence[Recogniser],
    confidence: NDArray[np.floating],
    *,
    seed: int = 0,
) -> Inversion:
    """See whose rebuilt faces are.

    Args:
        rebuilt: Of the first T people, shape (T, S, S, 3).
        clear: Bare faces of everybody, shape (N, S, S, 3), one each; N is 2 or more.
        recognisers: Look at both; the strongest counts.
        confidence: As in `Inversion`, shape (3, T), fractions.
        seed: Of the bootstrap over targets.

    Raises:
        ModelError: As `ageveil.audit.recognition.embed`.
    """
    count, people = len(rebuilt), len(clear)
    true = np.arange(count)

    def mean(values: NDArray[np.floating]) -> Estimate:
        return bootstrap(
            lambda weights: 100 * float(np.average(values, weights=weights)), count, seed=seed, resamples=500
        )

    found = []
    for recogniser in recognisers:
        scores = normalized(embed(rebuilt, recogniser)) @ normalized(embed(clear, recogniser)).T
        place = places(scores, true)
        others = (people - place) / (people - 1)  # share of the others who resemble it less
        found.append((int((place == 1).sum()), float(others.mean()), recogniser.name, others))
    hits, _, name, others = max(found, key=lambda each: each[:2])
    exact, chance = clopper_pearson(hits, count), 100 / people
    rank1 = Estimate(*(100 * value for value in (exact.value, exact.low, exact.high)))
    advantage = Estimate(rank1.value - chance, rank1.low - chance, rank1.high - chance)
    first, reached, own = (mean(values) for values in confidence)
    return Inversion(rank1, advantage, mean(others), (first, reached, own), chance, count, people, name)


def inversions(
    faces: Faces,
    model: str,
    recognisers: Sequence[Recogniser],
    *,
    targets: int = 20,
    people: int = 200,
    search: Search = Search(),
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Inversion]:
    """Rebuild faces that trained an estimator, and as many that did not, from its answers about bare faces.

    What is reached for faces that did not train is what any answer tells of a face. Only what goes beyond it
    was kept by the training.

    Args:
        faces: The data set that the model was trained on.
        model: Name in `ageveil.estimation.MODELS` or path; it says what its recipe left out.
        recognisers: Look at rebuilt and bare faces; the strongest counts.
        targets: Faces of each kind to rebuild.
        people: Among whom each is looked for.
        search: How often the estimator is asked.
        seed: Of all draws.
        advance: Called with the number of faces that were asked about since the last call.

    Returns:
        "trained" and "others" -> how well the faces are told; nothing where too few can be used.

    Raises:
        DataError: The model does not say on which faces it was trained, or none of one kind is there.
        ModelError: As `ageveil.audit.recognition.embed`, or the estimator's weights are missing or damaged.
    """
    rng = np.random.default_rng(seed)
    trained, spare = (rng.permutation(kind).tolist() for kind in trained_and_others(faces, model))
    count = min(people, len(trained), len(spare) // 2)
    crops = {
        "trained": _crops(faces, trained[:count]),
        "others": _crops(faces, spare[:count]),
        "basis": _crops(faces, spare[count : count + _OTHERS]),
    }
    if min(map(len, crops.values())) < 2:
        return {}
    basis = Eigenfaces.of([crop.pixels for crop in crops["basis"]])
    ask = asking(model, np.mean([crop.landmarks for crop in crops["basis"]], axis=0))
    clear = {kind: np.stack([crop.pixels for crop in crops[kind]]) for kind in ("trained", "others")}
    aims = np.concatenate([pictures[:targets] for pictures in clear.values()])
    wanted = ask(aims)
    rebuilt = basis.pictures(invert(ask, wanted, basis, search=search, rng=rng, advance=advance))
    said = [
        ask(basis.pictures(np.zeros((1, len(basis.directions))))).repeat(len(aims), 0),
        ask(rebuilt),
        wanted,
    ]
    confidence = np.stack([answers[np.arange(len(aims)), wanted.argmax(1)] for answers in said])
    found, start = {}, 0
    for kind, pictures in clear.items():
        mine = slice(start, start + len(pictures[:targets]))
        found[kind] = tell(rebuilt[mine], pictures, recognisers, confidence[:, mine], seed=seed)
        start = mine.stop
    return found


def _crops(faces: Faces, indices: Sequence[int]) -> list[CanonicalCrop]:
    found = []
    for index in indices:
        with contextlib.suppress(FaceError, ImageError):  # faces that cannot be used tell nothing
            found.append(faces.crop(index))
    return found


def asking(model: str, landmarks: NDArray[np.float64]) -> Ask:
    """An estimator as a black box.

    Args:
        model: Name in `ageveil.estimation.MODELS`, or path of an exported file.
        landmarks: Where eyes usually are in a canonical crop, shape (5, 2) or (68, 2).

    Returns:
        Bare crops, shape (N, S, S, 3) -> probabilities of years or groups; it raises what
        `ageveil.estimation.estimate` does.
    """

    def ask(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        rng = np.random.default_rng(0)
        shown = [
            hide(CanonicalCrop(picture, landmarks, np.eye(2, 3), 0.0), "original", rng)
            for picture in pictures
        ]
        answers = estimation.estimate(shown, model)
        return np.stack([answer.groups if answer.years is None else answer.years for answer in answers])

    return ask
