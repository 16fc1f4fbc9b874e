"""Write the recognisers that the audit attacks with: from package files, as ONNX over canonical crops.

    python recipes/recognisers/build.py .weights weights/research/src/ageveil_weights_research
    python recipes/recognisers/build.py pixels src/ageveil/weights
    python recipes/recognisers/build.py levels src/ageveil/weights

.weights holds what `make weights` fetched; the others need none of it. Prints the SHA-256 that stands in
`ageveil.audit.recognition.RECOGNISERS`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ageveil.files import write_bytes
from ageveil.training import initial
from ageveil.training.export import recogniser_graph
from ageveil.training.resnet import CropRecogniser, DlibResNet

SIDE = 224


def main(what: str, out: str) -> None:
    """Write one."""
    made = {"pixels": pixels, "levels": levels}
    name, model = (what, made[what]()) if what in made else ("dlib-resnet", dlib_resnet(Path(what)))
    data = model.SerializeToString()
    write_bytes(Path(out, f"{name}.onnx"), [data])
    print(len(data), hashlib.sha256(data).hexdigest())


def pixels() -> onnx.ModelProto:
    """Mean colours of 16 × 16 cells of a crop, 768 numbers less their mean."""
    return _cells("pixels", 16, [
        helper.make_node("ReduceMean", ["row", "last"], ["brightness"], keepdims=1),
        helper.make_node("Sub", ["row", "brightness"], ["embeddings"]),
    ])  # fmt: skip


def levels() -> onnx.ModelProto:
    """Mean colours of 4 × 4 cells as they are, and a constant.

    Embeddings are compared at length 1. With the constant, as long as all others together may be, that takes
    next to nothing away, so that flat pictures of other brightness stay apart.
    """
    return _cells("levels", 4, [
        helper.make_node("Sub", ["row", "grey"], ["colours"]),
        helper.make_node("Pad", ["colours", "beside", "constant"], ["embeddings"]),
    ], extra=1)  # fmt: skip


def _cells(name: str, count: int, ending: list[onnx.NodeProto], extra: int = 0) -> onnx.ModelProto:
    numbers, cell = count * count * 3, SIDE // count
    whole = {
        "parts": [-1, count, cell, count, cell, 3], "within": [2, 4], "flat": [-1, numbers], "last": [1],
        "beside": [0, 0, 0, 1],
    }  # fmt: skip
    real = {"grey": 127.5, "constant": 127.5 * 7}
    nodes = [
        helper.make_node("Cast", ["crops"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["values", "parts"], ["cells"]),
        helper.make_node("ReduceMean", ["cells", "within"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "flat"], ["row"]),
        *ending,
    ]
    constants = [helper.make_tensor(key, TensorProto.INT64, [len(row)], row) for key, row in whole.items()]
    constants += [helper.make_tensor(key, TensorProto.FLOAT, [], [value]) for key, value in real.items()]
    graph = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["faces", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["faces", numbers + extra])],
        [tensor for tensor in constants if tensor.name in {name for node in nodes for name in node.input}],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, text in (("licence", "Apache-2.0"), ("training_data", "none"), ("source", "Ageveil")):
        model.metadata_props.add(key=key, value=json.dumps(text))
    onnx.checker.check_model(model)
    return model


def dlib_resnet(weights: Path) -> onnx.ModelProto:
    """dlib's recogniser over canonical crops."""
    network = DlibResNet()
    initial.fit(network, initial.load("dlib-resnet", weights))
    entry = initial.INITIAL["dlib-resnet"]
    metadata = {key: getattr(entry, key) for key in ("licence", "training_data", "source")}
    return recogniser_graph(CropRecogniser(network), metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
