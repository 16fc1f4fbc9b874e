"""Pictures for people: the paper's figures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from ageveil.anonymization import anonymize_crop, usable_approaches
from ageveil.types import CanonicalCrop, Draws, Image

_COLUMNS = 4
_MARGIN = 12
_CAPTION = 24
_LABELS = {
    "original": "original (bare)",
    "mosaic": "mosaic on eyes",
    "mask": "mask on eyes",
    "blur": "blur of face",
    "grid": "grid of cells",
    "dp-pix": "noisy cells (dp-pix)",
    "veil": "veil of one byte",
}


def approach_sheet(crop: CanonicalCrop, *, rng: Draws | None = None) -> Image:
    """Draw a face through every approach that is installed, labelled. The first panel is the bare face.

    Args:
        crop: The face.
        rng: Source of the draws of cells and noise; by default a fresh cryptographic one.

    Returns:
        The sheet, shape (H, W, 3), uint8 RGB, four panels across in the order of `APPROACHES`.

    Source:
        Ye et al. 2018, figure 1.
    """
    names = usable_approaches()
    rows = -(-len(names) // _COLUMNS)
    across, down = crop.size + _MARGIN, crop.size + _CAPTION + _MARGIN
    sheet = PillowImage.new("RGB", (_COLUMNS * across + _MARGIN, rows * down + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, name in enumerate(names):
        x, y = _MARGIN + index % _COLUMNS * across, _MARGIN + index // _COLUMNS * down
        sheet.paste(PillowImage.fromarray(anonymize_crop(crop, name, rng=rng).pixels), (x, y))
        draw.text((x + crop.size / 2, y + crop.size + 4), _LABELS.get(name, name), "black", font, anchor="ma")
    return np.asarray(sheet, np.uint8)


def response_overlay(pixels: Image, response: NDArray[np.float32]) -> Image:
    """Lay a response map over the face that it comes from: blue where it is lowest, red where highest.

    Args:
        pixels: What the estimator saw, shape (S, S, 3), uint8 RGB.
        response: The map of one class, shape (h, w), finite; upsampled over the whole crop.

    Returns:
        Shape (S, S, 3), uint8 RGB.

    Raises:
        ValueError: The map is not of such a shape or not finite.

    Source:
        Ye et al. 2018, figure 3.
    """
    if response.ndim != 2 or 0 in response.shape or not np.isfinite(response).all():
        raise ValueError(f"expected a finite response map of shape (h, w), got shape {response.shape}")
    low, high = float(response.min()), float(response.max())
    scaled = (response - low) / (high - low) if high > low else np.zeros_like(response)
    side = pixels.shape[:2]
    spread = cv2.resize(scaled.astype(np.float32), side[::-1], interpolation=cv2.INTER_CUBIC)
    levels = (255 * spread.clip(0, 1)).round().astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]
    return (0.5 * pixels + 0.5 * colours).round().astype(np.uint8)
