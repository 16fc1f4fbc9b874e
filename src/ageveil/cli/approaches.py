"""`ageveil approaches`: how a face can be hidden, and what the audit found of each way."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from ageveil.cli import options
from ageveil.cli.output import console, print_json


def approaches(as_json: options.Json = False) -> int:
    """List the approaches with what each hides, and the verdict of the privacy audit.

    The verdicts were measured once, on Labeled Faces in the Wild; `ageveil audit` measures on your own faces.
    """
    from ageveil.anonymization import APPROACHES

    audited: dict[str, Any] = json.loads(
        resources.files("ageveil").joinpath("verdicts.json").read_text("utf-8")
    )
    records = [
        {
            "name": approach.name,
            "hides": approach.hides,
            "summary": approach.summary,
            "reversible": approach.reversible,
            "installed": approach.usable,
            **audited["approaches"].get(approach.name, {"verdict": "not audited", "named": None}),
        }
        for approach in APPROACHES.values()
    ]
    if as_json:
        print_json({**audited, "approaches": records})
        return 0
    from rich.table import Table

    table = Table("approach", "hides", "what it does", "what the audit says", show_lines=True)
    for record in records:
        name = record["name"] if record["installed"] else f"{record['name']} (not installed)"
        table.add_row(name, record["hides"], record["summary"], record["verdict"])
    console().print(table)
    return 0
