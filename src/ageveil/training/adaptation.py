"""Train a face recogniser to see through anonymization, as an attacker would who owns no names.

It learns to give, of a face behind an approach, what it gave of the bare face before. That takes faces of
anybody, and no word of whose they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from ageveil.errors import DataError
from ageveil.files import make_directory, write_bytes
from ageveil.training.checkpoints import DAMAGE
from ageveil.training.faces import REPEATABLE, EpochSampler, FacePool, TrainingFaces, worker_options
from ageveil.training.resnet import CropRecogniser
from ageveil.training.splits import split_validation

_HELD_OUT = 0.1  # of the faces
_LOOKED_AT = 64  # bare faces at once
_WARM_UP = 0.1  # of all steps


@dataclass(frozen=True, slots=True)
class Adaptation:
    """How a recogniser is trained.

    Attributes:
        approaches: Share of each approach behind which faces are shown; they need not sum to 1.
        epochs: Passes over the faces.
        batch: Faces in a step.
        learning_rate: The highest: it rises at first, and falls to nothing by a cosine.
        weight_decay: Of AdamW.
        clip: Longest gradient that is followed.
        sharpness: By what cosines are multiplied before bare faces are told apart by them.
        varied: Vary faces before they are hidden (`ageveil.training.augmentation.vary`).
        seed: Of the order, variations, draws and keys, and of which faces are held out.

    Raises:
        ValueError: There is no approach, one that cannot be repeated, or no epoch or face to learn from.
    """

    approaches: Mapping[str, float]
    epochs: int = 5
    batch: int = 64
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    clip: float = 1.0
    sharpness: float = 20.0
    varied: bool = True
    seed: int = 2018

    def __post_init__(self) -> None:
        if not self.approaches or min(self.epochs, self.batch) < 1:
            raise ValueError("expected an approach, an epoch and a face in a step, or more")
        if unknown := sorted(set(self.approaches) - set(REPEATABLE)):
            raise ValueError(f"training hides faces behind {', '.join(REPEATABLE)}, got {unknown[0]!r}")


def parts(pool: FacePool, how: Adaptation) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the faces to learn from, and of the tenth that is held out, to see what was learned.

    Faces whose eyes lie outside the crop are in neither.

    Raises:
        DataError: One of the two is empty.
    """
    halves = split_validation(pool.images, share=_HELD_OUT, seed=how.seed)
    learned, held_out = (half[pool.usable[half]] for half in halves)
    if not len(learned) or not len(held_out):
        raise DataError(f"expected faces to learn from and to hold out, got {len(learned)}, {len(held_out)}")
    return learned, held_out


def look(recogniser: CropRecogniser, crops: Tensor) -> Tensor:
    """Embeddings in the precision of training: maps in 16 bits, the rest in 32.

    Args:
        recogniser: Which.
        crops: Shape (N, S, S, 3), uint8 RGB, on the recogniser's device.

    Returns:
        Shape (N, 128), float32.
    """
    with torch.autocast(crops.device.type, torch.bfloat16):
        features = recogniser.network.features(recogniser.chips(crops))
    embeddings: Tensor = recogniser.network.embedding(features)
    return embeddings


def bare_embeddings(recogniser: CropRecogniser, pool: FacePool, faces: NDArray[np.int64]) -> Tensor:
    """What a recogniser sees of bare faces and their mirror images together, as the audit looks at faces.

    Returns:
        Shape (N, 128), float32, of length 1.
    """
    device = next(recogniser.parameters()).device
    rows = []
    for start in range(0, len(faces), _LOOKED_AT):
        pixels = [pool.crop(int(face)).pixels for face in faces[start : start + _LOOKED_AT]]
        crops = torch.from_numpy(np.stack(pixels)).to(device)
        with torch.inference_mode():
            views = [functional.normalize(look(recogniser, view)) for view in (crops, crops.flip(2))]
            rows.append(functional.normalize(views[0] + views[1]).cpu())
    return torch.cat(rows).clone()  # a plain tensor: training may use it


def adaptation_loss(embeddings: Tensor, own: Tensor, bare: Tensor, *, sharpness: float = 20.0) -> Tensor:
    """How far embeddings of hidden faces lie from their bare faces, and how well they tell those from others.

    Args:
        embeddings: Of hidden faces, shape (N, D).
        own: Row in `bare` of each face, shape (N,).
        bare: Embeddings of M bare faces, of length 1, shape (M, D); M is 2 or more.
        sharpness: By what cosines are multiplied.

    Returns:
        The mean of two terms' sum: squared distance to the own bare face, as a share of what bare faces
        differ by, and the cross entropy of the own bare face among all.

    Source:
        Hinton et al. 2015, "Distilling the knowledge in a neural network"; van den Oord et al. 2018,
        "Representation learning with contrastive predictive coding".
    """
    rows = functional.normalize(embeddings.float())
    # Embeddings of all faces lie in a narrow cone. What they share tells nobody apart.
    centre = bare.mean(0)
    spread = (bare - centre).square().sum(1).mean()
    apart = (rows - bare[own]).square().sum(1) / spread
    cosines = functional.normalize(rows - centre) @ functional.normalize(bare - centre).T
    return apart.mean() + functional.cross_entropy(sharpness * cosines, own)


