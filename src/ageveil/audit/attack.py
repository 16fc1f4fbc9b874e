"""Run the attackers on every approach: whom do they name, from one release of a face and from several?"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.audit.people import People
from ageveil.audit.recognition import Recogniser
from ageveil.audit.reidentification import (
    Figure,
    Success,
    adapted_scores,
    cosine_scores,
    highest,
    measure,
    strongest,
)
from ageveil.audit.releases import FUSIONS, behaviour, draws_at_random, seen
from ageveil.evaluation.intervals import Estimate
from ageveil.files import make_directory, write_bytes

Attacker = Literal["naive", "aware", "adapted"]
ATTACKERS: tuple[Attacker, ...] = ("naive", "aware", "adapted")
"""Knows clear faces; passes them through the same approach first; has learned from other people's faces."""

_VERSION = 2  # of what embeddings in a cache mean
_BATCH = 64  # faces that are looked at, and kept, together


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What an audit does.

    Attributes:
        approaches: Names in `ageveil.anonymization.APPROACHES`; "original" shows what the attackers can do.
        recognisers: With which faces are looked at; the strongest counts. Those that have learned to see
            behind some approaches are the adapted attacker's, and look behind those alone.
        attackers: Which are run.
        releases: Numbers of frames of a face that the attacker fuses, ascending; the first is 1.
        fused_probes: Probes of each person that are attacked with several frames.
        seed: Of draws, keys, jitter and the bootstrap.

    Raises:
        ValueError: There is nothing to do, a name is unknown or comes twice, no recogniser looks behind every
            approach, or releases do not ascend.
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
        if all(recogniser.approaches is not None for recogniser in self.recognisers):
            raise ValueError("an audit needs a recogniser that looks behind every approach")
        releases = list(self.releases)
        if not releases or releases[0] != 1 or releases != sorted(set(releases)):
            raise ValueError(f"releases ascend from 1, got {releases}")

    def steps(self, people: People) -> int:
        """Frames of faces that are looked at: how often `advance` is called."""
        each = {
            name: len(people) + sum(len(part) * self.releases[-1] for part in _several(people, self, name))
            for name in self.approaches
        }
        steps = 0
        for recogniser in self.recognisers:
            behind = self.behind(recogniser)
            clear = len(people) if behind and "original" not in behind else 0
            once = recogniser.approaches is not None
            steps += clear + sum(len(people) if once else each[name] for name in behind)
        return steps

    def behind(self, recogniser: Recogniser) -> list[str]:
        """Approaches that a recogniser looks behind, in order."""
        if recogniser.approaches is None:
            return list(self.approaches)
        if "adapted" not in self.attackers:
            return []
        return [name for name in self.approaches if name in recogniser.approaches]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the attackers reached against one approach.

    Attributes:
        once: Attacker -> its success on all probes, from one picture of each.
        fused: (attacker, number of frames) -> its success on some probes of each person, the same for every
            number; empty where only one picture is asked for.
        by: Attacker -> name of the recogniser that named most from one picture.
        chance: Rank-1 of guessing, in percent.
    """

    once: Mapping[Attacker, Success]
    fused: Mapping[tuple[Attacker, int], Success]
    by: Mapping[Attacker, str]
    chance: float

    def strongest(self, figure: Figure, frames: int | None = None) -> Estimate | None:
        """The highest value of a figure that any attacker reached: on all probes, or from so many frames."""
        reached = (
            list(self.once.values())
            if frames is None
            else [success for (_, count), success in self.fused.items() if count == frames]
        )
        return highest([getattr(success, figure) for success in reached])


@dataclass(frozen=True, slots=True)
class Cache:
    """Keeps embeddings, so that an audit that was stopped goes on. They tell who people are: private.

    Attributes:
        folder: Where; None keeps nothing.
        mark: Of the faces: others have other embeddings.
    """

    folder: Path | None
    mark: str = ""

    @classmethod
    def of(cls, folder: Path | None, people: People) -> Cache:
        """A cache for these faces.

        Raises:
            OutputError: The folder cannot be made.
        """
        if folder is None:
            return cls(None)
        make_directory(folder, private=True)
        return cls(folder, people.digest())

    def get(
        self, key: Sequence[object], compute: Callable[[], NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], bool]:
        """Embeddings by key, computed where they are not there or damaged; and whether they were there."""
        if self.folder is None:
            return compute(), False
        name = hashlib.sha256(repr((_VERSION, self.mark, *key)).encode()).hexdigest()[:24]
        path = self.folder / f"{name}.npy"
        try:
            kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            pass
        else:
            return kept, True
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
        advance: Called once for each frame that is looked at, `plan.steps(people)` times.

    Returns:
        Approach -> what was reached.

    Raises:
        ModelError: A recogniser is missing or is none.
        OutputError: The cache cannot be written.
    """
    eyes = _Eyes(people, plan, Cache.of(cache, people), threads, advance)
    tries: dict[str, dict[tuple[Attacker, int | None], list[tuple[Success, str]]]] = {
        name: {} for name in plan.approaches
    }
    for recogniser in plan.recognisers:
        behind = plan.behind(recogniser)
        if not behind:
            continue
        clear = eyes.look("original", recogniser)
        for approach in behind:
            hidden = clear if approach == "original" else eyes.look(approach, recogniser)
            views: list[tuple[int | None, _View]] = [(None, _View.of(people, clear, hidden))]
            if recogniser.approaches is None:  # what has learned looks at one picture: it costs as much again
                views += eyes.several(approach, recogniser, clear, hidden)
            for frames, view in views:
                for attacker in plan.attackers:
                    noted = tries[approach].setdefault((attacker, frames), [])
                    for way in _ways(attacker, recogniser):
                        noted += [
                            (measure(scores, view.true, seed=plan.seed), recogniser.name)
                            for scores in _scores(way, view)
                        ]
    return {approach: _found(reached, people, plan) for approach, reached in tries.items()}


