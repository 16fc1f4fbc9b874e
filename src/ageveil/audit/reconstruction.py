"""Bring back what an approach hides, and see whether more faces are named after it.

A blur is an average that is known but for rounding, so that much of what it seems to hide is still there: two
old ways undo it. What a mask or cells hide is gone; a network that knows faces paints what it expects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.alignment import CROP_SIZE
from ageveil.anonymization import Region
from ageveil.audit.attack import Cache
from ageveil.audit.inpainting import INPAINTER, inpaint, learned
from ageveil.audit.people import People
from ageveil.audit.recognition import Recogniser, embed
from ageveil.audit.reidentification import Success, cosine_scores, measure, places
from ageveil.audit.releases import behaviour, released
from ageveil.errors import AgeveilError
from ageveil.evaluation.intervals import Estimate, bootstrap
from ageveil.pipeline import map_ordered
from ageveil.types import AnonymizedFace, Image

T = TypeVar("T")

# Noise over signal that the filter reckons with: more than rounding adds, for what is not known beside the
# region's border.
_NOISE = 5e-4
_ROUNDS = 30  # of Richardson-Lucy; more of them bring back noise
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Kernel:
    """The blur that an attacker undoes: a Gaussian, cut off.

    Attributes:
        radius: Half its width in pixels: it has 2 radius + 1 across.
        sigma: Standard deviation in pixels.
    """

    radius: int
    sigma: float

    @property
    def taps(self) -> NDArray[np.float32]:
        """Weights along one axis, shape (2 radius + 1,), which sum to 1."""
        weights = np.exp(-(np.arange(-self.radius, self.radius + 1) ** 2) / (2 * self.sigma**2))
        return np.asarray(weights / weights.sum(), np.float32)

    def spread(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """Blur a whole picture, shape (H, W, 3); its borders are reflected without repeating the edge."""
        taps = self.taps
        smooth = cv2.sepFilter2D(picture, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(smooth, np.float32)


def wiener(pixels: Image, region: Region, kernel: Kernel) -> Image:
    """Deblur a region by the filter that errs least on average.

    What lies around the region is known sharp, and is blurred as well first, so that the whole picture has
    gone through one filter. Near the border that mixes in pixels that are sought; so a second round blurs
    what the first found.

    Args:
        pixels: Shape (H, W, 3), uint8 RGB, blurred inside the region.
        region: xyxy in whole pixels, half open.
        kernel: The blur.

    Returns:
        A new array like `pixels`; outside the region it is unchanged.

    Source:
        Wiener 1949; Gonzalez and Woods 2018, "Digital Image Processing", section 5.8.
    """
    height, width = pixels.shape[:2]
    margin = 2 * kernel.radius
    # A kernel that reaches around the edges of the padded picture, as a discrete Fourier transform has it.
    shape = height + 2 * margin, width + 2 * margin
    taps = [
        np.fft.fft(np.roll(np.pad(kernel.taps, (0, n - len(kernel.taps))), -kernel.radius)) for n in shape
    ]
    passed = np.real(taps[0])[:, None] * np.real(taps[1])  # a symmetric kernel shifts no phase
    gain = (passed / (passed**2 + _NOISE))[..., None]
    inside = _inside(pixels, region)
    found = pixels.astype(np.float32)
    for _ in range(2):
        whole = np.where(inside, pixels, kernel.spread(found)).astype(np.float32)
        padded = np.pad(whole, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        sharp = np.real(np.fft.ifft2(np.fft.fft2(padded, axes=(0, 1)) * gain, axes=(0, 1)))
        sharp = sharp[margin : margin + height, margin : margin + width]
        found = np.where(inside, np.clip(sharp, 0, 255), pixels).astype(np.float32)
    return np.rint(found).astype(np.uint8)


def richardson_lucy(pixels: Image, region: Region, kernel: Kernel) -> Image:
    """Deblur a region by corrections, of which each multiplies by how far the blur of the last is off.

    Arguments and result are as for `wiener`.

    Source:
        Richardson 1972; Lucy 1974.
    """
    inside = _inside(pixels, region)
    seen = np.maximum(pixels.astype(np.float32), 1)
    found = seen.copy()
    weight = kernel.spread(np.broadcast_to(inside, pixels.shape).astype(np.float32))
    for _ in range(_ROUNDS):
        ratio = np.where(inside, seen / np.maximum(kernel.spread(found), 1), 0).astype(np.float32)
        better = found * kernel.spread(ratio) / np.maximum(weight, 1e-3)
        found = np.where(inside, np.clip(better, 1, 255), seen).astype(np.float32)
    return np.where(inside, np.rint(found), pixels).astype(np.uint8)


def _inside(pixels: Image, region: Region) -> NDArray[np.bool_]:
    """Where a region is, shape (H, W, 1)."""
    x0, y0, x1, y1 = region
    found = np.zeros((*pixels.shape[:2], 1), np.bool_)
    found[y0:y1, x0:x1] = True
    return found


Deblur = Callable[[Image, Region, Kernel], Image]
METHODS: Mapping[str, Deblur] = MappingProxyType({"wiener": wiener, "richardson-lucy": richardson_lucy})
"""Ways to undo a blur."""

LEARNED = "inpainter"
"""Name of the way that has been learned: `ageveil.audit.inpainting`."""


def psnr(one: Image, other: Image) -> float:
    """Peak signal-to-noise ratio of two pictures in decibels; 100 where they are alike."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 100.0 if error == 0 else min(100.0, 10 * float(np.log10(255**2 / error)))


