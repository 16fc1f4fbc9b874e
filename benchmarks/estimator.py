"""Measure how fast estimators answer and train, beside the machine's own matrix multiplication.

    python benchmarks/estimator.py --out benchmarks/estimator.md

Networks are mostly matrix products, so the yardstick is float32 matrix multiplication by PyTorch on as many
threads, measured in turn with the network. A ratio of 1 to "its arithmetic" would mean that a network runs as
fast as the multiplications in it alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ageveil import estimation
from ageveil.anonymization import anonymize_crop
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.runtime import Session, open_session
from ageveil.training.export import export
from ageveil.training.networks import get_network
from ageveil.types import AnonymizedFace
from speed import PORTRAIT, heading, in_turn, process, seconds, summary

_SIDE = 1536  # of the yardstick's matrices: 7.2 GFLOP a product
_RUNS = 15
_READERS = ("cells", "cells-small", "veil")  # of crops that show no face any more


def gflop(network: str, side: int) -> float:
    """Arithmetic of one crop in a network, in 10**9 operations; a multiplication and an addition are two."""
    total = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Conv2d):
            per_place = module.weight[0].numel() * module.out_channels
            total += 2 * per_place * output.shape[2] * output.shape[3]
        elif isinstance(module, torch.nn.Linear):
            total += 2 * module.weight.numel()

    built = get_network(network).build(side).eval()
    for module in built.modules():
        module.register_forward_hook(count)
    crops, mask = (
        torch.zeros(1, side, side, 3, dtype=torch.uint8),
        torch.zeros(1, side, side, dtype=torch.bool),
    )
    with torch.inference_mode():
        built(crops, mask)
    return total / 1e9


def multiplication(threads: int, kind: torch.dtype = torch.float32) -> Callable[[], float]:
    """Seconds that 10**9 operations of a matrix product take."""
    a, b = (torch.rand(_SIDE, _SIDE).to(kind) for _ in range(2))

    def run() -> float:
        torch.set_num_threads(threads)
        return seconds(lambda: a @ b) / (2 * _SIDE**3 / 1e9)

    return run


def faces(count: int) -> list[AnonymizedFace]:
    """Masked faces of 224 pixels."""
    _, crop = Pipeline("mask").align_viewer(read_image(PORTRAIT))
    return [anonymize_crop(crop, "mask") for _ in range(count)]


def serving_table() -> list[str]:
    """Each installed model on one crop and one core, and on batches of 32 and two cores."""
    lines = [
        "| model | one crop, one core, ms | × its arithmetic | 32 at a time, two cores, faces/s | MiB |",
        "|---|---|---|---|---|",
    ]
    one, batch = faces(1), faces(32)
    for name, entry in estimation.MODELS.items():
        times = in_turn(
            {
                "one": lambda name=name: seconds(lambda: estimation.estimate(one, name, threads=1)),  # type: ignore[misc]
                "product": multiplication(1),
                "batch": lambda name=name: seconds(lambda: estimation.estimate(batch, name, threads=2)),  # type: ignore[misc]
            },
            _RUNS,
        )
        share = ""
        if (arithmetic := _arithmetic(entry)) is not None:
            ratio = statistics.median(
                a / (b * arithmetic) for a, b in zip(times["one"], times["product"], strict=True)
            )
            share = f"{ratio:.2f} ({arithmetic:.2f} GFLOP)"
        rate = 32 / statistics.median(times["batch"])
        lines.append(f"| {name} | {summary(times['one'])} | {share} | {rate:.0f} | {_memory(name):.0f} |")
    return lines


def _arithmetic(entry: estimation.Estimator) -> float | None:
    metadata = open_session(entry.weights, 1).metadata
    if "network" not in metadata:
        return None
    facts = (json.loads(metadata[key]) for key in ("network", "side"))
    names, sides = (fact if isinstance(fact, list) else [fact] for fact in facts)
    looking = [name for name in names if name not in _READERS]
    total = sum(gflop(name, side) for name, side in zip(looking, sides, strict=True))
    # Of the network that paints veils, three layers over two numbers are in the graph: next to nothing.
    return total + sum(gflop(name, get_network(name).side) for name in names if name.startswith("cells"))


def _memory(name: str) -> float:
    """Peak memory of a process that loads a model and estimates one crop, in MiB."""
    code = (
        "import numpy as np; from ageveil import estimation\n"
        "from ageveil.types import AnonymizedFace, Receipt\n"
        "receipt = Receipt('mask', {}, (20, 40, 200, 100), (20, 40, 200, 100), (224, 224))\n"
        "face = AnonymizedFace(np.zeros((224, 224, 3), np.uint8), np.zeros((224, 224), bool), receipt)\n"
        f"estimation.estimate([face], {name!r}, threads=1)"
    )
    return process(sys.executable, "-c", code)[1]


def paper_table() -> list[str]:
    """The paper's two networks at their own 224 pixels, exported as shipped but with random weights."""
    lines = [
        "| network | side | one crop, one core, ms | × its arithmetic | two cores, ms | × its arithmetic |",
        "|---|---|---|---|---|---|",
    ]
    rng = np.random.default_rng(0)
    crops, mask = rng.integers(0, 256, (2, 224, 224, 3), np.uint8), np.zeros((2, 224, 224), bool)
    mask[:, 60:110, 30:190] = True
    for name in ("vgg16", "vgg16-attention"):
        with tempfile.TemporaryDirectory() as folder:
            network = get_network(name).build(224)
            path = Path(folder, f"{name}.onnx")
            export(network, path, metadata={"name": name}, precision="int8", sample=(crops, mask))
            cells = []
            for threads in (1, 2):
                session = Session(path, threads=threads)
                run = functools.partial(session.run, crops=crops[:1], eye_mask=mask[:1])
                times = in_turn(
                    {"run": functools.partial(seconds, run), "product": multiplication(threads)}, _RUNS
                )
                arithmetic = gflop(name, 224)
                pairs = zip(times["run"], times["product"], strict=True)
                ratio = statistics.median(a / (b * arithmetic) for a, b in pairs)
                cells += [summary(times["run"]), f"{ratio:.2f} ({arithmetic:.1f} GFLOP)"]
        lines.append(f"| {name} | 224 | {' | '.join(cells)} |")
    return lines


