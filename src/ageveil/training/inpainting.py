"""Train the network that paints hidden faces back, and write it as ONNX.

It needs no names and no labels: any face, and what an approach makes of it, is an example.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ageveil.errors import DataError, ModelError
from ageveil.files import make_directory, write_bytes
from ageveil.training.checkpoints import DAMAGE
from ageveil.training.export import opened, round_weights, traced
from ageveil.training.faces import FacePool, HiddenFaces, worker_options
from ageveil.training.inpainter import SIDE, WIDTHS, Inpainter
from ageveil.training.splits import split_validation
from ageveil.types import AnonymizedFace

BEST_FILE, LAST_FILE = "best.safetensors", "last.pt"
"""What lies in the folder of a run: the weights that did best on held-out faces, and where to go on."""

TOLERANCE = 0.5
"""Largest difference in grey levels between PyTorch and ONNX Runtime, before weights are rounded."""

ROUNDING = 2.0
"""Largest mean difference in grey levels that rounding the weights may make where a face was hidden."""

Pair = tuple[Tensor, Tensor, Tensor]
"""An anonymized crop and the bare one, shape (112, 112, 3), uint8, and what is hidden, shape (112, 112)."""

_SHARPNESS = 1.0  # of the error in differences between neighbours, beside the error in colours


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained.

    Attributes:
        approaches: Share of each approach behind which faces are hidden; they need not sum to 1.
        widths: Of the network.
        epochs: Passes over the training faces.
        batch: Faces that are learned from at once.
        learning_rate: The highest; it rises over the first steps and falls as a cosine.
        average: Weight of what was in the running mean of the weights, which is what is kept.
        share: Of the faces that are held out to choose by.
        judged: Of those, so many are looked at, at most.
        every: Steps from one look, and one checkpoint, to the next.
        seed: Of the order, of variations and of draws.

    Raises:
        ValueError: There is no approach, or a number is not above 0.
    """

    approaches: Mapping[str, float] = field(
        default_factory=lambda: {"mask": 0.35, "mosaic": 0.3, "blur": 0.2, "grid": 0.15}
    )
    widths: tuple[int, ...] = WIDTHS
    epochs: int = 3
    batch: int = 32
    learning_rate: float = 2e-3
    average: float = 0.995
    share: float = 0.1
    judged: int = 512
    every: int = 250
    seed: int = 2018

    def __post_init__(self) -> None:
        numbers = (self.epochs, self.batch, self.learning_rate, self.judged, self.every)
        if not self.approaches or min(*self.approaches.values(), *numbers) <= 0:
            raise ValueError(f"expected approaches and numbers above 0, got {self}")

    def digest(self) -> str:
        """SHA-256 of all that it says, 64 hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Pairs(Dataset[Pair]):
    """Faces with what an approach makes of them, drawn from the seed alone; asked for by (epoch, face).

    Args:
        pool: All faces.
        plan: Names the approaches and the seed.
        varied: Vary the crops first; the same face then differs from epoch to epoch.
    """

    def __init__(self, pool: FacePool, plan: Plan, *, varied: bool) -> None:
        self._faces = HiddenFaces(pool, plan.approaches, varied=varied, seed=plan.seed)

    def __getitem__(self, key: tuple[int, int]) -> Pair:
        epoch, index = key
        crop, face = self._faces.draw(index, epoch)
        return pair(crop.pixels, face)


def pair(bare: NDArray[np.uint8], face: AnonymizedFace) -> Pair:
    """A face as training sees it, reduced by averaging as the network itself does.

    Args:
        bare: The crop, shape (S, S, 3).
        face: What an approach made of it.
    """
    hidden = np.zeros(face.pixels.shape[:2], np.float32)
    x0, y0, x1, y1 = face.receipt.region
    hidden[y0:y1, x0:x1] = 1
    small = [
        torch.from_numpy(np.asarray(cv2.resize(array, (SIDE, SIDE), interpolation=cv2.INTER_AREA)))
        for array in (face.pixels, bare, hidden)
    ]
    return small[0], small[1], small[2]


def loss(painted: Tensor, bare: Tensor, hidden: Tensor) -> Tensor:
    """How far off a painting is where a face was hidden, for each face, in grey levels.

    The mean absolute error of the colours, and that of the differences between neighbouring pixels: colours
    alone are best guessed by a smear.

    Args:
        painted: Shape (N, 3, H, W).
        bare: Shape (N, 3, H, W).
        hidden: Share of each pixel that was hidden, shape (N, 1, H, W).

    Returns:
        Shape (N,).

    Source:
        Mathieu, Couprie and LeCun 2016, "Deep multi-scale video prediction beyond mean square error", for
        the second part.
    """
    error = painted.float() - bare.float()

    def mean(values: Tensor, where: Tensor) -> Tensor:
        total: Tensor = (values.abs() * where).sum((1, 2, 3))
        return total / (values.shape[1] * where.sum((1, 2, 3))).clamp(min=1)

    across, down = error.diff(dim=3), error.diff(dim=2)
    sharpness = mean(across, hidden[..., 1:]) + mean(down, hidden[:, :, 1:])
    return mean(error, hidden) + _SHARPNESS * sharpness


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        network: With the weights that did best.
        best: Their loss on the held-out faces, in grey levels.
        untouched: That of leaving the anonymized faces as they are.
        training_faces: Faces that were learned from.
        held_out: Faces that were looked at to choose.
    """

    network: Inpainter
    best: float
    untouched: float
    training_faces: int
    held_out: int


