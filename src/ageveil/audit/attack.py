"""Run the attackers on every approach: whom do they name, from one release of a face and from several?"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.alignment import CROP_SIZE
from ageveil.audit.people import People
from ageveil.audit.recognition import Recogniser
from ageveil.audit.reidentification import (
    Success,
    adapted_scores,
    cosine_scores,
    learn_metric,
    measure,
    normalized,
)
from ageveil.audit.releases import embeddings
from ageveil.evaluation.intervals import Estimate
from ageveil.files import make_directory, write_bytes

Attacker = Literal["naive", "aware", "adapted"]
ATTACKERS: tuple[Attacker, ...] = ("naive", "aware", "adapted")
"""Knows clear faces; passes them through the same approach first; has learned from other people's faces."""

Figure = Literal["rank1", "rank5", "tar_far_1e2", "tar_far_1e3"]
FIGURES: tuple[Figure, ...] = ("rank1", "rank5", "tar_far_1e2", "tar_far_1e3")
"""Of `Success`."""

_VERSION = 1  # of what embeddings in a cache mean


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What an audit does.

    Attributes:
        approaches: Names in `ageveil.anonymization.APPROACHES`; "original" shows what the attackers can do.
        recognisers: With which faces are looked at; the strongest counts.
        attackers: Which are run.
        releases: Numbers of frames of a face that the attacker fuses, ascending; the first is 1.
        fused_probes: Probes of each person that are attacked with several frames.
        seed: Of draws, keys, jitter and the bootstrap.
    """

    approaches: Sequence[str]
    recognisers: Sequence[Recogniser]
    attackers: Sequence[Attacker] = ATTACKERS
    releases: Sequence[int] = (1, 5, 30)
    fused_probes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.approaches or not self.recognisers or not self.attackers:
            raise ValueError("an audit needs an approach, a recogniser and an attacker or more")
        for name in self.approaches:
            anonymization.get_approach(name)
        for what, names in (
            ("approaches", list(self.approaches)),
            ("recognisers", [recogniser.name for recogniser in self.recognisers]),
        ):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {what} have the name {doubled[0]!r}")
        releases = list(self.releases)
        if not releases or releases[0] != 1 or releases != sorted(set(releases)):
            raise ValueError(f"releases ascend from 1, got {releases}")

    def steps(self, people: People) -> int:
        """Faces that are looked at: how often `advance` is called."""
        fused = len(_fused(people, self.fused_probes))
        each = len(people) + fused * (self.releases[-1] - 1)
        clear = 0 if "original" in self.approaches else len(people)
        return len(self.recognisers) * (each * len(self.approaches) + clear)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the attackers reached against one approach.

    Attributes:
        success: (attacker, number of releases) -> the best over recognisers and galleries.
        by: The same keys -> name of the recogniser that reached it.
        chance: Rank-1 of guessing, in percent.
    """

    success: Mapping[tuple[Attacker, int], Success]
    by: Mapping[tuple[Attacker, int], str]
    chance: float

    def strongest(self, figure: Figure, releases: int) -> Estimate:
        """The highest value of a figure that any attacker reached from so many releases."""
        reached: list[Estimate] = [
            getattr(success, figure) for (_, count), success in self.success.items() if count == releases
        ]
        return max(reached, key=lambda estimate: estimate.value)


@dataclass(frozen=True, slots=True)
class Cache:
    """Keeps embeddings, so that an audit that was stopped goes on. They tell who people are: private.

    Attributes:
        folder: Where; None keeps nothing.
        people: Digest of the faces.
    """

    folder: Path | None
    people: str = field(default="")

    @classmethod
    def of(cls, folder: Path | None, people: People) -> Cache:
        """A cache for these faces.

        Raises:
            OutputError: The folder cannot be made.
        """
        names = [str(people.prepared.images[int(face)].path) for face in people.faces]
        mark = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        if folder is not None:
            make_directory(folder, private=True)
        return cls(folder, mark)

    def get(
        self, key: Sequence[str | int], compute: Callable[[], NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], bool]:
        """Embeddings by key, computed where they are not yet there; and whether they were there."""
        if self.folder is None:
            return compute(), False
        mark = hashlib.sha256(repr((_VERSION, self.people, *key)).encode()).hexdigest()[:24]
        path = self.folder / f"{mark}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False), True
        found = compute()
        content = io.BytesIO()
        np.save(content, found, allow_pickle=False)
        write_bytes(path, [content.getbuffer()], private=True)
        return found, False


