"""`ageveil models`: the estimators that are installed."""

from __future__ import annotations

from dataclasses import asdict

from ageveil.cli import options
from ageveil.cli.output import console, print_json


def models(as_json: options.Json = False) -> int:
    """List the estimators with version, licence, resolution and source."""
    from ageveil.estimation import MODELS, default_model

    if as_json:
        print_json([asdict(entry.info) for entry in MODELS.values()])
        return 0
    from rich.table import Table

    table = Table("model", "version", "licence", "resolution", "source")
    for entry in MODELS.values():
        info = entry.info
        name = f"{info.name} (default)" if info.name == default_model() else info.name
        table.add_row(name, info.version, info.licence, info.resolution, info.source)
    console().print(table)
    return 0
