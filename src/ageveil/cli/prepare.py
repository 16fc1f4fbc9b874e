"""`ageveil prepare`: find and crop the faces of a data set once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, progress, shown

_NAMED = 10  # pictures without a face that are named in text


def prepare(
    data: Annotated[
        str,
        typer.Argument(
            help="Data set and where it lies: adience:DIR, fairface:DIR/train, utkface:DIR, lfw:DIR, "
            "folder:DIR or csv:FILE.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the crops; bare faces, so keep it private.")],
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Find and crop the faces of a data set once, for training and evaluation.

    The folder holds bare faces: only its owner can read it, and it must not be published. A run that was
    stopped goes on where it was when it is started again. Faces that cannot be used are left out and counted
    by reason.
    """
    from ageveil import pipeline
    from ageveil.training import datasets, preparation

    dataset = datasets.read_dataset(data)
    with progress("faces", len(dataset.images), quiet=quiet) as bar:
        faces = preparation.prepare(
            dataset, out, pipeline.Pipeline(allow_others=True), workers=workers, advance=bar.advance
        )
    if as_json:
        print_json(
            {
                "data": data,
                "folder": str(out),
                "pictures": len(dataset.images),
                "faces": len(faces),
                "left_out": faces.left_out,
                "without_face": [
                    {"file": str(path), "reason": reason} for path, reason in faces.without_face
                ],
                "labels_left_out": dict(faces.labels_left_out),
            }
        )
    elif not quiet:
        screen = console()
        screen.print(f"{len(faces)} faces in {shown(out)}; left out: {_counts(faces.left_out)}")
        for path, reason in faces.without_face[:_NAMED]:
            screen.print(f"  {reason}: {shown(path)}")
        if len(faces.without_face) > _NAMED:
            screen.print(f"  and {len(faces.without_face) - _NAMED} more: --json names them all")
        if faces.labels_left_out:
            screen.print(f"pictures without a usable label: {_counts(faces.labels_left_out)}")
    return 0


def _counts(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"
