"""A check's life: open, completed, or expired. Every change is one compare-and-set in one transaction."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ageveil.service import ledger
from ageveil.service.database import checks
from ageveil.service.judge import Ask
from ageveil.service.keys import KeyRing
from ageveil.service.parties import Party, digest
from ageveil.service.problems import Problem
from ageveil.types import Outcome

Mode = Literal["anonymized", "device"]
Computed = Literal["server", "client", "rating", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a try, as it goes into the token.

    Attributes:
        outcome: "allow", "deny" or "step_up".
        minimum_age: In years; None where the rating has none.
        approach: How the face was anonymized; None where no face was read.
        model: Which estimator, as "name version"; None where no face was read.
        computed: "server"; "client" for a decision made on the device; "rating" where no age mattered;
            "none" where the visitor ended the check without a try.
        signals: Of presentation attacks, as the client reports them.
    """

    outcome: Outcome
    minimum_age: int | None
    approach: str | None
    model: str | None
    computed: Computed
    signals: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A check as it stands in the database.

    Attributes:
        id: 128 random bits, base64url.
        party: Who asked.
        audience: The origin that the token is for.
        nonce: The party's own, once only.
        ask: What is asked.
        modes: Which answers the party takes.
        tries_left: Tries that are left.
        expires: Unix time in seconds.
        version: Grows with each change.
        answer: Of the last try.
        jti: The token's name, once the check is completed.
        completed_minute: When that was, in minutes since 1970.
    """

    id: str
    party: str
    audience: str
    nonce: str
    ask: Ask
    modes: tuple[Mode, ...]
    tries_left: int
    expires: int
    version: int
    answer: Answer | None
    jti: str | None
    completed_minute: int | None

    def state(self, now: float) -> Literal["open", "completed", "expired"]:
        """Where in its life it is. One that is completed expires as well: its token is given no longer."""
        if self.expires <= now:
            return "expired"
        return "open" if self.jti is None else "completed"

    def claims(self, issuer: str) -> dict[str, Any]:
        """What a token says, but for its times. Nothing of it is the visitor's."""
        if self.answer is None:
            raise ValueError("an open check has no claims")
        given = asdict(self.answer)
        return {"iss": issuer, "aud": self.audience, "nonce": self.nonce, "jti": self.jti, **given}


def create(
    connection: Connection, keys: KeyRing, party: Party, asked: Check, settled: Answer | None, now: float
) -> tuple[Check, str]:
    """Write a new check, and return it with its secret.

    Args:
        connection: Of a transaction.
        keys: For the ledger.
        party: Who asks.
        asked: As `draft` makes it.
        settled: The answer where the rating alone gives it: the check is completed at once.
        now: Unix time.

    Raises:
        Problem: The audience is not the party's, or it has used the nonce before.
    """
    if asked.audience not in party.audiences:
        raise Problem("audience_unknown", "the party is not registered for this audience")
    secret = secrets.token_urlsafe(32)
    check = asked if settled is None else _completed(asked, settled, now)
    values = _columns(check) | {"secret_digest": digest(secret), "redeemed": False}
    try:
        connection.execute(sa.insert(checks), values)
    except IntegrityError:
        raise Problem("nonce_used", "the party has used this nonce before") from None
    if settled is not None:
        _record(connection, keys, check, settled, now)
    return check, secret


def draft(
    party: Party, *, audience: str, nonce: str, ask: Ask, modes: tuple[Mode, ...], tries: int, expires: int
) -> Check:
    """A check that is open and not yet written."""
    return Check(
        secrets.token_urlsafe(16), party.id, audience, nonce, ask, modes, tries, expires, 0, None, None, None
    )


def find(connection: Connection, check_id: str) -> tuple[Check, str] | None:
    """A check with the digest of its secret."""
    if "\0" in check_id:  # no text to PostgreSQL
        return None
    row = connection.execute(sa.select(checks).where(checks.c.id == check_id)).one_or_none()
    if row is None:
        return None
    ask = Ask(row.board, row.mark, row.minimum_age, row.accompanied)
    answer = None if row.answer is None else Answer(**row.answer)
    check = Check(
        row.id, row.party, row.audience, row.nonce, ask, tuple(row.modes), row.tries_left, row.expires,
        row.version, answer, row.jti, row.completed_minute,
    )  # fmt: skip
    return check, row.secret_digest


