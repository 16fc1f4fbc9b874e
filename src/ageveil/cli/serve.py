"""`ageveil serve`: the service, from a private state directory of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option(help="TOML file of settings; docs/service.md lists them.")]
Database = Annotated[
    str | None,
    typer.Option(
        help="Database URL, as postgresql://user@host/name; by default SQLite in the state directory."
    ),
]


def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; by default 8000.")] = None,
    database: Database = None,
    config: Config = None,
) -> int:
    """Serve age checks over HTTP: parties ask, browsers answer with anonymized faces.

    The first start makes an embedded database, a signing key and a demo party, and prints its API key.
    Settings come from options, from AGEVEIL_... in the environment and from the file, in this order.
    """
    from ageveil.service.server import serve as run
    from ageveil.service.service import open_demo, open_service
    from ageveil.service.settings import read_settings

    settings = read_settings(config, port=port, database=database)
    service = open_service(settings)
    key = open_demo(service)
    print(f"Ageveil serves {settings.origin} with the model {service.judge.model.info.name}", flush=True)
    if key is not None:
        print(f"demo party's API key (shown this once): {key}", flush=True)
    from ageveil.service.demo import is_on

    if is_on(service):
        print(f"try it: {settings.origin}/demo", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # the server has ended in order before this comes
        run(service)
    return 0
