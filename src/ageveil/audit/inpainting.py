"""Paint a hidden face back with a network that has learned from other people what faces look like."""

from __future__ import annotations

import json

import numpy as np

from ageveil.errors import ModelError
from ageveil.runtime import Weights, is_installed, open_session, research_weights
from ageveil.types import AnonymizedFace, Image

INPAINTER = research_weights(
    "inpainter.onnx",
    "7c9c0962754cf0385d39e3854896a6e96eb461598beabe6f2cd5f6af8365fbdc",
    "trained by recipes/inpainter of Ageveil",
)


def learned(weights: Weights = INPAINTER) -> tuple[str, ...]:
    """Approaches that the network has learned to undo; none where it is not installed.

    Raises:
        ModelError: The file is damaged, or does not say what it has learned.
    """
    if not is_installed(weights):
        return ()
    try:
        return tuple(map(str, json.loads(open_session(weights, 1).metadata["approaches"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{weights.file} does not say which approaches it has learned to undo") from error


def inpaint(face: AnonymizedFace, *, weights: Weights = INPAINTER, threads: int = 1) -> Image:
    """What the network expects where a face was hidden.

    Args:
        face: An anonymized crop, at least 32 pixels across.
        weights: A graph that takes `crops`, shape (N, S, S, 3), uint8 RGB, and `hidden`, shape (N, S, S),
            bool, and returns pictures like `crops`.
        threads: Of the network; 0 uses all cores.

    Returns:
        Shape (S, S, 3), uint8 RGB; outside the receipt's region as in `face`.

    Raises:
        ModelError: The weights are missing or damaged, or return something else than a picture.
    """
    hidden = np.zeros((1, *face.pixels.shape[:2]), np.bool_)
    x0, y0, x1, y1 = face.receipt.region
    hidden[:, y0:y1, x0:x1] = True
    (painted, *_) = open_session(weights, threads).run(crops=face.pixels[None], hidden=hidden)
    if painted.shape != (1, *face.pixels.shape) or not np.isfinite(painted).all():
        raise ModelError(f"{weights.file} should return a picture like the one it got, got {painted.shape}")
    restored = np.clip(np.rint(painted[0]), 0, 255).astype(np.uint8)
    return np.where(hidden[0, ..., None], restored, face.pixels)