def adapt(
    recogniser: CropRecogniser,
    pool: FacePool,
    faces: NDArray[np.int64],
    how: Adaptation,
    folder: Path,
    *,
    workers: int = 1,
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Train a recogniser, or go on where a run of the same kind was stopped.

    A checkpoint is written after every epoch; on the same hardware, a run that goes on ends with the very
    weights of one that was not stopped.

    Args:
        recogniser: What to start from, on the device to train on; it is changed in place.
        pool: Holds the faces.
        faces: Numbers of those to learn from, ascending.
        how: What is done.
        folder: For what the recogniser sees of the bare faces, which is looked up once, and for checkpoints.
            What it sees tells who people are: private.
        workers: Processes that prepare faces; 0 does it in this one.
        advance: Called with the number of steps that were made and the loss of the last.

    Raises:
        DataError: A file in the folder is damaged.
        OutputError: The folder cannot be written.
    """
    make_directory(folder, private=True)
    start = _digest(recogniser, pool, faces)
    bare = _bare_once(recogniser, pool, faces, folder / f"bare-{start}.npy")
    # PyTorch's stubs do not know this form.
    recogniser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        recogniser.parameters(), how.learning_rate, betas=(0.9, 0.99), weight_decay=how.weight_decay
    )
    kind = hashlib.sha256(f"{start} {json.dumps(asdict(how))}".encode()).hexdigest()[:16]
    checkpoint = folder / f"adaptation-{kind}.pt"
    loader, sampler = _loader(pool, faces, how, workers)
    for epoch in range(_resume(checkpoint, recogniser, optimizer), how.epochs):
        sampler.set_epoch(epoch)
        for step, (crops, _, index) in enumerate(loader, epoch * len(loader)):
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * _rate(step, len(loader) * how.epochs)
            own = np.searchsorted(faces, index.numpy())  # numbers ascend
            advance(step + 1, learn(recogniser, optimizer, crops, torch.from_numpy(own), bare, how))
        _keep(checkpoint, epoch + 1, recogniser, optimizer)


def learn(
    recogniser: CropRecogniser,
    optimizer: torch.optim.Optimizer,
    crops: Tensor,
    own: Tensor,
    bare: Tensor,
    how: Adaptation,
) -> float:
    """Make one step.

    Args:
        recogniser: Changed in place.
        optimizer: Of its parameters.
        crops: Hidden faces, shape (N, S, S, 3), uint8 RGB.
        own: Row in `bare` of each, shape (N,).
        bare: As for `adaptation_loss`.
        how: For `sharpness` and `clip`.

    Returns:
        The loss before the step.
    """
    device = next(recogniser.parameters()).device
    embeddings = look(recogniser, crops.to(device))
    loss = adaptation_loss(embeddings, own.to(device), bare.to(device), sharpness=how.sharpness)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(recogniser.parameters(), how.clip)
    optimizer.step()
    return float(loss.detach())


def _rate(step: int, steps: int) -> float:
    """Which part of the highest learning rate a step takes."""
    warm = min(1.0, (step + 1) / max(1.0, _WARM_UP * steps))
    return warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _digest(recogniser: CropRecogniser, pool: FacePool, faces: NDArray[np.int64]) -> str:
    """What tells apart what training starts from: weights and faces."""
    found = hashlib.sha256(faces.tobytes())
    for tensor in recogniser.state_dict().values():
        found.update(tensor.contiguous().cpu().numpy().tobytes())
    found.update(pool.digest().encode())
    return found.hexdigest()[:16]


def _bare_once(recogniser: CropRecogniser, pool: FacePool, faces: NDArray[np.int64], path: Path) -> Tensor:
    """As `bare_embeddings`, from a file where it is there, on the recogniser's device."""
    try:
        kept = np.load(path, allow_pickle=False) if path.exists() else None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: remove it") from error
    if kept is None:
        kept = bare_embeddings(recogniser, pool, faces).numpy()
        content = io.BytesIO()
        np.save(content, kept, allow_pickle=False)
        write_bytes(path, [content.getbuffer()], private=True)
    return torch.from_numpy(kept).to(next(recogniser.parameters()).device)


def _loader(
    pool: FacePool, faces: NDArray[np.int64], how: Adaptation, workers: int
) -> tuple[DataLoader[Any], EpochSampler]:
    shown = TrainingFaces(pool, how.approaches, varied=how.varied, seed=how.seed)
    sampler = EpochSampler(faces, seed=how.seed)
    whole = len(faces) >= how.batch
    loader = DataLoader(shown, how.batch, sampler=sampler, drop_last=whole, **worker_options(workers))
    return loader, sampler


def _keep(
    checkpoint: Path, epochs: int, recogniser: CropRecogniser, optimizer: torch.optim.Optimizer
) -> None:
    content = io.BytesIO()
    torch.save(
        {"epochs": epochs, "recogniser": recogniser.state_dict(), "optimizer": optimizer.state_dict()},
        content,
    )
    write_bytes(checkpoint, [content.getbuffer()])


def _resume(checkpoint: Path, recogniser: CropRecogniser, optimizer: torch.optim.Optimizer) -> int:
    """Go back to where a checkpoint was written: the number of epochs that were finished."""
    if not checkpoint.exists():
        return 0
    device = next(recogniser.parameters()).device
    try:
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        recogniser.load_state_dict(kept["recogniser"])
        optimizer.load_state_dict(kept["optimizer"])
        return int(kept["epochs"])
    except DAMAGE as error:
        raise DataError(f"{checkpoint} is damaged: remove it, and training starts anew") from error