def _found(
    reached: Mapping[tuple[Attacker, int | None], list[tuple[Success, str]]], people: People, plan: Plan
) -> Found:
    best = {key: strongest([success for success, _ in tried]) for key, tried in reached.items()}
    return Found(
        {attacker: best[attacker, None] for attacker in plan.attackers},
        {(attacker, frames): success for (attacker, frames), success in best.items() if frames is not None},
        {
            attacker: max(reached[attacker, None], key=lambda tried: tried[0].rank1.value)[1]
            for attacker in plan.attackers
        },
        100 / people.count,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What an attacker sees: some faces, clear and hidden, of which some are known by name.

    Attributes:
        person: Whose each face is, shape (N,).
        fold: Part of each face's person, shape (N,).
        gallery: Which faces are known by name, shape (N,); the others are to be named.
        clear: Embeddings of the bare faces, shape (N, D).
        hidden: Of the same faces behind the approach, shape (N, D).
        count: Number of people.
    """

    person: NDArray[np.int64]
    fold: NDArray[np.int64]
    gallery: NDArray[np.bool_]
    clear: NDArray[np.float32]
    hidden: NDArray[np.float32]
    count: int

    @classmethod
    def of(
        cls,
        people: People,
        clear: NDArray[np.float32],
        hidden: NDArray[np.float32],
        faces: NDArray[np.int64] | None = None,
    ) -> _View:
        """Of all faces, or of some, whose hidden embeddings then come in their order."""
        part = np.arange(len(people)) if faces is None else faces
        return cls(
            people.person[part], people.fold[part], people.gallery[part], clear[part], hidden, people.count
        )

    @property
    def true(self) -> NDArray[np.int64]:
        """Whose the faces are that are to be named, shape (P,)."""
        return self.person[~self.gallery]


@dataclass(frozen=True, slots=True, eq=False)
class _Eyes:
    """Looks at faces through recognisers, each frame once."""

    people: People
    plan: Plan
    cache: Cache
    threads: int
    advance: Callable[[], None]

    def look(self, approach: str, recogniser: Recogniser) -> NDArray[np.float32]:
        """Embeddings of the first frame of every face, shape (N, D)."""
        return self._seen(approach, recogniser, np.arange(len(self.people)), (1,))[:, 0, 0]

    def several(
        self,
        approach: str,
        recogniser: Recogniser,
        clear: NDArray[np.float32],
        hidden: NDArray[np.float32],
    ) -> list[tuple[int, _View]]:
        """For each number of frames, one included, the views of an attacker who fuses them in either way.

        Where an approach draws at random, the gallery and what the attacker learns from are fused as well: it
        can draw its own photographs as often as it likes.
        """
        probes, known = _several(self.people, self.plan, approach)
        if not len(probes):
            return []
        counts = tuple(self.plan.releases)
        fused = self._seen(approach, recogniser, probes, counts)
        gallery = np.flatnonzero(self.people.gallery)
        again = self._seen(approach, recogniser, known, counts) if len(known) else None
        faces = np.concatenate([gallery, probes])
        views = []
        for place, frames in enumerate(counts):
            for fusion in range(FUSIONS if frames > 1 else 1):
                beside = hidden[gallery] if again is None else again[:, place, fusion]
                rows = np.concatenate([beside, fused[:, place, fusion]])
                views.append((frames, _View.of(self.people, clear, rows, faces)))
        return views

    def _seen(
        self, approach: str, recogniser: Recogniser, faces: NDArray[np.int64], counts: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """As `ageveil.audit.releases.seen`, from the cache where it is there."""
        made = behaviour(approach)
        rows = []
        for start in range(0, len(faces), _BATCH):
            part = faces[start : start + _BATCH].tolist()

            def compute(part: list[int] = part) -> NDArray[np.float32]:
                return seen(
                    self.people.crop, part, approach, counts, recogniser,
                    seed=self.plan.seed, threads=self.threads, advance=self.advance,
                )  # fmt: skip

            key = (recogniser.mark, approach, made, part, counts, self.plan.seed)
            found, there = self.cache.get(key, compute)
            if there:
                for _ in range(len(part) * counts[-1]):
                    self.advance()
            rows.append(found)
        return np.concatenate(rows)


def _several(people: People, plan: Plan, approach: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the probes, and of the gallery's faces, of which several frames are looked at."""
    none = np.array([], np.int64)
    if len(plan.releases) == 1:
        return none, none
    probes = np.flatnonzero(~people.gallery)
    person = people.person[probes]
    nth = np.array([np.count_nonzero(person[:place] == who) for place, who in enumerate(person)])
    known = np.flatnonzero(people.gallery) if draws_at_random(approach) else none
    return probes[nth < plan.fused_probes], known


def _ways(attacker: Attacker, recogniser: Recogniser) -> Sequence[Attacker]:
    """Whose ways to score an attacker may use: with a recogniser that has learned, only one that adapts."""
    if recogniser.approaches is None:
        return (attacker,)
    return ATTACKERS if attacker == "adapted" else ()


def _scores(attacker: Attacker, view: _View) -> list[NDArray[np.float64]]:
    """Scores of probes with people, shape (P, K), for each way in which an attacker may go about it."""
    if attacker != "adapted":
        known = (view.clear if attacker == "naive" else view.hidden)[view.gallery]
        return [cosine_scores(view.hidden[~view.gallery], known, view.person[view.gallery], view.count)]
    kinds = {"clear": view.clear, "anonymized": view.hidden}
    return list(adapted_scores(kinds, view.person, view.fold, view.gallery).values())
