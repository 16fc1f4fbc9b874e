"""How like two pictures are."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.audit.deblurring import Kernel
from ageveil.types import Image


def psnr(one: Image, other: Image) -> float:
    """Peak signal-to-noise ratio of two pictures in decibels; 100 where they are alike."""
    return min(100.0, cv2.PSNR(one, other))


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
