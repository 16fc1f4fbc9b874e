"""Relying parties: who asks, and for which audiences. API keys are kept as digests alone."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ageveil.service.database import parties


@dataclass(frozen=True, slots=True)
class Party:
    """A relying party.

    Attributes:
        id: Its name, as it stands in the ledger.
        audiences: Origins that it may ask for, as "https://films.example".
    """

    id: str
    audiences: tuple[str, ...]


def digest(secret: str) -> str:
    """SHA-256 of a secret in hex. Secrets here are 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_origin(text: str) -> str:
    """Return an origin as browsers write it.

    >>> check_origin("https://films.example")
    'https://films.example'

    Raises:
        ValueError: It is no origin in lower case: http or https, host, and port if there is one.
    """
    try:
        parts = urlsplit(text)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise ValueError(f"expected an origin as https://films.example, got {text!r}") from None
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    valid = re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:]+", host) and parts.scheme in {"http", "https"}
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    if not valid or port == default or text != f"{parts.scheme}://{shown}{port}":
        raise ValueError(f"expected an origin as https://films.example, got {text!r}")
    return text


def add_party(connection: Connection, name: str, audiences: Sequence[str]) -> str:
    """Register a party, and return its API key, which is told this once.

    Raises:
        ValueError: The name is taken or of other signs than letters, digits and hyphens, or an audience is
            no origin.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise ValueError(f"a party's name is 1 to 40 small letters, digits and hyphens, got {name!r}")
    if not audiences:
        raise ValueError("a party has one audience or more")
    key = f"ageveil_{secrets.token_urlsafe(32)}"
    values = {
        "id": name, "key_digest": digest(key), "audiences": [check_origin(one) for one in audiences],
        "created": int(time.time()),
    }  # fmt: skip
    try:
        connection.execute(sa.insert(parties).values(values))
    except IntegrityError:
        raise ValueError(f"there is a party {name!r} already") from None
    return key


def remove_party(connection: Connection, name: str) -> None:
    """Remove a party with its checks; the ledger keeps its records.

    Raises:
        ValueError: There is none of that name.
    """
    if connection.execute(sa.delete(parties).where(parties.c.id == name)).rowcount != 1:
        raise ValueError(f"there is no party {name!r}")


def find_party(connection: Connection, key: str) -> Party | None:
    """Whose API key that is."""
    row = connection.execute(sa.select(parties).where(parties.c.key_digest == digest(key))).one_or_none()
    return None if row is None else Party(row.id, tuple(row.audiences))


def list_parties(connection: Connection) -> tuple[Party, ...]:
    """All parties by name."""
    rows = connection.execute(sa.select(parties).order_by(parties.c.id))
    return tuple(Party(row.id, tuple(row.audiences)) for row in rows)
