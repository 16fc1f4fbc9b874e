"""`ageveil ledger`, `ageveil parties` and `ageveil keys`: the operator's work beside the service."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from ageveil.cli.options import Json
from ageveil.cli.output import print_json
from ageveil.cli.serve import Config, Database

ledger = typer.Typer(help="Check and shorten the ledger.", no_args_is_help=True)
parties = typer.Typer(help="Register the parties that may ask.", no_args_is_help=True)
keys = typer.Typer(help="List and rotate the signing keys.", no_args_is_help=True)


@ledger.command()
def verify(
    known: Annotated[
        str | None,
        typer.Option(help="A record noted earlier, as SEQUENCE:HASH: the chain must still go through it."),
    ] = None,
    database: Database = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Check that no record was changed, added, moved or deleted, and print the end of the chain.

    Note the end elsewhere from time to time: with --known even a database is noticed that was set back as a
    whole.
    """
    from ageveil.service import ledger as room
    from ageveil.service.database import reading
    from ageveil.service.keys import read_keys
    from ageveil.service.service import open_database
    from ageveil.service.settings import read_settings

    settings = read_settings(config, database=database)
    place = None
    if known is not None:
        match = re.fullmatch(r"([0-9]+):([0-9a-f]{64})", known)
        if match is None:
            raise ValueError("--known is a record's number and hash, as 17:3f...")
        place = room.Place(int(match[1]), match[2])
    with reading(open_database(settings)) as connection:
        found = room.verify(connection, read_keys(settings.keys_directory), known=place)
    if as_json:
        print_json(
            {"first": found.checkpoint.sequence + 1, "last": found.end.sequence, "hash": found.end.hash}
        )
    else:
        count = found.end.sequence - found.checkpoint.sequence
        print(f"{count} records after record {found.checkpoint.sequence}, none changed")
        print(f"the end is {found.end.sequence}:{found.end.hash}")
    return 0


@ledger.command()
def expire(
    older_than: Annotated[int, typer.Option(min=1, help="Days that records and checks are kept.")],
    database: Database = None,
    config: Config = None,
) -> int:
    """Delete old records and checks; a signed checkpoint takes their place, which `verify` accepts."""
    from ageveil.service import ledger as room
    from ageveil.service.keys import read_keys
    from ageveil.service.service import open_database
    from ageveil.service.settings import read_settings

    settings = read_settings(config, database=database)
    ring = read_keys(settings.keys_directory, settings.key_delay_seconds)
    with open_database(settings).begin() as connection:
        count = room.expire(connection, ring, days=older_than, now=time.time())
    print(f"{count} records deleted")
    return 0


@parties.command("add")
def add_party(
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens.")],
    audience: Annotated[list[str], typer.Option(help="Origin, as https://films.example. Repeatable.")],
    database: Database = None,
    config: Config = None,
) -> int:
    """Register a party and print its API key, which is told this once."""
    from ageveil.service import parties as room
    from ageveil.service.service import open_database
    from ageveil.service.settings import read_settings

    with open_database(read_settings(config, database=database)).begin() as connection:
        print(room.add_party(connection, name, audience))
    return 0


@parties.command("remove")
def remove_party(
    name: Annotated[str, typer.Argument(help="As it was registered.")],
    database: Database = None,
    config: Config = None,
) -> int:
    """Remove a party and its checks; its key ends at once, the ledger keeps its records."""
    from ageveil.service import parties as room
    from ageveil.service.service import open_database
    from ageveil.service.settings import read_settings

    with open_database(read_settings(config, database=database)).begin() as connection:
        room.remove_party(connection, name)
    return 0


@parties.command("list")
def list_parties(database: Database = None, config: Config = None) -> int:
    """List the parties with their audiences."""
    from ageveil.service import parties as room
    from ageveil.service.database import reading
    from ageveil.service.service import open_database
    from ageveil.service.settings import read_settings

    with reading(open_database(read_settings(config, database=database))) as connection:
        for party in room.list_parties(connection):
            print(party.id, *party.audiences)
    return 0


@keys.command("list")
def list_keys(config: Config = None) -> int:
    """List the signing keys, the oldest first, and which of them signs now."""
    from ageveil.service.keys import read_keys
    from ageveil.service.settings import read_settings

    settings = read_settings(config)
    ring = read_keys(settings.keys_directory, settings.key_delay_seconds)
    active = ring.active(time.time())
    for key in ring.keys:
        made = time.strftime("%Y-%m-%d %H:%M", time.gmtime(key.created))
        print(key.kid, made, "signs" if key is active else "verifies")
    return 0


@keys.command()
def rotate(config: Config = None) -> int:
    """Make a new signing key. It is published at once and signs after the delay of the settings.

    Old keys go on verifying; delete a file of the keys directory to end that.
    """
    from ageveil.service.keys import generate_key
    from ageveil.service.settings import read_settings

    print(generate_key(read_settings(config).keys_directory).kid)
    return 0
