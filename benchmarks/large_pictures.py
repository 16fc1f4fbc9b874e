"""Measure how many small faces stay bare in large pictures, where the search alone would shrink them.

    python benchmarks/large_pictures.py --data $AGEVEIL_DATA --out benchmarks/large_pictures.md

Composed as for benchmarks/detectors.py, on larger canvases: one face of 160 pixels and five small ones. Takes
about seven minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from ageveil import detection
from ageveil.cli.circumstances import commit
from ageveil.detection import DetectorOptions
from detectors import (
    PEOPLE,
    PORTRAITS,
    SEED,
    WHOLE,
    GroupCount,
    LeakCount,
    anonymize,
    note,
    percent,
    processor,
    prose,
    share_of,
    table,
)
from group_pictures import GroupPicture, compose, find_portraits, lfw_photographs

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


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds lfw")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    began = commit()
    searched = {(canvas, tiles): GroupCount() for canvas in CANVASES for tiles in (False, True)}
    seconds: dict[tuple[tuple[int, int], bool], list[float]] = {key: [] for key in searched}
    written = {(canvas, height): LeakCount() for canvas in CANVASES for height in HEIGHTS}
    for picture in pictures(options.data):
        down, across = picture.pixels.shape[:2]
        for tiles in (False, True):
            looked = DetectorOptions(max_side=WHOLE, threshold=THRESHOLD, tiles=tiles)
            start = time.monotonic()
            proposals = detection.find_boxes(picture.pixels, "centerface", looked)
            seconds[(across, down), tiles].append(time.monotonic() - start)
            searched[(across, down), tiles].add([proposal.box for proposal in proposals], picture)
        written[(across, down), picture.beside[0].height].add(picture, anonymize(picture.pixels))
    rows, costs = [], []
    for canvas in CANVASES:
        name, ways = f"{canvas[0]} × {canvas[1]}", [searched[canvas, tiles] for tiles in (False, True)]
        for height in HEIGHTS:
            leaks = written[canvas, height]
            shares = [share_of(way.upright, height) for way in ways]
            rows.append([name, str(height), *shares, percent(leaks.bare, leaks.faces)])
            rows[-1].append(percent(leaks.pictures["refused"], leaks.pictures.total()))
        taken = (f"{np.median(seconds[canvas, tiles]):.1f}" for tiles in (False, True))
        costs.append([name, *taken, *(f"{way.false / way.pictures:.1f}" for way in ways)])
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
        the small faces, refused ones of the pictures, with exact 95 % intervals."""),
        *table(("picture", "px high", "found shrunk, %", "found in tiles, %", "bare, %", "refused, %"), rows),
        *prose("""What it costs: seconds of one search on all cores (median), and boxes that touch no planted
        face, of which some are parts of bystanders in the background; they are hidden too."""),
        *table(("picture", "s, shrunk", "s, tiles", "false, shrunk", "false, tiles"), costs),
    ]
    options.out.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
