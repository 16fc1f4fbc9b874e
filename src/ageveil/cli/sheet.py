"""`ageveil sheet`: one face through every approach, as in the paper's Fig. 1. Writes a bare face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, refuse_existing, refuse_own_source, shown


def sheet(
    photo: Annotated[Path, typer.Argument(help="A photograph of one face.")],
    out: Annotated[Path, typer.Option(help="Where the sheet is written.")],
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    allow_others: options.AllowOthers = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a picture that exists.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Draw one face through every approach, labelled. The first picture on the sheet is the BARE FACE."""
    from ageveil import image, pipeline
    from ageveil.evaluation import figures

    target = image.check_output(out)
    refuse_own_source(target, photo)
    refuse_existing(target, force=force)
    way = pipeline.Pipeline(detector=detector, landmarks=landmarks, allow_others=allow_others)
    _, crop = way.align_viewer(image.read_image(photo))
    image.write_image(target, figures.approach_sheet(crop))
    if as_json:
        print_json({"photo": str(photo), "output": str(target)})
    elif not quiet:
        console().print(f"{shown(photo)} -> [bold]{shown(target)}[/]  [red]bare face[/] and every approach")
    return 0
