"""Undo a blur in two old ways.

A blur is an average that is known but for rounding, so that much of what it seems to hide is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.alignment import CROP_SIZE
from ageveil.anonymization import Region
from ageveil.types import Image

# Noise over signal that the filter reckons with: more than rounding adds, for what is not known beside the
# region's border.
_NOISE = 5e-4
_ROUNDS = 30  # of Richardson-Lucy; more of them bring back noise


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


def undoable(approach: str) -> tuple[Region, Kernel] | None:
    """Where an approach blurs a canonical crop, and how; None for one that does something else."""
    entry = anonymization.get_approach(approach)
    sizes = entry.sizes(CROP_SIZE)
    if set(sizes) != {"radius", "sigma"}:
        return None
    return anonymization.face_region(CROP_SIZE), Kernel(int(sizes["radius"]), float(sizes["sigma"]))
