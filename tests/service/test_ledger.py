"""The ledger: every change of every field is noticed, and what is deleted on purpose is not."""

import hashlib
import json

import pytest
import sqlalchemy as sa

from ageveil.errors import DataError
from ageveil.service import ledger
from ageveil.service.database import checks, reading
from ageveil.service.keys import KeyRing, generate_key, read_keys
from ageveil.service.ledger import Place

DAY = 86_400


@pytest.fixture
def filled(running):
    """A service with five records, made a day apart from each other; the clock stands at the last."""
    for day in range(5):
        running.ahead = DAY * day
        running.post(running.create().json(), "end")
    return running


def verified(running, known=None):
    with reading(running.service.engine) as connection:
        return ledger.verify(connection, running.service.keys, known=known)


def change(running, statement, **values):
    with running.service.engine.begin() as connection:
        return connection.execute(sa.text(statement), values)


def test_the_hash_is_that_of_the_row_as_json(filled):
    previous = "0" * 64
    with reading(filled.service.engine) as connection:
        for row in connection.execute(sa.text("SELECT * FROM ledger ORDER BY sequence")):
            text = json.dumps(
                [row.sequence, row.minute, row.kind, row.record, previous], separators=(",", ":")
            )
            previous = hashlib.sha256(text.encode()).hexdigest()
            assert row.hash == previous
    assert verified(filled) == ledger.Verified(Place(0, "0" * 64), Place(5, previous))


def test_a_record_holds_what_was_decided_and_nothing_of_the_visitor(filled):
    row = json.loads(change(filled, "SELECT record FROM ledger WHERE sequence = 1").scalar())
    with reading(filled.service.engine) as connection:
        check_id = connection.scalar(sa.select(checks.c.id).order_by(checks.c.expires))
    assert row == {
        "party": "films", "check": hashlib.sha256(check_id.encode()).hexdigest(), "outcome": "step_up",
        "minimum_age": 18, "approach": None, "model": None, "computed": "none",
    }  # fmt: skip


@pytest.mark.parametrize("sequence", [1, 3, 5])
@pytest.mark.parametrize(
    "assignment",
    ["sequence = 99",
     "minute = minute + 1", "kind = 'appeal'", "record = replace(record, 'step_up', 'allow')",
     "previous = hash", "hash = previous"],
)  # fmt: skip
def test_a_change_of_any_field_is_noticed(filled, sequence, assignment):
    assert change(filled, f"UPDATE ledger SET {assignment} WHERE sequence = {sequence}").rowcount == 1  # noqa: S608
    with pytest.raises(DataError, match="ledger: "):
        verified(filled)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger WHERE sequence = 1",
        "DELETE FROM ledger WHERE sequence = 3",
        "DELETE FROM ledger WHERE sequence = 5",
        "DELETE FROM ledger",
        "DELETE FROM ledger_end",
        "UPDATE ledger_end SET sequence = 4",
        "UPDATE ledger_end SET signature = NULL",
        "UPDATE ledger_end SET checkpoint = signature",
        "INSERT INTO ledger SELECT 6, minute, kind, record, hash, hash FROM ledger WHERE sequence = 5",
    ],
)
def test_deleted_and_added_records_are_noticed(filled, statement):
    change(filled, statement)
    with pytest.raises(DataError, match="ledger: "):
        verified(filled)


def test_whoever_recomputes_the_hashes_lacks_the_key(filled, tmp_path):
    """A database administrator rewrites everything, the end included."""
    forger = KeyRing((generate_key(tmp_path / "forged"),))
    with filled.service.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM ledger"))
        connection.execute(sa.text("UPDATE ledger_end SET sequence = 0, hash = :zero"), {"zero": "0" * 64})
        ledger.append(connection, forger, "decision", {"outcome": "allow"}, 0)
    with pytest.raises(DataError, match="the end is not signed"):
        verified(filled)


def test_a_database_that_was_set_back_is_noticed_by_a_noted_end(filled):
    old = change(filled, "SELECT * FROM ledger_end").one()
    filled.post(filled.create().json(), "end")
    noted = verified(filled).end
    change(filled, "DELETE FROM ledger WHERE sequence = 6")
    change(
        filled, "UPDATE ledger_end SET sequence = :s, hash = :h, signature = :t",
        s=old.sequence, h=old.hash, t=old.signature,
    )  # fmt: skip
    verified(filled)  # nothing in the database tells
    with pytest.raises(DataError, match="noted record 6"):
        verified(filled, noted)
    assert verified(filled, Place(old.sequence, old.hash)).end.sequence == 5


@pytest.mark.parametrize(("days", "left"), [(5, 5), (4, 5), (3, 4), (1, 2)])
def test_old_records_give_way_to_a_checkpoint(filled, days, left):
    # Records are 4, 3, 2, 1 and 0 days old; one that is just as old as it may be stays.
    with filled.service.engine.begin() as connection:
        now = filled.service.clock() // 60 * 60
        assert ledger.expire(connection, filled.service.keys, days=days, now=now) == 5 - left
    found = verified(filled)
    assert (found.checkpoint.sequence, found.end.sequence) == (5 - left, 5)
    filled.post(filled.create().json(), "end")
    assert verified(filled).end.sequence == 6


def test_all_records_may_give_way_and_the_chain_goes_on(filled):
    filled.ahead += 30 * DAY
    for wanted in (5, 0):  # again: there is nothing left to delete
        with filled.service.engine.begin() as connection:
            count = ledger.expire(connection, filled.service.keys, days=7, now=filled.service.clock())
        assert count == wanted
    assert change(filled, "SELECT count(*) FROM checks").scalar() == 0
    filled.post(filled.create().json(), "end")
    assert verified(filled).checkpoint.sequence == 5
    for statement in ("UPDATE ledger_end SET checkpoint = NULL", "UPDATE ledger_end SET checkpoint = 'x'"):
        change(filled, statement)
        with pytest.raises(DataError, match="ledger: "):
            verified(filled)


def test_damage_is_not_signed_away(filled):
    change(filled, "UPDATE ledger SET minute = 0 WHERE sequence = 2")
    with filled.service.engine.begin() as connection, pytest.raises(DataError, match="record 2 was changed"):
        ledger.expire(connection, filled.service.keys, days=1, now=filled.service.clock())
    with filled.service.engine.begin() as connection, pytest.raises(ValueError, match="one day or more"):
        ledger.expire(connection, filled.service.keys, days=0, now=0)


def test_keys_are_private_files_that_are_checked(tmp_path):
    with pytest.raises(DataError, match="no signing key"):
        read_keys(tmp_path)
    key = generate_key(tmp_path / "keys", 1000)
    (file,) = (tmp_path / "keys").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    later = generate_key(tmp_path / "keys", 2000)
    ring = read_keys(tmp_path / "keys", 600)
    assert [ring.active(now).kid for now in (0, 1000, 2599, 2600)] == [key.kid] * 3 + [later.kid]
    file.rename(file.with_name("000000001000-other.pem"))
    with pytest.raises(DataError, match="expected the key other"):
        read_keys(tmp_path / "keys")
    file.with_name("000000001000-other.pem").write_text("no key")
    with pytest.raises(DataError, match="expected a private Ed25519 key"):
        read_keys(tmp_path / "keys")


def test_a_key_is_named_by_its_thumbprint(tmp_path):
    from joserfc.jwk import OKPKey

    key = generate_key(tmp_path)
    assert OKPKey.import_key(key.public()).thumbprint() == key.kid
