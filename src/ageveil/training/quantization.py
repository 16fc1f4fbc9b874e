"""Put a graph into 8-bit arithmetic, by ONNX Runtime's static quantization."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript import ir

Sample = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Crops, shape (N, S, S, 3), RGB, and their eye masks, shape (N, S, S), True inside the eye region."""

# All else, and what a branch holds, stays as it is.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Concat", "Relu", "Clip", "MaxPool")


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime carries no types
    def __init__(self, batches: Iterable[Sample]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, as the graph's inputs; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"crops": batch[0], "eye_mask": batch[1]}


def quantized(model: onnx.ModelProto, batches: Sequence[Sample]) -> onnx.ModelProto:
    """The graph in 8-bit arithmetic: weights, and what flows between layers, as whole numbers.

    A weight has a scale for each output channel and seven bits: two products of seven and eight bits fit into
    the sixteen in which processors without dot products of bytes add them up, so a graph answers alike on
    all. Those of depthwise convolutions, which are never added up so, and whose errors weigh most, have
    eight. What flows has eight bits, over the range that it takes on the batches.

    Args:
        model: In float32, with inputs `crops` and `eye_mask`; it is not changed.
        batches: Crops like those that it will see.

    Raises:
        ValueError: There is no batch.

    Source:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
        inference".
    """
    if not batches:
        raise ValueError("expected crops to measure ranges on, got none")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, prepared, done = (Path(folder, f"{name}.onnx") for name in ("given", "prepared", "done"))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        fine = {name: [{"axis": 0, "reduce_range": False}] for name in _depthwise(onnx.load(prepared).graph)}
        quantize_static(
            prepared,
            done,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"TensorQuantOverrides": fine},
        )
        rounded = ir.from_proto(onnx.load(done))
    rounded.graph.sort()  # ONNX Runtime's tool does not see what branches take from outside
    return ir.to_proto(rounded)


def _depthwise(graph: onnx.GraphProto) -> list[str]:
    """Names of the weights of convolutions that look at each channel by itself."""
    return [
        node.input[1]
        for node in graph.node
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hints that ONNX Runtime's tools write for those who call them by hand."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
