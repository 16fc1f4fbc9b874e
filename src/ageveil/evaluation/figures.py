"""Pictures for people: the paper's figures."""

from __future__ import annotations

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from ageveil.anonymization import APPROACHES, anonymize_crop
from ageveil.types import CanonicalCrop, Draws, Image

_COLUMNS = 4
_MARGIN = 12
_CAPTION = 24
_LABELS = {
    "original": "original (bare)",
    "mosaic": "mosaic on eyes",
    "mask": "mask on eyes",
    "blur": "blur of face",
}


def approach_sheet(crop: CanonicalCrop, *, rng: Draws | None = None) -> Image:
    """Draw a face through every approach, labelled. The first panel is the bare face.

    Args:
        crop: The face.
        rng: Source of the mosaic's draws; by default a fresh cryptographic one.

    Returns:
        The sheet, shape (H, W, 3), uint8 RGB, four panels across in the order of `APPROACHES`.

    Source:
        Ye et al. 2018, figure 1.
    """
    rows = -(-len(APPROACHES) // _COLUMNS)
    across, down = crop.size + _MARGIN, crop.size + _CAPTION + _MARGIN
    sheet = PillowImage.new("RGB", (_COLUMNS * across + _MARGIN, rows * down + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, name in enumerate(APPROACHES):
        x, y = _MARGIN + index % _COLUMNS * across, _MARGIN + index // _COLUMNS * down
        sheet.paste(PillowImage.fromarray(anonymize_crop(crop, name, rng=rng).pixels), (x, y))
        draw.text((x + crop.size / 2, y + crop.size + 4), _LABELS.get(name, name), "black", font, anchor="ma")
    return np.asarray(sheet, np.uint8)
