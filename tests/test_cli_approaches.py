"""`ageveil approaches` as its users meet it."""

import json
from pathlib import Path

from ageveil.anonymization import APPROACHES

AUDIT = Path(__file__).parents[1] / "recipes" / "audit" / "report" / "audit.json"


def test_every_approach_is_listed_with_what_the_audit_found(run):
    audit = json.loads(AUDIT.read_text())
    ended = run("approaches", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [record["name"] for record in ended.json["approaches"]] == list(APPROACHES)
    for record in ended.json["approaches"]:
        assert record["summary"] == APPROACHES[record["name"]].summary
        if (found := audit["approaches"].get(record["name"])) is None:
            assert (record["verdict"], record["named"]) == ("not audited", None)
        else:
            assert (record["verdict"], record["named"]) == (found["verdict"], found["strongest"]["rank1"])
    assert {"original", "mosaic", "mask", "blur", "permutation"} <= set(audit["approaches"])
    assert ended.json["people"] == audit["people"]


def test_the_table_warns_of_what_hides_from_people_alone(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # each verdict in one line
    ended = run("approaches")
    assert ended.code == 0
    for name in APPROACHES:
        assert name in ended.out
    assert ended.out.count("Hides from people, not from software: it named") == 3
