"""What a device gives away of one face: one picture, or several that differ as frames of a camera do."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.audit.people import People
from ageveil.audit.recognition import Recogniser, embed
from ageveil.training.faces import hide
from ageveil.types import CanonicalCrop

# Standard deviations between frames of one camera: landmarks move by a pixel or two of 224.
_ROTATION_DEGREES, _LOG_SCALE, _SHIFT = 1.5, 0.015, 0.006
_BATCH = 64


def jittered(crop: CanonicalCrop, rng: np.random.Generator) -> CanonicalCrop:
    """The crop of another frame: turned, scaled and moved a little, with its landmarks.

    Args:
        crop: Side S; it is not changed.
        rng: Draws the motion.
    """
    side = crop.size
    centre = ((side - 1) / 2, (side - 1) / 2)
    scale = float(np.exp(rng.normal(0, _LOG_SCALE)))
    transform = cv2.getRotationMatrix2D(centre, rng.normal(0, _ROTATION_DEGREES), scale)
    transform[:, 2] = transform[:, 2] + rng.normal(0, _SHIFT * side, 2)
    pixels = cv2.warpAffine(
        crop.pixels, transform, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    landmarks = crop.landmarks @ transform[:, :2].T + transform[:, 2]
    return CanonicalCrop(np.asarray(pixels, np.uint8), landmarks, crop.to_image, crop.outside)


def release(crop: CanonicalCrop, approach: str, number: int, seed: list[int]) -> NDArray[np.uint8]:
    """What leaves the device for one frame: the first is the crop as it is, later ones are jittered.

    Draws and keys are fresh for each frame; they come from the seed, so that an audit can be repeated (but
    for ciphers whose initial vector is random).

    Args:
        crop: The bare face.
        approach: Name in `ageveil.anonymization.APPROACHES`.
        number: Of the frame, 0 or more.
        seed: Of the face and the audit; equal ones give equal frames.

    Returns:
        Shape (S, S, 3), uint8 RGB.

    Raises:
        ValueError: Unknown approach.
        UnusableFaceError: The eye region lies outside the crop.
    """
    rng = np.random.default_rng([*seed, number])
    return hide(jittered(crop, rng) if number else crop, approach, rng).pixels


def embeddings(
    people: People,
    faces: NDArray[np.int64],
    approach: str,
    number: int,
    recogniser: Recogniser,
    *,
    seed: int = 0,
    threads: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Embeddings of some people's faces behind an approach, one frame of each.

    Args:
        people: Whose faces.
        faces: Numbers of faces in `people`, shape (N,).
        approach: Name in `ageveil.anonymization.APPROACHES`; "original" for the bare face.
        number: Of the frame.
        recogniser: Looks at them.
        seed: Of draws, keys and jitter.
        threads: Of the network; 0 uses all cores.
        advance: Called after each face.

    Returns:
        Shape (N, D).

    Raises:
        ValueError: Unknown approach.
        ModelError: As `ageveil.audit.recognition.embed`.
    """
    rows = []
    for start in range(0, len(faces), _BATCH):
        part = faces[start : start + _BATCH].tolist()
        pixels = np.stack([release(people.crop(face), approach, number, [seed, face]) for face in part])
        rows.append(embed(pixels, recogniser, threads=threads))
        for _ in part:
            advance()
    return np.concatenate(rows)
