"""`ageveil calibrate` and what `ageveil rate` makes of its buffers, on real faces and a model that exists."""

import shutil

import numpy as np
import pytest

from ageveil import calibration
from ageveil.estimation import MODELS, split_of
from ageveil.pipeline import Pipeline
from ageveil.training.datasets import read_dataset
from ageveil.training.preparation import load_prepared, prepare
from ageveil.training.splits import split_validation

MODEL = ["--model", "dlib-age"]
# dlib's network is not calibrated and sure of itself: only a loose question has an answer on a few faces.
QUESTION = ["--board", "PEGI", "--rating", "18", "--approach", "mask", "--confidence", "0.6", *MODEL]


def age_of(path):
    return int(path.name.split("_")[0])


def drawn(ageveil_data, folder, first=0):
    """Real faces: 30 aged 13 to 17, and 12 of every tenth other picture's age; `first` draws others."""
    folder.mkdir()
    pictures = sorted((ageveil_data / "utkface" / "train").iterdir())
    young = [path for path in pictures if 13 <= age_of(path) <= 17]
    others = [path for path in pictures if path not in set(young)]
    for path in young[first :: len(young) // 30][:30] + others[first :: len(others) // 12][:12]:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def folder(ageveil_data, tmp_path_factory):
    return drawn(ageveil_data, tmp_path_factory.mktemp("faces") / "some")


@pytest.fixture(scope="module")
def others(ageveil_data, tmp_path_factory):
    return drawn(ageveil_data, tmp_path_factory.mktemp("faces") / "others", 3)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    """The same, cropped already."""
    place = tmp_path_factory.mktemp("prepared") / "some"
    prepare(read_dataset(f"utkface:{folder}"), place, Pipeline("mask", "dlib-age", allow_others=True))
    return place


def test_a_buffer_is_solved_stored_checked_and_quoted(run, prepared, others, tmp_path, astronaut):
    out = tmp_path / "buffers.json"
    words = ["--data", f"prepared:{prepared}", *QUESTION, "--max-false-accept", "0.15", "--out", out]
    record = run("calibrate", *words, "--check", f"utkface:{others}", "--json").json
    (stored,) = calibration.read_buffers(out)
    assert {**stored.to_json(), "statement": stored.statement()} == {
        name: value for name, value in record.items() if name not in {"left_out", "check", "licence"}
    }
    assert record["licence"] == MODELS["dlib-age"].info.licence
    ages = [image.age for image in load_prepared(prepared).images]
    assert record["faces"] == sum(13 <= age <= 17 for age in ages)
    assert record["adults"] == sum(age >= 25 for age in ages)
    assert record["bound"] <= 0.15
    assert (stored.approach, stored.data, stored.sha256) == (
        "mask",
        "utkface:some",
        MODELS["dlib-age"].info.sha256,
    )

    check = record["check"]
    bands = {band["low"]: band for band in check["bands"]}
    ages = [age_of(path) for path in others.iterdir()]
    assert check["faces"] == bands[13]["faces"] == sum(13 <= age <= 17 for age in ages)
    assert bands[25]["faces"] == sum(age >= 25 for age in ages)
    assert check["accepted"] == bands[13]["allow"]  # at one try they are the same
    assert check["left_out"] == {}
    assert sum(band["faces"] for band in bands.values()) <= 42
    assert all(b["allow"] + b["deny"] + b["step_up"] == b["faces"] for b in bands.values())

    # `rate` takes it for every rating with this minimum age, and for nothing else.
    rate = ["rate", astronaut, "--board", "mpa", "--rating", "NC-17", *QUESTION[4:], "--buffers", out]
    rated = run(*rate, "--json").json
    assert (rated["buffer"], rated["buffer_source"]) == (stored.buffer, "stored")
    assert rated["buffer_statement"] == stored.statement()
    assert rated["buffer_record"] == stored.to_json()
    at_least = rated["faces"][0]["year_probabilities"][18 + stored.buffer :]
    assert rated["probability_at_least"] == pytest.approx(np.sum(at_least))
    shown = run(*rate).out
    assert f"buffer {stored.buffer} years: at most 15 % of those up to 5 years too young pass" in shown
    assert "not calibrated behind mask" in shown
    for other in (["--rating", "R"], ["--approach", "blur"], ["--confidence", "0.59"]):
        rated = run(*rate, *other, "--json").json
        assert (rated["buffer"], rated["buffer_source"], rated["buffer_record"]) == (0, "none", None)


def test_the_faces_that_solve_a_buffer_cannot_check_it(run, prepared, folder, others, tmp_path):
    words = ["calibrate", "--data", f"prepared:{prepared}", *QUESTION, "--max-false-accept", "0.15"]
    words += ["--all-faces", "--json"]
    # Copies of those that solve it, under other names; and one of them among other faces.
    twice, mixed = tmp_path / "twice", shutil.copytree(others, tmp_path / "mixed")
    twice.mkdir()
    for path in folder.iterdir():
        if 13 <= age_of(path) <= 17 or age_of(path) >= 25:
            shutil.copy(path, twice / path.name.replace("_2017", "_2016"))
    shutil.copy(next(path for path in sorted(twice.iterdir()) if age_of(path) <= 17), mixed)
    ended = run(*words, "--check", f"utkface:{twice}")
    assert (ended.code, ended.out) == (2, "")
    assert "the faces that solve a buffer cannot check it" in ended.err
    check = run(*words, "--check", f"utkface:{mixed}").json["check"]
    assert check["left_out"] == {"the same picture solved the buffer or trained": 1}
    assert check["faces"] == sum(13 <= age_of(path) <= 17 for path in others.iterdir())


def test_without_a_stored_buffer_it_says_so(run, astronaut):
    words = ["rate", astronaut, "--board", "mpa", "--rating", "R", "--approach", "mask", *MODEL]
    assert (
        "no buffer is stored for 17 years behind mask at confidence 0.99: no error is stated"
        in run(*words).out
    )
    assert "buffer 3 (years), chosen by hand: no error is stated" in run(*words, "--buffer", "3").out
    record = run(*words, "--buffer", "0", "--json").json
    assert (record["buffer"], record["buffer_source"], record["buffer_statement"]) == (0, "hand", None)


def record_for(minimum_age, **values):
    return calibration.Buffer(**{
        "board": "mpa", "rating": "R", "minimum_age": minimum_age, "approach": "mask", "model": "dlib-age",
        "sha256": MODELS["dlib-age"].info.sha256,
        "detector": "centerface", "landmarks": "5", "confidence": 0.99, "max_false_accept": 0.01, "window": 5,
        "tries": 1, "level": 0.95, "buffer": 4, "faces": 320, "accepted": 0, "bound": 0.0094, "adults": 9,
        "adults_allowed": 8, "data": "d", "validation": None, "seed": 0, **values,
    })  # fmt: skip


def test_an_explicit_buffer_wins_and_a_settled_rating_needs_none(run, astronaut, tmp_path):
    path = tmp_path / "buffers.json"
    path.write_text(calibration.format_buffers([record_for(17)]))
    words = ["rate", astronaut, "--board", "mpa", "--approach", "mask", *MODEL, "--json"]
    assert run(*words, "--rating", "R", "--buffers", path).json["buffer"] == 4
    ended = run(*words, "--rating", "R", "--buffers", path, "--buffer", "2")
    assert (ended.code, ended.out) == (2, "")
    assert "not both" in ended.err
    settled = run(*words, "--rating", "G", "--buffers", path).json
    assert (settled["decision"], settled["buffer_source"], settled["faces"]) == ("allow", "none", [])


def test_beside_an_adult_the_age_that_holds_then_counts(run, astronaut, tmp_path):
    path = tmp_path / "buffers.json"
    path.write_text(calibration.format_buffers([record_for(12, buffer=1), record_for(6, buffer=2)]))
    words = [
        "rate",
        astronaut,
        "--board",
        "fsk",
        "--rating",
        "12 cinema",
        "--approach",
        "mask",
        *MODEL,
        "--json",
    ]
    assert run(*words, "--buffers", path).json["buffer"] == 1
    beside = run(*words, "--buffers", path, "--accompanied").json
    assert (beside["minimum_age"], beside["buffer"]) == (6, 2)


def test_fused_photographs_are_no_tries(run, astronaut, grace_hopper, tmp_path):
    path = tmp_path / "buffers.json"
    path.write_text(calibration.format_buffers([record_for(17)]))
    words = ["--board", "mpa", "--rating", "R", "--approach", "mask", *MODEL, "--buffers", path]
    assert (
        "measured on single photographs, not on fused ones"
        in run("rate", astronaut, grace_hopper, "--same-viewer", *words).out
    )
    assert "fused" not in run("rate", astronaut, *words).out


def test_a_damaged_file_of_buffers_stops_rate(run, astronaut, tmp_path):
    path = tmp_path / "buffers.json"
    path.write_text("{}")
    ended = run("rate", astronaut, "--board", "mpa", "--rating", "R", *MODEL, "--buffers", path)
    assert (ended.code, ended.out) == (13, "")
    assert "expected buffers of version 2" in ended.err


def test_tries_draw_afresh_and_a_second_buffer_joins_the_first(run, prepared, tmp_path):
    out = tmp_path / "buffers.json"
    words = [
        "calibrate",
        "--data",
        f"prepared:{prepared}",
        *QUESTION,
        "--max-false-accept",
        "0.3",
        "--out",
        out,
    ]
    first = run(*words, "--quiet")
    assert first == (0, "", "")
    record = run(*words, "--approach", "mosaic", "--tries", "2", "--seed", "5", "--json").json
    assert (record["tries"], record["seed"], record["approach"]) == (2, 5, "mosaic")
    assert [buffer.approach for buffer in calibration.read_buffers(out)] == ["mask", "mosaic"]
    # A looser promise does not take a stricter one's place; told before the work.
    ended = run(*words, "--max-false-accept", "0.4")
    assert (ended.code, ended.out) == (13, "")
    assert "a stricter buffer is stored already (30 %, 1 try)" in ended.err
    shown = run(*words).out
    assert [buffer.approach for buffer in calibration.read_buffers(out)] == ["mosaic", "mask"]
    assert "added to" in shown
    assert "25 and over" in shown


def test_the_validation_faces_are_those_of_the_split(run, prepared):
    words = ["calibrate", "--data", f"prepared:{prepared}", *QUESTION, "--max-false-accept", "0.3", "--json"]
    share = ["--validation-share", "0.5", "--validation-seed", "4", "--hold-out", "13-17:0.9"]
    record = run(*words, *share).json
    assert record["validation"] == "share 0.5, seed 4, ages 13-17 share 0.9"
    assert "validation faces of utkface:some" in record["statement"]

    images = load_prepared(prepared).images
    _, held = split_validation(images, share=0.5, hold_out={(13, 17): 0.9}, seed=4)
    ages = [images[index].age for index in held]
    assert record["faces"] == sum(13 <= age <= 17 for age in ages)
    assert record["adults"] == sum(age >= 25 for age in ages)


def test_too_few_faces_are_told_before_the_work(run, prepared, tmp_path):
    words = ["--data", f"prepared:{prepared}", *QUESTION, "--max-false-accept", "0.01"]
    ended = run("calibrate", *words, "--out", tmp_path / "buffers.json")
    assert (ended.code, ended.out) == (13, "")
    assert "faces aged 13 to 17 are too few: 299 are needed" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--rating", "3", "--board", "mpa"], 2, "choose one of"),
        (["--board", "mpa", "--rating", "G"], 2, "asks for an age"),
        (["--max-false-accept", "0"], 2, "above 0 and below 1"),
        (["--max-false-accept", "1"], 2, "above 0 and below 1"),
        (["--tries", "0"], 2, "--tries"),
        (["--hold-out", "13-17:0.5"], 2, "goes with --validation-share"),
        (["--validation-share", "0.5", "--hold-out", "13:0.5"], 2, "as 13-17:0.5"),
        (["--validation-share", "1.5"], 2, "above 0 and below 1"),
        (["--data", "utkface"], 2, "NAME:"),
        (["--data", "utkface:/no/such/folder"], 13, "no/such"),
        (["--out", "/no/such/folder/buffers.json"], 9, "no folder"),
    ],
)
def test_what_cannot_be_asked(run, more, code, says, tmp_path, astronaut):
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "a.jpg").write_bytes(astronaut.read_bytes())
    words = ["calibrate", "--data", f"folder:{tmp_path}", *QUESTION, "--max-false-accept", "0.5"]
    ended = run(*words, *more)
    assert (ended.code, ended.out) == (code, ""), ended
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_damaged_file_of_buffers_is_not_written_over(run, tmp_path, astronaut):
    path = tmp_path / "buffers.json"
    path.write_text("mine")
    (tmp_path / "faces" / "17").mkdir(parents=True)
    (tmp_path / "faces" / "17" / "a.jpg").write_bytes(astronaut.read_bytes())
    words = ["--data", f"folder:{tmp_path / 'faces'}", *QUESTION, "--max-false-accept", "0.5", "--out", path]
    ended = run("calibrate", *words)
    assert (ended.code, path.read_text()) == (13, "mine")


