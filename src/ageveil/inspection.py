"""Check that a crop which somebody else anonymized is what its receipt says.

A server gets anonymized crops from clients that it does not control. Before anything looks at one, its pixels
are compared with the receipt's claim, and a face detector looks for eyes outside the hidden region, where
there is an outside: of an approach that hides the whole crop every pixel was compared already.

This finds a client that is wrong: one that sends a bare face, hides too little or hides the wrong place. It
cannot tell whose face it is, nor that there ever was one: a receipt proves form, not origin. How often it
errs either way stands in benchmarks/inspection.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import detection
from ageveil.alignment import CROP_SIZE, LEFT_EYE, RIGHT_EYE
from ageveil.anonymization import (
    VEIL_LEVELS,
    Approach,
    Region,
    eye_region,
    get_approach,
    mean_eye_region,
    veil_shade,
)
from ageveil.detection import DetectorOptions
from ageveil.errors import InspectionError
from ageveil.types import AnonymizedFace, Image, Receipt, check_image

_EYES = CROP_SIZE * np.array([LEFT_EYE, RIGHT_EYE])
# The region of eyes that have no width: that of any others, whose centres lie at the same places, holds it.
_SMALLEST = eye_region(np.array([_EYES[1], _EYES[1], _EYES[0], _EYES[0], _EYES.mean(0)]), CROP_SIZE)
# Nothing of an eye lies below the crop's middle, and a mask of the whole crop would leave nothing to judge.
_LOWEST = CROP_SIZE // 2

# A quarter of the sampling rate is where the blur passes 2e-4 and less, and where this filter, a fourth
# difference between every second pixel, passes all. Across it a short Gaussian quiets the noise of rounding.
_HIGH_PASS = np.array([1, 0, -4, 0, 6, 0, -4, 0, 1], np.float32) / 16
_ACROSS = np.asarray(cv2.getGaussianKernel(7, 1.2), np.float32).ravel()
# Of 1,700 properly blurred faces of UTKFace's and FairFace's training parts none is sharper.
_SHARPEST = 0.7

_SHADES = [veil_shade(level) for level in range(VEIL_LEVELS)]

# At this side and score the detector sees faces as large as the crop and a third of that.
_DETECTOR, _SIDE, _SCORE = "centerface", 128, 0.25
# Where eyes are hidden the detector guesses their places, and in a turned face a guess may lie further than
# this beyond the region, in pixels; it is believed where the mirrored crop gives one too. What lies beyond
# the second number is hardly ever the same face: among 2,000 FairFace training faces it was so once.
_BEYOND, _FAR_BEYOND = 12.0, 40.0


def _check_mosaic(hidden: Image, parameters: Mapping[str, Any]) -> None:
    """Each cell repeats one value; cells start at the top left corner."""
    cell = int(parameters["cell"])
    height, width = hidden.shape[:2]
    rows, columns = np.arange(height) // cell * cell, np.arange(width) // cell * cell
    if not np.array_equal(hidden, hidden[rows][:, columns]):
        raise InspectionError(f"expected cells of {cell} pixels that each repeat one value, got others")


def _check_noisy_cells(hidden: Image, parameters: Mapping[str, Any]) -> None:
    """Each cell repeats one grey level."""
    _check_mosaic(hidden, parameters)
    _check_grey(hidden)


def _check_grey(hidden: Image) -> None:
    if (hidden != hidden[..., :1]).any():
        raise InspectionError("expected grey levels alone, got colours")


def _check_veil(hidden: Image, _: Mapping[str, Any]) -> None:
    """Each half, left and right of the middle, repeats one of the levels' greys."""
    _check_grey(hidden)
    middle = hidden.shape[1] // 2
    for half in (hidden[:, :middle, 0], hidden[:, middle:, 0]):
        if not np.isin(half[0, 0], _SHADES) or (half != half[0, 0]).any():
            raise InspectionError(f"expected two halves of one of {VEIL_LEVELS} greys each, got others")


