"""Write the recognisers that the audit attacks with: from package files, as ONNX over canonical crops.

    python recipes/recognisers/build.py .weights weights/research/src/ageveil_weights_research

The first argument holds what `make weights` fetched. Prints the SHA-256 that stands in
`ageveil.audit.recognition.RECOGNISERS`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path

import torch

from ageveil.files import write_bytes
from ageveil.training import initial
from ageveil.training.export import round_weights
from ageveil.training.resnet import CropRecogniser, DlibResNet


def main(weights: str, out: str) -> None:
    """Write them."""
    network = DlibResNet()
    initial.fit(network, initial.load("dlib-resnet", Path(weights)))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    faces, side = torch.export.Dim("faces", min=1), torch.export.Dim("side", min=32)
    model = torch.onnx.export(
        CropRecogniser(network).eval(),
        (torch.zeros(2, 224, 224, 3, dtype=torch.uint8),),
        input_names=["crops"], output_names=["embeddings"],
        dynamic_shapes=({0: faces, 1: side, 2: side},), opset_version=18, dynamo=True, verbose=False,
    ).model_proto  # fmt: skip
    round_weights(model, "int8")
    entry = initial.INITIAL["dlib-resnet"]
    for key in ("licence", "training_data", "source"):
        model.metadata_props.add(key=key, value=json.dumps(getattr(entry, key)))
    data = model.SerializeToString()
    write_bytes(Path(out, "dlib-resnet.onnx"), [data])
    print(len(data), hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