def training_table() -> list[str]:
    """Training steps on two cores in float32 and bfloat16, against the machine's own products in each."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    head = " | ".join(f"{kind}, faces/s | of the product's rate, %" for kind in kinds)
    lines = [f"| network | side | batch | {head} |", "|---|---|---|" + "---|" * 2 * len(kinds)]
    trained = (
        ("inception-resnet-small", 112, 64),
        ("inception-resnet", 160, 64),
        ("mobilenet", 192, 64),
        ("efficientnet-lite0", 160, 64),
        ("vgg16", 160, 32),
    )
    for name, side, size in trained:
        cells = []
        for kind in kinds.values():
            step = _step(name, side, size, kind)
            times = in_turn({"step": step, "product": multiplication(2, kind)}, 5)
            # Forward, gradients of the inputs and gradients of the weights cost about the same.
            needed = [3 * gflop(name, side) * size * product for product in times["product"]]
            share = statistics.median(a / b for a, b in zip(needed, times["step"], strict=True))
            rate = size / statistics.median(times["step"])
            cells.append(f"{rate:.0f} | {100 * share:.0f}")
        lines.append(f"| {name} | {side} | {size} | {' | '.join(cells)} |")
    return lines


def _step(name: str, side: int, size: int, kind: torch.dtype) -> Callable[[], float]:
    network = get_network(name).build(side)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-6)
    crops = torch.randint(0, 256, (size, 224, 224, 3), dtype=torch.uint8)
    mask = torch.zeros(size, 224, 224, dtype=torch.bool)

    def run() -> float:
        torch.set_num_threads(2)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            logits = network(crops, mask)
        logits.float().logsumexp(1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return run


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    command = "python benchmarks/estimator.py --out benchmarks/estimator.md"
    lines = heading("How fast estimators answer and train", command, ("numpy", "onnxruntime", "torch"))
    lines += [
        "× its arithmetic: time over that of as many float32 operations in matrix products on the same",
        "cores; 1 is as fast as these alone, and a model that counts in 8 bits, as `ageveil` does, can be",
        "faster. MiB: peak memory of a process that answers one crop.",
        "",
    ]
    lines += serving_table()
    lines += ["", "The paper's networks at the paper's side:", "", *paper_table()]
    lines += [
        "",
        "Training, preparation of the faces left out; a square product of the same kind is the yardstick,",
        "and not the most that the processor can do. bfloat16 is not faster on every processor: a recipe",
        "chooses by `precision`.",
        "",
        *training_table(),
    ]
    out.write_text("\n".join(lines) + "\n", "utf-8")
    print(out.read_text("utf-8"))


if __name__ == "__main__":
    main()
