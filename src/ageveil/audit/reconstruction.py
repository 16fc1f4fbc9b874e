"""Bring back what an approach hides, and see whether more faces are named after it.

A blur is an average that is known but for rounding, so that much of what it seems to hide is still there: two
old ways undo it. What a mask or cells hide is gone; a network that knows faces paints what it expects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ageveil.anonymization import Region
from ageveil.audit.attack import Cache
from ageveil.audit.deblurring import METHODS, Deblur, Kernel, undoable
from ageveil.audit.inpainting import INPAINTER, inpaint, learned
from ageveil.audit.likeness import psnr, ssim
from ageveil.audit.people import People
from ageveil.audit.recognition import Recogniser, embed
from ageveil.audit.reidentification import Success, cosine_scores, measure, places
from ageveil.audit.releases import behaviour, released
from ageveil.errors import AgeveilError
from ageveil.evaluation.intervals import Estimate, bootstrap
from ageveil.pipeline import map_ordered
from ageveil.types import AnonymizedFace, Image

T = TypeVar("T")

_BATCH = 64

LEARNED = "inpainter"
"""Name of the way that has been learned: `ageveil.audit.inpainting`."""

Restore = Callable[[AnonymizedFace], Image]


def ways(approach: str, *, quick: bool = False) -> dict[str, Restore]:
    """How an attacker may undo an approach, by name; nothing where no way is known.

    Args:
        approach: Name in `ageveil.anonymization.APPROACHES`.
        quick: Only what needs no network.

    Raises:
        ModelError: As `ageveil.audit.inpainting.learned`.
    """
    found: dict[str, Restore] = {}
    blur = undoable(approach)
    if blur is not None:
        found |= {name: _deblurring(deblur, blur[1]) for name, deblur in METHODS.items()}
    if not quick and approach in learned():
        found[LEARNED] = inpaint
    return found


def _deblurring(deblur: Deblur, kernel: Kernel) -> Restore:
    return lambda face: deblur(face.pixels, face.receipt.region, kernel)


@dataclass(frozen=True, slots=True)
class Naming:
    """Who is named before and after faces are restored.

    Attributes:
        before: Success on the hidden faces.
        after: On the restored ones.
        gain: By how many points rank-1 rises, with an interval over people; both sides name the same faces.
    """

    before: Success
    after: Success
    gain: Estimate

    @property
    def rises(self) -> bool:
        """Whether more faces are named after, beyond chance."""
        return self.gain.low > 0


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What a way to undo an approach brought back, with 95 % intervals over people.

    Attributes:
        psnr: Before and after, in decibels, over the hidden region.
        ssim: Before and after, over the hidden region.
        naive: Of an attacker with clear photographs of everybody.
        aware: Of one who passes these photographs through the approach first, and restores them as well; None
            in a quick look.
        faces: That were restored and named: the probes.
    """

    psnr: tuple[Estimate, Estimate]
    ssim: tuple[Estimate, Estimate]
    naive: Naming
    aware: Naming | None
    faces: int


