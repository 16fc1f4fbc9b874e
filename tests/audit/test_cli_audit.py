"""`ageveil audit` as its users meet it."""

import contextlib
import itertools
import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from ageveil.audit import cryptanalysis

SMALL = ["--approach", "original,mask", "--releases", "1,2", "--quiet"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("audit-cli") / "cache"


@pytest.fixture(scope="module")
def ages(folder, tmp_path_factory):
    """The same pictures as a data set with ages."""
    root = tmp_path_factory.mktemp("ages")
    for age, name in ((5, "Ann"), (30, "Bob"), (65, "Cy")):
        (root / str(age)).mkdir()
        for picture in (folder / name).iterdir():
            (root / str(age) / picture.name).symlink_to(picture)
    return root


def test_an_audit_ends_in_a_page_and_a_record(run, folder, ages, cache, tmp_path):
    out = tmp_path / "report"
    ended = run(
        "audit", "--faces", folder, "--ages", f"folder:{ages}", "--out", out, "--cache", cache, *SMALL
    )
    assert ended == (0, "", "")
    assert {path.name for path in out.iterdir()} == {"index.html", "audit.json"}
    record = json.loads((out / "audit.json").read_text())
    assert set(record["approaches"]) == {"original", "mask"}
    assert {entry["name"]: entry["approaches"] for entry in record["recognisers"]} == {
        "dlib-resnet": None, "pixels": None, "levels": None,
        "dlib-resnet-adapted": ["mosaic", "mask", "blur", "grid"],
    }  # fmt: skip
    for entry in record["approaches"].values():
        for where in (entry["reidentification"], entry["releases"]["2"]):
            assert set(where) - {"strongest"} == {"naive", "aware", "adapted"}
            for figures in where.values():
                for name in ("rank1", "rank5"):
                    assert 0 <= figures[name]["low"] <= figures[name]["high"] <= 100
        assert 0 <= entry["age"]["exact"]["value"] <= entry["age"]["one_off"]["value"] <= 100
        assert "6 people" in entry["verdict"]
    assert record["run"]["command"].startswith("ageveil audit --faces")
    assert record["run"]["seconds"] >= 0
    assert "ciphers" not in record  # none was asked for
    page = (out / "index.html").read_text()
    assert "<img" not in page
    assert "6: 12 known faces, 6 to be named" in page


@pytest.fixture(scope="module")
def stated(folder, tmp_path_factory):
    """The same pictures in a table that states ages and genders."""
    root = tmp_path_factory.mktemp("stated")
    lines = ["file,age,gender"]
    for number, picture in enumerate(sorted(folder.rglob("*.png"))):
        (root / f"{number}.png").symlink_to(picture)
        lines.append(f"{number}.png,{(5, 30, 65)[number % 3]},{('female', 'male')[number // 3 % 2]}")
    (root / "faces.csv").write_text("\n".join(lines) + "\n")
    return root / "faces.csv"


def test_attributes_and_members_are_looked_for(run, stated, cache, tmp_path):
    (crops,) = (cache / "faces").iterdir()
    words = ["--faces", crops, "--ages", f"csv:{stated}", "--members", f"csv:{stated}", "--out", tmp_path]
    ended = run("audit", *words, "--quick", "--approach", "mask", "--model", "ageveil", "--quiet")
    assert ended == (0, "", "")
    record = json.loads((tmp_path / "audit.json").read_text())
    told = record["attributes"]["mask"]["gender"]
    assert (told["values"], told["guessing"], told["faces"]) == (["female", "male"], 50, 18)
    assert told["recall"]["value"] > 90  # one portrait or the other
    (female, male) = record["fairness"]["mask"]["parts"]["gender"]
    assert (female["value"], male["value"]) == ("female", "male")
    assert female["over_13"]["faces"] + male["over_13"]["faces"] == 6  # those of 5 years
    members = record["membership"]["mask"]
    assert members["trained"] + members["others"] == 18
    assert 0 <= members["advantage"]["value"] <= 100
    page = (tmp_path / "index.html").read_text()
    assert "What else a face tells" in page
    assert "For whom the estimator errs" in page
    assert "Whom the estimator has seen" in page


def test_a_model_that_does_not_say_what_it_was_trained_on(run, stated, cache, tmp_path):
    (crops,) = (cache / "faces").iterdir()
    words = [
        "--faces",
        crops,
        "--members",
        f"csv:{stated}",
        "--out",
        tmp_path,
        "--quick",
        "--approach",
        "mask",
    ]
    ended = run("audit", *words, "--model", "dlib-age")
    assert ended.code == 13
    assert "does not say which faces its training left out" in ended.err


def test_the_cache_is_private_and_saves_the_work(run, folder, cache, tmp_path):
    files = {path: path.stat().st_mtime_ns for path in (cache / "embeddings").iterdir()}
    assert files
    ended = run("audit", "--faces", folder, "--out", tmp_path, "--cache", cache, *SMALL[:-1], "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json == {"page": str(tmp_path / "index.html"), "report": str(tmp_path / "audit.json")}
    assert {path: path.stat().st_mtime_ns for path in (cache / "embeddings").iterdir()} == files


def test_a_blur_is_undone(run, folder, tmp_path):
    words = ["--faces", folder, "--out", tmp_path, "--quick", "--approach", "blur,mask", "--quiet"]
    assert run("audit", *words).code == 0
    restored = json.loads((tmp_path / "audit.json").read_text())["reconstruction"]
    assert {name: set(methods) for name, methods in restored.items()} == {
        "blur": {"wiener", "richardson-lucy"}
    }
    before, after = restored["blur"]["wiener"]["psnr"]
    assert after["value"] > before["value"]
    assert "What deblurring brings back" in (tmp_path / "index.html").read_text()


def test_verdicts_are_shown(run, cache, tmp_path):
    (crops,) = (cache / "faces").iterdir()
    ended = run("audit", "--faces", crops, "--out", tmp_path, "--quick", "--approach", "mask")
    assert ended.code == 0
    assert "lower bound" in ended.out
    record = json.loads((tmp_path / "audit.json").read_text())
    assert (record["attackers"], record["releases"]) == (["naive", "aware"], [1])
    # Nobody is there who may look with what has learned.
    assert [entry["name"] for entry in record["recognisers"]] == ["dlib-resnet", "pixels", "levels"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--recogniser", "arcface"], 2, "unknown recogniser 'arcface'"),
        (["--recogniser", "gone.onnx"], 12, "gone.onnx cannot be read"),
        (["--recogniser", "dlib-resnet-adapted"], 2, "a recogniser that looks behind every approach"),
        (["--recogniser", "dlib-resnet,dlib-resnet"], 2, "two recognisers have the name"),
        (["--approach", "nothing"], 2, "unknown approach 'nothing'"),
        (["--releases", "5,1"], 2, "releases ascend from 1"),
        (["--releases", "many"], 2, "expected whole numbers"),
        (["--ages", "utkface:gone"], 13, "cannot list the data set folder"),
        (["--model", "gone", "--ages", "utkface:gone"], 13, "cannot list"),
        (["--people", "4"], 2, "greater than or equal to 5"),
    ],
)
def test_what_is_wrong_is_told_before_the_work(run, folder, tmp_path, words, code, says):
    ended = run("audit", "--faces", folder, "--out", tmp_path / "out", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert not list((tmp_path / "out").glob("*.json"))


def test_people_with_one_photograph_cannot_be_audited(run, folder, tmp_path):
    for name in ("Ann", "Bob", "Cy", "Dee", "Eve"):
        (tmp_path / "lfw" / name).mkdir(parents=True)
        (tmp_path / "lfw" / name / "0.png").symlink_to(folder / name / "0.png")
    ended = run("audit", "--faces", tmp_path / "lfw", "--out", tmp_path / "out")
    assert ended.code == 13
    assert ended.err == "ageveil: the audit needs 5 people with two faces or more, got 0\n"


def test_unreadable_pictures_are_left_out_and_counted(run, folder, tmp_path):
    for name in ("Ann", "Bob", "Cy", "Dee", "Eve"):
        (tmp_path / "lfw" / name).mkdir(parents=True)
        for picture in "01":
            (tmp_path / "lfw" / name / f"{picture}.png").symlink_to(folder / name / f"{picture}.png")
    (tmp_path / "lfw" / "Ann" / "2.png").write_bytes(b"no picture")
    ended = run(
        "audit", "--faces", tmp_path / "lfw", "--out", tmp_path / "out", "--quick", "--approach", "mask"
    )
    assert ended.code == 0
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert record["left_out"] == {"unreadable picture": 1}


def test_a_missing_folder_is_named(run, tmp_path):
    ended = run("audit", "--faces", tmp_path / "gone", "--out", tmp_path / "out")
    assert ended.code == 13
    assert "gone" in ended.err


def test_ciphers_are_attacked_where_they_are_asked_for(run, cache, tmp_path, monkeypatch):
    real = cryptanalysis.attack_ciphers
    monkeypatch.setattr(
        cryptanalysis, "attack_ciphers",
        lambda crop, seed, search_side, advance: real(crop, seed, search_side=12, advance=advance),
    )  # fmt: skip
    (crops,) = (cache / "faces").iterdir()
    words = ["--quick", "--approach", "permutation", "--quiet"]
    assert run("audit", "--faces", crops, "--out", tmp_path, *words).code == 0
    found = json.loads((tmp_path / "audit.json").read_text())["ciphers"]
    assert found["attacks"][0]["recovered"] == found["attacks"][1]["recovered"] == 100
    assert found["permutation_keys"] == 224**4
    assert "Ciphers" in (tmp_path / "index.html").read_text()


def test_bars_follow_one_another_on_a_terminal(folder, stated, tmp_path):
    own, other = pty.openpty()
    words = [sys.executable, "-m", "ageveil", "audit", "--faces", folder, "--ages", f"csv:{stated}"]
    words += ["--members", f"csv:{stated}", "--out", tmp_path, "--quick", "--approach", "mask", "--json"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    written = []
    with subprocess.Popen(
        [*map(str, words), "--model", "ageveil"], env=environment, stdout=subprocess.DEVNULL, stderr=other
    ) as process:
        os.close(other)
        with contextlib.suppress(OSError):  # the end of a terminal that nobody writes to
            while part := os.read(own, 4096):
                written.append(part)
    os.close(own)
    assert process.returncode == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(written).decode()))
    titles = [found[1] for line in lines if (found := re.match(r"([a-z ]+?) [━╺╸]", line))]
    assert [title for title, _ in itertools.groupby(titles)] == [
        "faces of people", "attacks", "ages", "attributes", "membership",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["report", "report/cache", "report/../report/x"])
def test_a_cache_is_not_kept_where_the_report_goes(run, folder, tmp_path, place):
    ended = run("audit", "--faces", folder, "--out", tmp_path / "report", "--cache", tmp_path / place)
    assert ended.code == 2
    assert "the cache holds bare faces" in ended.err
    assert not (tmp_path / "report").exists()


def test_nothing_of_a_face_stays_where_it_is_told_to_end(folder, tmp_path):
    (tmp_path / "temporary").mkdir()
    words = [sys.executable, "-m", "ageveil", "audit", "--faces", folder, "--out", tmp_path / "out"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        list(map(str, words)), env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "temporary").rglob("shard-*.npy")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        said = process.communicate()[1]
    assert (process.returncode, said) == (130, "ageveil: interrupted\n")
    assert not list((tmp_path / "temporary").rglob("*.npy"))
