"""Models from recipes: trained here, or taken from runs that are finished; one for each fold where asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ageveil.training.engine import WEIGHTS_FILE, Hardware, is_finished, train
from ageveil.training.export import export_runs
from ageveil.training.recipes import Recipe

MODEL_FILE = "model.onnx"
"""The exported model in the folder of its run."""


def train_models(
    recipe: Recipe,
    folds: Sequence[int],
    *,
    prepared: Path,
    runs: Path,
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    weights: Path | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda _: None,
) -> tuple[Path, ...]:
    """Train a recipe once for each fold, which it leaves out to test on; once alone where there are no folds.

    What is finished is taken as it is, so the same call goes on where an interrupted one stopped.

    Args:
        recipe: What to train.
        folds: Each is left out in turn, as `ageveil.training.splits.folds_of` tells them; none for a data set
            with a test part of its own.
        prepared: As `ageveil.training.engine.train` takes it, as are the next three.
        runs: Each run gets a folder of its own in it, and its exported model lies there.
        hardware: Where.
        weights: Folder with files of initial weights; the environment's when left out.
        progress: Show a bar for each run.
        announce: Told what is done next, and what went wrong, in a line.

    Returns:
        The exported models, in the order of the folds.

    Raises:
        DataError, ModelError, OutputError: As `ageveil.training.engine.train` and
            `ageveil.training.export.export_runs`; a DataError also where a folder holds a run of another
            recipe or of other faces, as after a dry run.
    """
    paths = []
    for one in [recipe.without_fold(fold) for fold in folds] or [recipe]:
        folder = runs / one.name
        if not is_finished(one, prepared=prepared, runs=runs):
            announce(f"training {one.name}")
            run = train(
                one, prepared=prepared, runs=runs, hardware=hardware, weights=weights, progress=progress
            )
            if run.diverged:
                announce(f"{one.name} diverged in its last epoch: the weights kept are of an earlier one")
        path = folder / MODEL_FILE
        if not path.exists() or path.stat().st_mtime_ns < (folder / WEIGHTS_FILE).stat().st_mtime_ns:
            announce(f"exporting {one.name}")
            export_runs([folder], prepared, path)
        paths.append(path)
    return tuple(paths)
