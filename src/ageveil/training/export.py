"""Write a trained network as one ONNX file that holds all that is needed to use and to judge it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ageveil import anonymization
from ageveil.calibration import fit_temperature
from ageveil.errors import DataError, ModelError
from ageveil.files import check_writable, write_bytes
from ageveil.runtime import Session
from ageveil.training.engine import load_run, split
from ageveil.training.faces import FacePool, hide
from ageveil.training.networks import AgeNetwork, Cells, Ensemble, Reading, Veil, Vgg16, get_network
from ageveil.training.preparation import load_prepared
from ageveil.training.quantization import Sample, quantized
from ageveil.training.recipes import Recipe
from ageveil.training.resnet import CropRecogniser
from ageveil.types import AGE_GROUP_NAMES, MAX_AGE, AnonymizedFace, age_group

TOLERANCE = 1e-3
"""Largest difference between a probability from PyTorch and from ONNX Runtime, before weights are rounded."""

Precision = Literal["float32", "float16", "int8", "int8-static"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

ROUNDING: Mapping[Precision, float] = MappingProxyType({"float16": 0.05, "int8": 0.05, "int8-static": 0.1})
"""Largest difference that fewer bits may make, of a probability or of that of being so old or older."""

Exportable = AgeNetwork | Ensemble | Reading

_OPSET = 18
_SMALLEST_ROUNDED = 1024  # weights in a tensor
_SAMPLE = 96  # validation faces on which PyTorch and ONNX Runtime are compared
_SEED = 2018  # of the draws behind which validation faces are hidden
_LOOKED_AT = ("original", "mosaic", "mask", "blur")  # behind these a network still sees a face
_RANGED = 192  # training faces on which 8-bit arithmetic measures its ranges


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        path: The ONNX file.
        size: In bytes.
        sha256: Of the file, 64 hex digits.
        precision: Of the weights in the file, and with "int8-static" of the arithmetic too.
        difference: Largest difference from the network in PyTorch, before weights were rounded: of a
            probability, or of a response map as a share of the largest response.
        rounding: Largest difference once the network has fewer bits: of a probability, or of that of being so
            old or older.
        temperatures: By approach; empty where it was not calibrated.
    """

    path: Path
    size: int
    sha256: str
    precision: Precision
    difference: float
    rounding: float
    temperatures: Mapping[str, float]


class _Served(nn.Module):
    """The network as it is served: probabilities instead of logits, and what else it has to say.

    That is the response maps of the paper's networks, and the levels of a network that paints veils.
    """

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor, eye_mask: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.network, Vgg16):
            logits, response = self.network.with_response(crops, eye_mask)
            return torch.softmax(logits, 1), response
        if isinstance(self.network, Veil):
            levels = self.network.levels(crops, eye_mask)
            return torch.softmax(self.network.reader.read(levels), 1), levels
        return (torch.softmax(self.network(crops, eye_mask), 1),)