def _check_mask(hidden: Image, _: Mapping[str, Any]) -> None:
    """All is black."""
    if hidden.any():
        raise InspectionError("expected a hidden region of (0, 0, 0) alone, got other values")


def sharpness(hidden: Image) -> float:
    """How much fine detail a picture holds that the blur would not have let through.

    Args:
        hidden: Shape (H, W, 3), uint8 RGB, sides of 17 pixels or more.

    Returns:
        The largest size, in levels, of the fourth difference over every second pixel along rows and along
        columns, each averaged over a few pixels across; pixels whose neighbours lie outside do not count.
        Of pixels that were rounded after a Gaussian of 4.6 pixels it is at most 1.41, whatever the picture:
        0.5 from rounding, the rest what the filter lets through of the steepest edge. Real faces stay below
        `_SHARPEST`.
    """
    levels = hidden.astype(np.float32)
    edge = len(_HIGH_PASS) // 2
    return max(
        float(np.abs(cv2.sepFilter2D(levels, cv2.CV_32F, x, y)[edge:-edge, edge:-edge]).max())
        for x, y in ((_HIGH_PASS, _ACROSS), (_ACROSS, _HIGH_PASS))
    )


def _check_blur(hidden: Image, parameters: Mapping[str, Any]) -> None:
    """Nothing is finer than a Gaussian of that width lets through."""
    if sharpness(hidden) > _SHARPEST:
        raise InspectionError(
            f"expected nothing finer than a blur of sigma {parameters['sigma']:.2f} leaves, got finer detail"
        )


Check = Callable[[Image, Mapping[str, Any]], None]
"""(pixels of the receipt's region, parameters) -> nothing, or InspectionError."""

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "mosaic": _check_mosaic,
        "mask": _check_mask,
        "blur": _check_blur,
        "grid": _check_mosaic,
        "dp-pix": _check_noisy_cells,
        "veil": _check_veil,
    }
)
"""What the hidden pixels of an approach must look like. "original" hides nothing, and pixels under a cipher
look like any others: neither can be inspected. That cells, noise or shades were made from a face, and as the
approach makes them, cannot be told from any."""


def inspect(pixels: Image, receipt: Receipt, *, approach: str, threads: int = 1) -> AnonymizedFace:
    """Check that a crop is anonymized as its receipt says, and that no eyes are bare.

    Args:
        pixels: The crop, shape (224, 224, 3), uint8 RGB.
        receipt: What its sender claims.
        approach: What was asked for; one of `CHECKS`.
        threads: Of the detector; 0 lets it use all cores.

    Returns:
        The anonymized face, as `ageveil.anonymization.anonymize_crop` makes it.

    Raises:
        ValueError: The approach is unknown or cannot be inspected ("original", ciphers), or `pixels` is no
            RGB picture.
        InspectionError: The crop or the receipt is of another size, the receipt is not of this approach, its
            parameters or regions are not what the approach makes, the hidden pixels are not as the approach
            leaves them, or a detector sees eyes outside the hidden region.
        ModelError: The detector's weights are not installed or damaged; an approach that hides the whole crop
            needs none.
    """
    entry = get_approach(approach)
    if entry.name not in CHECKS:
        raise ValueError(f"{approach!r} cannot be inspected; choose one of {', '.join(CHECKS)}")
    size = (CROP_SIZE, CROP_SIZE)
    if check_image(pixels).shape[:2] != size:
        raise InspectionError(f"expected a crop of {size} pixels, got {pixels.shape[1::-1]}")
    eyes = _check_claim(receipt, entry)
    x0, y0, x1, y1 = receipt.region
    CHECKS[entry.name](pixels[y0:y1, x0:x1], receipt.parameters)
    if not entry.hides_crop:  # else no pixel is left that an eye could be seen in
        _look_for_bare_eyes(pixels, receipt.region, threads)
    eye_mask = np.zeros(size, np.bool_)
    eye_mask[eyes[1] : eyes[3], eyes[0] : eyes[2]] = True
    return AnonymizedFace(pixels, eye_mask, receipt)


