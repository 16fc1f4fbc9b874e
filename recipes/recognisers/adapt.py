"""Train dlib's recogniser to see behind approaches, write it, and say how well it does on faces held out.

    python recipes/recognisers/adapt.py prepared/utkface-train runs/dlib-resnet-adapted \
        weights/research/src/ageveil_weights_research

The prepared faces are those of `ageveil prepare`. The second folder, which is private, is for checkpoints: a
run that was stopped goes on. $AGEVEIL_WEIGHTS holds what `make weights` fetched. The figures, and the SHA-256
that stands in `ageveil.audit.recognition.RECOGNISERS`, go to adapted.json beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ageveil.audit.recognition import RECOGNISERS, Recogniser, embed, get_recogniser
from ageveil.audit.reidentification import cosine_scores, places
from ageveil.cli.circumstances import circumstances, commit, without_folder
from ageveil.evaluation.intervals import clopper_pearson
from ageveil.files import write_bytes, write_text
from ageveil.training import initial
from ageveil.training.adaptation import Adaptation, adapt, parts
from ageveil.training.export import recogniser_graph
from ageveil.training.faces import FacePool, hide
from ageveil.training.prepared import load_prepared
from ageveil.training.resnet import CropRecogniser, DlibResNet

NAME = "dlib-resnet-adapted"
APPROACHES = ("mosaic", "mask", "blur", "grid")
METADATA = {
    "name": NAME,
    "licence": "LicenseRef-research-only",
    "training_data": [
        "UTKFace train part (non-commercial research only), without its labels",
        "initial weights dlib: FaceScrub, VGG face and pictures from the web (CC0-1.0)",
    ],
    "source": "dlib's face recogniser (King 2017), trained by recipes/recognisers of Ageveil",
    "approaches": list(APPROACHES),
}


def main() -> None:
    """Train, write and measure."""
    choice = _options()
    began, start = commit(), time.monotonic()
    pool = FacePool.of([load_prepared(choice.prepared)])
    # Bare faces as well, so that what it gives of the two stays comparable.
    shares = {"original": 0.5, **dict.fromkeys(APPROACHES, 1.0)}
    how = Adaptation(shares, epochs=choice.epochs, batch=choice.batch, learning_rate=choice.learning_rate)
    learned, held_out = (part[: choice.limit] for part in parts(pool, how))
    torch.manual_seed(how.seed)
    recogniser = dlib()
    adapt(
        recogniser, pool, learned, how, choice.folder, workers=choice.workers, advance=progress(how, learned)
    )
    trained = time.monotonic()
    path = choice.out / f"{NAME}.onnx"
    data = recogniser_graph(recogniser.cpu(), METADATA).SerializeToString()
    write_bytes(path, [data])
    record = {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "how": asdict(how),
        "faces": len(learned),
        "held_out": figures(pool, held_out[: choice.measured], get_recogniser(str(path))),
        "training_seconds": round(trained - start),
        "run": circumstances(began, time.monotonic() - start)
        | {"command": without_folder(shlex.join(["python", *sys.argv])), "torch": torch.__version__},
    }
    text = json.dumps(record, indent=1)
    print(text)
    write_text(choice.record, text + "\n")


def dlib() -> CropRecogniser:
    """dlib's recogniser, where it trains fastest."""
    network = DlibResNet()
    initial.fit(network, initial.load("dlib-resnet"))
    return CropRecogniser(network).to("cuda" if torch.cuda.is_available() else "cpu")


def progress(how: Adaptation, faces: NDArray[np.int64]) -> Any:
    """Says every 50 steps how far training is, and how fast."""
    steps = max(1, len(faces) // how.batch) * how.epochs
    last = [0, time.monotonic()]

    def advance(step: int, loss: float) -> None:
        if step % 50 and step != steps:
            return
        now = time.monotonic()
        speed = 1e3 * (now - last[1]) / (step - last[0]) / how.batch
        last[:] = [step, now]
        print(f"step {step} of {steps}, loss {loss:.3f}, {speed:.1f} ms a face", flush=True)

    return advance


def figures(pool: FacePool, faces: NDArray[np.int64], adapted: Recogniser) -> dict[str, Any]:
    """Rank-1 of hidden faces among the same faces bare, in percent: before training, and after it.

    The picture is the same, but for what hides it: a figure to choose by, and no attack on people.
    """
    found: dict[str, Any] = {"faces": len(faces)}
    own = np.arange(len(faces))
    for when, recogniser in (("before", RECOGNISERS["dlib-resnet"]), ("after", adapted)):
        rows = {}
        for name in ("original", *APPROACHES):
            rngs = [np.random.default_rng([2018, face]) for face in faces]
            shown = [hide(pool.crop(int(face)), name, rng) for face, rng in zip(faces, rngs, strict=True)]
            rows[name] = embed(np.stack([face.pixels for face in shown]), recogniser)
        found[when] = {}
        for name in APPROACHES:
            named = places(cosine_scores(rows[name], rows["original"], own, len(own)), own) == 1
            interval = clopper_pearson(int(named.sum()), len(own))
            found[when][name] = {key: round(100 * value, 1) for key, value in asdict(interval).items()}
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("prepared", "folder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=int, help="Only so many faces of each part, for a dry run.")
    parser.add_argument("--measured", type=int, default=800, help="Held-out faces to measure on.")
    parser.add_argument("--record", type=Path, default=Path(__file__).with_name("adapted.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