def reconstruct(
    people: People,
    approach: str,
    recogniser: Recogniser,
    *,
    quick: bool = False,
    seed: int = 0,
    cache: Path | None = None,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Reconstruction]:
    """Undo an approach, and name the probes before and after it.

    Args:
        people: Gallery and probes.
        approach: Name in `ageveil.anonymization.APPROACHES`.
        recogniser: With which faces are looked at.
        quick: Only what needs no network, and only for an attacker with clear photographs.
        seed: Of draws and of the bootstrap.
        cache: Folder in which embeddings are kept from run to run; none are without it.
        workers: Threads that restore faces; by default one for each core.
        advance: Called once for each face that is restored: all, or the probes in a quick look.

    Returns:
        Name in `ways` -> what it brought back.

    Raises:
        ModelError: As `ageveil.audit.recognition.embed` and `ageveil.audit.inpainting.inpaint`.
        OutputError: The cache cannot be written.
    """
    restore = ways(approach, quick=quick)
    if not restore:
        return {}
    look = _Look(people, approach, recogniser, restore, seed, Cache.of(cache, people), workers, advance)
    probes, known = np.flatnonzero(~people.gallery), np.flatnonzero(people.gallery)
    true, whose = people.person[probes], people.person[known]
    seen, clear = look.restored(probes), look.clear(known)
    views = range(1 + len(restore))  # the hidden faces, then those restored in each way

    def compare(galleries: Sequence[NDArray[np.float32]]) -> list[Naming]:
        pairs = zip(views, galleries, strict=True)
        scores = [cosine_scores(seen[:, at, 2:], rows, whose, people.count) for at, rows in pairs]
        return _compare(scores, true, seed)

    def likeness(figure: int) -> list[tuple[Estimate, Estimate]]:
        means = [_mean(seen[:, view, figure], true, seed) for view in views]
        return [(means[0], mean) for mean in means[1:]]

    naive = compare([clear for _ in views])
    if quick:
        aware: list[Naming | None] = [None for _ in restore]
    else:
        ours = look.restored(known)
        aware = [*compare([ours[:, view, 2:] for view in views])]
    parts = zip(restore, likeness(0), likeness(1), naive, aware, strict=True)
    return {name: Reconstruction(a, b, c, d, len(probes)) for name, a, b, c, d in parts}


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Restores faces and looks at them, each once."""

    people: People
    approach: str
    recogniser: Recogniser
    restore: Mapping[str, Restore]
    seed: int
    cache: Cache
    workers: int | None
    advance: Callable[[], None]

    def clear(self, faces: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of bare faces, shape (N, D)."""
        rows = []
        for part in _parts(faces):
            pictures = [self.people.crop(face).pixels for face in part]
            key = (self.recogniser.mark, "bare", part)
            rows.append(self.cache.get(key, partial(embed, np.stack(pictures), self.recogniser))[0])
        return np.concatenate(rows)

    def restored(self, faces: NDArray[np.int64]) -> NDArray[np.float32]:
        """PSNR, SSIM and embedding of faces, hidden and restored in M ways, shape (N, 1 + M, 2 + D)."""
        made = behaviour(self.approach), tuple(self.restore), INPAINTER.sha256
        rows = []
        for part in _parts(faces):
            key = (self.recogniser.mark, "restored", self.approach, made, part, self.seed)
            rows.append(self.cache.get(key, partial(self._restore, part))[0])
            for _ in part:
                self.advance()
        return np.concatenate(rows)

    def _restore(self, part: list[int]) -> NDArray[np.float32]:
        with contextlib.closing(map_ordered(self._views, part, self.workers)) as found:
            views, likeness = zip(*(_or_raise(one) for one in found), strict=True)
        looked = [embed(np.stack(pictures), self.recogniser) for pictures in zip(*views, strict=True)]
        return np.concatenate([np.array(likeness, np.float32), np.stack(looked, 1)], 2)

    def _views(self, face: int) -> tuple[list[Image], list[tuple[float, float]]]:
        """A face hidden, and restored in every way; and how like the bare one each is."""
        crop = self.people.crop(face)
        hidden = released(crop, self.approach, 0, [self.seed, face])
        views = [hidden.pixels, *(restore(hidden) for restore in self.restore.values())]
        return views, [_likeness(crop.pixels, view, hidden.receipt.region) for view in views]


def _or_raise(outcome: T | AgeveilError) -> T:
    if isinstance(outcome, AgeveilError):
        raise outcome
    return outcome


def _parts(faces: NDArray[np.int64]) -> list[list[int]]:
    return [faces[start : start + _BATCH].tolist() for start in range(0, len(faces), _BATCH)]


def _compare(scores: Sequence[NDArray[np.float64]], true: NDArray[np.int64], seed: int) -> list[Naming]:
    """What each way changes: scores, shape (P, K), of the hidden faces, then of the restored ones."""
    first = [100.0 * (places(each, true) == 1) for each in scores]
    reached = [measure(each, true, seed=seed) for each in scores]
    return [
        Naming(reached[0], after, _mean(named - first[0], true, seed))
        for after, named in zip(reached[1:], first[1:], strict=True)
    ]


def _mean(values: NDArray[np.floating], people: NDArray[np.int64], seed: int) -> Estimate:
    return bootstrap(
        lambda weights: float(np.average(values, weights=weights)),
        len(values), seed=seed, resamples=500, people=people,
    )  # fmt: skip


def _likeness(bare: Image, other: Image, region: Region) -> tuple[float, float]:
    x0, y0, x1, y1 = region
    one, two = bare[y0:y1, x0:x1], other[y0:y1, x0:x1]
    return psnr(one, two), ssim(one, two)
