"""Face recognisers: what turns a canonical crop, anonymized or not, into numbers that tell who it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.alignment import LEFT_EYE, RIGHT_EYE
from ageveil.errors import ModelError
from ageveil.runtime import Session, Weights, checksum, locate, open_session, research_weights

_BATCH = 64

# Where InsightFace's template has the eyes in a square picture, as fractions of its side.
_TEMPLATE_EYES = ((38.2946 / 112, 51.6 / 112), (73.5318 / 112, 51.6 / 112))


@dataclass(frozen=True, slots=True)
class Recogniser:
    """An entry of `RECOGNISERS`.

    Attributes:
        name: By which reports name it.
        weights: The ONNX file. A graph of our own takes `crops`, shape (N, S, S, 3), uint8 RGB; one of
            somebody else's takes aligned faces as InsightFace's do.
        margin: Whether it was trained with a margin loss, as today's strongest are; None where that is not
            known.
        source: What it is, for people.
        mirrored: Whether a face and its mirror image are looked at together. It steadies a network; it takes
            from plain pixels what differs between the halves of a face.
        approaches: Behind which it has learned to see, from faces of other people. It looks behind these
            alone, and whoever uses it is an adapted attacker. None for one that has seen bare faces only, or
            none: it looks behind every approach, for every attacker.
    """

    name: str
    weights: Weights
    margin: bool | None
    source: str
    mirrored: bool = True
    approaches: tuple[str, ...] | None = None

    @property
    def mark(self) -> str:
        """What embeddings are kept under: others come of another file, or of another way to look."""
        return self.weights.sha256 if self.mirrored else f"{self.weights.sha256}, one view"


def _cells(name: str, sha256: str, what: str) -> Recogniser:
    """A graph that compares the colours of cells: it is written, not trained."""
    source = "written, not trained, by recipes/recognisers of Ageveil"
    weights = Weights("ageveil", f"weights/{name}.onnx", sha256, "Apache-2.0", source, "ageveil")
    return Recogniser(name, weights, margin=False, source=f"{what}, nothing trained", mirrored=False)


RECOGNISERS: Mapping[str, Recogniser] = MappingProxyType(
    {
        "dlib-resnet": Recogniser(
            "dlib-resnet",
            research_weights(
                "dlib-resnet.onnx",
                "0755fbd3d3e549dc52bdc7fcb3a5f4fa79a36dcbf6049c2a8d33529049a7777d",
                "dlib's face recogniser (King 2017), by recipes/recognisers of Ageveil",
                licence="CC0-1.0",
            ),
            margin=False,
            source="dlib's ResNet of 2017",
        ),
        "dlib-resnet-adapted": Recogniser(
            "dlib-resnet-adapted",
            research_weights(
                "dlib-resnet-adapted.onnx",
                "9c5fef97887bbfb82cc9ed28b7c51581db311d658d4f338f533c214b47938260",
                "dlib's face recogniser (King 2017), trained by recipes/recognisers of Ageveil",
            ),
            margin=False,
            source="the same, trained to see behind mosaic, mask, blur and grid; the adapted attacker's",
            approaches=("mosaic", "mask", "blur", "grid"),
        ),
        "pixels": _cells(
            "pixels",
            "fec426bd2d69d3342d95849e3c6c27fe6516018e18d3b972166c009a578cbe96",
            "colours of 16 × 16 cells",
        ),
        "levels": _cells(
            "levels",
            "af31d7754094823f0d10e0cf65b034b181d9e3b0ecf4f3bf872d58cc5a983789",
            "colours and brightness of 4 × 4 cells",
        ),
    }
)
"""Recognisers by name. Behind coarse cells a network made for faces sees less than the cells hold."""


def get_recogniser(name: str) -> Recogniser:
    """The recogniser of that name, or of that path: an ONNX file of one's own.

    A file of one's own takes one input of shape (N, 3, H, W) or (N, H, W, 3), float RGB, of faces aligned as
    InsightFace aligns them, less 127.5 and divided by 127.5, and returns one row for each. One of ours takes
    `crops`. Where its metadata name `approaches`, it has learned to see behind these.

    Raises:
        ValueError: There is none; the message lists the choices.
        ModelError: The file is missing, damaged, no ONNX graph, or names its approaches in another form.
    """
    if name in RECOGNISERS:
        locate(RECOGNISERS[name].weights)
        return RECOGNISERS[name]
    if not name.endswith(".onnx"):
        raise ValueError(
            f"unknown recogniser {name!r}; choose one of {', '.join(RECOGNISERS)} or an .onnx file"
        )
    path = Path(name)
    weights = Weights(None, name, checksum(path), "LicenseRef-unknown", name, name)
    return Recogniser(path.stem, weights, margin=None, source=name, approaches=_learned(weights))


def _learned(weights: Weights) -> tuple[str, ...] | None:
    """The approaches that a file of one's own says it has learned to see behind."""
    stated = open_session(weights).metadata.get("approaches")
    if stated is None:
        return None
    try:
        found = json.loads(stated)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ModelError(f"{weights.file} should state its approaches as a JSON list, got {stated!r}")
    return tuple(found)


