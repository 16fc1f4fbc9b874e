"""Check that a crop which somebody else anonymized is what its receipt says.

A server gets anonymized crops from clients that it does not control. Before anything looks at one, its pixels
are compared with the receipt's claim, and a face detector looks for eyes outside the hidden region. This
finds a client that is wrong: one that sends a bare face, hides too little or hides the wrong place. It cannot
tell whose face it is, nor that there ever was one: a receipt proves form, not origin. How often it errs
either way stands in benchmarks/inspection.md.
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
from ageveil.anonymization import Approach, Region, face_region, get_approach
from ageveil.detection import DetectorOptions
from ageveil.errors import InspectionError
from ageveil.types import AnonymizedFace, Image, Receipt, check_image

# How far an eye region reaches beyond the eye centres at least, in distances between them: half of what
# `ageveil.anonymization.eye_region` adds beyond the eye corners, since crops of other makers (UTKFace's) have
# the eyes a little off their places. Below the middle of the crop it never reaches: there nothing of an eye
# lies, and a mask of the whole crop would leave an estimator nothing to see.
_BESIDE, _ABOVE, _BELOW = 0.2, 0.27, 0.06
_LOWEST = 0.5

# A quarter of the sampling rate is where the blur passes 2e-4 and less, and where this filter, a fourth
# difference between every second pixel, passes all. Across it a short Gaussian quiets the noise of rounding.
_HIGH_PASS = np.array([1, 0, -4, 0, 6, 0, -4, 0, 1], np.float32) / 16
_ACROSS = np.asarray(cv2.getGaussianKernel(7, 1.2), np.float32).ravel()
# What the filter leaves of a properly blurred face is rounding: 0.5 at most, and up to 0.1 of the face.
_SHARPEST = 0.7

# At this side and score the detector sees faces as large as the crop and a third of that. Where eyes are hidden
# it guesses their places; so far beyond the region, in pixels, it does not guess.
_DETECTOR, _SIDE, _SCORE = "centerface", 128, 0.35
_BEYOND = 8.0


def _check_mosaic(hidden: Image, parameters: Mapping[str, Any]) -> None:
    """Each cell repeats one value; cells start at the top left corner."""
    cell = int(parameters["cell"])
    height, width = hidden.shape[:2]
    rows, columns = np.arange(height) // cell * cell, np.arange(width) // cell * cell
    if not np.array_equal(hidden, hidden[rows][:, columns]):
        raise InspectionError(f"expected cells of {cell} pixels that each repeat one value, got others")


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
    {"mosaic": _check_mosaic, "mask": _check_mask, "blur": _check_blur}
)
"""What the hidden pixels of an approach must look like. "original" hides nothing, and pixels under a cipher
look like any others: neither can be inspected."""


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
        ModelError: The detector's weights are not installed or damaged.
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
    region = {"eyes": eyes, "face": face_region(CROP_SIZE)}.get(entry.hides, (0, 0, CROP_SIZE, CROP_SIZE))
    if receipt.region != region:
        raise InspectionError(f"expected the region {region}, got {receipt.region}")
    return eyes


def is_eye_region(region: Region) -> bool:
    """Whether a rectangle of a canonical crop can be the region around both eyes.

    It must hold both eye centres, with margins, and end above the crop's middle.

    Args:
        region: xyxy in whole pixels, half open.

    >>> is_eye_region((18, 20, 206, 82)), is_eye_region((18, 82, 206, 112)), is_eye_region((0, 0, 224, 224))
    (True, False, False)
    """
    distance = (RIGHT_EYE[0] - LEFT_EYE[0]) * CROP_SIZE
    left, right, level = LEFT_EYE[0] * CROP_SIZE, RIGHT_EYE[0] * CROP_SIZE, LEFT_EYE[1] * CROP_SIZE
    x0, y0, x1, y1 = region
    # A half open end lies half a pixel beyond the last centre, as a start lies half a pixel before the first.
    return (
        x0 - 0.5 <= left - _BESIDE * distance
        and y0 - 0.5 <= level - _ABOVE * distance
        and x1 - 0.5 >= right + _BESIDE * distance
        and level + _BELOW * distance <= y1 - 0.5 <= _LOWEST * CROP_SIZE
    )


def _look_for_bare_eyes(pixels: Image, region: Region, threads: int) -> None:
    """Refuse a crop in which a detector sees a face with an eye outside the hidden region."""
    options = DetectorOptions(max_side=_SIDE, threshold=_SCORE, threads=threads, pyramid=False)
    for proposal in detection.find_boxes(pixels, _DETECTOR, options):
        if proposal.points is not None and _distance(proposal.points[:2], region) > _BEYOND:
            raise InspectionError("expected every eye in the hidden region, a detector sees one elsewhere")


def _distance(points: NDArray[np.float64], region: Region) -> float:
    """How far the furthest of points (N, 2) lies outside a region, along x or y; below 0 if none does.

    >>> _distance(np.array([[5.0, 5.0], [12.0, 5.0]]), (0, 0, 10, 10))
    2.5
    """
    # Edges of pixels lie half a pixel from their centres.
    low, high = np.array(region[:2]) - 0.5, np.array(region[2:]) - 0.5
    return float(max((low - points).max(), (points - high).max()))
