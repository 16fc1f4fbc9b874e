"""Run a recipe: train, validate, keep checkpoints, resume, and write the weights of the best epoch."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import safetensors.torch
import torch
from lightning.pytorch import callbacks as pl_callbacks
from lightning.pytorch import loggers as pl_loggers
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from ageveil import estimation
from ageveil.errors import DataError, ModelError, OutputError
from ageveil.files import write_bytes, write_text
from ageveil.training import initial, losses
from ageveil.training.checkpoints import DAMAGE, Checkpoint, EarlyStopping, Progress, WholeFiles
from ageveil.training.faces import (
    EpochSampler,
    FacePool,
    TrainingFaces,
    ValidationFaces,
    anonymize_repeatably,
    worker_options,
)
from ageveil.training.networks import AgeNetwork, get_network
from ageveil.training.preparation import load_prepared
from ageveil.training.recipes import Recipe
from ageveil.training.splits import covers, split_fold, split_validation
from ageveil.types import AGE_GROUPS, MAX_AGE, AnonymizedFace, Resolution

WEIGHTS_FILE, RECIPE_FILE, LAST_FILE = "weights.safetensors", "recipe.json", "last.ckpt"
"""What lies in the folder of a run: the best weights, the recipe, and where to go on."""

FACES_FILE = "faces.json"
"""Which faces a run trains and validates on: their numbers and a checksum, no names."""

_LEAST_BELIEF = 1e-6  # in any group: a teacher may have put all its belief into the years between them

_NO_GROUP = -1
_GROUP_OF_YEAR = torch.full((MAX_AGE + 1,), _NO_GROUP)
for _index, (_low, _high) in enumerate(AGE_GROUPS):
    _GROUP_OF_YEAR[_low : _high + 1] = _index


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where a run happens; the same recipe runs on all of it.

    Attributes:
        accelerator: "auto", "cpu" or "gpu", as Lightning names it.
        devices: Number of devices on each machine.
        nodes: Number of machines.
        workers: Processes that prepare faces, and as many for validation; 0 does it in the training process.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 2

    @property
    def world(self) -> int:
        """Processes that train together, one for each device."""
        return self.devices * self.nodes


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        folder: Holds the weights, the recipe, the last checkpoint and the logs.
        best_loss: Validation loss of the weights that were kept.
        epochs: Passes over the training faces that were made.
        diverged: Whether the last of them ended it, since its validation loss was no finite number; the
            weights that were kept are of an earlier one.
        training_faces: Faces trained on.
        validation_faces: Faces kept out.
        first: Whether this process is the first of those that trained together: the one that reports.
    """

    folder: Path
    best_loss: float
    epochs: int
    diverged: bool
    training_faces: int
    validation_faces: int
    first: bool


