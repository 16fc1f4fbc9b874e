"""The sheet of one face through every approach."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ageveil import anonymization
from ageveil.anonymization import APPROACHES, anonymize_crop
from ageveil.draws import ChaChaDraws
from ageveil.evaluation.figures import approach_sheet
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.types import CanonicalCrop

ORDER = ["original", "mosaic", "mask", "blur", "grid", "dp-pix", "veil", "permutation", "des-ecb", "des-cbc",
         "des-ctr"]  # fmt: skip
SHOWN = [name for name in ORDER if APPROACHES[name].usable]
ROWS = 3  # of 10 panels, and of 11 with the veil's
MARGIN, CAPTION = 12, 24


@pytest.fixture(scope="session")
def crop(grace_hopper):
    return Pipeline().align_viewer(read_image(grace_hopper))[1]


def panel(sheet, index, size):
    """The panel of an approach: four across, margins of 12 pixels, a caption of 24 below each."""
    x = MARGIN + index % 4 * (size + MARGIN)
    y = MARGIN + index // 4 * (size + CAPTION + MARGIN)
    return sheet[y : y + size, x : x + size], sheet[y + size : y + size + CAPTION, x : x + size]


def test_the_sheet_has_a_panel_and_a_caption_for_each_approach(crop):
    assert list(APPROACHES) == ORDER
    sheet = approach_sheet(crop, rng=ChaChaDraws(bytes(32)))
    assert sheet.dtype == np.uint8
    assert sheet.shape == (ROWS * (224 + CAPTION + MARGIN) + MARGIN, 4 * (224 + MARGIN) + MARGIN, 3)
    # The first panel is the bare face; what draws nothing at random is exactly what the approach gives.
    for index, name in enumerate(SHOWN):
        pixels, caption = panel(sheet, index, 224)
        if name in {"original", "mask", "blur", "veil"}:
            assert (pixels == anonymize_crop(crop, name).pixels).all()
        else:
            assert (pixels != crop.pixels).any()
        assert (caption == 255).all(axis=2).any()
        assert (caption < 100).all(axis=2).sum() > 60, "a caption is written in black on white"
    assert (panel(sheet, 0, 224)[0] == crop.pixels).all()


def test_the_mosaic_follows_the_draws_that_are_given(crop):
    first, again, other = (
        panel(approach_sheet(crop, rng=ChaChaDraws(bytes([key]) * 32)), 1, 224)[0] for key in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_ciphers_are_drawn_with_keys_that_nobody_keeps(crop):
    first, again = approach_sheet(crop), approach_sheet(crop)
    for index in map(SHOWN.index, ("permutation", "des-ecb", "des-cbc", "des-ctr")):
        assert (panel(first, index, 224)[0] != panel(again, index, 224)[0]).mean() > 0.5


def test_outside_panels_and_captions_all_is_white(crop):
    sheet = approach_sheet(crop)
    rest = np.ones(sheet.shape[:2], bool)
    for index in range(len(SHOWN)):
        x, y = MARGIN + index % 4 * (224 + MARGIN), MARGIN + index // 4 * (224 + CAPTION + MARGIN)
        rest[y : y + 224 + CAPTION, x : x + 224] = False
    assert (sheet[rest] == 255).all()


@pytest.mark.parametrize("size", [32, 64, 200])
def test_sheets_of_other_sizes(crop, size):
    scale = size / 224
    small = CanonicalCrop(
        cv2.resize(crop.pixels, (size, size), interpolation=cv2.INTER_AREA),
        (crop.landmarks + 0.5) * scale - 0.5,
        crop.to_image,
        0.0,
    )
    sheet = approach_sheet(small)
    assert sheet.shape == (ROWS * (size + CAPTION + MARGIN) + MARGIN, 4 * (size + MARGIN) + MARGIN, 3)
    assert (panel(sheet, 0, size)[0] == small.pixels).all()


def test_the_crop_stays_as_it_was(crop):
    before = crop.pixels.copy()
    approach_sheet(crop)
    assert (crop.pixels == before).all()


def test_a_sheet_leaves_out_what_is_not_installed(crop, monkeypatch):
    missing = replace(anonymization.VEIL, package=None, file="missing.onnx")
    entry = replace(APPROACHES["veil"], weights=missing)
    monkeypatch.setattr(anonymization, "APPROACHES", {**APPROACHES, "veil": entry})
    key = bytes(32)
    sheet = approach_sheet(crop, rng=ChaChaDraws(key))
    assert sheet.shape[0] == ROWS * (224 + CAPTION + MARGIN) + MARGIN
    assert (panel(sheet, 10, 224)[0] == 255).all(), "ten panels, and white after them"
