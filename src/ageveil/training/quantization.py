"""Put a graph into 8-bit arithmetic, by ONNX Runtime's static quantization."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import ir

from ageveil.errors import ModelError
from ageveil.runtime import silence

Sample = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Crops, shape (N, S, S, 3), RGB, and their eye masks, shape (N, S, S), True inside the eye region."""

_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Concat", "Relu", "Clip", "MaxPool")
_ANSWERS = ("Softmax", "LogSoftmax")


class _Batches:
    """The batches as ONNX Runtime asks for them: one after the other, then None."""

    def __init__(self, batches: Sequence[Sample]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"crops": batch[0], "eye_mask": batch[1]}


def quantized(model: onnx.ModelProto, batches: Sequence[Sample]) -> onnx.ModelProto:
    """The graph in 8-bit arithmetic: weights, and what flows between layers, as whole numbers.

    A weight has a scale for each output channel and seven bits: two products of seven and eight bits fit into
    the sixteen in which processors without dot products of bytes add them up, so a graph answers alike on
    all. Those of depthwise convolutions, which are never added up so, and of which only nine make a sum, have
    eight. What flows has eight bits, over the range that it takes on the batches. Logits, what is made of
    them, and what a branch holds stay in float32.

    Args:
        model: In float32, with inputs `crops` and `eye_mask`; it is not changed.
        batches: Crops like those that it will see.

    Raises:
        ValueError: There is no batch.
        ModelError: ONNX Runtime cannot quantize the graph, or run it on the batches.

    Source:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
        inference".
    """
    if not batches:
        raise ValueError("expected crops to measure ranges on, got none")
    silence()
    from onnxruntime import quantization  # noqa: PLC0415 - not before it is silent

    fine = {name: [{"axis": 0, "reduce_range": False}] for name in _depthwise(model.graph)}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, done = Path(folder, "given.onnx"), Path(folder, "done.onnx")
        onnx.save(model, given)
        try:
            quantization.quantize_static(
                given,
                done,
                _Batches(batches),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_exclude=_answering(model.graph),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={
                    "TensorQuantOverrides": fine,
                    "OpTypesToExcludeOutputQuantization": ["Gemm"],
                },
            )
            rounded = ir.from_proto(onnx.load(done))
        except Exception as error:  # ONNX Runtime has no public base class for its errors
            raise ModelError("the graph cannot be put into 8-bit arithmetic") from error
    rounded.graph.sort()  # ONNX Runtime's tool does not see what branches take from outside
    return ir.to_proto(rounded)


def _depthwise(graph: onnx.GraphProto) -> list[str]:
    """Names of the weights of convolutions that look at each channel by itself."""
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    names = []
    for node in graph.node:
        groups = {attribute.i for attribute in node.attribute if attribute.name == "group"}
        if node.op_type == "Conv" and (shape := shapes.get(node.input[1])) is not None:
            outputs, inputs = shape[:2]
            if inputs == 1 and groups == {outputs}:
                names.append(node.input[1])
    return names


def _answering(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that make one answer of probabilities: rounding these costs much, saves nothing."""
    made: set[str] = set()
    names = []
    for node in graph.node:  # each behind what it takes
        if node.op_type in _ANSWERS or made.intersection(node.input):
            made.update(node.output)
            names.append(node.name)
    return names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hints that ONNX Runtime's tools write for those who call them by hand."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
