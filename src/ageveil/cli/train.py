"""`ageveil train`: make an estimator from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, shown

Runs = Annotated[Path, typer.Option(help="Folder of all runs; each has a folder of its recipe's name in it.")]
Prepared = Annotated[
    Path, typer.Option(help="Folder that holds the prepared folders which the recipe names.")
]


def train(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe, as recipes/smoke/recipe.toml.", show_default=False)
    ],
    prepared: Prepared = Path("prepared"),
    runs: Runs = Path("runs"),
    weights: Annotated[
        Path | None, typer.Option(help="Folder of initial weights; else the one that AGEVEIL_WEIGHTS names.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices on each machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare faces for each device.")] = 2,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Leave this fold of the data set out, to test on.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed than the recipe's; it ends the run's name.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many faces of each part, for a dry run.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train an estimator as a recipe says; needs the extra `train`.

    A run that was interrupted goes on from its last finished epoch when the same command is given again, and
    one that is finished stays as it is. The weights of the best epoch, logs (CSV and TensorBoard) and the
    recipe stand in the run's folder; the log of a call that was interrupted becomes metrics-1.csv, and so on.
    """
    from ageveil.training import engine, recipes

    choice = recipes.load_recipe(recipe)
    if fold is not None:
        choice = choice.without_fold(fold)
    if seed is not None:
        choice = choice.with_seed(seed)
    hardware = engine.Hardware(accelerator, devices, nodes, workers)
    run = engine.train(
        choice,
        prepared=prepared,
        runs=runs,
        hardware=hardware,
        weights=weights,
        limit=limit,
        progress=not (quiet or as_json),
    )
    if not run.first:
        return 0
    record = {
        "run": str(run.folder),
        "validation_loss": run.best_loss,
        "epochs": run.epochs,
        "diverged": run.diverged,
        "training_faces": run.training_faces,
        "validation_faces": run.validation_faces,
    }
    if as_json:
        print_json(record)
    elif not quiet:
        console().print(
            f"{shown(run.folder)}: {run.epochs} epochs on {run.training_faces} faces, "
            f"loss {run.best_loss:.4f} on {run.validation_faces} validation faces"
        )
        if run.diverged:
            console().print("[yellow]diverged[/] in the last epoch: the weights kept are of an earlier one")
    return 0