def train(
    pool: FacePool,
    plan: Plan,
    folder: Path,
    *,
    device: str = "auto",
    workers: int = 1,
    limit: int | None = None,
    announce: Callable[[int, int, float], None] = lambda *_: None,
) -> Run:
    """Train, or go on where an interrupted run stopped.

    Args:
        pool: Faces.
        plan: What is trained.
        folder: Of the run; a checkpoint is kept in it.
        device: "cpu", "cuda" or "auto".
        workers: Processes that prepare faces; 0 does it in this one.
        limit: Only so many faces of each part, for a dry run.
        announce: Called after each look at the held-out faces with the steps done, all steps, and the loss.

    Raises:
        DataError: There are too few faces, the folder holds the run of another plan or of other faces, or
            one of its files is damaged or missing.
        OutputError: The folder cannot be written.
    """
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    training, held_out = _split(pool, plan, limit)
    batches = _batches(training, plan)
    state = _State.begin(plan, torch.device(place), len(batches), _mark(pool, plan, training, held_out))
    make_directory(folder)
    state.resume(folder / LAST_FILE)
    judges = list(_loader(Pairs(pool, plan, varied=False), _cut([(0, i) for i in held_out], plan.batch), 0))
    left = batches[state.step :]
    for pairs in _loader(Pairs(pool, plan, varied=True), left, workers) if left else ():
        state.learn(pairs)
        if state.step % plan.every == 0 or state.step == len(batches):
            judged = state.judge(judges)
            if state.keep(judged):
                write_bytes(folder / BEST_FILE, [safetensors.torch.save(state.best_weights())])
            state.save(folder / LAST_FILE)
            announce(state.step, len(batches), judged)
    network = _best(folder, plan)
    untouched = torch.cat([loss(*_pictures(pairs, "cpu")) for pairs in judges]).mean().item()
    return Run(network.eval(), state.best, untouched, len(training), len(held_out))


def _best(folder: Path, plan: Plan) -> Inpainter:
    """The network with the weights that did best.

    Raises:
        DataError: Their file is damaged or missing.
    """
    network = Inpainter(plan.widths)
    try:
        network.load_state_dict(safetensors.torch.load((folder / BEST_FILE).read_bytes()))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{folder / BEST_FILE} is damaged or missing: remove {LAST_FILE} beside it, and training starts "
            "anew"
        ) from error
    return network


def _split(pool: FacePool, plan: Plan, limit: int | None) -> tuple[list[int], list[int]]:
    parts = split_validation(pool.images, share=plan.share, seed=plan.seed)
    training, held_out = (part[pool.usable[part]][:limit].tolist() for part in parts)
    held_out = held_out[: plan.judged]
    if len(training) < plan.batch or not held_out:
        raise DataError(
            f"expected {plan.batch} faces or more to learn from and some held out, got {len(training)} and "
            f"{len(held_out)}"
        )
    return training, held_out


def _batches(training: Sequence[int], plan: Plan) -> list[list[tuple[int, int]]]:
    """(epoch, face) for every step of a run, in order; whole batches alone."""
    found = []
    for epoch in range(plan.epochs):
        order = np.random.default_rng([plan.seed, epoch]).permutation(training).tolist()
        whole = len(order) // plan.batch * plan.batch
        found += _cut([(epoch, index) for index in order[:whole]], plan.batch)
    return found


