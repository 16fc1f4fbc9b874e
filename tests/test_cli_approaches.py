"""`ageveil approaches` as its users meet it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ageveil import anonymization
from ageveil.anonymization import APPROACHES, VEIL
from ageveil.cli import options

AUDIT = Path(__file__).parents[1] / "recipes" / "audit" / "report" / "audit.json"


def test_every_approach_is_listed_with_what_the_audit_found(run):
    audit = json.loads(AUDIT.read_text())
    ended = run("approaches", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [record["name"] for record in ended.json["approaches"]] == list(APPROACHES)
    for record in ended.json["approaches"]:
        assert record["summary"] == APPROACHES[record["name"]].summary
        assert record["installed"] == APPROACHES[record["name"]].usable
        if (found := audit["approaches"].get(record["name"])) is None:
            assert (record["verdict"], record["named"]) == ("not audited", None)
        else:
            assert (record["verdict"], record["named"]) == (found["verdict"], found["strongest"]["rank1"])
    assert {"original", "mosaic", "mask", "blur", "permutation"} <= set(audit["approaches"])
    assert ended.json["people"] == audit["people"]


@pytest.mark.parametrize("there", [True, False])
def test_what_needs_a_network_that_is_missing_is_marked_and_not_among_all(run, monkeypatch, tmp_path, there):
    file = tmp_path / "veil.onnx"
    if there:
        file.write_bytes(b"looked for, not read")
    entry = replace(APPROACHES["veil"], weights=replace(VEIL, package=None, file=str(file)))
    monkeypatch.setattr(anonymization, "APPROACHES", {**APPROACHES, "veil": entry})
    monkeypatch.setenv("COLUMNS", "400")
    assert ("veil (not installed)" in run("approaches").out) == (not there)
    assert options.approaches("all") == [name for name in APPROACHES if there or name != "veil"]
    assert options.approaches("veil, mask") == ["veil", "mask"]  # who names it is told what to install


def test_the_table_warns_of_what_hides_from_people_alone(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # each verdict in one line
    ended = run("approaches")
    assert ended.code == 0
    for name in APPROACHES:
        assert name in ended.out
    assert ended.out.count("Hides from people, not from software: it named") == 3
