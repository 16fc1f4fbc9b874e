"""`ageveil prepare` as its users meet it."""

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from ageveil.image import read_image, write_image
from ageveil.training.preparation import load_prepared


@pytest.fixture(scope="module")
def table(tmp_path_factory, astronaut):
    folder = tmp_path_factory.mktemp("data")
    write_image(folder / "a.png", read_image(astronaut)[:260, 60:380])
    write_image(folder / "b.png", np.full((90, 90, 3), 120, np.uint8))
    (folder / "faces.csv").write_text("file,age\na.png,29\nb.png,5\nc.png,\ngone.png,7\n")
    return folder / "faces.csv"


@pytest.fixture
def prepare(run):
    return partial(run, "prepare")


def test_faces_are_prepared_and_counted(prepare, table, tmp_path):
    code, out, err = prepare(f"csv:{table}", "--out", tmp_path / "faces", "--workers", 1)
    assert (code, err) == (0, "")
    assert out == (
        f"1 faces in {tmp_path / 'faces'}; left out: 1 no face found, 1 missing picture\n"
        f"  no face found: {table.parent / 'b.png'}\n"
        f"  missing picture: {table.parent / 'gone.png'}\n"
        "pictures without a usable label: 1 no age label\n"
    )
    assert [image.age for image in load_prepared(tmp_path / "faces").images] == [29]


def test_of_many_pictures_without_a_face_a_few_are_named(prepare, tmp_path, astronaut):
    write_image(tmp_path / "a.png", read_image(astronaut)[:260, 60:380])
    rows = "".join(f"gone-{number}.png,7\n" for number in range(13))
    (tmp_path / "faces.csv").write_text(f"file,age\na.png,29\n{rows}")
    said = prepare(f"csv:{tmp_path / 'faces.csv'}", "--out", tmp_path / "faces").out.splitlines()
    assert len(said) == 12
    assert said[-2] == f"  missing picture: {tmp_path / 'gone-9.png'}"
    assert said[-1] == "  and 3 more: --json names them all"


def test_json_counts_alike(prepare, table, tmp_path):
    code, out, err = prepare(f"csv:{table}", "--out", tmp_path / "faces", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "data": f"csv:{table}",
        "folder": str(tmp_path / "faces"),
        "pictures": 3,
        "faces": 1,
        "left_out": {"no face found": 1, "missing picture": 1},
        "without_face": [
            {"file": str(table.parent / "b.png"), "reason": "no face found"},
            {"file": str(table.parent / "gone.png"), "reason": "missing picture"},
        ],
        "labels_left_out": {"no age label": 1},
    }


def test_quiet_prints_nothing(prepare, table, tmp_path):
    assert prepare(f"csv:{table}", "--out", tmp_path / "faces", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            ["imdb:faces", "--out", "{}/faces"],
            2,
            "unknown data set 'imdb'; choose one of: adience, csv, fairface",
        ),
        (["utkface:{}/gone", "--out", "{}/faces"], 13, "cannot list the data set folder"),
        (["lfw:{}/gone", "--out", "{}/faces"], 13, "cannot list the data set folder"),
        (["adience:{}", "--out", "{}/faces"], 13, "fold_0_data.txt, fold_1_data.txt"),
        (["csv:{table}", "--out", "{}"], 9, "holds other files"),
        (["csv:{table}"], 2, "--out"),
    ],
)
def test_errors_are_one_line_with_their_code(prepare, table, tmp_path, words, code, says):
    (tmp_path / "notes.txt").touch()
    ended, out, err = prepare(
        *(word.replace("{table}", str(table)).replace("{}", str(tmp_path)) for word in words)
    )
    assert (ended, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert says in err


def test_another_data_set_in_the_same_folder_is_refused(prepare, table, tmp_path):
    prepare(f"csv:{table}", "--out", tmp_path / "faces")
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "29_0_0_1.png", read_image(table.parent / "a.png"))
    code, out, err = prepare(f"utkface:{tmp_path / 'data'}", "--out", tmp_path / "faces")
    assert (code, out) == (13, "")
    assert "was made for another data set; choose another folder" in err


def test_ctrl_c_ends_in_one_line_and_leaves_no_half_file(table, tmp_path):
    many = table.with_name("many.csv")
    # The first shard is done at once, for its pictures are missing; the rest takes a minute.
    many.write_text("file,age\n" + "gone.png,7\n" * 512 + "a.png,29\n" * 3000)
    words = [f"csv:{many}", "--out", str(tmp_path / "faces"), "--workers", "1"]
    # A shell's background job ignores the signal, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [sys.executable, "-m", "ageveil", "prepare", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    limit = time.monotonic() + 60
    while not (tmp_path / "faces" / "shard-00000.json").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "ageveil: interrupted\n")
    names = {path.name for path in (tmp_path / "faces").iterdir()}
    assert {"prepared.json", "shard-00000.npy"} <= names
    assert not [name for name in names if name.endswith(".part")]


def test_the_help_says_that_the_folder_holds_bare_faces(prepare):
    code, out, _ = prepare("--help")
    text = " ".join(re.sub(r"[│╭╰╮╯─]", " ", out).split())
    assert code == 0
    assert "holds bare faces: only its owner can read it" in text