def export(
    network: Exportable,
    path: Path,
    *,
    metadata: Mapping[str, Any],
    precision: Precision = "float16",
    sample: Sample,
    ranges: Sequence[Sample] = (),
    calibrate: Callable[[Session], Mapping[str, float]] = lambda _: {},
) -> Exported:
    """Write a network as ONNX, and compare it with the network on real crops.

    The graph takes `crops`, shape (N, S, S, 3), uint8 RGB, and `eye_mask`, shape (N, S, S), bool; N and S
    are free. It returns `probabilities`, shape (N, 101) or (N, 8), and, for the paper's networks, `response`,
    shape (N, 8, h, w).

    Args:
        network: Trained; it is left in evaluation mode.
        path: Where to write; an existing file is replaced once the new one has passed. A folder that is
            missing is made.
        metadata: JSON values by name; they travel inside the file, with `classes` and `side`.
        precision: Of the stored weights. They are widened when the file is loaded; "int8" has one scale for
            each output channel. With "int8-static" the networks also count in 8 bits; readers do not.
        sample: Crops and eye masks to compare on.
        ranges: Batches of crops like those that it will see, for "int8-static".
        calibrate: The graph, with its weights as stored -> a temperature for each approach; they travel
            along as `temperatures`.

    Raises:
        ValueError: "int8-static" is asked for without ranges, or for a network that is not made for it: the
            paper's, whose response maps it would round, one that paints veils, or a reader.
        ModelError: PyTorch and ONNX Runtime differ by more than 1e-3 on the graph in float32, or fewer bits
            change more than `ROUNDING` allows; nothing is written.
        OutputError: The file cannot be written, which is seen before the network is looked at.
    """
    if precision == "int8-static" and isinstance(network, Vgg16 | Veil | Cells):
        raise ValueError(f"{type(network).__name__} cannot be exported as {precision}; choose int8")
    check_writable(path)  # before the work, which may take hours
    served = _Served(network.eval())
    crops, masks = (torch.from_numpy(array) for array in sample)
    with torch.inference_mode():
        expected = [output.numpy() for output in served(crops, masks)]
    two = torch.arange(2) % len(crops)  # a lone face twice: the exporter would take one for a fixed length
    model = _graph(served, (crops[two], masks[two]))
    difference = _difference(opened(model), sample, expected)
    if not difference <= TOLERANCE:  # NaN must not pass
        raise ModelError(f"PyTorch and ONNX Runtime differ by {difference:.2g}, at most {TOLERANCE} may be")
    if precision == "int8-static":
        model = quantized(model, ranges)
    if precision != "float32":
        round_weights(model, "float16" if precision == "float16" else "int8")
    session = opened(model)
    if isinstance(network, Veil):
        # A level that lies just between two may fall either way: what is read from its neighbour is no error.
        levels = torch.from_numpy(_same_levels(session, sample, expected[1]))
        with torch.inference_mode():
            expected[0] = torch.softmax(network.reader.read(levels), 1).numpy()
    rounding = _shift(session, sample, expected[0])
    if not rounding <= (most := ROUNDING.get(precision, TOLERANCE)):
        raise ModelError(
            f"weights in {precision} change a probability by {rounding:.2g}, at most {most} may be"
        )
    temperatures = calibrate(session)
    _describe(model, network, {**metadata, "temperatures": dict(temperatures)})
    data = model.SerializeToString()
    write_bytes(path, [data])
    digest = hashlib.sha256(data).hexdigest()
    return Exported(path, len(data), digest, precision, difference, rounding, temperatures)


def _difference(session: Session, sample: Sample, expected: Sequence[NDArray[np.float32]]) -> float:
    """Largest difference of the first outputs from what they should be.

    Of probabilities as it is; of what else comes out, as a share of its largest value.
    """
    found = session.run(crops=sample[0], eye_mask=sample[1])
    shares = []
    for index, (one, other) in enumerate(zip(found, expected, strict=False)):
        scale = 1.0 if index == 0 else float(np.abs(other).max()) or 1.0
        shares.append(float(np.abs(one - other).max()) / scale)
    return math.nan if any(map(math.isnan, shares)) else max(shares)


def _shift(session: Session, sample: Sample, expected: NDArray[np.float32]) -> float:
    """Largest difference of a probability, and of that of being so old or older, which decisions rest on."""
    off = session.run(crops=sample[0], eye_mask=sample[1])[0] - expected
    return float(np.maximum(np.abs(off).max(), np.abs(off.cumsum(1)).max()))  # NaN stays


