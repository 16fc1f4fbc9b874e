"""Warp a face upright into the canonical crop: a fixed size with the eye centres at fixed places."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.errors import UnusableFaceError
from ageveil.types import CanonicalCrop, Face, Image, check_image

CROP_SIZE = 224
LEFT_EYE = (0.297, 0.299)
RIGHT_EYE = (0.684, 0.299)
"""Eye centres in the crop, as fractions of its side, left and right in the picture: the mean framing of the
UTKFace aligned crops."""
MAX_OUTSIDE = 0.2
MAX_EYE_DISAGREEMENT = 0.6
"""Above this the landmarks do not fit what the detector saw, as in a profile: there is no upright crop."""


def eye_corners(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce a landmark set to the eye corners.

    Args:
        landmarks: Shape (5, 2) in dlib's order or (68, 2) in iBUG 300-W's.

    Returns:
        Shape (4, 2), from left to right in an upright picture: outer and inner corner of the left eye, inner
        and outer corner of the right one.

    Raises:
        ValueError: Another shape.
    """
    order = {(5, 2): [2, 3, 1, 0], (68, 2): [36, 39, 42, 45]}
    if landmarks.shape not in order:
        raise ValueError(f"landmarks have shape (5, 2) or (68, 2), got {landmarks.shape}")
    return landmarks[order[landmarks.shape]]


def crop_transform(landmarks: NDArray[np.float64], size: int = CROP_SIZE) -> NDArray[np.float64]:
    """The similarity that takes the crop's pixels to the picture's.

    Args:
        landmarks: Of the face, in pixels of the picture.
        size: Side of the crop in pixels.

    Returns:
        Shape (2, 3): maps (x, y, 1) of the crop to the picture.

    Raises:
        ValueError: `size` is below 32, or the landmarks are of another shape.
        UnusableFaceError: The eye centres are one point.
    """
    if size < 32:
        raise ValueError(f"a crop has a side of at least 32 pixels, got {size}")
    corners = eye_corners(landmarks)
    left, right = (complex(*corners[pair].mean(0)) for pair in ([0, 1], [2, 3]))
    left_target, right_target = (complex(x * size, y * size) for x, y in (LEFT_EYE, RIGHT_EYE))
    if abs(right - left) < 1e-6:
        raise UnusableFaceError("both eyes of the face lie on one point: no upright crop")
    # In the complex plane a similarity is z -> turn * z + shift.
    turn = (right - left) / (right_target - left_target)
    shift = left - turn * left_target
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(
    image: Image, face: Face, *, size: int = CROP_SIZE, max_outside: float = MAX_OUTSIDE
) -> CanonicalCrop:
    """Warp a face into the canonical crop, bilinearly; pixels from outside the picture are black.

    Args:
        image: Picture, shape (H, W, 3), uint8 RGB.
        face: A face of it.
        size: Side S of the crop in pixels.
        max_outside: Largest share of the crop that may lie outside the picture.

    Returns:
        The crop, shape (S, S, 3), with the landmarks in its pixels.

    Raises:
        ValueError: `image` is no RGB picture, `size` is below 32 or `max_outside` is no share.
        UnusableFaceError: More of the crop lies outside the picture, or the face is turned too far.
    """
    check_image(image)
    if not 0 <= max_outside <= 1:
        raise ValueError(f"max_outside is a share in [0, 1], got {max_outside}")
    if face.eye_disagreement > MAX_EYE_DISAGREEMENT:
        raise UnusableFaceError("the landmarks do not fit the face: it is turned too far or partly hidden")
    to_image = crop_transform(face.landmarks, size)
    height, width = image.shape[:2]
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    x, y = (to_image[axis, 0] * columns + to_image[axis, 1] * rows + to_image[axis, 2] for axis in (0, 1))
    outside = float(((x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)).mean())
    if outside > max_outside:
        raise UnusableFaceError(
            f"{outside:.1%} of the face's crop lies outside the picture, at most {max_outside:.1%} may"
        )
    to_crop = cv2.invertAffineTransform(to_image)
    landmarks = face.landmarks @ to_crop[:, :2].T + to_crop[:, 2]
    pixels = cv2.warpAffine(image, to_image, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return CanonicalCrop(np.asarray(pixels, np.uint8), landmarks, to_image, outside)


def frame_aligned(image: Image, face: Face, *, size: int = CROP_SIZE) -> CanonicalCrop:
    """Take a whole picture that its makers aligned and cropped to the canonical framing as the crop.

    Args:
        image: Square picture, shape (H, H, 3), uint8 RGB.
        face: Its face; gives the landmarks.
        size: Side S of the crop in pixels; the picture is resized bilinearly.

    Returns:
        The crop, shape (S, S, 3), with nothing outside.

    Raises:
        ValueError: `image` is no RGB picture or `size` is below 32.
        UnusableFaceError: The picture is not square, so it is no such crop.
    """
    height, width = check_image(image).shape[:2]
    if size < 32:
        raise ValueError(f"a crop has a side of at least 32 pixels, got {size}")
    if height != width:
        raise UnusableFaceError(f"an aligned crop is square, got {width} x {height} pixels")
    # A pixel's centre is at a whole number, its left edge half a pixel before.
    step = width / size
    to_image = np.array([[step, 0, 0.5 * step - 0.5], [0, step, 0.5 * step - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(image, to_image, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    landmarks = (face.landmarks + 0.5) / step - 0.5
    return CanonicalCrop(np.asarray(pixels, np.uint8), landmarks, to_image, 0.0)