def test_prepared_faces_that_were_found_in_another_way_are_refused(run, prepared):
    words = ["calibrate", "--data", f"prepared:{prepared}", *QUESTION, "--max-false-accept", "0.3"]
    ended = run(*words, "--detector", "dlib-hog")
    assert (ended.code, ended.out) == (2, "")
    assert "the prepared faces were found with detector centerface, asked is dlib-hog" in ended.err


# The split of a model that says on what it was trained ------------------------------------------------------


def test_a_trained_model_is_calibrated_on_the_faces_that_it_did_not_see(run, prepared, tmp_path):
    pytest.importorskip(
        "ageveil_weights_research", reason="left out: weights/research is not installed (make demo)"
    )
    own = split_of("ageveil")
    words = ["calibrate", "--data", f"prepared:{prepared}", "--board", "pegi", "--rating", "18", "--model"]
    words += ["ageveil", "--max-false-accept", "0.3", "--confidence", "0.6", "--json"]
    record = run(*words).json
    images = load_prepared(prepared).images
    _, held = split_validation(images, share=own.share, hold_out=own.hold_out, seed=own.seed)
    assert record["faces"] == sum(13 <= images[index].age <= 17 for index in held) < 30
    assert record["validation"].startswith(f"share {own.share:g}, seed {own.seed}")
    everybody = run(*words, "--all-faces").json
    assert (everybody["faces"], everybody["validation"]) == (30, None)
    ended = run(*words, "--validation-share", "0.5")
    assert (ended.code, ended.out) == (2, "")
    assert f"trained on some of these faces: it kept out share {own.share:g}, seed" in ended.err
    assert "do not go together" in run(*words, "--all-faces", "--validation-share", "0.5").err
    assert "--validation-seed goes with --validation-share" in run(*words, "--validation-seed", "3").err
    # All of them solved it or trained the model.
    assert "cannot check it" in run(*words, "--check", f"prepared:{prepared}").err
    # Faces that are not there are told before the work, too.
    out = tmp_path / "unchecked.json"
    ended = run(*words, "--out", out, "--check", "utkface:nope")
    assert (ended.code, ended.out) == (13, "")
    assert "'nope'" in ended.err
    assert not out.exists()
