"""What every request of a process shares: settings, database, keys, model and counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ageveil import decision
from ageveil.errors import DataError
from ageveil.files import make_directory
from ageveil.pipeline import Terms
from ageveil.service import checks, metrics, tokens
from ageveil.service.checks import Answer, Check
from ageveil.service.database import connect, migrate, parties
from ageveil.service.judge import Judge
from ageveil.service.keys import KeyRing, KeyStore, generate_key
from ageveil.service.limits import RateLimits
from ageveil.service.parties import add_party
from ageveil.service.problems import Problem
from ageveil.service.settings import Settings
from ageveil.types import Outcome

DEMO = "demo"
"""Name of the demo party."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process's own. `open_service` makes it.

    Attributes:
        clock: Unix time in seconds.
    """

    settings: Settings
    engine: Engine
    keystore: KeyStore
    judge: Judge
    limits: RateLimits
    clock: Callable[[], float] = time.time
    _pool: ThreadPoolExecutor = field(init=False)
    _places: BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        # One thread of the network for each face serves many of them better than several for one.
        pool = ThreadPoolExecutor(self.settings.estimator_threads, "estimator")
        places = self.settings.estimator_threads + self.settings.queue
        object.__setattr__(self, "_pool", pool)
        object.__setattr__(self, "_places", BoundedSemaphore(places))

    @property
    def keys(self) -> KeyRing:
        """The keys as they are now."""
        return self.keystore.current()

    def estimate(self, terms: Terms, frames: Sequence[tuple[str, Any]]) -> Outcome:
        """As `Judge.judge`, no more at a time than there are estimator threads.

        Raises:
            Problem: As there, or too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise Problem("busy", "too many visitors at a time")
        try:
            with metrics.WAITING.track_inprogress():
                return self._pool.submit(self.judge.judge, terms, frames).result()
        finally:
            self._places.release()

    def answer(
        self,
        check: Check,
        outcome: Outcome,
        computed: checks.Computed,
        signals: Mapping[str, Any] | None = None,
    ) -> Answer:
        """An outcome as it is written down; approach and model where they had a part in it."""
        terms = self.judge.terms(check.ask)
        age, info = decision.required_age(terms.rating, terms.policy), self.judge.model.info
        answer = Answer(outcome, age, self.judge.approach, f"{info.name} {info.version}", computed, signals)
        return answer if computed in {"server", "client"} else replace(answer, approach=None, model=None)

    def token(self, check: Check) -> str | None:
        """The token of a check, the same at each call until a key is rotated; None while it is open."""
        if check.jti is None or check.completed_minute is None:
            return None
        chosen = self.settings
        return tokens.issue(
            self.keys, check.claims(chosen.origin), check.completed_minute, chosen.token_seconds, self.clock()
        )

    def close(self) -> None:
        """End the threads and the database's connections."""
        self._pool.shutdown()
        self.engine.dispose()


def open_database(settings: Settings) -> Engine:
    """The migrated database; the state directory is made where it is missing.

    Raises:
        DataError: The database cannot be used.
        OutputError: The state directory cannot be made.
    """
    make_directory(settings.state_directory, private=True)
    engine = connect(settings.database_url)
    migrate(engine)
    return engine


def open_service(settings: Settings) -> Service:
    """Make everything ready; the first time a signing key as well.

    Raises:
        AgeveilError: The database, the keys or the model cannot be used.
        ValueError: A setting names none of these.
    """
    engine = open_database(settings)
    # Several processes may begin at once: the database's lock lets one of them make the key.
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE ledger_end SET sequence = sequence"))
        signed = connection.scalar(sa.text("SELECT signature FROM ledger_end")) is not None
        if not any(settings.keys_directory.glob("*.pem")):
            if signed:
                raise DataError(f"{settings.keys_directory} holds no key, but the ledger was signed with one")
            generate_key(settings.keys_directory)
    keystore = KeyStore(settings.keys_directory, settings.key_delay_seconds)
    limits = RateLimits(settings.party_per_minute, settings.address_per_minute)
    return Service(settings, engine, keystore, Judge(settings), limits)


def open_demo(service: Service) -> str | None:
    """Make or renew the demo party where the state is embedded and the settings ask for it.

    Returns:
        Its API key where it was made just now.
    """
    settings = service.settings
    if not settings.demo or settings.database.get_secret_value():
        return None
    with service.engine.begin() as connection:
        mine = sa.update(parties).where(parties.c.id == DEMO).values(audiences=[settings.origin])
        if connection.execute(mine).rowcount == 1:
            return None
        if connection.scalar(sa.select(sa.func.count()).select_from(parties)):
            return None  # others are registered: this is no first start
        return add_party(connection, DEMO, [settings.origin])
