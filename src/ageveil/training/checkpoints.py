"""Checkpoints of a run: written whole, known again where it was moved, read to see how far it has come."""

from __future__ import annotations

import io
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as pl_callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ageveil.errors import DataError
from ageveil.files import write_bytes
from ageveil.training.recipes import Optimization

DAMAGE = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError,
)  # fmt: skip
"""What reading a checkpoint ends in that is missing, was cut short or holds something else."""


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints as a whole or not at all: one that a kill or a full disk cut short is of no use."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401, ARG002 - Lightning's own signature
    ) -> None:
        """Write a checkpoint.

        Raises:
            OutputError: It cannot be written; an earlier one is still there.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(path, [content.getbuffer()])


class Checkpoint(pl_callbacks.ModelCheckpoint):
    """Knows its best epoch again where the run's folder was moved, as from another machine."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint says, with the run's folder as it is now."""
        here = Path(str(self.dirpath))
        state = {**state_dict, "dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = str(here / Path(path).name) if (path := state[key]) else path
        state["best_k_models"] = {
            str(here / Path(path).name): score for path, score in state["best_k_models"].items()
        }
        super().load_state_dict(state)


class EarlyStopping(pl_callbacks.EarlyStopping):
    """Stays stopped where a run that had ended is started again."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End training before its first step where it had ended."""
        super().on_train_start(trainer, pl_module)
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True

    @property
    def diverged(self) -> bool:
        """Whether a loss that is no finite number ended the run."""
        return self.stopping_reason is EarlyStoppingReason.NON_FINITE_METRIC


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, as its last checkpoint says.

    Attributes:
        epochs: Passes over the training faces that were made.
        best_loss: Least validation loss; not a number where there was none.
        finished: Whether no pass is left, or it was stopped early.
        diverged: Whether it was stopped since its last validation loss was no finite number.
    """

    epochs: int
    best_loss: float
    finished: bool
    diverged: bool

    @classmethod
    def read(cls, path: Path, choice: Optimization, network: torch.nn.Module) -> Progress | None:
        """None where there is no checkpoint yet.

        Raises:
            DataError: It is damaged, lacks what a run needs to go on, or is of another network.
        """
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            epochs = int(state["epoch"]) + 1
            told = {
                key.partition("{")[0]: said for key, said in state["callbacks"].items() if "validation" in key
            }
            reason = EarlyStoppingReason(told[EarlyStopping.__name__]["stopping_reason"])
            score = told[Checkpoint.__name__]["best_model_score"]
            weights = {name: tensor.shape for name, tensor in state["state_dict"].items()}
            if not state["optimizer_states"] or not state["lr_schedulers"] or not state["loops"]:
                raise ValueError("what training needs to go on is missing")
            if any(weights[f"network.{name}"] != own.shape for name, own in network.state_dict().items()):
                raise ValueError("the weights are those of another network")
        except DAMAGE as error:
            raise DataError(
                f"the checkpoint {path} is damaged, or of another version or network: remove it to train "
                "from the first epoch"
            ) from error
        best = math.nan if score is None else float(score)
        finished = epochs >= choice.epochs or reason is not EarlyStoppingReason.NOT_STOPPED
        return cls(epochs, best, finished, reason is EarlyStoppingReason.NON_FINITE_METRIC)