class _Engine(pl.LightningModule):
    """One network with its loss and its optimizer, as Lightning wants them together."""

    def __init__(
        self,
        network: AgeNetwork,
        recipe: Recipe,
        pool: FacePool,
        validation: NDArray[np.int64],
        total_steps: int,
        fresh: Sequence[str],
        teacher: Tensor | None,
    ) -> None:
        super().__init__()
        # PyTorch's stubs do not know this form.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._recipe, self._total_steps, self._fresh = recipe, total_steps, frozenset(fresh)
        self._low, self._high = torch.from_numpy(pool.low), torch.from_numpy(pool.high)
        self._weights = torch.from_numpy(_emphasis(pool, recipe))
        self._teacher = teacher
        # These gather what all processes saw. A loss that is no number must show.
        low, high = self._low[validation], self._high[validation]
        told = {
            "loss": True,
            "mae": network.resolution == "year" and bool((low == high).any()),
            "exact": bool((_groups_of(low, high) != _NO_GROUP).any()),
        }
        self._seen = torch.nn.ModuleDict(
            {name: MeanMetric(nan_strategy="disable") for name, known in told.items() if known}
        )

    def on_train_batch_start(self, *_: Any) -> None:  # noqa: ANN401 - Lightning's own signature
        # Dropout too depends on the seed, the step and the process alone, so that a resumed run repeats it.
        state = np.random.SeedSequence([self._recipe.seed, self.global_step, self.global_rank])
        torch.manual_seed(int(state.generate_state(1)[0]))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        crops, masks, index = batch
        logits = self.network(crops, masks)
        index = index.cpu()
        loss = self._label_loss(logits, index)
        if self._teacher is not None:
            share = self._recipe.loss.distillation
            target = self._teacher[index].to(logits.device, torch.float32)
            loss = (1 - share) * loss + share * losses.divergence(logits, target)
        weights = self._weights[index].to(logits.device)
        # Gradients are averaged over the processes: together they are those of one batch's weighted mean.
        sums = cast(Tensor, self.all_gather(weights.sum()))
        mean = (loss * weights).sum() * sums.numel() / sums.sum()
        self.log("train/loss", mean, prog_bar=True)
        return mean

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        crops, masks, index = batch
        logits = self.network(crops, masks)
        index = index.cpu()
        self._see("loss", self._label_loss(logits, index))
        probabilities = torch.softmax(logits.float(), 1).cpu()
        true = _groups_of(self._low[index], self._high[index])
        if self.network.resolution == "year":
            exact = self._low[index] == self._high[index]
            error = (probabilities @ torch.arange(MAX_AGE + 1.0) - self._low[index]).abs()
            self._see("mae", error[exact])
            probabilities = _in_groups(probabilities)
        self._see("exact", (probabilities.argmax(1) == true)[true != _NO_GROUP].float())

    def _see(self, name: str, values: Tensor) -> None:
        if name not in self._seen:  # no validation face tells of it
            return
        metric = cast(MeanMetric, self._seen[name])
        if len(values):
            metric.update(values)
        self.log(f"validation/{name}", metric, prog_bar=True)

    def _label_loss(self, logits: Tensor, index: Tensor) -> Tensor:
        low, high = self._low[index].to(logits.device), self._high[index].to(logits.device)
        if self.network.resolution == "year":
            choice = self._recipe.loss
            return losses.year_loss(
                logits,
                low,
                high,
                ranked=choice.ranked,
                grouped=choice.grouped,
                expected=choice.expected,
            )
        return torch.nn.functional.cross_entropy(
            logits.float(),
            _GROUP_OF_YEAR.to(logits.device)[low],
            reduction="none",
            label_smoothing=self._recipe.loss.smoothing,
        )

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of forms
        choice = self._recipe.optimization
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                fresh = name.rsplit(".", 1)[0] in self._fresh
                rate = (choice.head_learning_rate if fresh else None) or choice.learning_rate
                decay = choice.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        parameters = [
            {"params": members, "lr": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items()
        ]
        optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99))

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, choice.warmup_steps))
            return warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / self._total_steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _groups_of(low: Tensor, high: Tensor) -> Tensor:
    """The group that holds each interval of ages, or `_NO_GROUP`; all of shape (N,)."""
    youngest = _GROUP_OF_YEAR[low]
    return torch.where(youngest == _GROUP_OF_YEAR[high], youngest, _NO_GROUP)


def _in_groups(years: Tensor) -> Tensor:
    """Sum probabilities of the years, shape (N, 101), to those of the groups, shape (N, 8)."""
    return torch.stack([years[:, low : high + 1].sum(1) for low, high in AGE_GROUPS], 1)


