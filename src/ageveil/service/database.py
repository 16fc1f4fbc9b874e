"""Tables and connections: SQLite in a file, or PostgreSQL by URL.

Times are whole Unix seconds, or minutes where a name says so. Migrations lie in `migrations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ageveil.errors import DataError

metadata = sa.MetaData()

parties = sa.Table(
    "parties",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("key_digest", sa.String(64), nullable=False, unique=True),
    sa.Column("audiences", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)

checks = sa.Table(
    "checks",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("party", sa.String(40), sa.ForeignKey("parties.id", ondelete="CASCADE"), nullable=False),
    sa.Column("audience", sa.String(300), nullable=False),
    sa.Column("nonce", sa.String(128), nullable=False),
    sa.Column("secret_digest", sa.String(64), nullable=False),
    sa.Column("board", sa.String(20)),
    sa.Column("mark", sa.String(40)),
    sa.Column("minimum_age", sa.Integer),
    sa.Column("accompanied", sa.Boolean, nullable=False),
    sa.Column("modes", sa.JSON, nullable=False),
    sa.Column("tries_left", sa.Integer, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    # Grows with every change: an update names the one that it has read, and fails where another was faster.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("answer", sa.JSON),  # outcome, approach, model, computed, signals of the last try
    sa.Column("jti", sa.String(32), unique=True),  # set by completion
    sa.Column("completed_minute", sa.BigInteger),
    sa.Column("redeemed", sa.Boolean, nullable=False),
    sa.UniqueConstraint("party", "nonce", name="nonce_once"),
)

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column(
        "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False
    ),
    sa.Column("minute", sa.BigInteger, nullable=False, index=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

ledger_end = sa.Table(
    "ledger_end",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("signature", sa.Text),
    sa.Column("checkpoint", sa.Text),
)


def connect(url: str) -> Engine:
    """An engine for a URL; nothing is opened yet.

    Raises:
        ValueError: It is no URL of SQLite or PostgreSQL.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ValueError("expected a database URL as postgresql://user@host/name") from None
    if parsed.drivername == "postgresql+psycopg":
        timeouts = {"connect_timeout": 5, "options": "-c lock_timeout=5000 -c statement_timeout=10000"}
        return sa.create_engine(
            parsed, pool_pre_ping=True, pool_size=10, max_overflow=30, pool_timeout=5, hide_parameters=True,
            connect_args={**timeouts, **parsed.query},
        )  # fmt: skip
    if parsed.drivername != "sqlite" or not parsed.database:
        raise ValueError("expected a database URL of PostgreSQL or of an SQLite file")
    engine = sa.create_engine(
        parsed, pool_size=10, max_overflow=30, hide_parameters=True, connect_args={"timeout": 5}
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own connection
    connection.isolation_level = None  # transactions are begun below, not by the driver's rules
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that reads first and writes then could fail on another's change.
    reading = connection.get_execution_options().get("ageveil_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and changes nothing."""
    options: dict[str, Any] = {"ageveil_reading": True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    with engine.connect().execution_options(**options) as connection:
        yield connection


def migrate(engine: Engine) -> None:
    """Bring the tables to this version; several processes may do so at once.

    Raises:
        DataError: The database does not answer, or it is not one that this version can migrate.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    try:
        with engine.begin() as connection:  # SQLite: locked by BEGIN IMMEDIATE
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305813901)"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, CommandError) as error:
        raise DataError(f"the database cannot be used: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What the driver says in its first line; it names hosts and files, never a password."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
