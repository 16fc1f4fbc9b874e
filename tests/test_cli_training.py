"""The verbs beside the way through, as their users meet them: training, export, evaluation, the report."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ageveil.anonymization import anonymize_crop
from ageveil.estimation import estimate, split_of
from ageveil.evaluation import accuracy
from ageveil.image import read_image, write_image
from ageveil.pipeline import Pipeline

SMOKE = Path(__file__).parent.parent / "recipes" / "smoke" / "recipe.toml"
DLIB = ["--model", "dlib-age"]


def check_one_line(ended, code, *says):
    assert (ended.code, ended.out) == (code, ""), ended
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("ageveil: ")
    for words in says:
        assert words in ended.err


def plain(text):
    """Help without its frames, in one line."""
    return " ".join(re.sub(r"[│╭╰╮╯─]", " ", text).split())


@pytest.fixture(scope="module")
def table(tmp_path_factory, astronaut, grace_hopper):
    """A table of the two portraits, each as it is and mirrored, with made-up labels; one shows no face."""
    folder = tmp_path_factory.mktemp("table")
    first, second = read_image(astronaut)[:260, 60:380], read_image(grace_hopper)[:450]
    rows = []
    for name, pixels, age, gender in (
        ("a.png", first, 29, "female"),
        ("b.png", first[:, ::-1], 39, "female"),
        ("c.png", second, 77, "male"),
        ("d.png", second[:, ::-1], 17, ""),
        ("e.png", first[:40, :40], 50, "male"),
    ):
        write_image(folder / name, pixels)
        rows.append({"file": name, "age": age, "gender": gender})
    with open(folder / "faces.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "age", "gender"])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "faces.csv"


# Words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("prepare", ["The folder holds bare faces", "--out", "adience:DIR", "[required]"]),
        ("train", ["recipe", "--prepared", "AGEVEIL_WEIGHTS", "--accelerator", "needs the extra `train`"]),
        (
            "export",
            [
                "Folder of a finished run",
                "--precision",
                "float32, float16 or int8",
                "needs the extra `train`",
            ],
        ),
        ("evaluate", ["--by", "gender, race or group", "--licence", "any|permissive", "prepared:DIR"]),
        ("calibrate", ["--max-false-accept", "--tries", "--licence", "the best one installed"]),
        ("reproduce", ["--no-faces", "--portrait", "--licence", "BARE FACES", 'Needs the extra "report"']),
        ("models", ["--licence", "the best one that is installed"]),
    ],
)
def test_help_says_what_is_needed(run, verb, says):
    ended = run(verb, "--help")
    assert (ended.code, ended.err) == (0, "")
    for words in says:
        assert words in plain(ended.out)


def test_a_recipe_that_is_missing_or_wrong_is_named(run, tmp_path):
    pytest.importorskip("torch", reason="left out: the extra train is not installed")
    check_one_line(run("train", tmp_path / "none.toml"), 13, "cannot read the recipe", "none.toml")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(SMOKE.read_text().replace("epochs = 2", "epochs = 0"))
    check_one_line(run("train", wrong), 13, "wrong.toml is wrong at optimization.epochs")
    wrong.write_text("name =")
    check_one_line(run("train", wrong), 13, "wrong.toml is no TOML")


def test_faces_and_runs_that_are_missing_are_named(run, tmp_path):
    pytest.importorskip("torch", reason="left out: the extra train is not installed")
    words = ["--prepared", tmp_path / "none", "--runs", tmp_path / "runs"]
    check_one_line(
        run("train", SMOKE, *words), 13, "cannot read prepared faces", str(tmp_path / "none" / "faces")
    )
    ended = run("export", tmp_path / "run", "--out", tmp_path / "model.onnx")
    check_one_line(ended, 13, f"{tmp_path / 'run'} holds no run")
    assert not (tmp_path / "model.onnx").exists()


def test_a_model_is_written_only_where_it_can_be_loaded_from(run, tmp_path):
    for name in ("smoke.bin", "smoke", "smoke.ONNX", "smoke.onnx.bak"):
        ended = run("export", tmp_path / "run", "--out", tmp_path / "new" / name)
        check_one_line(
            ended, 2, "the name of a model's file ends in .onnx, got ", repr(str(tmp_path / "new" / name))
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "extra", "words"),
    [
        ("torch", "train", ["train", SMOKE]),
        ("lightning", "train", ["train", SMOKE]),
        ("pydantic", "train", ["train", SMOKE]),
        ("torch", "train", ["export", "run", "--out", "model.onnx"]),
        ("onnx", "train", ["export", "run", "--out", "model.onnx"]),
        ("matplotlib", "report", ["reproduce", "--data", "utkface:x", "--out", "report"]),
    ],
)
def test_an_extra_that_is_missing_is_named(tmp_path, missing, extra, words):
    # A module that stands as None among the imported ones cannot be imported: Python's own way to say so.
    code = f"import sys; sys.modules[{missing!r}] = None; from ageveil.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in {2, 9}
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"pip install 'ageveil[{extra}]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluation_needs_no_extra(table):
    blocked = ["torch", "lightning", "safetensors", "onnx", "matplotlib"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); from ageveil.cli import main; main()"
    words = ["evaluate", "--data", f"csv:{table}", "--approach", "mask", *DLIB, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["faces_all"] == 4


# Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [1, 2])
def test_a_recipe_is_trained_and_exported(run, table, tmp_path, devices):
    """As users do it; with two devices, two processes train together and one of them reports."""
    pytest.importorskip("torch", reason="left out: the extra train is not installed")
    prepared, runs = tmp_path / "prepared", tmp_path / "runs"
    assert run("prepare", f"csv:{table}", "--out", prepared / "faces", "--quiet").code == 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        SMOKE.read_text().replace("share = 0.25", "share = 0.5").replace("batch = 16", "batch = 2")
    )
    words = ["train", recipe, "--prepared", prepared, "--runs", runs, "--workers", "0", "--seed", "7"]
    words += ["--accelerator", "cpu", "--devices", devices, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "ageveil", *map(str, words)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["run"], record["epochs"]) == (str(runs / "smoke-seed-7"), 2)
    assert record["training_faces"] + record["validation_faces"] == 4
    if devices > 1:
        return
    out = tmp_path / "smoke.onnx"
    made = run("export", record["run"], "--out", out, "--prepared", prepared, "--json").json
    assert (made["path"], made["bytes"]) == (str(out), out.stat().st_size)
    assert made["difference"] <= 1e-3
    listed = run("evaluate", "--data", f"csv:{table}", "--model", out, "--approach", "mask", "--json").json
    assert (listed["model"], listed["licence"]) == (str(out), "CC0-1.0")
    words = ["evaluate", "--data", f"prepared:{prepared / 'faces'}", "--model", out, "--kept-out"]
    kept = run(*words, "--json")
    assert kept.json["faces_all"] == record["validation_faces"] == 3
    assert kept.err == f"3 of 4 faces, which {out} kept out of training\n"
    assert (kept.json["kept_out"], listed["kept_out"]) == (True, False)
    assert run(*words, "--limit", "1", "--json", "--quiet").json["faces_all"] == 1


# Evaluation by parts ----------------------------------------------------------------------------------------


def test_evaluate_by_gender(run, table):
    words = [
        "evaluate",
        "--data",
        f"csv:{table}",
        "--approach",
        "mask,original",
        *DLIB,
        "--by",
        "gender,group",
    ]
    records = run(*words, "--json").json
    assert [record["approach"] for record in records] == ["mask", "original"]
    for record in records:
        # 29, 39, 77 and 17 lie in groups; the picture labelled 50 shows no face.
        assert (record["faces"], record["left_out"], record["licence"]) == (
            4, {"no face found": 1}, "CC0-1.0",
        )  # fmt: skip
        rows = record["by"]["gender"]
        assert {row["value"]: row["faces"] for row in rows} == {"female": 2, "male": 1, None: 1}
        right = sum(row["faces"] * row["exact"]["value"] for row in rows)
        assert right / 4 == pytest.approx(record["exact"]["value"])
        assert [row["value"] for row in record["by"]["group"]] == ["15-20", "25-32", "38-43", "60+"]
    shown = run(*words).out
    assert "female" in shown
    assert "not stated" in shown
    assert "(few)" in shown


def test_evaluate_by_gender_on_real_faces(run, ageveil_data, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted((ageveil_data / "utkface" / "test").iterdir())[::400]:
        (folder / path.name).symlink_to(path)
    words = ["--data", f"utkface:{folder}", "--approach", "mask", *DLIB, "--by", "gender", "--json"]
    record = run("evaluate", *words).json
    rows = {row["value"]: row["faces_all"] for row in record["by"]["gender"]}
    # The second part of a UTKFace name is the gender, 1 for female.
    genders = [path.name.split("_")[1] for path in folder.iterdir()]
    assert sum(rows.values()) == record["faces_all"] >= len(genders) - 2
    assert rows["female"] <= genders.count("1")
    assert rows["male"] <= genders.count("0")


def test_a_part_says_where_its_error_in_years_rests_on_few_faces():
    from rich.console import Console

    from ageveil.cli.evaluate import _parts

    figure = {"value": 5.0, "low": 4.0, "high": 6.0}
    row = {
        "value": "female",
        "faces": 228,
        "few": False,
        "exact": figure,
        "one_off": figure,
        "mae_years": figure,
    }
    for faces, few, shown in ((99, True, "5.0 (4.0 to 6.0) (few)"), (100, False, "5.0 (4.0 to 6.0)")):
        out = Console(width=120)
        with out.capture() as caught:
            out.print(_parts("gender", [{**row, "mae_faces": faces, "mae_few": few}]))
        (line,) = [line for line in caught.get().splitlines() if "female" in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells == ["female", "228", "5.0 (4.0 to 6.0)", "5.0 (4.0 to 6.0)", shown]
    out = Console(width=120)
    with out.capture() as caught:
        out.print(_parts("gender", [{**row, "mae_years": None, "mae_faces": 0, "mae_few": True}]))
    assert "few" not in caught.get()


def test_a_model_without_faces_to_choose_by_is_told(run, table):
    # Told before the data are looked at.
    for place in (f"csv:{table}", "csv:nope.csv"):
        ended = run("evaluate", "--data", place, "--kept-out", *DLIB)
        check_one_line(ended, 13, "dlib-age does not say which faces it kept out of training")
    ended = run("evaluate", "--data", f"csv:{table}", "--kept-out", "--model", "model-{fold}.onnx")
    check_one_line(ended, 2, "models by fold test each face already")


def test_an_unknown_part_lists_the_choices(run, table):
    ended = run("evaluate", "--data", f"csv:{table}", "--by", "height")
    check_one_line(ended, 2, "choose one of gender, race, group")


# The report -------------------------------------------------------------------------------------------------


def test_a_report_from_end_to_end(run, table, tmp_path, astronaut):
    pytest.importorskip("matplotlib", reason="left out: the extra report is not installed")
    out = tmp_path / "report"
    words = ["--data", f"csv:{table}", "--out", out, "--models", "dlib-age", "--portrait", astronaut]
    words += ["--baseline", "none", "--attention", "none"]
    ended = run("reproduce", *words, "--no-faces", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json == {"page": str(out / "index.html"), "report": str(out / "report.json")}
    assert {path.name for path in out.iterdir()} == {"index.html", "report.json"}
    record = json.loads((out / "report.json").read_text())
    by_approach = {row["approach"]: row for row in record["records"]}
    assert {"original", "mosaic", "mask", "blur", "permutation"} <= set(by_approach)
    evaluated = run("evaluate", "--data", f"csv:{table}", "--approach", "mask", *DLIB, "--json").json
    assert by_approach["mask"]["exact"]["value"] == pytest.approx(evaluated["exact"]["value"])
    assert [(model["name"], model["licence"]) for model in record["models"]] == [("dlib-age", "CC0-1.0")]
    # The portrait's sheet is the only photograph; no face of the data set is named either.
    page = (out / "index.html").read_text()
    assert page.count("<img") == 1
    assert not re.search(r"[abcde]\.png", page + json.dumps(record["qualitative"]))
    assert all("face" not in row for row in record["qualitative"])


def test_bins_of_its_own_leave_the_papers_models_aside(run, tmp_path, astronaut):
    """FairFace's bins are not the paper's groups: its models are left out unless they are asked for."""
    pytest.importorskip("matplotlib", reason="left out: the extra report is not installed")
    (tmp_path / "val").mkdir()
    write_image(tmp_path / "val" / "1.jpg", read_image(astronaut)[:260, 60:380])
    rows = "file,age,gender,race,service_test\nval/1.jpg,30-39,Female,White,True\n"
    (tmp_path / "fairface_label_val.csv").write_text(rows)
    out = tmp_path / "report"
    words = ["--data", f"fairface:{tmp_path / 'val'}", "--out", out, "--models", "dlib-age", "--no-faces"]
    ended = run("reproduce", *words, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    record = json.loads((out / "report.json").read_text())
    assert [model["name"] for model in record["models"]] == ["dlib-age"]
    assert len(record["bins"]) == 9


# Folds ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adience(tmp_path_factory, astronaut, grace_hopper):
    """The portraits in Adience's layout, in two of its five folds; each person in one fold alone.

    The other three tables state no age.
    """
    folder = tmp_path_factory.mktemp("adience")
    portraits = {0: read_image(astronaut)[:260, 60:380], 3: read_image(grace_hopper)[:450]}
    header = "user_id original_image face_id age gender x y dx dy tilt_ang fiducial_yaw_angle fiducial_score"
    ages = ["(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)", "(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)"]
    for fold in range(5):
        lines = ["\t".join(header.split())]
        for number, age in enumerate(ages if fold in portraits else ["None"]):
            user, picture = f"person{fold}{number}@N0", f"{number}.jpg"
            lines.append("\t".join([user, picture, str(number), age, "f", *["0"] * 7]))
            if fold not in portraits:
                continue
            place = folder / "aligned" / user / f"landmark_aligned_face.{number}.{picture}"
            place.parent.mkdir(parents=True)
            dark = (portraits[fold] * (0.6 + 0.05 * number)).astype("uint8")
            write_image(place, dark[:, ::-1] if number % 2 else dark)
        (folder / f"fold_{fold}_data.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def small_recipe(tmp_path):
    """The attention variant as small as it goes, from random weights, one epoch on Adience."""
    path = tmp_path / "small.toml"
    path.write_text(
        'name = "small"\nnetwork = "vgg16-attention"\nside = 32\ndata = ["adience"]\n'
        'licence = "CC0-1.0"\ntraining_data = ["two public-domain portraits"]\n'
        "[validation]\nshare = 0.4\n[optimization]\nepochs = 1\nbatch = 4\n"
    )
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_adience_from_its_files_to_the_papers_tables(run, adience, small_recipe, tmp_path, astronaut):
    for extra, module in (("train", "torch"), ("report", "matplotlib")):
        pytest.importorskip(module, reason=f"left out: the extra {extra} is not installed")
    prepared, runs, out = tmp_path / "prepared", tmp_path / "runs", tmp_path / "report"
    assert run("prepare", f"adience:{adience}", "--out", prepared / "adience", "--json").json["faces"] == 16
    words = [
        "reproduce",
        "--data",
        f"prepared:{prepared / 'adience'}",
        "--prepared",
        prepared,
        "--runs",
        runs,
    ]
    words += [
        "--attention",
        small_recipe,
        "--baseline",
        "none",
        "--models",
        "none",
        "--out",
        out,
        "--no-faces",
        "--json",
    ]
    ended = run(*words, "--portrait", astronaut)
    assert ended.code == 0, ended.err
    report = json.loads((out / "report.json").read_text())
    name = str(runs / "small-{fold}" / "model.onnx")
    assert [row["model"] for row in report["table_2"]] == [name] * 3
    assert (report["faces"], report["dataset"]) == (16, "adience")
    assert (out / "index.html").read_text().count("<img") > 1  # the sheet and the response maps

    # Each face was judged by the model that did not see its fold, and by no other.
    place = f"prepared:{prepared / 'adience'}"
    faces = accuracy.open_faces(place, Pipeline(allow_others=True))
    (found,) = accuracy.estimate_all(faces, [("mask", name)]).values()
    for index, image in enumerate(faces.images):
        face = anonymize_crop(faces.crop(index), "mask")
        others = {fold: estimate([face], name.replace("{fold}", str(fold)))[0].groups for fold in (0, 3)}
        np.testing.assert_allclose(found.distributions[index].groups, others.pop(image.fold), atol=1e-7)
        (other,) = others.values()
        assert np.abs(found.distributions[index].groups - other).max() > 1e-5
    right = sum(
        said.group == image.age_group for said, image in zip(found.distributions, faces.images, strict=True)
    )
    exact = next(row["exact"]["value"] for row in report["records"] if row["approach"] == "mask")
    assert exact == pytest.approx(100 * right / 16)
    split = split_of(name.replace("{fold}", "3"))
    assert (split.share, split.test_fold) == (0.4, 3)

    # The same command again trains nothing; evaluate takes the same name.
    before = (runs / "small-0" / "weights.safetensors").stat().st_mtime_ns
    assert run(*words).code == 0
    assert (runs / "small-0" / "weights.safetensors").stat().st_mtime_ns == before
    data = ["--data", place, "--approach", "mask", "--json"]
    assert run("evaluate", *data, "--model", name).json["exact"]["value"] == pytest.approx(exact)

    # A model that knows a fold may not judge it.
    ended = run("evaluate", *data, "--model", name.replace("{fold}", "3"))
    check_one_line(ended, 13, "model.onnx left fold 3 out of training and saw the others")
    ended = run("evaluate", *data, "--kept-out", "--model", name.replace("{fold}", "3"))
    check_one_line(ended, 13, "left fold 3 out to be tested on: choose by a model without folds")
    (runs / "small-0" / "model.onnx").rename(runs / "model-3.onnx")
    (runs / "small-3" / "model.onnx").rename(runs / "model-0.onnx")
    ended = run("evaluate", *data, "--model", runs / "model-{fold}.onnx")
    check_one_line(ended, 13, "model-0.onnx does not say that it left the fold in its name out of training")
    # A report says so before it trains another.
    fresh = ["reproduce", "--data", place, "--prepared", prepared, "--runs", tmp_path / "fresh", "--out", out]
    fresh += ["--baseline", small_recipe, "--attention", runs / "model-{fold}.onnx", "--models", "none"]
    check_one_line(run(*fresh), 13, "model-0.onnx does not say that it left the fold in its name out")
    assert not (tmp_path / "fresh").exists()
    # And one recipe does not pass for another under its name.
    small_recipe.write_text(small_recipe.read_text().replace("share = 0.4", "share = 0.3"))
    check_one_line(run(*words), 13, "holds a run of another recipe")
    # Nor one that saw fewer faces, as in a dry run.
    small_recipe.write_text(small_recipe.read_text().replace("share = 0.3", "share = 0.4"))
    claim = runs / "small-0" / "faces.json"
    claim.write_text(claim.read_text().replace('"training": ', '"training": 1'))
    check_one_line(run(*words), 13, "holds a run of another choice of faces")


def test_a_recipe_is_not_judged_on_the_faces_that_train_it(run, table, small_recipe, tmp_path):
    for extra, module in (("train", "torch"), ("report", "matplotlib")):
        pytest.importorskip(module, reason=f"left out: the extra {extra} is not installed")
    prepared = tmp_path / "prepared"
    assert run("prepare", f"csv:{table}", "--out", prepared / "adience", "--quiet").code == 0
    # Neither the crops nor the pictures that they were cut from.
    for data in (f"prepared:{prepared / 'adience'}", f"csv:{table}"):
        words = ["reproduce", "--data", data, "--prepared", prepared]
        words += ["--runs", tmp_path / "runs", "--baseline", small_recipe, "--out", tmp_path / "report"]
        check_one_line(run(*words), 13, "would be judged on the faces that train it: they state no folds")
    words += ["--licence", "permissive"]
    small_recipe.write_text(small_recipe.read_text().replace("CC0-1.0", "LicenseRef-mine"))
    check_one_line(run(*words), 2, "come under LicenseRef-mine, which is not permissive")
    assert not (tmp_path / "runs").exists()


def test_a_copy_of_the_faces_that_train_a_recipe_judges_it_no_more_than_they_do(
    run, table, small_recipe, tmp_path
):
    for extra, module in (("train", "torch"), ("report", "matplotlib")):
        pytest.importorskip(module, reason=f"left out: the extra {extra} is not installed")
    prepared, copied = tmp_path / "prepared", tmp_path / "copied"
    assert run("prepare", f"csv:{table}", "--out", prepared / "adience", "--quiet").code == 0
    shutil.copytree(table.parent, copied)
    words = ["reproduce", "--data", f"csv:{copied / table.name}", "--prepared", prepared]
    words += ["--runs", tmp_path / "runs", "--baseline", small_recipe, "--out", tmp_path / "report"]
    check_one_line(
        run(*words), 13, "would be judged on the faces that train it", "4 of its pictures are among them, as "
    )
    assert not (tmp_path / "runs").exists()


def test_the_faces_that_are_reported_fix_no_threshold(run, table, tmp_path):
    pytest.importorskip("matplotlib", reason="left out: the extra report is not installed")
    assert run("prepare", f"csv:{table}", "--out", tmp_path / "crops", "--quiet").code == 0
    words = ["reproduce", "--data", f"csv:{table}", "--baseline", "none", "--models", "dlib-age"]
    for named in (f"csv:{table}", f"prepared:{tmp_path / 'crops'}"):
        ended = run(*words, "--validation", named, "--out", tmp_path / "report")
        check_one_line(
            ended, 2, "the faces that are reported cannot fix a threshold: --validation takes others, "
        )


def test_pictures_are_the_same_by_their_place_or_by_their_content(run, table, tmp_path):
    pytest.importorskip("matplotlib", reason="left out: the extra report is not installed")
    shutil.copy(table.parent / "a.png", tmp_path / "copy.png")
    (tmp_path / "link.png").symlink_to(table.parent / "b.png")
    content = (table.parent / "c.png").read_bytes()
    (tmp_path / "as-large.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "empty.png").touch()
    names = ["as-large.png", "copy.png", "empty.png", "gone.png", "link.png"]
    others = tmp_path / "others.csv"
    others.write_text("\n".join(["file,age", *(f"{name},30" for name in names)]) + "\n")
    words = ["reproduce", "--data", f"csv:{table}", "--baseline", "none", "--models", "dlib-age"]
    ended = run(*words, "--validation", f"csv:{others}", "--out", tmp_path / "report")
    check_one_line(ended, 2, f"2 of its pictures are in --data too, as {str(tmp_path / 'copy.png')!r}")


def test_a_model_that_is_missing_for_a_fold_is_told_before_any_training(run, adience, small_recipe, tmp_path):
    for extra, module in (("train", "torch"), ("report", "matplotlib")):
        pytest.importorskip(module, reason=f"left out: the extra {extra} is not installed")
    prepared = tmp_path / "prepared"
    assert run("prepare", f"adience:{adience}", "--out", prepared / "adience", "--quiet").code == 0
    words = ["reproduce", "--data", f"adience:{adience}", "--prepared", prepared, "--models", "none"]
    words += ["--runs", tmp_path / "runs", "--out", tmp_path / "report", "--baseline", small_recipe]
    ended = run(*words, "--attention", tmp_path / "nope-{fold}" / "model.onnx")
    check_one_line(ended, 12, f"{tmp_path / 'nope-0' / 'model.onnx'} cannot be read: No such file")
    assert not (tmp_path / "runs").exists()


def test_models_for_folds_need_folds(run, table):
    ended = run("evaluate", "--data", f"csv:{table}", "--model", "model-{fold}.onnx")
    check_one_line(ended, 13, "stands for one model for each fold, and the data set states no folds")
