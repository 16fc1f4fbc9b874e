"""Vary training crops as cameras, faces and landmarks vary, before they are anonymized.

The order matters: a device anonymizes the photograph as it was taken. So the crop is varied first, and the
serving anonymization then acts on the varied crop.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.types import CanonicalCrop, Image

# dlib's order of the five points after a reflection: the image-left eye becomes the image-right one.
_MIRRORED_POINTS = [2, 3, 0, 1, 4]

# Standard deviations. Alignment errs by a few degrees and pixels; landmarks by one pixel of 224.
_ROTATION_DEGREES, _LOG_SCALE, _SHIFT, _LANDMARK_NOISE = 4.0, 0.045, 0.016, 0.005
_LOG_GAMMA, _CONTRAST, _BRIGHTNESS, _WHITE_BALANCE = 0.15, 0.18, 14.0, 0.07


def vary(crop: CanonicalCrop, rng: np.random.Generator, share: float = 1.0) -> CanonicalCrop:
    """Draw a variation of a crop: mirrored, moved, with other light, colours and sharpness.

    Args:
        crop: Side S, with five landmarks; it is not changed.
        rng: Draws all that is random; equal states give equal crops.
        share: How often more is done than to mirror every second crop, 0 to 1.

    Returns:
        A crop of the same side with its landmarks moved along.

    Raises:
        ValueError: The landmarks are not five.
    """
    if crop.landmarks.shape != (5, 2):
        raise ValueError(f"expected five landmarks, got shape {crop.landmarks.shape}")
    pixels, landmarks = crop.pixels, crop.landmarks
    if rng.random() < 0.5:
        pixels, landmarks = mirrored(pixels, landmarks)
    if share == 1 or rng.random() < share:
        pixels, landmarks = _moved(pixels, landmarks, rng)
        pixels = _lit(pixels, rng)
        pixels = _coloured(pixels, rng)
        pixels = _degraded(pixels, rng)
    return CanonicalCrop(pixels, landmarks, crop.to_image, crop.outside)


def mirrored(pixels: Image, landmarks: NDArray[np.float64]) -> tuple[Image, NDArray[np.float64]]:
    """Reflect a crop and its five landmarks left to right."""
    last = pixels.shape[1] - 1
    flipped = landmarks[_MIRRORED_POINTS]
    return np.ascontiguousarray(pixels[:, ::-1]), np.column_stack([last - flipped[:, 0], flipped[:, 1]])


def _moved(
    pixels: Image, landmarks: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Image, NDArray[np.float64]]:
    side = pixels.shape[0]
    centre = ((side - 1) / 2, (side - 1) / 2)
    scale = float(np.exp(rng.normal(0, _LOG_SCALE)))
    transform = cv2.getRotationMatrix2D(centre, rng.normal(0, _ROTATION_DEGREES), scale)
    transform[:, 2] = transform[:, 2] + rng.normal(0, _SHIFT * side, 2)
    # What comes into view is black where a photograph ends, and more of the same scene where it does not.
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    warped = cv2.warpAffine(pixels, transform, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    moved = landmarks @ transform[:, :2].T + transform[:, 2]
    return np.asarray(warped, np.uint8), moved + rng.normal(0, _LANDMARK_NOISE * side, moved.shape)


def _lit(pixels: Image, rng: np.random.Generator) -> Image:
    levels = 255 * (np.arange(256) / 255) ** np.exp(rng.normal(0, _LOG_GAMMA))
    levels = (levels - 128) * rng.normal(1, _CONTRAST) + 128 + rng.normal(0, _BRIGHTNESS)
    return np.asarray(cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)


def _coloured(pixels: Image, rng: np.random.Generator) -> Image:
    draw = rng.random()
    if draw < 0.06:
        return np.asarray(
            cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8
        )
    if draw < 0.25:
        gains = np.exp(rng.normal(0, _WHITE_BALANCE, 3))
        return np.asarray(np.clip(pixels * gains, 0, 255), np.uint8)
    return pixels


def _degraded(pixels: Image, rng: np.random.Generator) -> Image:
    """Lose detail: a face far from the camera, a strongly compressed file, or both."""
    draw, side = rng.random(), pixels.shape[0]
    if draw < 0.2:
        small = int(rng.integers(side // 3, side))
        shrunk = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
    if 0.15 < draw < 0.35:
        quality = int(rng.integers(35, 90))
        # OpenCV takes blue first, and JPEG treats colours unlike.
        _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
        pixels = np.ascontiguousarray(decoded[..., ::-1])
    return pixels
