"""Does attention help? Baseline and attention over three seeds, and how far the last convolution sees.

    python recipes/vgg16/seeds.py PREPARED RUNS

PREPARED holds the crops of UTKFace's test part as `utkface-test`, RUNS the runs of baseline.toml and
attention.toml and of the same with --seed 2019 and 2020. Writes seeds.json beside this file:

- accuracy of each run behind mask and mosaic and on bare faces, in bfloat16 as they were trained;
- the mean over the seeds of attention less baseline, in points, with a bootstrap interval over faces that are
  the same in both. The seeds are chance of the last stage alone, since all start from one first stage; the
  interval is about other faces, not about other trainings, of which `by_seed` gives an idea;
- how much of the last convolution's maps the mask changes outside the eye region, where attention leaves
  them: by distance from the region, the norm of the change over the norm of the bare face's maps.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from ageveil import anonymization
from ageveil.cli.circumstances import commit
from ageveil.draws import ChaChaDraws
from ageveil.evaluation.intervals import Estimate, bootstrap
from ageveil.training import engine, faces
from ageveil.training.networks import Vgg16
from ageveil.training.prepared import PreparedFaces, load_prepared

HERE = Path(__file__).parent
SEEDS = {"2018": "", "2019": "-seed-2019", "2020": "-seed-2020"}
APPROACHES = ("mask", "mosaic", "original")
BATCH = 64
FIELD_FACES = 512


def batches(
    prepared: PreparedFaces, chosen: NDArray[np.int64], approach: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Crops and eye masks behind an approach."""
    for start in range(0, len(chosen), BATCH):
        hidden = [
            anonymization.anonymize_crop(
                prepared.crop(index), approach, rng=ChaChaDraws(int(index).to_bytes(32, "big"))
            )
            for index in chosen[start : start + BATCH].tolist()
        ]
        yield (
            torch.from_numpy(np.stack([face.pixels for face in hidden])),
            torch.from_numpy(np.stack([face.eye_mask for face in hidden])),
        )


def groups(
    network: Vgg16, prepared: PreparedFaces, chosen: NDArray[np.int64], approach: str
) -> NDArray[np.int64]:
    """The most probable group of each face."""
    found = []
    for crops, masks in track(batches(prepared, chosen, approach), f"{approach}", -(-len(chosen) // BATCH)):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found.append(network(crops, masks).float().argmax(1).numpy())
    return np.concatenate(found)


def field(network: Vgg16, prepared: PreparedFaces, chosen: NDArray[np.int64]) -> dict[str, float]:
    """Relative change of the last convolution's maps behind the mask, by cells from the eye region."""
    change: dict[int, float] = {}
    size: dict[int, float] = {}
    pairs = zip(batches(prepared, chosen, "original"), batches(prepared, chosen, "mask"), strict=True)
    for (bare, masks), (masked, _) in track(pairs, "receptive field", -(-len(chosen) // BATCH)):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            maps = [last_maps(network, crops, masks) for crops in (bare, masked)]
        _, small = network.resized(bare, masks)
        inside = (functional.avg_pool2d(small, 16) > 0).float()
        away, reached = torch.full_like(inside, 99), inside
        for distance in range(8):
            away = torch.where((reached > 0) & (away == 99), float(distance), away)
            reached = functional.max_pool2d(reached, 3, 1, 1)
        for distance in range(8):
            cells = (away == distance).float()
            change[distance] = change.get(distance, 0) + float((((maps[0] - maps[1]) ** 2) * cells).sum())
            size[distance] = size.get(distance, 0) + float((maps[0] ** 2 * cells).sum())
    return {str(d): round((change[d] / size[d]) ** 0.5, 4) for d in change if size[d] > 0}


def last_maps(network: Vgg16, crops: Tensor, masks: Tensor) -> Tensor:
    """G1, before attention multiplies it: shape (N, 512, side / 16, side / 16)."""
    colours, _ = network.resized(crops, masks)
    maps: Tensor = network.features((colours - network.mean).contiguous(memory_format=torch.channels_last))
    return maps.float()


def load(run: Path) -> Vgg16:
    """The network of a run."""
    network = cast(Vgg16, engine.load_run(run)[0])
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def main(prepared_folder: str, runs: str) -> None:
    """Measure and write."""
    start, began_at = time.monotonic(), commit()
    prepared = load_prepared(Path(prepared_folder, "utkface-test"))
    pool = faces.FacePool.of([prepared])
    true = np.array([-1 if image.age_group is None else image.age_group for image in prepared.images])
    chosen = np.flatnonzero((true >= 0) & pool.usable)
    true = true[chosen]
    right: dict[tuple[str, str, str], NDArray[np.bool_]] = {}
    near: dict[tuple[str, str, str], NDArray[np.bool_]] = {}
    for seed, suffix in SEEDS.items():
        for name in ("vgg16", "vgg16-attention"):
            network = load(Path(runs, name + suffix))
            for approach in APPROACHES:
                said = groups(network, prepared, chosen, approach)
                right[seed, name, approach] = said == true
                near[seed, name, approach] = np.abs(said - true) <= 1
    baseline = load(Path(runs, "vgg16"))

    def difference(hits: dict[tuple[str, str, str], NDArray[np.bool_]], approach: str) -> Estimate:
        gain = np.mean(
            [
                hits[seed, "vgg16-attention", approach].astype(float) - hits[seed, "vgg16", approach]
                for seed in SEEDS
            ],
            axis=0,
        )
        return bootstrap(lambda weights: 100 * float(weights @ gain) / len(gain), len(gain), seed=0)

    def interval(estimate: Estimate) -> dict[str, float]:
        return {name: round(getattr(estimate, name), 2) for name in ("value", "low", "high")}

    record = {
        "command": "python recipes/vgg16/seeds.py prepared runs",
        "commit": began_at,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, PyTorch {torch.__version__}, bfloat16",
        "faces": len(chosen),
        "runs": [
            {
                "model": name, "seed": seed, "approach": approach,
                "exact": round(100 * float(hits.mean()), 2),
                "one_off": round(100 * float(near[seed, name, approach].mean()), 2),
            }
            for (seed, name, approach), hits in right.items()
        ],
        "attention_less_baseline": [
            {
                "approach": approach,
                "exact": interval(difference(right, approach)),
                "one_off": interval(difference(near, approach)),
                "by_seed": [
                    round(
                        100 * float(right[seed, "vgg16-attention", approach].mean())
                        - 100 * float(right[seed, "vgg16", approach].mean()),
                        2,
                    )
                    for seed in SEEDS
                ],
            }
            for approach in APPROACHES
        ],
        "change_outside_the_eyes": field(baseline, prepared, chosen[:: max(1, len(chosen) // FIELD_FACES)]),
        "seconds": round(time.monotonic() - start),
    }  # fmt: skip
    (HERE / "seeds.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