def embed(pixels: NDArray[np.uint8], recogniser: Recogniser, *, threads: int = 0) -> NDArray[np.float32]:
    """Embeddings of faces, of length 1; or the sum of two, where the mirror image is looked at as well.

    Args:
        pixels: Canonical crops, shape (N, S, S, 3), uint8 RGB, anonymized or not; N is 1 or more.
        recogniser: Which.
        threads: Of the network; 0 uses all cores.

    Returns:
        Shape (N, D).

    Raises:
        ModelError: The file is missing, is no recogniser, or returns something that is no embedding.
    """
    session = open_session(recogniser.weights, threads)
    rows = []
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        views = (batch, batch[:, :, ::-1]) if recogniser.mirrored else (batch,)
        seen = [_run(session, view, recogniser.name) for view in views]
        rows.append(sum(row / np.maximum(np.linalg.norm(row, axis=1, keepdims=True), 1e-12) for row in seen))
    return np.concatenate(rows)


def check(recogniser: Recogniser) -> None:
    """Try a recogniser on a grey picture, before the long work.

    Raises:
        ModelError: As `embed`.
    """
    embed(np.full((2, 224, 224, 3), 128, np.uint8), recogniser)


def _run(session: Session, pixels: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    inputs = session.inputs
    if "crops" in inputs:
        (rows, *_) = session.run(crops=np.ascontiguousarray(pixels))
    else:
        shape = next(iter(inputs.values())) if len(inputs) == 1 else ()
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise ModelError(
                f"the recogniser {name} should take one input of shape (N, 3, H, W) or (N, H, W, 3), "
                f"got {dict(inputs)}"
            )
        first = shape[1] == 3
        side = (shape[2] if first else shape[1]) or 112
        faces = (np.stack([_aligned(crop, side) for crop in pixels]).astype(np.float32) - 127.5) / 127.5
        faces = faces.transpose(0, 3, 1, 2) if first else faces
        # Many files were written for one face at a time.
        parts = (
            [faces]
            if shape[0] is None
            else [faces[at : at + shape[0]] for at in range(0, len(faces), shape[0])]
        )
        rows = np.concatenate([session.run(**{next(iter(inputs)): part})[0] for part in parts])
    if rows.ndim != 2 or len(rows) != len(pixels) or not np.isfinite(rows).all():
        raise ModelError(f"the recogniser {name} should return a row for each face, got shape {rows.shape}")
    return np.asarray(rows, np.float32)


def _aligned(crop: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A canonical crop in InsightFace's framing; what lies outside the crop is black."""
    (left, top), (right, _) = _TEMPLATE_EYES
    (own_left, own_top), (own_right, _) = LEFT_EYE, RIGHT_EYE
    inner = side * (right - left) / (own_right - own_left)
    # Made smaller by averaging first, since a warp would only pick pixels.
    small = cv2.resize(crop, (round(inner), round(inner)), interpolation=cv2.INTER_AREA)
    scale = inner / round(inner)
    shift = side * left - inner * own_left, side * top - inner * own_top
    transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return np.asarray(cv2.warpAffine(small, transform, (side, side), flags=cv2.INTER_LINEAR), np.uint8)
