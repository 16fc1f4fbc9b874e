"""`ageveil evaluate`: how well are ages estimated from faces behind an approach?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, progress

if TYPE_CHECKING:
    from rich.console import Console


def evaluate(
    data: Annotated[
        str, typer.Option(help="Data set and its folder, as utkface:DIR; or prepared:DIR, its crops.")
    ],
    approach: Annotated[
        str,
        typer.Option(help="One approach, several with commas between, or all; original is the bare face."),
    ] = "mosaic",
    model: options.Model = None,
    licence: options.Licence = "any",
    by: Annotated[
        str | None,
        typer.Option(help="Score each part alone as well: gender, race or group, or several with commas."),
    ] = None,
    kept_out: Annotated[
        bool,
        typer.Option(
            "--kept-out",
            help="The data trained the model: only faces that it kept out, as large a share of every age.",
        ),
    ] = False,
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
    """Measure age estimation on a data set: accuracy over the eight groups, log loss and error in years.

    Percentages and the log loss, of which less is better, are of the faces whose age lies in a group; 95 %
    intervals are bootstrapped over faces, or over people where the data set names them. Faces that cannot be
    used are left out and counted by reason. Of faces that trained a model its figures say nothing: compare
    models by --kept-out, and report on a test part.
    FairFace is scored over its own nine bins, and on P(age >= 10) and P(age >= 20). JSON is one record, or a
    list for several approaches.
    """
    from ageveil import estimation, pipeline
    from ageveil.evaluation import accuracy

    names = options.approaches(approach, licence)
    traits = [accuracy.get_trait(name.strip()) for name in by.split(",")] if by is not None else []
    asked = model or estimation.default_model(licence)
    if accuracy.FOLD not in asked:  # what is wrong with one model is told before anything is opened
        estimation.choose_model(asked, licence)
    way = pipeline.Pipeline(names[0], detector=detector, landmarks=landmarks, allow_others=True)
    split = accuracy.split_to_choose_by(asked) if kept_out else None
    faces = accuracy.open_faces(data, way, limit=None if kept_out else limit, seed=seed)
    chosen = accuracy.choose_model(asked, faces, licence)
    accuracy.check_groups(faces)
    if split is not None:
        everybody = len(faces.images)
        with progress("copies", everybody, quiet=quiet) as bar:
            faces = accuracy.kept_out(
                faces, split, limit=limit, seed=seed, workers=workers, advance=bar.advance
            )
        if not quiet:
            console(stderr=True).print(
                f"{len(faces.images)} of {everybody} faces, which {chosen} kept out of training"
            )
        accuracy.check_groups(faces)
    with progress(", ".join(names), len(faces.images), quiet=quiet) as bar:
        found = accuracy.estimate_all(
            faces, [(name, chosen) for name in names], seed=seed, workers=workers, advance=bar.advance
        )
    records = []
    for estimates in found.values():
        record = {**accuracy.score(estimates, seed=seed).to_json(), "data": data, "seed": seed}
        record["kept_out"] = kept_out
        record["labels_left_out"] = dict(faces.labels_left_out)
        if traits:
            record["by"] = {
                trait: [row.to_json() for row in accuracy.score_by(estimates, trait, seed=seed)]
                for trait in traits
            }
        records.append(record)
    if as_json:
        print_json(records[0] if len(records) == 1 else records)
    elif not quiet:
        for record in records:
            _show(record, console())
    return 0


def _show(record: dict[str, Any], out: Console) -> None:
    from rich.table import Table

    title = f"{record['model']} behind {record['approach']}"
    table = Table("measure", "value", "95 % interval", title=title)
    lines = [
        ("exact", "%", record["exact"]),
        ("1-off", "%", record["one_off"]),
        ("macro-averaged exact", "%", record["macro_exact"]),
        ("log loss over groups", "nats", record["log_loss"]),
        (f"mean absolute error, {_faces(record['mae_faces'])}", "years", record["mae_years"]),
    ]
    for age, error in record["tail_error"].items():
        lines.append((f"wrong side of {age}", "%", error["misjudged"]))
    for name, unit, figure in lines:
        if figure is not None:
            places = 3 if unit == "nats" else 1
            interval = f"{figure['low']:.{places}f} to {figure['high']:.{places}f}"
            table.add_row(name, f"{figure['value']:.{places}f} {unit}", interval)
    out.print(table)
    for trait, rows in record.get("by", {}).items():
        out.print(_parts(trait, rows))
    left_out = ", ".join(f"{count} {reason}" for reason, count in record["left_out"].items()) or "none"
    out.print(f"{record['faces']} faces in a group, {record['faces_all']} in all; left out: {left_out}")
    if record["labels_left_out"]:
        counts = ", ".join(f"{count} {reason}" for reason, count in record["labels_left_out"].items())
        out.print(f"pictures without a usable label: {counts}")
    if not record["comparable"]:
        out.print(
            f"[red]not comparable[/]: {100 * record['left_out_share']:.1f} % of the faces were left out"
        )


def _faces(count: int) -> str:
    return f"{count} face{'' if count == 1 else 's'}"


def _parts(trait: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(trait, "faces", "exact, %", "1-off, %", "mean error, years")
    for row in rows:
        figures = [
            "" if row[key] is None else "{value:.1f} ({low:.1f} to {high:.1f})".format(**row[key])
            for key in ("exact", "one_off", "mae_years")
        ]
        # The error in years has faces of its own, those of exact age: many may stand beside it.
        if row["mae_years"] is not None and row["mae_few"]:
            figures[-1] += " (few)"
        count = f"{row['faces']} (few)" if row["few"] else str(row["faces"])
        table.add_row(row["value"] or "not stated", count, *figures)
    return table
