"""Train the inpainter that the audit attacks with, and write it as ONNX.

    python recipes/inpainter/train.py PREPARED RUN OUT [--epochs 3] [--limit 256] [--workers 1] [--device cpu]

PREPARED is a folder of prepared faces, RUN keeps checkpoints, OUT gets `inpainter.onnx`. Given again after an
interruption, it goes on. Prints the SHA-256 that stands in `ageveil.audit.inpainting.INPAINTER`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from ageveil.training.faces import FacePool, anonymize_repeatably
from ageveil.training.inpainting import Plan, export, train
from ageveil.training.prepared import load_prepared

METADATA = {
    "name": "inpainter",
    "version": "1",
    "licence": "LicenseRef-research-only",
    "training_data": ["UTKFace train part (non-commercial research only)"],
    "source": "trained by recipes/inpainter of Ageveil",
}


def main() -> None:
    """Train and write."""
    words = argparse.ArgumentParser()
    words.add_argument("prepared", type=Path)
    words.add_argument("run", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("--epochs", type=int, default=Plan().epochs)
    words.add_argument("--limit", type=int)
    words.add_argument("--workers", type=int, default=1)
    words.add_argument("--device", default="auto")
    given = words.parse_args()
    plan, pool = Plan(epochs=given.epochs), FacePool.of([load_prepared(given.prepared)])
    start = time.monotonic()

    def announce(step: int, steps: int, judged: float) -> None:
        print(f"{step} of {steps} steps, {time.monotonic() - start:.0f} s, held-out loss {judged:.3f}")

    run = train(
        pool, plan, given.run,
        device=given.device, workers=given.workers, limit=given.limit, announce=announce,
    )  # fmt: skip
    faces = [
        anonymize_repeatably(pool.crop(index), name, np.random.default_rng(index))
        for index, name in zip(np.flatnonzero(pool.usable).tolist(), [*plan.approaches] * 4, strict=False)
    ]
    crops, hidden = np.stack([face.pixels for face in faces]), np.zeros((len(faces), 224, 224), bool)
    for where, face in zip(hidden, faces, strict=True):
        x0, y0, x1, y1 = face.receipt.region
        where[y0:y1, x0:x1] = True
    more = {"approaches": list(plan.approaches), "seed": plan.seed, "plan": plan.digest()}
    path = given.out / "inpainter.onnx"
    digest = export(run.network, path, sample=(crops, hidden), metadata=METADATA | more)
    print(
        f"{run.training_faces} faces, held out {run.held_out}: {run.best:.3f}, untouched {run.untouched:.3f}"
    )
    print(path.stat().st_size, digest)


if __name__ == "__main__":
    main()