def ssim(one: Image, other: Image) -> float:
    """Structural similarity of two pictures, shape (H, W, 3) with 11 pixels a side or more, 1 at most.

    Source:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", with its
        Gaussian window of 11 pixels; the mean of the colours, without the border that the window leaves.
    """
    window = Kernel(5, 1.5)

    def mean(picture: NDArray[np.float32]) -> NDArray[np.float64]:
        return window.spread(picture)[5:-5, 5:-5].astype(np.float64)

    # Less a common level, since squares are kept in 32 bits.
    a, b = (picture.astype(np.float32) - 128 for picture in (one, other))
    mean_a, mean_b = mean(a), mean(b)
    spread_a, spread_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    together = mean(a * b) - mean_a * mean_b
    light, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    level_a, level_b = mean_a + 128, mean_b + 128
    likeness = (2 * level_a * level_b + light) / (level_a**2 + level_b**2 + light)
    return float(np.mean(likeness * (2 * together + contrast) / (spread_a + spread_b + contrast)))


def undoable(approach: str) -> tuple[Region, Kernel] | None:
    """Where an approach blurs a canonical crop, and how; None for one that does something else."""
    entry = anonymization.get_approach(approach)
    sizes = entry.sizes(CROP_SIZE)
    if set(sizes) != {"radius", "sigma"}:
        return None
    return anonymization.face_region(CROP_SIZE), Kernel(int(sizes["radius"]), float(sizes["sigma"]))


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
        kernel = blur[1]
        found |= {
            name: lambda face, deblur=deblur: deblur(face.pixels, face.receipt.region, kernel)
            for name, deblur in METHODS.items()
        }
    if not quick and approach in learned():
        found[LEARNED] = inpaint
    return found


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
    """Undo an approach on every face, and name the probes before and after it.

    Args:
        people: Gallery and probes.
        approach: Name in `ageveil.anonymization.APPROACHES`.
        recogniser: With which faces are looked at.
        quick: Only what needs no network, and only for an attacker with clear photographs.
        seed: Of draws and of the bootstrap.
        cache: Folder in which embeddings are kept from run to run; none are without it.
        workers: Threads that restore faces; by default one for each core.
        advance: Called once for each face.

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
    seen = look.restored(probes)
    clear = look.clear(known)
    ours = None if quick else look.restored(known)
    if quick:
        for _ in known:
            advance()

    def named(place: int, gallery: NDArray[np.float32]) -> NDArray[np.float64]:
        return cosine_scores(seen[:, place, 2:], gallery, whose, people.count)

    def mean(place: int, figure: int) -> Estimate:
        return _mean(seen[:, place, figure], true, seed)

    before = named(0, clear), None if ours is None else named(0, ours[:, 0, 2:])
    result = {}
    for place, name in enumerate(restore, 1):
        aware = None
        if ours is not None and before[1] is not None:
            aware = _naming(before[1], named(place, ours[:, place, 2:]), true, seed)
        result[name] = Reconstruction(
            (mean(0, 0), mean(place, 0)),
            (mean(0, 1), mean(place, 1)),
            _naming(before[0], named(place, clear), true, seed),
            aware,
            len(probes),
        )
    return result


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
        """Of hidden faces and of each way to undo it: PSNR, SSIM, and the embedding; shape (N, 1 + M, 2 + D)."""
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


def _naming(
    before: NDArray[np.float64], after: NDArray[np.float64], true: NDArray[np.int64], seed: int
) -> Naming:
    first = [places(scores, true) == 1 for scores in (before, after)]
    gain = _mean(100 * (first[1].astype(np.float64) - first[0]), true, seed)
    return Naming(measure(before, true, seed=seed), measure(after, true, seed=seed), gain)


def _mean(values: NDArray[np.floating], people: NDArray[np.int64], seed: int) -> Estimate:
    return bootstrap(
        lambda weights: float(np.average(values, weights=weights)),
        len(values), seed=seed, resamples=500, people=people,
    )  # fmt: skip


def _likeness(bare: Image, other: Image, region: Region) -> tuple[float, float]:
    x0, y0, x1, y1 = region
    one, two = bare[y0:y1, x0:x1], other[y0:y1, x0:x1]
    return psnr(one, two), ssim(one, two)
