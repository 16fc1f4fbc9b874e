"""Measure how many small faces stay bare in large pictures, where the search alone would shrink them.

    python benchmarks/large_pictures.py --data $AGEVEIL_DATA --out benchmarks/large_pictures.md

Composed as for benchmarks/detectors.py, on larger canvases: one face of 160 pixels and five small ones. Takes
about fifteen minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from ageveil import detection
from ageveil.cli.circumstances import commit
from ageveil.detection import DetectorOptions
from ageveil.errors import LeakError
from ageveil.pipeline import Pipeline
from ageveil.types import Box
from detectors import (
    FALSE_OVERLAP,
    FOUND_OVERLAP,
    PEOPLE,
    PORTRAITS,
    SEED,
    WHOLE,
    eyes_hidden,
    note,
    percent,
    processor,
    prose,
    table,
)
from group_pictures import (
    GroupPicture,
    compose,
    find_portraits,
    intersection_over_union,
    lfw_photographs,
)

CANVASES = ((4000, 3000), (5600, 4200))
HEIGHTS = (24, 32, 48)
PICTURES = 4
"""Of each canvas and height."""

THRESHOLD = detection.DETECTORS["centerface"].low_threshold


def pictures(data: Path) -> Iterator[GroupPicture]:
    """The composed pictures, from faces of people that no parameter was chosen on."""
    portraits = find_portraits(lfw_photographs(data / "lfw", PEOPLE), PORTRAITS, np.random.default_rng(SEED))
    for canvas in CANVASES:
        for height in HEIGHTS:
            for number in range(PICTURES):
                note(f"{canvas[0]} x {canvas[1]}, {height} px, {number}")
                yield compose(
                    portraits, height, 0, canvas, np.random.default_rng((SEED, *canvas, height, number))
                )


def found(picture: GroupPicture, boxes: Sequence[Box]) -> int:
    """How many of the small faces a box lies on."""
    hits = (
        any(intersection_over_union(box, face.box) >= FOUND_OVERLAP for box in boxes)
        for face in picture.beside
    )
    return sum(hits)


def false(picture: GroupPicture, boxes: Sequence[Box]) -> int:
    """Boxes that touch no planted face."""
    misses = (
        all(intersection_over_union(box, face.box) < FALSE_OVERLAP for face in picture.faces) for box in boxes
    )
    return sum(misses)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds lfw")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    began = commit()
    counts: Counter[tuple[tuple[int, int], int, str]] = Counter()
    seconds: dict[tuple[tuple[int, int], str], list[float]] = {}
    for picture in pictures(options.data):
        down, across = picture.pixels.shape[:2]
        canvas, height = (across, down), picture.beside[0].height
        for name, tiles in (("shrunk", False), ("tiles", True)):
            start = time.monotonic()
            looked = DetectorOptions(max_side=WHOLE, threshold=THRESHOLD, tiles=tiles)
            boxes = [one.box for one in detection.find_boxes(picture.pixels, "centerface", looked)]
            seconds.setdefault((canvas, name), []).append(time.monotonic() - start)
            counts[canvas, height, name] += found(picture, boxes)
            counts[canvas, 0, f"false, {name}"] += false(picture, boxes)
        counts[canvas, height, "faces"] += len(picture.beside)
        counts[canvas, 0, "pictures"] += 1
        try:
            written = Pipeline("mask").anonymize_picture(picture.pixels)
        except LeakError:
            counts[canvas, height, "refused"] += len(picture.beside)
        else:
            counts[canvas, height, "bare"] += sum(
                not eyes_hidden(face, written.pixels) for face in picture.beside
            )
    names = {canvas: f"{canvas[0]} × {canvas[1]}" for canvas in CANVASES}
    rows, costs = [], []
    for canvas, name in names.items():
        for height in HEIGHTS:
            faces = counts[canvas, height, "faces"]
            shares = (
                percent(counts[canvas, height, key], faces) for key in ("shrunk", "tiles", "bare", "refused")
            )
            rows.append([name, str(height), *shares])
        taken = (f"{np.median(seconds[canvas, way]):.1f}" for way in ("shrunk", "tiles"))
        wrong = (counts[canvas, 0, f"false, {way}"] for way in ("shrunk", "tiles"))
        costs.append([name, *taken, *(f"{count / counts[canvas, 0, 'pictures']:.1f}" for count in wrong)])
    lines = [
        "# Large pictures",
        "",
        "Command: `python benchmarks/large_pictures.py --data $AGEVEIL_DATA --out "
        f"benchmarks/large_pictures.md`. At {began}, {date.today()}, {os.cpu_count()} cores of "
        f"{processor()}, Python {platform.python_version()}. Seed {SEED}.",
        "",
        *prose(f"""Composed as for [detectors.md](detectors.md), of the same people, on larger canvases: one
        upright face of 160 px and five of one height, {PICTURES} pictures of each kind. CenterFace at its low
        threshold, {THRESHOLD}: in the picture shrunk to {WHOLE} pixels alone, and in tiles of full size as
        well, as `ageveil anonymize` looks. Bare and refused: what `anonymize` with a mask came to. Shares of
        the small faces, with exact 95 % intervals."""),
        *table(("picture", "px high", "found shrunk, %", "found in tiles, %", "bare, %", "refused, %"), rows),
        *prose("""What it costs: seconds of one search on all cores (median), and boxes that touch no planted
        face, of which some are parts of bystanders in the background; they are hidden too."""),
        *table(("picture", "s, shrunk", "s, tiles", "false, shrunk", "false, tiles"), costs),
    ]
    options.out.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
