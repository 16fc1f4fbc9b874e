"""`ageveil evaluate`: how well are ages estimated from faces behind an approach?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, progress


def evaluate(
    data: Annotated[str, typer.Option(help="Data set and its folder, as utkface:DIR.")],
    approach: options.EstimateApproach = "mosaic",
    model: options.Model = "dlib-age",
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many faces, drawn at random with --seed.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the bootstrap, the sample and the mosaic's draws.")
    ] = 0,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Measure age estimation on a data set: accuracy over the eight groups and error in years.

    Percentages are of the faces whose age lies in a group; 95 % intervals are bootstrapped over faces. Faces
    that cannot be used are left out and counted by reason.
    """
    from ageveil import pipeline
    from ageveil.evaluation import accuracy
    from ageveil.training import datasets

    way = pipeline.Pipeline(approach, model, detector, landmarks, allow_others=True)
    images = accuracy.sample(datasets.read_dataset(data), limit, seed=seed)
    with progress(f"{approach}", len(images), quiet=quiet) as bar:
        report = accuracy.evaluate(images, way, seed=seed, workers=workers, advance=bar.advance)
    record = {**report.to_json(), "data": data, "seed": seed}
    if as_json:
        print_json(record)
    elif not quiet:
        _show(record)
    return 0


def _show(record: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("measure", "value", "95 % interval", title=f"{record['model']} behind {record['approach']}")
    for key, name, unit in (
        ("exact", "exact", "%"),
        ("one_off", "1-off", "%"),
        ("macro_exact", "macro-averaged exact", "%"),
        ("mae_years", "mean absolute error", "years"),
    ):
        figure = record[key]
        table.add_row(name, f"{figure['value']:.1f} {unit}", f"{figure['low']:.1f} to {figure['high']:.1f}")
    out = console()
    out.print(table)
    left_out = ", ".join(f"{count} {reason}" for reason, count in record["left_out"].items()) or "none"
    out.print(f"{record['faces']} faces in a group, {record['faces_all']} in all; left out: {left_out}")
