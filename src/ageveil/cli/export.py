"""`ageveil export`: calibrate a trained estimator and write it as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, progress, shown
from ageveil.cli.train import Prepared


def export(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a finished run; of several, whose networks then answer together.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The ONNX file to write; its name ends in .onnx.", show_default=False)
    ],
    prepared: Prepared = Path("prepared"),
    precision: Annotated[
        str,
        typer.Option(help="Of stored weights: float32, float16 or int8; int8-static also counts in 8 bits."),
    ] = "float16",
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Calibrate a trained estimator on its validation faces and write it as ONNX; needs the extra `train`.

    Temperatures, classes, preprocessing, licence and training data travel inside the file. Nothing
    is written unless PyTorch and ONNX Runtime agree to 1e-3 on validation faces, before anything is rounded.
    """
    # By its ending a model's file is told from a model's name: no verb could load another.
    if not out.name.endswith(".onnx"):
        raise ValueError(f"the name of a model's file ends in .onnx, got {str(out)!r}")
    from ageveil.anonymization import usable_approaches
    from ageveil.training.export import export_runs

    with progress("calibrating", len(usable_approaches()), quiet=quiet or as_json) as bar:
        made = export_runs(runs, prepared, out, precision=precision, version=version, advance=bar.advance)
    record = {
        "path": str(made.path),
        "bytes": made.size,
        "precision": made.precision,
        "difference": made.difference,
        "rounding": made.rounding,
        "temperatures": made.temperatures,
        "sha256": made.sha256,
    }
    if as_json:
        print_json(record)
    elif not quiet:
        out_line = ", ".join(f"{name} {value:.3f}" for name, value in made.temperatures.items())
        console().print(f"{shown(made.path)}: {made.size / 1e6:.1f} MB, temperatures {out_line}")
        console().print(f"SHA-256 {made.sha256}")
    return 0