def _check_claim(receipt: Receipt, entry: Approach) -> Region:
    """Compare the receipt with what the approach makes of a canonical crop; returns the eye region.

    Messages quote no text of the receipt: who sent it may have put anything there.
    """
    if receipt.approach != entry.name:
        raise InspectionError(f"expected a receipt of {entry.name!r}, got one of another approach")
    if receipt.size != (CROP_SIZE, CROP_SIZE):
        raise InspectionError(f"expected a receipt for {CROP_SIZE} x {CROP_SIZE} pixels, got {receipt.size}")
    expected = entry.sizes(CROP_SIZE)
    if dict(receipt.parameters) != expected:
        raise InspectionError(f"expected the parameters {expected}, got others")
    eyes = receipt.eye_region
    if eyes is None or not is_eye_region(eyes):
        raise InspectionError(f"expected an eye region around both eyes of the crop, got {eyes}")
    if entry.hides_crop and eyes != (mean := mean_eye_region(CROP_SIZE)):
        raise InspectionError(f"expected the eye region {mean} of the mean face, got {eyes}")
    region = entry.region(eyes, CROP_SIZE)
    if receipt.region != region:
        raise InspectionError(f"expected the region {region}, got {receipt.region}")
    return eyes


def is_eye_region(region: Region) -> bool:
    """Whether a rectangle of a canonical crop can be the region around both eyes.

    `ageveil.alignment.align` puts the eye centres at fixed places, so the region that
    `ageveil.anonymization.eye_region` draws around four eye corners has at least the margins of two points
    there. It also ends above the crop's middle.

    Args:
        region: xyxy in whole pixels, half open.

    >>> is_eye_region((18, 20, 206, 82)), is_eye_region((18, 82, 206, 112)), is_eye_region((0, 0, 224, 224))
    (True, False, False)
    """
    x0, y0, x1, y1 = region
    left, top, right, bottom = _SMALLEST
    return x0 <= left and y0 <= top and x1 >= right and bottom <= y1 <= _LOWEST


def _look_for_bare_eyes(pixels: Image, region: Region, threads: int) -> None:
    """Refuse a crop in which a detector sees a face with an eye outside the hidden region."""
    beyond = _furthest_eye(pixels, region, threads)
    if _BEYOND < beyond <= _FAR_BEYOND:
        x0, y0, x1, y1 = region
        beyond = _furthest_eye(pixels[:, ::-1], (CROP_SIZE - x1, y0, CROP_SIZE - x0, y1), threads)
    if beyond > _BEYOND:
        raise InspectionError("expected every eye in the hidden region, a detector sees one elsewhere")


def _furthest_eye(pixels: Image, region: Region, threads: int) -> float:
    """How far an eye lies outside a region, in pixels; 0 or below where none does or no face is seen."""
    options = DetectorOptions(max_side=_SIDE, threshold=_SCORE, threads=threads, pyramid=False)
    found = detection.find_boxes(pixels, _DETECTOR, options)
    eyes = [proposal.points[:2] for proposal in found if proposal.points is not None]
    return max((_distance(points, region) for points in eyes), default=0.0)


def _distance(points: NDArray[np.float64], region: Region) -> float:
    """How far the furthest of points (N, 2) lies outside a region, along x or y; below 0 if none does.

    >>> _distance(np.array([[5.0, 5.0], [12.0, 5.0]]), (0, 0, 10, 10))
    2.5
    """
    # Edges of pixels lie half a pixel from their centres.
    low, high = np.array(region[:2]) - 0.5, np.array(region[2:]) - 0.5
    return float(max((low - points).max(), (points - high).max()))