def _cut(keys: list[tuple[int, int]], size: int) -> list[list[tuple[int, int]]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _mark(pool: FacePool, plan: Plan, training: Sequence[int], held_out: Sequence[int]) -> str:
    """What tells runs apart whose checkpoints do not fit each other."""
    return hashlib.sha256(repr((plan.digest(), pool.digest(), training, held_out)).encode()).hexdigest()


def _loader(pairs: Pairs, batches: list[list[tuple[int, int]]], workers: int) -> DataLoader[Any]:
    return DataLoader(pairs, batch_sampler=batches, **worker_options(workers))


def _pictures(pairs: Sequence[Tensor], device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """A batch as the network takes it: colours before and after, shape (N, 3, H, W), and what is hidden."""
    given, bare, hidden = (part.to(device, non_blocking=True) for part in pairs)
    return given.permute(0, 3, 1, 2).float(), bare.permute(0, 3, 1, 2).float(), hidden.unsqueeze(1)


@dataclass(slots=True, eq=False)
class _State:
    """A run under way: the network, the mean of its weights, and how far it is."""

    plan: Plan
    device: torch.device
    mark: str
    network: Inpainter
    mean: Inpainter
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    step: int = 0
    best: float = math.inf

    @classmethod
    def begin(cls, plan: Plan, device: torch.device, steps: int, mark: str) -> _State:
        torch.manual_seed(plan.seed)
        # PyTorch's stubs do not know this form.
        network: Inpainter = Inpainter(plan.widths).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean: Inpainter = Inpainter(plan.widths).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean.load_state_dict(network.state_dict())
        optimizer = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=1e-3)

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return cls(plan, device, mark, network, mean, optimizer, schedule)

    def learn(self, pairs: Sequence[Tensor]) -> None:
        given, bare, hidden = _pictures(pairs, self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            painted = self.network.paint(given, hidden)
        loss(painted, bare, hidden).mean().backward()  # type: ignore[no-untyped-call]  # of PyTorch
        nn.utils.clip_grad_norm_(self.network.parameters(), 20.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.step += 1
        share = min(self.plan.average, self.step / (self.step + 10))  # early on the mean would hold the start
        with torch.no_grad():
            for kept, new in zip(self.mean.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, 1 - share)

    def judge(self, judges: Sequence[Sequence[Tensor]]) -> float:
        with torch.inference_mode():
            found = []
            for pairs in judges:
                given, bare, hidden = _pictures(pairs, self.device)
                with torch.autocast(self.device.type, torch.bfloat16):
                    painted = self.mean.paint(given, hidden)
                found.append(loss(painted, bare, hidden))
        return torch.cat(found).mean().item()

    def keep(self, judged: float) -> bool:
        """Whether these weights are the best so far; not where the run went astray."""
        if not math.isfinite(judged):
            raise ModelError("the training went astray: the loss is no number; lower the learning rate")
        better = judged < self.best
        self.best = min(judged, self.best)
        return better

    def best_weights(self) -> dict[str, Tensor]:
        return {name: tensor.cpu().contiguous() for name, tensor in self.mean.state_dict().items()}

    def save(self, path: Path) -> None:
        content = io.BytesIO()
        state = {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "best": self.best,
            "mark": self.mark,
        }
        torch.save(state, content)
        write_bytes(path, [content.getbuffer()])

    def resume(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            kept = torch.load(path, map_location=self.device, weights_only=True)
            if kept["mark"] != self.mark:
                raise DataError(f"{path.parent} holds a run of another plan or of other faces: remove it")
            self.network.load_state_dict(kept["network"])
            self.mean.load_state_dict(kept["mean"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.schedule.load_state_dict(kept["schedule"])
            self.step, self.best = kept["step"], kept["best"]
        except DAMAGE as error:
            raise DataError(f"{path} is damaged: remove it, and training starts anew") from error


def export(
    network: Inpainter,
    path: Path,
    *,
    sample: tuple[NDArray[np.uint8], NDArray[np.bool_]],
    metadata: Mapping[str, Any],
) -> str:
    """Write an inpainter as ONNX with weights of 8 bits, and compare it with the network.

    The graph takes `crops`, shape (N, S, S, 3), uint8 RGB, and `hidden`, shape (N, S, S), bool; N and S are
    free. It returns `restored`, shape (N, S, S, 3), float32 in [0, 255].

    Args:
        network: Trained.
        path: Where to write.
        sample: Anonymized crops and where they are hidden, to compare on.
        metadata: JSON values by name; they travel inside the file.

    Returns:
        SHA-256 of the file, 64 hex digits.

    Raises:
        ModelError: PyTorch and ONNX Runtime differ by more than 0.5 grey levels, or rounding the weights
            changes what is painted by more than 2 on average; nothing is written.
        OutputError: The file cannot be written.
    """
    crops, hidden = (torch.from_numpy(array) for array in sample)
    with torch.inference_mode():
        expected = network.eval()(crops, hidden).numpy()
    model = _graph(network, (crops[:2], hidden[:2]))
    difference = np.abs(_painted(model, sample) - expected).max()
    if not difference <= TOLERANCE:  # NaN must not pass
        raise ModelError(f"PyTorch and ONNX Runtime differ by {difference:.2g} grey levels")
    round_weights(model, "int8")
    rounding = np.abs(_painted(model, sample) - expected)[sample[1]].mean()
    if not rounding <= ROUNDING:
        raise ModelError(f"weights in int8 change the picture by {rounding:.2g} grey levels on average")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    data = model.SerializeToString()
    write_bytes(path, [data])
    return hashlib.sha256(data).hexdigest()


def _graph(network: Inpainter, example: tuple[Tensor, Tensor]) -> onnx.ModelProto:
    faces, side = torch.export.Dim("faces", min=1), torch.export.Dim("side", min=32)
    free = {0: faces, 1: side, 2: side}
    return traced(network, example, ["crops", "hidden"], ["restored"], (free, free))


def _painted(
    model: onnx.ModelProto, sample: tuple[NDArray[np.uint8], NDArray[np.bool_]]
) -> NDArray[np.float32]:
    return opened(model).run(crops=sample[0], hidden=sample[1])[0]