def run(
    people: People,
    plan: Plan,
    *,
    cache: Path | None = None,
    threads: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Found]:
    """Attack every approach of a plan.

    Args:
        people: Gallery and probes.
        plan: What is run.
        cache: Folder in which embeddings are kept from run to run; none are without it.
        threads: Of a network; 0 uses all cores.
        advance: Called once for each face that is looked at, `plan.steps(people)` times.

    Returns:
        Approach -> what was reached.

    Raises:
        ModelError: A recogniser is missing or is none.
        OutputError: The cache cannot be written.
    """
    eyes = _Eyes(people, plan, Cache.of(cache, people), threads, advance)
    best: dict[str, dict[tuple[Attacker, int], tuple[Success, str]]] = {name: {} for name in plan.approaches}
    for recogniser in plan.recognisers:
        clear = eyes.look("original", recogniser)
        for approach in plan.approaches:
            hidden = clear if approach == "original" else eyes.look(approach, recogniser)
            for count, (faces, rows) in eyes.probes(approach, hidden, recogniser).items():
                for attacker in plan.attackers:
                    scores = _scores(attacker, people, faces, rows, clear, hidden)
                    tried = [measure(each, people.person[faces], seed=plan.seed) for each in scores]
                    before = best[approach].get((attacker, count))
                    best[approach][attacker, count] = max(
                        [*((success, recogniser.name) for success in tried), *([before] if before else [])],
                        key=lambda reached: reached[0].rank1.value,
                    )
    return {
        approach: Found(
            {key: success for key, (success, _) in reached.items()},
            {key: name for key, (_, name) in reached.items()},
            100 / people.count,
        )
        for approach, reached in best.items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Eyes:
    """Looks at faces through recognisers, each face behind an approach once."""

    people: People
    plan: Plan
    cache: Cache
    threads: int
    advance: Callable[[], None]

    def look(
        self, approach: str, recogniser: Recogniser, faces: NDArray[np.int64] | None = None, number: int = 0
    ) -> NDArray[np.float32]:
        """Embeddings of one frame of some faces, or of all."""
        chosen = np.arange(len(self.people)) if faces is None else faces

        def compute() -> NDArray[np.float32]:
            return embeddings(
                self.people, chosen, approach, number, recogniser,
                seed=self.plan.seed, threads=self.threads, advance=self.advance,
            )  # fmt: skip

        # What an approach does is part of the key: its sizes may be changed under the same name.
        sizes = repr(anonymization.get_approach(approach).sizes(CROP_SIZE))
        mark = hashlib.sha256(chosen.tobytes()).hexdigest()
        found, there = self.cache.get(
            (recogniser.weights.sha256, approach, sizes, number, mark, self.plan.seed), compute
        )
        if there:
            for _ in chosen:
                self.advance()
        return found

    def probes(
        self, approach: str, hidden: NDArray[np.float32], recogniser: Recogniser
    ) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Number of releases -> faces to name, and what is seen of each: the mean of its frames."""
        probes = np.flatnonzero(~self.people.gallery)
        found = {1: (probes, normalized(hidden[probes]))}
        fused = _fused(self.people, self.plan.fused_probes)
        total = normalized(hidden[fused])
        for number in range(1, self.plan.releases[-1]):
            total = total + normalized(self.look(approach, recogniser, fused, number))
            if number + 1 in self.plan.releases:
                found[number + 1] = (fused, normalized(total))
        return found


def _fused(people: People, count: int) -> NDArray[np.int64]:
    """Numbers of the first so many probes of each person."""
    probes = np.flatnonzero(~people.gallery)
    person = people.person[probes]
    nth = np.array([np.count_nonzero(person[:place] == who) for place, who in enumerate(person)])
    return probes[nth < count]


def _scores(
    attacker: Attacker,
    people: People,
    faces: NDArray[np.int64],
    rows: NDArray[np.float64],
    clear: NDArray[np.float32],
    hidden: NDArray[np.float32],
) -> list[NDArray[np.float64]]:
    """Scores of probes with people, shape (P, K), for each way in which an attacker may go about it."""
    gallery, whose = people.gallery, people.person[people.gallery]
    known = {"clear": clear[gallery], "anonymized": hidden[gallery]}
    if attacker != "adapted":
        kind = "clear" if attacker == "naive" else "anonymized"
        return [cosine_scores(rows, known[kind], whose, people.count)]
    found = {kind: np.empty((len(faces), people.count)) for kind in known}
    for part in np.unique(people.fold[faces]):
        others = people.fold != part
        metric = learn_metric({"clear": clear[others], "anonymized": hidden[others]}, people.person[others])
        mine = people.fold[faces] == part
        for kind, scores in adapted_scores(rows[mine], known, metric, whose, people.count).items():
            found[kind][mine] = scores
    return list(found.values())
