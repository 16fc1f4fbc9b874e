"""The ledger: a chain of records, each with the hash of the one before, and a signed end.

A record holds no image, embedding, address or secret. Whoever changes, inserts, moves or deletes a record
breaks a hash; whoever recomputes the hashes lacks the key that signs the end. Old records are replaced by a
signed checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ageveil.errors import DataError
from ageveil.service.database import checks, ledger, ledger_end
from ageveil.service.keys import KeyRing

END, CHECKPOINT = "ageveil-ledger-end+jwt", "ageveil-ledger-checkpoint+jwt"
_FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Place:
    """A record's place in the chain: its number, from 1, and its hash; (0, zeros) stands before the first."""

    sequence: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found: the records between a checkpoint and the end."""

    checkpoint: Place
    end: Place


def record_hash(sequence: int, minute: int, kind: str, record: str, previous: str) -> str:
    """SHA-256 in hex over everything in a row but the hash itself, as compact JSON."""
    row = json.dumps([sequence, minute, kind, record, previous], separators=(",", ":"))
    return hashlib.sha256(row.encode()).hexdigest()


def append(connection: Connection, keys: KeyRing, kind: str, record: Mapping[str, Any], now: float) -> str:
    """Add a record in the caller's transaction and return its hash.

    The number of a record would tell a party how much others ask; the hash tells nothing.

    The row that names the end is locked until that transaction ends, so two processes cannot fork the chain.
    """
    end = connection.execute(sa.select(ledger_end).with_for_update()).one()
    sequence, minute = int(end.sequence) + 1, int(now // 60)
    text = json.dumps(record, separators=(",", ":"), sort_keys=True)
    found = record_hash(sequence, minute, kind, text, end.hash)
    place = {"sequence": sequence, "hash": found}
    row = {**place, "minute": minute, "kind": kind, "record": text, "previous": end.hash}
    connection.execute(sa.insert(ledger), row)
    connection.execute(sa.update(ledger_end), {**place, "signature": keys.sign(place, END, now)})
    return found


def verify(connection: Connection, keys: KeyRing, *, known: Place | None = None) -> Verified:
    """Check the whole chain.

    Args:
        connection: A reading one.
        keys: Those that may have signed.
        known: A place that was noted earlier, elsewhere: the chain must still go through it. Only so is a
            database noticed that was set back as a whole.

    Raises:
        DataError: A record was changed, added, moved or deleted; the message names it.
    """
    end = connection.execute(sa.select(ledger_end)).one_or_none()
    if end is None:
        raise DataError("ledger: the row that names the end is missing")
    start = Place(0, _FIRST) if end.checkpoint is None else _signed(keys, end.checkpoint, CHECKPOINT)
    last, known_seen = start, known in {None, start}
    query = sa.select(ledger).order_by(ledger.c.sequence).execution_options(yield_per=1000)
    with connection.execute(query) as rows:
        for row in rows:
            last = _next(row, last)
            known_seen = known_seen or last == known
    if last != Place(end.sequence, end.hash):
        raise DataError(f"ledger: the last record is {last.sequence}, the end names {end.sequence}")
    if (end.signature is not None or last.sequence > 0) and _signed(keys, end.signature, END) != last:
        raise DataError("ledger: the end is not the one that was signed")
    if not known_seen and known is not None and known.sequence >= start.sequence:
        raise DataError(f"ledger: the chain does not go through the noted record {known.sequence}")
    return Verified(start, last)


def _next(row: Any, before: Place) -> Place:  # noqa: ANN401 - a row of `ledger`
    """The place of a row that follows another."""
    if row.sequence != before.sequence + 1:
        raise DataError(f"ledger: record {before.sequence + 1} is missing, {row.sequence} follows")
    if row.previous != before.hash:
        raise DataError(f"ledger: record {row.sequence} does not follow the one before")
    if record_hash(row.sequence, row.minute, row.kind, row.record, row.previous) != row.hash:
        raise DataError(f"ledger: record {row.sequence} was changed")
    return Place(row.sequence, row.hash)


def _signed(keys: KeyRing, token: str | None, kind: str) -> Place:
    try:
        claims = keys.verify(token or "", kind)
        return Place(claims["sequence"], claims["hash"])
    except (KeyError, ValueError):
        what = "end" if kind == END else "checkpoint"
        raise DataError(f"ledger: the {what} is not signed by one of the keys") from None


def expire(connection: Connection, keys: KeyRing, *, days: int, now: float) -> int:
    """Delete the records and checks that are older than so many days; a signed checkpoint takes their place.

    The chain is checked before, so that no damage is signed away.

    Returns:
        How many records were deleted.

    Raises:
        ValueError: `days` is under 1.
        DataError: As `verify`.
    """
    if days < 1:
        raise ValueError(f"records are kept for one day or more, got {days}")
    connection.execute(sa.select(ledger_end).with_for_update())
    start = verify(connection, keys).checkpoint
    oldest = now - 86_400 * days
    young = connection.scalar(
        sa.select(sa.func.min(ledger.c.sequence)).where(ledger.c.minute >= oldest // 60)
    )
    query = sa.select(ledger.c.sequence, ledger.c.hash).order_by(ledger.c.sequence.desc()).limit(1)
    last = connection.execute(
        query if young is None else query.where(ledger.c.sequence < young)
    ).one_or_none()
    connection.execute(sa.delete(checks).where(checks.c.expires < oldest))
    if last is None:
        return 0
    connection.execute(sa.delete(ledger).where(ledger.c.sequence <= last.sequence))
    checkpoint = keys.sign({"sequence": last.sequence, "hash": last.hash}, CHECKPOINT, now)
    connection.execute(sa.update(ledger_end).values(checkpoint=checkpoint))
    return int(last.sequence) - start.sequence
