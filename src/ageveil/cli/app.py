"""The verbs, gathered."""

from __future__ import annotations

from typing import Annotated

import typer

from ageveil.cli.anonymize import anonymize
from ageveil.cli.approaches import approaches
from ageveil.cli.audit import audit
from ageveil.cli.boards import boards
from ageveil.cli.calibrate import calibrate
from ageveil.cli.decrypt import decrypt
from ageveil.cli.estimate import estimate
from ageveil.cli.evaluate import evaluate
from ageveil.cli.export import export
from ageveil.cli.models import models
from ageveil.cli.operate import keys, ledger, parties
from ageveil.cli.prepare import prepare
from ageveil.cli.rate import rate
from ageveil.cli.reproduce import reproduce
from ageveil.cli.serve import serve
from ageveil.cli.sheet import sheet
from ageveil.cli.train import train

app = typer.Typer(
    name="ageveil",
    help="Content-rating decisions from anonymized faces: the face is hidden before its age is estimated.",
    epilog="Exit codes: 0 done (or allow), 1 unexpected, 2 usage, 3 no usable picture, 4 no face, 5 several "
    "faces, 6 unusable face, 7 a face may be left uncovered, 8 key or receipt, 9 output, 10 deny, "
    "11 step up, 12 model, 13 data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (
    rate,
    estimate,
    anonymize,
    decrypt,
    boards,
    models,
    approaches,
    sheet,
    evaluate,
    calibrate,
    prepare,
    train,
    export,
    reproduce,
    audit,
    serve,
):
    app.command()(_verb)
for _name, _group in (("ledger", ledger), ("parties", parties), ("keys", keys)):
    app.add_typer(_group, name=_name)


def _version(value: bool) -> None:
    if value:
        from ageveil import __version__

        typer.echo(f"ageveil {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