def train(
    recipe: Recipe,
    *,
    prepared: Path,
    runs: Path,
    hardware: Hardware = Hardware(),
    weights: Path | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> Run:
    """Train what a recipe says, or go on where an interrupted run stopped.

    A checkpoint is written after every epoch; on the same hardware, a run that is resumed ends with the very
    weights of one that was not.

    Args:
        recipe: What to train.
        prepared: Folder that holds the prepared folders that the recipe names.
        runs: The run gets the folder `runs / recipe.name`.
        hardware: Where.
        weights: Folder with files of initial weights; the environment's when left out.
        limit: Only so many faces of each part, for a dry run.
        progress: Show a bar.

    Returns:
        What came out; `run.folder` holds it.

    Raises:
        ValueError: There is no such hardware, or it does not share a batch evenly.
        DataError: A prepared folder is missing or empty, no face is left to train on, there are fewer to
            validate on than devices, the folder of the run was made by another recipe, its last checkpoint is
            damaged, or that of its best epoch is damaged or missing.
        ModelError: Initial weights are missing, damaged or of another architecture, or training diverged.
        OutputError: The run's folder cannot be written.
        KeyboardInterrupt: The run was interrupted; given again, it goes on after its last finished epoch.
    """
    _check_hardware(hardware, recipe.optimization.batch)
    pool = FacePool.of([load_prepared(prepared / name) for name in recipe.data])
    training, validation = split(pool, recipe, limit)
    _check_shared(validation, hardware.world)
    chosen = _checksum(pool, training, validation)
    pl.seed_everything(recipe.seed, verbose=False)
    network, fresh = build(recipe, runs=runs, weights=weights)
    freeze(network, recipe.optimization.frozen)
    taught = _teacher(recipe, runs, network.resolution) if recipe.teacher is not None else None
    folder = _claim(runs / recipe.name, recipe, chosen)
    last = Progress.read(folder / LAST_FILE, recipe.optimization, network)
    if last is not None and last.finished and (folder / WEIGHTS_FILE).exists():
        return Run(
            folder, last.best_loss, last.epochs, last.diverged, len(training), len(validation), _is_first()
        )
    teacher = None
    if taught is not None:
        answer, digest = taught
        named_by = digest + str(chosen["sha256"])
        teacher = _teacher_answers(answer, pool, training, folder, named_by, progress=progress)
        if recipe.loss.bounded:
            teacher = losses.bounded(teacher, torch.from_numpy(pool.low), torch.from_numpy(pool.high))
    # Its notices are of devices and of other products; warnings stay.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if _is_first():
        _keep_logs(folder / "logs")
    steps = max(1, len(training) // recipe.optimization.batch)
    trainer, best = _trainer(recipe, folder, hardware, log_every=min(20, steps), progress=progress)
    loaders = _loaders(recipe, pool, training, validation, hardware, trainer.global_rank)
    steps = len(loaders[0]) * recipe.optimization.epochs
    engine = _Engine(network, recipe, pool, validation, steps, fresh, teacher)
    if last is not None:
        # Lightning asks loaders for their first faces before it names the epoch.
        cast(EpochSampler, loaders[0].sampler).set_epoch(last.epochs)
    try:
        with warnings.catch_warnings():
            # Told once in the documentation instead: few loader processes suffice on few cores.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
            # The run has claimed its folder itself, and put its earlier logs aside.
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            resumed = folder / LAST_FILE if last is not None else None
            trainer.fit(engine, *loaders, ckpt_path=resumed, weights_only=True)
        score = float(best.best_model_score) if best.best_model_score is not None else math.nan
        if not math.isfinite(score):
            raise ModelError(
                f"training diverged: no epoch of {recipe.name} has a finite validation loss; lower its "
                f"learning rate, and remove {folder}"
            )
        if trainer.is_global_zero:
            _keep_best(Path(best.best_model_path), network, folder)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"the run cannot be written to {folder}: {reason}") from error
    except SystemExit:  # Lightning's answer to Ctrl-C; it also stops listening to it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    diverged = cast(EarlyStopping, trainer.early_stopping_callback).diverged
    return Run(
        folder, score, trainer.current_epoch, diverged, len(training), len(validation), trainer.is_global_zero
    )


def _check_hardware(hardware: Hardware, batch: int) -> None:
    if hardware.accelerator not in {"auto", "cpu", "gpu"}:
        raise ValueError(f"an accelerator is auto, cpu or gpu, got {hardware.accelerator!r}")
    if hardware.accelerator == "gpu":
        count = torch.accelerator.device_count()
        if count < hardware.devices:
            raise ValueError(
                f"expected {hardware.devices} GPUs on this machine, found {count}; try auto or cpu"
            )
    if batch % hardware.world:
        raise ValueError(f"a batch of {batch} faces cannot be shared evenly by {hardware.world} devices")


def _check_shared(validation: NDArray[np.int64], world: int) -> None:
    """Check that each device has a face to validate on."""
    if len(validation) < world:
        raise DataError(f"{world} devices need as many validation faces or more, got {len(validation)}")


def _is_first() -> bool:
    """Whether this is the first of the processes that train together, before there is a trainer to ask."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)  # its annotation hides the attribute


def _keep_logs(folder: Path) -> None:
    """Put the table of an interrupted call aside, as metrics-1.csv and so on: the logger begins a new one."""
    table = folder / "metrics.csv"
    if table.exists():
        number = 1 + len(list(folder.glob("metrics-*.csv")))
        table.rename(folder / f"metrics-{number}.csv")


def is_finished(recipe: Recipe, *, prepared: Path, runs: Path) -> bool:
    """Whether the very run that `train` would make is there and finished.

    Raises:
        DataError: The folder holds a run of another recipe or of other faces, or a prepared folder is
            missing.
    """
    folder = runs / recipe.name
    if not (folder / RECIPE_FILE).exists() or not (folder / WEIGHTS_FILE).exists():
        return False
    pool = FacePool.of([load_prepared(prepared / name) for name in recipe.data])
    _claim(folder, recipe, _checksum(pool, *split(pool, recipe)))
    return True


def split(
    pool: FacePool, recipe: Recipe, limit: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the faces that a recipe trains on and of those that it validates on.

    Faces whose eyes lie outside the crop are in neither part, since no approach can hide them; nor are faces
    without an age group where the network knows groups only, nor those of the fold that tests.

    Raises:
        DataError: One of the parts is empty, or a fold is asked for and the faces state none.
    """
    images = pool.images
    choice = recipe.validation
    held = {(low, high): share for low, high, share in choice.hold_out}
    rest = np.arange(len(images))
    if choice.test_fold is not None:
        rest, _ = split_fold(images, choice.test_fold)
    parts = split_validation(
        [images[index] for index in rest], share=choice.share, hold_out=held, seed=choice.seed
    )
    parts = (rest[parts[0]], rest[parts[1]])
    usable = pool.usable.copy()
    if get_network(recipe.network).resolution == "group":
        usable &= [image.age_group is not None for image in images]
    training, validation = (part[usable[part]][:limit] for part in parts)
    if not len(training) or not len(validation):
        raise DataError(
            f"expected faces to train and to validate on, got {len(training)} and {len(validation)}"
        )
    return training, validation


def build(recipe: Recipe, *, runs: Path, weights: Path | None) -> tuple[AgeNetwork, tuple[str, ...]]:
    """The recipe's network with its initial weights, and the names of the layers that are still random."""
    network = get_network(recipe.network).build(recipe.pixels)
    if recipe.initial == "random":
        return network, ()
    if recipe.initial.startswith("run:"):
        earlier = _earlier(runs, recipe.initial.removeprefix("run:"), recipe)
        state = network.inherit(earlier.state_dict())
    else:
        state = network.adapt(initial.load(recipe.initial, weights))
    missing = initial.fit(network, state)
    return network, tuple(sorted({name.rsplit(".", 1)[0] for name in missing}))


def _earlier(runs: Path, name: str, recipe: Recipe) -> AgeNetwork:
    """The network of a run on which another builds: it saw no other data, and kept the same faces out.

    Raises:
        DataError: It did not, so that what validates or tests here would have been learned there; or its
            licence forbids what the recipe's allows.
    """
    network, earlier = load_run(runs / name)
    _check_licence(recipe, name, earlier.licence)
    if other := sorted(set(earlier.data) - set(recipe.data)):
        raise DataError(f"{name} saw data that {recipe.name} does not name: {', '.join(other)}")
    if earlier.validation != recipe.validation:
        raise DataError(
            f"{name} kept other faces out of training than {recipe.name} does: give both recipes the same "
            "section [validation]"
        )
    return network


def freeze(network: AgeNetwork, count: int) -> None:
    """Keep the first `count` convolutions as they are."""
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    for module in convolutions[:count]:
        module.requires_grad_(requires_grad=False)


def load_run(folder: Path) -> tuple[AgeNetwork, Recipe]:
    """The network of a finished run, ready to be used, and its recipe.

    Raises:
        DataError: The run is missing or not finished, or its recipe cannot be read.
        ModelError: Its weights are damaged or of another architecture.
    """
    try:
        recipe = Recipe.model_validate_json((folder / RECIPE_FILE).read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{folder} holds no run: expected {RECIPE_FILE} in it") from error
    except ValueError as error:
        raise DataError(
            f"{RECIPE_FILE} in {folder} is damaged, or says something that this version does not know"
        ) from error
    if not (folder / WEIGHTS_FILE).is_file():
        raise DataError(f"the run in {folder} is not finished: expected {WEIGHTS_FILE} in it")
    network = get_network(recipe.network).build(recipe.pixels)
    missing = initial.fit(network, initial.read_state(folder / WEIGHTS_FILE))
    if missing:
        raise DataError(f"the weights in {folder} lack {missing[0]}")
    return network.eval(), recipe


def _claim(folder: Path, recipe: Recipe, faces: Mapping[str, Any]) -> Path:
    """Make the run's folder, or check that it belongs to the very recipe and faces."""
    path = folder / RECIPE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_text(folder / FACES_FILE, json.dumps(faces) + "\n")
            write_text(path, recipe.model_dump_json(indent=2) + "\n")
        found = Recipe.model_validate_json(path.read_text("utf-8"))
        trained = json.loads((folder / FACES_FILE).read_text("utf-8"))
    except OSError as error:
        raise OutputError(f"the run cannot be written to {folder}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"the recipe or the list of faces in {folder} is damaged") from error
    for what, same in (("recipe", found.digest() == recipe.digest()), ("choice of faces", trained == faces)):
        if not same:
            raise DataError(
                f"{folder} holds a run of another {what}: remove it, or give this one another name"
            )
    return folder


def _checksum(
    pool: FacePool, training: NDArray[np.int64], validation: NDArray[np.int64]
) -> dict[str, int | str]:
    """What tells apart the faces of two runs: how many there are, and a digest of them and of their parts."""
    digest = hashlib.sha256(pool.digest().encode())
    for part in (training, validation):
        digest.update(part.tobytes())
    return {"training": len(training), "validation": len(validation), "sha256": digest.hexdigest()}


def _emphasis(pool: FacePool, recipe: Recipe) -> NDArray[np.float32]:
    weights = np.ones(len(pool), np.float32)
    exact = pool.low == pool.high
    for low, high, weight in recipe.loss.emphasis:
        weights[exact & (pool.low >= low) & (pool.high <= high)] = weight
    return weights


_Answer = Callable[[Sequence[AnonymizedFace]], NDArray[np.floating[Any]]]
"""Bare faces -> probabilities of the years or the groups."""


def _teacher(recipe: Recipe, runs: Path, resolution: Resolution) -> tuple[_Answer, str]:
    """How the recipe's teacher answers, and a digest that no other teacher has.

    Raises:
        DataError: It answers over coarser classes than its pupil, has seen faces that validate here, or comes
            under a licence that forbids what the recipe's allows.
        ModelError: Its weights are missing or damaged.
    """
    if (model := recipe.teaching_model) is not None:
        return _model_teacher(model, recipe, resolution)
    folder = runs / str(recipe.teacher)
    network = _earlier(runs, str(recipe.teacher), recipe)
    put = _translator(recipe, network.resolution, resolution)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)

    def answer(faces: Sequence[AnonymizedFace]) -> NDArray[np.floating[Any]]:
        crops = torch.from_numpy(np.stack([face.pixels for face in faces])).to(device)
        masks = torch.from_numpy(np.stack([face.eye_mask for face in faces])).to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            return put(torch.softmax(network(crops, masks).float(), 1).cpu().numpy())

    return answer, hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()


def _model_teacher(name: str, recipe: Recipe, resolution: Resolution) -> tuple[_Answer, str]:
    try:
        entry = estimation.get_model(name)
    except ValueError as error:
        raise DataError(f"{recipe.name} cannot be taught: {error}") from error
    put = _translator(recipe, entry.info.resolution, resolution)
    _check_licence(recipe, name, entry.info.licence)
    kept, choice = estimation.split_of(name), recipe.validation
    held = {(low, high): share for low, high, share in choice.hold_out}
    asked = estimation.Split(choice.share, choice.seed, held, choice.test_fold)
    if kept is not None and not covers(kept, asked):
        raise DataError(f"{name} kept other faces out of training than {recipe.name} does")

    def answer(faces: Sequence[AnonymizedFace]) -> NDArray[np.floating[Any]]:
        said = estimation.estimate(faces, name)
        return put(np.stack([one.groups if one.years is None else one.years for one in said]))

    return answer, entry.info.sha256


def _translator(
    recipe: Recipe, teachers: Resolution, pupils: Resolution
) -> Callable[[NDArray[np.floating[Any]]], NDArray[np.floating[Any]]]:
    """What puts a teacher's answers into its pupil's classes: years add up to groups, not the reverse.

    Raises:
        DataError: The teacher knows groups alone, and the pupil is to answer over years.
    """
    if teachers == pupils:
        return lambda answers: answers
    if teachers == "group":
        raise DataError(f"{recipe.teacher} knows age groups alone, and its pupil answers over years")

    def grouped(years: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        sums = _in_groups(torch.from_numpy(years)) + _LEAST_BELIEF
        return (sums / sums.sum(1, keepdim=True)).numpy()

    return grouped


def _check_licence(recipe: Recipe, name: str, licence: str) -> None:
    if recipe.licence in estimation.PERMISSIVE and licence not in estimation.PERMISSIVE:
        raise DataError(f"{recipe.name} cannot be under {recipe.licence}: {name} is under {licence}")


def _teacher_answers(
    answer: _Answer,
    pool: FacePool,
    training: NDArray[np.int64],
    folder: Path,
    named_by: str,
    *,
    progress: bool,
) -> Tensor:
    """What a teacher says of each bare training face and its mirror image, (N, K); kept in the run."""
    # Another teacher, or other faces, have another name.
    path = folder / f"teacher-{hashlib.sha256(named_by.encode()).hexdigest()[:16]}.npy"
    if path.exists():
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"the teacher's answers in {path} are damaged: remove that file") from error
    if list(folder.glob("teacher-*.npy")):
        raise DataError(
            f"the run in {folder} was begun with another teacher: remove it, or give this one another name"
        )
    rows: list[NDArray[np.floating[Any]]] = []
    starts = range(0, len(training), 64)
    screen = Console(stderr=True)
    for start in track(starts, "teacher", console=screen, disable=not (progress and screen.is_terminal)):
        part = training[start : start + 64]
        faces = [anonymize_repeatably(pool.crop(int(i)), "original", np.random.default_rng(0)) for i in part]
        rows.append((answer(faces) + answer([_mirrored(face) for face in faces])) / 2)
    answers = np.zeros((len(pool), rows[0].shape[1]), np.float16)
    answers[training] = np.concatenate(rows)
    content = io.BytesIO()
    np.save(content, answers, allow_pickle=False)
    write_bytes(path, [content.getbuffer()])
    return torch.from_numpy(answers)


def _mirrored(face: AnonymizedFace) -> AnonymizedFace:
    return replace(face, pixels=face.pixels[:, ::-1].copy(), eye_mask=face.eye_mask[:, ::-1].copy())


def _loaders(
    recipe: Recipe,
    pool: FacePool,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    hardware: Hardware,
    rank: int,
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    world = hardware.world
    batch = recipe.optimization.batch // world
    shared = {"batch_size": batch, "pin_memory": False, **worker_options(hardware.workers)}
    faces = TrainingFaces(pool, recipe.approaches, varied=recipe.vary, seed=recipe.seed)
    sampler = EpochSampler(training, seed=recipe.seed, rank=rank, world=world)
    kept = ValidationFaces(pool, validation[rank::world], recipe.approaches, recipe.seed)
    whole = len(sampler) >= batch
    return (
        DataLoader(faces, sampler=sampler, drop_last=whole, **shared),
        DataLoader(kept, **shared),
    )


def _trainer(
    recipe: Recipe, folder: Path, hardware: Hardware, *, log_every: int, progress: bool
) -> tuple[pl.Trainer, pl_callbacks.ModelCheckpoint]:
    choice = recipe.optimization
    best = Checkpoint(folder, filename="best", monitor="validation/loss", enable_version_counter=False)
    last = Checkpoint(folder, filename=Path(LAST_FILE).stem, enable_version_counter=False)
    extra: list[pl.Callback] = [
        best,
        last,  # after the best, so that it knows of it
        EarlyStopping("validation/loss", patience=choice.patience, check_finite=True),
        pl_callbacks.LearningRateMonitor("step"),
    ]
    if choice.average:
        extra.append(pl_callbacks.EMAWeightAveraging(decay=choice.average))
    if progress:
        extra.append(pl_callbacks.RichProgressBar(console_kwargs={"stderr": True}))
    trainer = pl.Trainer(
        # Buffers are constants, or batch norms' statistics, of which the first process's are kept. PyTorch
        # cannot send a single one that lies with its channels last.
        strategy=DDPStrategy(forward_sync_buffers=False) if hardware.world > 1 else "auto",
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        precision=choice.precision,
        max_epochs=choice.epochs,
        gradient_clip_val=choice.clip,
        callbacks=extra,
        plugins=[WholeFiles()],
        logger=[pl_loggers.CSVLogger(folder, "logs", ""), pl_loggers.TensorBoardLogger(folder, "logs", "")],
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,  # EpochSampler knows the processes
        log_every_n_steps=log_every,
        num_sanity_val_steps=0,
    )
    return trainer, best


def _keep_best(checkpoint: Path, network: AgeNetwork, folder: Path) -> None:
    """Write the weights of the best epoch where `load_run` looks for them.

    Raises:
        DataError: Its checkpoint is damaged or missing.
        OutputError: They cannot be written.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        tensors = {name.removeprefix("network."): tensor.contiguous() for name, tensor in state.items()}
        network.load_state_dict(tensors)
    except DAMAGE as error:
        # The last checkpoint alone would lead here again: the best epoch is not made a second time.
        raise DataError(
            f"the checkpoint {checkpoint} of the best epoch is damaged or missing: remove {LAST_FILE} beside "
            "it to train from the first epoch"
        ) from error
    write_bytes(folder / WEIGHTS_FILE, [safetensors.torch.save(tensors)])
