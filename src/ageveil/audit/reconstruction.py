"""Undo a blur: what two old ways of deblurring bring back, and whether more faces are named after it.

A blur is an average that is known but for rounding, so that much of what it seems to hide is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.alignment import CROP_SIZE
from ageveil.anonymization import Region
from ageveil.audit.people import People
from ageveil.audit.recognition import Recogniser, embed
from ageveil.audit.reidentification import Success, cosine_scores, measure
from ageveil.audit.releases import release
from ageveil.evaluation.intervals import Estimate, bootstrap
from ageveil.types import CanonicalCrop, Image

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


Restore = Callable[[Image, Region, Kernel], Image]
METHODS: Mapping[str, Restore] = MappingProxyType({"wiener": wiener, "richardson-lucy": richardson_lucy})
"""Ways to undo a blur."""


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


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What a way of deblurring brought back, with 95 % intervals over people.

    Attributes:
        psnr: Before and after, in decibels, over the hidden region.
        ssim: Before and after, over the hidden region.
        named: Success of an attacker with clear photographs of everybody, before and after.
        faces: That were restored: the probes.
    """

    psnr: tuple[Estimate, Estimate]
    ssim: tuple[Estimate, Estimate]
    named: tuple[Success, Success]
    faces: int


def reconstruct(
    people: People,
    approach: str,
    recogniser: Recogniser,
    *,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Reconstruction]:
    """Undo an approach on every probe, and name the faces before and after it.

    Args:
        people: Gallery and probes.
        approach: Name in `ageveil.anonymization.APPROACHES`.
        recogniser: With which faces are looked at.
        seed: Of draws and of the bootstrap.
        advance: Called once for each face.

    Returns:
        Name in `METHODS` -> what it brought back; nothing for an approach that is no blur.

    Raises:
        ModelError: As `ageveil.audit.recognition.embed`.
    """
    blur = undoable(approach)
    if blur is None:
        return {}
    probes, known = np.flatnonzero(~people.gallery), np.flatnonzero(people.gallery)
    true, whose = people.person[probes], people.person[known]
    clear = [_looked_at([people.crop(face).pixels for face in part], recogniser) for part in _parts(known)]
    for _ in known:
        advance()
    likeness: dict[str, list[tuple[float, float]]] = {name: [] for name in ("hidden", *METHODS)}
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in likeness}
    for part in _parts(probes):
        views: dict[str, list[Image]] = {name: [] for name in likeness}
        for face in part:
            crop = people.crop(face)
            for name, view in _views(crop, approach, blur, [seed, face]).items():
                views[name].append(view)
                likeness[name].append(_likeness(crop.pixels, view, blur[0]))
            advance()
        for name, pictures in views.items():
            rows[name].append(_looked_at(pictures, recogniser))

    def found(name: str) -> tuple[Estimate, Estimate, Success]:
        scores = cosine_scores(np.concatenate(rows[name]), np.concatenate(clear), whose, people.count)
        decibels, similarity = (_mean(values, true, seed) for values in zip(*likeness[name], strict=True))
        return decibels, similarity, measure(scores, true, seed=seed)

    before = found("hidden")
    result = {}
    for name in METHODS:
        after = found(name)
        result[name] = Reconstruction(
            (before[0], after[0]), (before[1], after[1]), (before[2], after[2]), len(probes)
        )
    return result


def _parts(faces: NDArray[np.int64]) -> list[list[int]]:
    return [faces[start : start + _BATCH].tolist() for start in range(0, len(faces), _BATCH)]


def _looked_at(pictures: Sequence[Image], recogniser: Recogniser) -> NDArray[np.float32]:
    return embed(np.stack(pictures), recogniser)


def _views(
    crop: CanonicalCrop, approach: str, blur: tuple[Region, Kernel], seed: Sequence[int]
) -> dict[str, Image]:
    """The crop hidden, and restored in every way."""
    hidden = release(crop, approach, 0, seed)
    return {"hidden": hidden, **{name: restore(hidden, *blur) for name, restore in METHODS.items()}}


def _mean(values: Sequence[float], people: NDArray[np.int64], seed: int) -> Estimate:
    return bootstrap(
        lambda weights: float(np.average(values, weights=weights)),
        len(values), seed=seed, resamples=500, people=people,
    )  # fmt: skip


def _likeness(bare: Image, other: Image, region: Region) -> tuple[float, float]:
    x0, y0, x1, y1 = region
    one, two = bare[y0:y1, x0:x1], other[y0:y1, x0:x1]
    return psnr(one, two), ssim(one, two)