def opened(connection: Connection, check_id: str, secret: str) -> Check:
    """The check that a secret opens.

    Raises:
        Problem: There is none, or the secret is another's: the answer does not say which.
    """
    found = find(connection, check_id)
    if found is None or not hmac.compare_digest(found[1], digest(secret)):
        raise Problem("credentials_invalid", "no check has this id and secret")
    return found[0]


def require_open(check: Check, now: float, mode: Mode | None = None) -> None:
    """Check that a try is welcome.

    Raises:
        Problem: The check is completed or expired, or takes no answers of that mode.
    """
    state = check.state(now)
    if state == "expired":
        raise Problem("check_expired", "the check's time is over")
    if state == "completed":
        raise Problem("check_completed", "the check is completed")
    if mode is not None and mode not in check.modes:
        raise Problem("mode_not_allowed", f"this check takes no answers of the mode {mode}")


def answer(
    connection: Connection, keys: KeyRing, check: Check, given: Answer, now: float, *, ends: bool = False
) -> Check:
    """Write the outcome of a try. An allowed check ends, and so does the last try.

    Args:
        connection: Of a transaction.
        keys: For the ledger.
        check: As it was read before the try.
        given: The outcome.
        now: Unix time.
        ends: The visitor takes this outcome though tries are left.

    Raises:
        Problem: The check is no longer open, or another request has changed it since it was read.
    """
    require_open(check, now)
    last = ends or given.outcome == "allow" or check.tries_left <= 1
    tried = replace(check, version=check.version + 1, answer=given, tries_left=max(0, check.tries_left - 1))
    new = _completed(tried, given, now) if last else tried
    unchanged = (checks.c.id == check.id) & (checks.c.version == check.version) & (checks.c.expires > now)
    if connection.execute(sa.update(checks).where(unchanged), _columns(new)).rowcount != 1:
        raise Problem("check_changed", "another request was faster; read the check again")
    if given != check.answer or not ends:  # one that is only taken stands in the ledger already
        _record(connection, keys, check, given, now)
    return new


def redeem(connection: Connection, party: Party, jti: str, nonce: str) -> None:
    """Take a token once.

    Raises:
        Problem: It is not the party's, or was redeemed before.
    """
    own = (checks.c.jti == jti) & (checks.c.party == party.id) & (checks.c.nonce == nonce)
    unredeemed = own & checks.c.redeemed.is_(False)
    if connection.execute(sa.update(checks).where(unredeemed).values(redeemed=True)).rowcount == 1:
        return
    if connection.scalar(sa.select(sa.func.count()).select_from(checks).where(own)):
        raise Problem("token_redeemed", "the token was redeemed before")
    raise Problem("nonce_mismatch", "no check of this party has this nonce and token")


def appeal(
    connection: Connection, keys: KeyRing, party: Party, check_id: str, record: Mapping[str, str], now: float
) -> str:
    """Write down that a decision was appealed, and return the record's hash.

    Raises:
        Problem: The party has no such check, or it is not completed.
    """
    found = find(connection, check_id)
    if found is None or found[0].party != party.id:
        raise Problem("not_found", "the party has no such check")
    if found[0].jti is None:
        raise Problem("check_open", "the check has no outcome yet")
    entry = {"party": party.id, "check": reference(check_id), **record}
    return ledger.append(connection, keys, "appeal", entry, now)


def reference(check_id: str) -> str:
    """How the ledger names a check: whoever knows its id finds it, and nobody else."""
    return hashlib.sha256(check_id.encode()).hexdigest()


def _completed(check: Check, given: Answer, now: float) -> Check:
    return replace(
        check, answer=given, tries_left=0, jti=secrets.token_urlsafe(16), completed_minute=int(now // 60)
    )


def _columns(check: Check) -> dict[str, Any]:
    values = {name: getattr(check, name) for name in Check.__slots__ if name != "ask"}
    return values | {
        "modes": list(check.modes),
        "answer": None if check.answer is None else asdict(check.answer),
        **asdict(check.ask),
    }


def _record(connection: Connection, keys: KeyRing, check: Check, given: Answer, now: float) -> None:
    entry = {"party": check.party, "check": reference(check.id), **asdict(given)}
    entry.pop("signals")  # they are about the visitor's face, device and surroundings
    ledger.append(connection, keys, "decision", entry, now)