def _same_levels(session: Session, sample: Sample, expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """The levels that a graph paints, if each is the expected one or its neighbour.

    Raises:
        ModelError: One is neither.
    """
    levels = session.run(crops=sample[0], eye_mask=sample[1])[1]
    if not (off := float(np.abs(levels - expected).max())) <= 1:
        raise ModelError(f"rounded weights change a level by {off:g}, at most 1 may be")
    return levels


def export_runs(
    runs: Sequence[Path],
    prepared: Path,
    out: Path,
    *,
    precision: str = "float16",
    version: str = "1",
    advance: Callable[[], None] = lambda: None,
) -> Exported:
    """Calibrate the network of a finished run and write it as ONNX.

    One temperature for each approach is fitted on the faces that the recipe kept out of training, with the
    weights as they are stored.

    Args:
        runs: Folder of the run; of several, whose networks then answer together: those that look at faces as
            `Ensemble` does, and those that read cells or veils as readers of `Reading`. The model has the
            name of the first.
        prepared: Folder that holds the prepared folders that the recipes name.
        out: The ONNX file to write.
        precision: As for `export`.
        version: Of the model, for its metadata.
        advance: Called after each approach.

    Raises:
        ValueError: Another precision, no run, or as `export`.
        DataError: A run or a prepared folder is missing, or the runs differ in data, licence, resolution or
            in the faces that they kept out.
        ModelError: The weights are damaged, or as `export`.
        OutputError: The file cannot be written.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"a precision is {', '.join(PRECISIONS)}, got {precision!r}")
    if not runs:
        raise ValueError("expected a run or several, got none")
    stored = cast(Precision, precision)
    networks, recipes = zip(*(load_run(run) for run in runs), strict=True)
    first = recipes[0]
    for recipe in recipes[1:]:
        _check_together(first, recipe)
    pool = FacePool.of([load_prepared(prepared / name) for name in first.data])
    training, validation = split(pool, first)
    network = _joined(networks)
    shown = [*_looked_at(network), *(("grid", "veil") if isinstance(network, Reading) else ())]
    sample = _stacked(_hidden(pool, validation, _SAMPLE, shown))
    ranges = _ranges(network, pool, training) if stored == "int8-static" else []
    # One network's facts stand as they are, several networks' as lists.
    parts = {
        "network": [recipe.network for recipe in recipes],
        "initial": [recipe.initial for recipe in recipes],
        "recipe": [recipe.digest() for recipe in recipes],
    }
    metadata: dict[str, Any] = {
        "name": first.name,
        "version": version,
        "licence": first.licence,
        "training_data": list(dict.fromkeys(entry for recipe in recipes for entry in recipe.training_data)),
        **({key: facts[0] for key, facts in parts.items()} if len(runs) == 1 else parts),
        "validation": first.validation.model_dump(),
        "inputs": "crops: RGB canonical crops, uint8; eye_mask: True inside the eye region",
    }

    def calibrate(session: Session) -> dict[str, float]:
        temperatures = {}
        for approach in calibrated_approaches(network):
            temperatures[approach] = _temperature(session, pool, validation, approach)
            advance()
        return temperatures

    return export(
        network, out, metadata=metadata, precision=stored, sample=sample, ranges=ranges, calibrate=calibrate
    )


def _ranges(network: Exportable, pool: FacePool, training: NDArray[np.int64]) -> list[Sample]:
    """Batches of hidden training faces: what 8-bit arithmetic has to hold."""
    behind = _looked_at(network)
    faces = _hidden(pool, training, _RANGED, behind)
    return [_stacked(faces[start : start + 16]) for start in range(0, len(faces), 16)]


def _hidden(
    pool: FacePool, indices: NDArray[np.int64], count: int, approaches: Sequence[str]
) -> list[AnonymizedFace]:
    """So many faces, behind the approaches in turn; drawn at random, since faces stand in order of age."""
    chosen = np.random.default_rng(_SEED).choice(indices, min(count, len(indices)), replace=False)
    return [_anonymized(pool, int(face), approaches[at % len(approaches)]) for at, face in enumerate(chosen)]


def calibrated_approaches(network: Exportable) -> tuple[str, ...]:
    """For which approaches a network's export fits temperatures: all usable ones.

    One that paints veils looks at bare faces alone.
    """
    if isinstance(network, Veil):
        return ("original",)
    return tuple(anonymization.usable_approaches())


def _looked_at(network: Exportable) -> list[str]:
    """The approaches behind which a network is compared and its ranges are measured."""
    return [name for name in _LOOKED_AT if name in calibrated_approaches(network)]


def _joined(networks: Sequence[AgeNetwork]) -> Exportable:
    """One network made of several, as `export_runs` says."""
    if len(networks) == 1:
        return networks[0]
    looking = [network for network in networks if not isinstance(network, Cells | Veil)]
    if not looking:
        raise ValueError("readers of cells and veils need a network beside them that looks at faces")
    network = looking[0] if len(looking) == 1 else Ensemble(looking)
    readers = [
        network.reader if isinstance(network, Veil) else network
        for network in networks
        if isinstance(network, Cells | Veil)
    ]
    return Reading(network, readers) if readers else network


def _check_together(first: Recipe, other: Recipe) -> None:
    """Networks answer together only where what validates one was unseen by the others.

    Raises:
        DataError: They differ in data, licence, resolution or in the faces that they kept out.
    """
    kinds = [get_network(recipe.network).resolution for recipe in (first, other)]
    for what, ours, theirs in (
        ("data", sorted(first.data), sorted(other.data)),
        ("section [validation]", first.validation, other.validation),
        ("licence", first.licence, other.licence),
        ("resolution", *kinds),
    ):
        if ours != theirs:
            raise DataError(f"{first.name} and {other.name} cannot answer together: they differ in {what}")


def _temperature(session: Session, pool: FacePool, validation: NDArray[np.int64], approach: str) -> float:
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(validation), 64):
        faces = [_anonymized(pool, index, approach) for index in validation[start : start + 64]]
        crops, masks = _stacked(faces)
        rows.append(session.run(crops=crops, eye_mask=masks)[0])
    probabilities = np.concatenate(rows)
    low, high = pool.low[validation], pool.high[validation]
    if probabilities.shape[1] != MAX_AGE + 1:
        low = high = np.array([age_group(int(age)) for age in low])
    return round(fit_temperature(probabilities, low, high), 4)


def _anonymized(pool: FacePool, index: int, approach: str) -> AnonymizedFace:
    return hide(pool.crop(index), approach, np.random.default_rng([_SEED, index]))


def _stacked(faces: Sequence[AnonymizedFace]) -> Sample:
    return np.stack([face.pixels for face in faces]), np.stack([face.eye_mask for face in faces])


def round_weights(
    model: onnx.ModelProto, precision: Literal["float16", "int8"], smallest: int = _SMALLEST_ROUNDED
) -> None:
    """Store the large weights of a graph in fewer bits; the graph widens them again.

    With "int8" a weight is a whole number in -127..127 times the scale of its output channel, its first axis.
    Runtimes widen constants once, on loading, so neither speed nor memory at run time changes.

    Args:
        model: Changed in place.
        precision: Of the stored weights.
        smallest: Tensors of fewer weights stay as they are, and so do vectors.
    """
    graph = model.graph
    widened: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        # A vector is a bias or a scale: no room is saved, and an error in it shifts everything.
        if tensor.data_type != TensorProto.FLOAT or values.size < smallest or values.ndim < 2:
            continue
        graph.initializer.remove(tensor)
        name = tensor.name
        if precision == "float16":
            stored = values.astype(np.float16)
            widened.append(helper.make_node("Cast", [f"{name}.stored"], [name], to=TensorProto.FLOAT))
        else:
            axes = tuple(range(1, values.ndim))
            scale = np.maximum(np.abs(values).max(axes, keepdims=True), 1e-12) / np.float32(127)
            stored = np.rint(values / scale).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
            cast = helper.make_node("Cast", [f"{name}.stored"], [f"{name}.wide"], to=TensorProto.FLOAT)
            widened += [cast, helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name])]
        graph.initializer.append(numpy_helper.from_array(stored, f"{name}.stored"))
    for position, node in enumerate(widened):
        graph.node.insert(position, node)
    onnx.checker.check_model(model)


def recogniser_graph(recogniser: CropRecogniser, metadata: Mapping[str, Any]) -> onnx.ModelProto:
    """A face recogniser as a graph with 8-bit weights: what `ageveil.audit` looks at faces with.

    It takes `crops`, shape (N, S, S, 3), uint8 RGB, and returns `embeddings`, shape (N, 128).

    Args:
        recogniser: Left in evaluation mode.
        metadata: JSON values by name; they travel inside the file.
    """
    faces, side = torch.export.Dim("faces", min=1), torch.export.Dim("side", min=32)
    example = (torch.zeros(2, 224, 224, 3, dtype=torch.uint8),)
    shapes = ({0: faces, 1: side, 2: side},)
    model = traced(recogniser.eval(), example, ["crops"], ["embeddings"], shapes)
    round_weights(model, "int8")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model


def _graph(served: _Served, example: tuple[Tensor, Tensor]) -> onnx.ModelProto:
    outputs = ["probabilities"]
    if isinstance(served.network, Vgg16 | Veil):
        outputs.append("response" if isinstance(served.network, Vgg16) else "levels")
    batch, side = torch.export.Dim("faces", min=1), torch.export.Dim("side", min=32)
    shapes = ({0: batch, 1: side, 2: side}, {0: batch, 1: side, 2: side})
    return traced(served, example, ["crops", "eye_mask"], outputs, shapes)


def traced(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: tuple[Mapping[int, Any], ...],
) -> onnx.ModelProto:
    """A network as a graph, without the exporter's notes on the machine that it ran on.

    Args:
        module: In evaluation mode.
        example: Inputs of two faces or more.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        shapes: For each input the lengths that are free, by axis.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            example,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]  # only None for a file
    # The exporter notes the lines of code, with the folders of this machine, beside all that it writes.
    for graph in _graphs(model.graph):
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            del part.metadata_props[:]
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those of its branches."""
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from _graphs(attribute.g)


def _describe(model: onnx.ModelProto, network: Exportable, metadata: Mapping[str, Any]) -> None:
    years = [str(year) for year in range(MAX_AGE)] + [f"{MAX_AGE}+"]
    described = {
        **metadata,
        "resolution": network.resolution,
        "side": network.side,
        "classes": years if network.resolution == "year" else list(AGE_GROUP_NAMES),
    }
    del model.metadata_props[:]
    for key, value in described.items():
        model.metadata_props.add(key=key, value=json.dumps(value))


def opened(model: onnx.ModelProto) -> Session:
    """A graph, ready to be run.

    Raises:
        ModelError: As `ageveil.runtime.Session`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model.SerializeToString())
        return Session(path)
