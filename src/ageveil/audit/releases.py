"""What a device gives away of one face: one picture, or several that differ as frames of a camera do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.alignment import CROP_SIZE, LEFT_EYE, RIGHT_EYE
from ageveil.audit.recognition import Recogniser, embed
from ageveil.audit.reidentification import normalized
from ageveil.training.faces import REPEATABLE, hide
from ageveil.types import AnonymizedFace, CanonicalCrop

# Standard deviations between frames of one camera: landmarks move by a pixel or two of 224.
_ROTATION_DEGREES, _LOG_SCALE, _SHIFT = 1.5, 0.015, 0.006

_EYE_WIDTH = 0.134  # from corner to corner on the test card, as a fraction of its side

FUSIONS = 2
"""Ways in which several frames are fused: the mean of their embeddings, and the embedding of their mean."""


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


def released(crop: CanonicalCrop, approach: str, number: int, seed: Sequence[int]) -> AnonymizedFace:
    """What leaves the device for one frame: the first is the crop as it is, later ones are jittered.

    Draws and keys are fresh for each frame; they come from the seed, so that an audit can be repeated (but
    for ciphers whose initial vector is random).

    Args:
        crop: The bare face.
        approach: Name in `ageveil.anonymization.APPROACHES`.
        number: Of the frame, 0 or more.
        seed: Of the face and the audit; equal ones give equal frames.

    Raises:
        ValueError: Unknown approach.
        UnusableFaceError: The eye region lies outside the crop.
    """
    rng = np.random.default_rng([*seed, number])
    return hide(jittered(crop, rng) if number else crop, approach, rng)


def release(crop: CanonicalCrop, approach: str, number: int, seed: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels of `released`, shape (S, S, 3), uint8 RGB."""
    return released(crop, approach, number, seed).pixels


def seen(
    crop: Callable[[int], CanonicalCrop],
    faces: Sequence[int],
    approach: str,
    counts: Sequence[int],
    recogniser: Recogniser,
    *,
    seed: int = 0,
    threads: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """What a recogniser sees of some faces behind an approach, from one frame of each or from several.

    Args:
        crop: Number of a face -> its bare crop.
        faces: Numbers.
        approach: Name in `ageveil.anonymization.APPROACHES`; "original" for the bare face.
        counts: Numbers of frames that are fused, ascending from 1.
        recogniser: Looks at them.
        seed: Of draws, keys and jitter.
        threads: Of the network; 0 uses all cores.
        advance: Called after each frame of each face.

    Returns:
        Shape (N, C, 2, D): for each face and count the mean of the frames' embeddings, and the embedding of
        the mean of the frames. With one frame the two are one.

    Raises:
        ValueError: Unknown approach.
        ModelError: As `ageveil.audit.recognition.embed`.
    """
    crops = [crop(face) for face in faces]
    rows: NDArray[np.float64] | None = None
    total = np.zeros((len(crops), CROP_SIZE, CROP_SIZE, 3), np.float32)
    found: list[NDArray[np.float64]] = []
    for number in range(counts[-1]):
        frames = np.stack(
            [release(one, approach, number, [seed, face]) for one, face in zip(crops, faces, strict=True)]
        )
        new = normalized(embed(frames, recogniser, threads=threads))
        rows = new if rows is None else rows + new
        total += frames
        if number + 1 in counts:
            mean = np.rint(total / (number + 1)).astype(np.uint8)
            means = new if number == 0 else normalized(embed(mean, recogniser, threads=threads))
            found.append(np.stack([normalized(rows), means], 1))
        for _ in crops:
            advance()
    return np.stack(found, 1).astype(np.float32)


def draws_at_random(approach: str) -> bool:
    """Whether two releases of one picture differ, though its owner wants them to be read: a mosaic's do."""
    if anonymization.get_approach(approach).cipher is not None:
        return False
    one, two = (release(_test_card(), approach, 0, [seed]) for seed in (0, 1))
    return not np.array_equal(one, two)


def behaviour(approach: str) -> str:
    """Digest of what an approach and the jitter do to a fixed picture: it changes when either does.

    An approach's network counts itself: two may treat one picture alike and others not.
    """
    digest = hashlib.sha256(approach.encode())
    weights = anonymization.get_approach(approach).weights
    if weights is not None:
        digest.update(weights.sha256.encode())
    for name, number in (("original", 1), (approach, 0)):
        if name in REPEATABLE:
            digest.update(release(_test_card(), name, number, [0]).tobytes())
    return digest.hexdigest()


def _test_card() -> CanonicalCrop:
    """A crop of noise with eyes at their places."""
    pixels = np.random.default_rng(0).integers(0, 256, (CROP_SIZE, CROP_SIZE, 3), np.uint8)
    half = np.array([_EYE_WIDTH / 2, 0])
    # In dlib's order: outer and inner corner of the eye on the right, of the one on the left, under the nose.
    corners = [RIGHT_EYE + half, RIGHT_EYE - half, LEFT_EYE - half, LEFT_EYE + half, (0.49, 0.62)]
    return CanonicalCrop(pixels, np.array(corners) * CROP_SIZE, np.eye(2, 3), 0.0)
