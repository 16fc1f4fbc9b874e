"""The report: its figures by hand, its page without a photograph or an address."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ageveil import estimation
from ageveil.anonymization import usable_approaches
from ageveil.evaluation import accuracy, figures, page, plots, report
from ageveil.evaluation.html import Picture
from ageveil.training.labels import LabelledImage
from ageveil.types import AgeDistribution

AGES = [1, 5, 10, 14, 17, 17, 28, 28, 40, 50, 70, 70]


def answers(models, years):
    """Estimates that say one year with certainty: model -> years."""
    images = tuple(LabelledImage(Path(f"{i}.jpg"), age, age) for i, age in enumerate(AGES))
    info = estimation.get_model("dlib-age").info
    found = {}
    for approach, model in report.questions(models):
        rows = np.eye(101)[years[model]]
        said = tuple(AgeDistribution.from_years(row, approach=approach, model=info) for row in rows)
        found[approach, model] = accuracy.Estimates(
            "utkface", images, said, approach, model, 13, {"no face found": 1}
        )
    return found


RUN = {
    "command": "ageveil reproduce <&>", "commit": "0", "version": "0", "date": "2020-01-01",
    "data": "utkface:x", "validation": None, "limit": None, "labels_left_out": {}, "hardware": "h",
    "software": "s", "seconds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def other():
    """A second model, the same network under another name."""
    entry = estimation.get_model("dlib-age")
    with pytest.MonkeyPatch.context() as patch:
        second = replace(entry, info=replace(entry.info, name="second"))
        patch.setattr(estimation, "MODELS", {**estimation.MODELS, "second": second})
        yield "second"


@pytest.fixture(scope="module")
def built(other):
    # The second model is right; the first takes both of 28 years for 40, a neighbour.
    years = {"dlib-age": [*AGES[:6], 40, 40, *AGES[8:]], other: AGES}
    models = report.LineUp("dlib-age", other)
    record = report.build(answers(models, years), models, resamples=50)
    record["run"] = RUN
    return record


def test_the_papers_tables_by_hand(built):
    rows = {(row["kind"], row["approach"]): row for row in built["table_1"]}
    assert rows["uniform", None]["paper"] == {"exact": 12.5, "one_off": 37.5}
    assert rows["uniform", None]["exact"]["value"] == 12.5
    # Eleven faces lie in a group, 14 in none; the second model has all of them right.
    assert rows["model", "mask"]["exact"]["value"] == pytest.approx(100 * 9 / 11)
    assert rows["model", "mask"]["one_off"]["value"] == 100
    assert rows["model", "mask"]["paper"] == {"exact": 54.60, "one_off": 83.77}
    two = [
        (row["model"], row["approach"], row["paper"] and row["paper"]["exact"]) for row in built["table_2"]
    ]
    assert two == [
        ("dlib-age", "mask", 54.60), ("second", "mask", 58.78), ("dlib-age", "mosaic", 56.96),
        ("second", "mosaic", 59.79), ("dlib-age", "original", 66.50), ("second", "original", None),
    ]  # fmt: skip
    for row in built["differences"]:
        assert row["exact"]["value"] == pytest.approx(100 * 2 / 11)
        # None of eleven faces differs: a chance of 0.025 where a share of 1 - 0.025 ** (1 / 11) = 0.2849
        # does, and they may favour either model.
        assert row["one_off"]["value"] == 0
        assert (row["one_off"]["low"], row["one_off"]["high"]) == pytest.approx((-28.49, 28.49), abs=0.01)


def test_a_model_that_is_always_better_may_be_so_by_chance(other):
    # All faces are 28; the first model says 70, two groups away and more, each time.
    images = tuple(LabelledImage(Path(f"{i}.jpg"), 28, 28) for i in range(11))
    info = estimation.get_model("dlib-age").info
    models = report.LineUp("dlib-age", other)
    found = {}
    for approach, model in report.questions(models):
        year = np.eye(101)[70 if model == "dlib-age" else 28]
        said = (AgeDistribution.from_years(year, approach=approach, model=info),) * 11
        found[approach, model] = accuracy.Estimates("utkface", images, said, approach, model, 11, {})
    for row in report.differences(found, models, 0, 20):
        # A share of 0.2849 may be the other way round: 100 less twice that.
        assert row["exact"] == {"value": 100, "low": pytest.approx(43.02, abs=0.02), "high": 100}


def test_minors_are_judged_at_the_threshold_of_the_adults(built):
    found = built["records"][0]["minors"]
    assert (found["threshold"], found["threshold_from"]) == (1, "the reported faces")
    assert (found["13-17"]["judged_over"], found["13-17"]["faces"], found["15-17"]["faces"]) == (0, 3, 2)


def of_age(said):
    """Estimates of faces: true age and probability of being 30; the rest is at 10."""
    info = estimation.get_model("dlib-age").info
    rows = np.zeros((len(said), 101))
    rows[:, 30] = [chance for _, chance in said]
    rows[:, 10] = 1 - rows[:, 30]
    images = tuple(LabelledImage(Path(f"{n}.jpg"), age, age) for n, (age, _) in enumerate(said))
    told = tuple(AgeDistribution.from_years(row, approach="mask", model=info) for row in rows)
    return accuracy.Estimates("utkface", images, told, "mask", "dlib-age", len(said), {})


def test_validation_faces_fix_the_threshold_for_minors():
    # Nine in ten of the validation's adults reach 0.6; of the reported ones 0.9.
    reported = of_age([(30, 0.9)] * 10 + [(14, 0.5), (16, 0.7), (17, 0.95)])
    validation = of_age([(30, 0.6)] * 9 + [(40, 0.1), (16, 0.99)])
    found = report.minors(reported, validation, 0, 20)
    assert (found["threshold"], found["threshold_from"]) == (pytest.approx(0.6), "validation faces")
    assert found["threshold_faces"] == 10
    assert (found["13-17"]["judged_over"], found["15-17"]["judged_over"]) == (2, 2)
    alone = report.minors(reported, None, 0, 20)
    assert (alone["threshold"], alone["13-17"]["judged_over"]) == (pytest.approx(0.9), 1)


def test_what_few_people_keep_is_not_stated():
    # A hundred faces of four people, of whom one is judged rightly: a draw of people may hold no hit at all.
    info = estimation.get_model("dlib-age").info
    images = tuple(LabelledImage(Path("x.jpg"), 28, 28, identity=f"p{n // 25}") for n in range(100))

    def said(approach):
        years = [28 if n < 25 else 70 for n in range(100)]
        rows = [AgeDistribution.from_years(np.eye(101)[y], approach=approach, model=info) for y in years]
        return accuracy.Estimates("utkface", images, tuple(rows), approach, "dlib-age", 100, {})

    assert report.kept(said("mask"), said("original"), 0, 200) is None


def labelled(models, spans):
    """Estimates of faces whose labels are intervals of ages; each is said to be 20."""
    images = tuple(LabelledImage(Path(f"{i}.jpg"), *span) for i, span in enumerate(spans))
    info = estimation.get_model("dlib-age").info
    found = {}
    for approach, model in report.questions(models):
        said = (AgeDistribution.from_years(np.eye(101)[20], approach=approach, model=info),) * len(images)
        found[approach, model] = accuracy.Estimates("adience", images, said, approach, model, len(images), {})
    return found


def test_labels_on_both_sides_of_a_minimum_age_are_counted_and_told():
    # Adience's 15-20 tells nothing of 16 and 18, and all of 13; an end that is T itself reaches T.
    spans = [(8, 13), (8, 12), (15, 20), (15, 20), (16, 20), (15, 15), (25, 32)]
    models = report.LineUp("dlib-age")
    record = report.build(labelled(models, spans), models, resamples=20)
    assert record["straddling"] == {"13": 1, "16": 2, "18": 3, "25": 0}
    for age in ("13", "16", "18"):
        count = record["straddling"][age]
        told = record["records"][0]["calibration"][age]["faces"]
        assert told + count == record["faces_all"] == 7
    html = page.render({**record, "run": RUN}, page.Pictures())
    sentence = (
        "Left out are labels that reach over T on both sides, 1 at T = 13 and 2 at T = 16 and 3 at T = 18: "
        "this says nothing of them."
    )
    # Beside the calibration error and beside the operating curves.
    assert html.count(sentence) == 2
    assert "reach over 25" not in html
    del record["straddling"]  # as a report has it that was made before
    assert "reach over T" not in page.render({**record, "run": RUN}, page.Pictures())


def test_exact_labels_tell_on_which_side_they_are(built):
    assert built["straddling"] == {"13": 0, "16": 0, "18": 0, "25": 0}
    html = page.render(built, page.Pictures())
    assert "reach over T" not in html
    assert "reach over 25" not in html


def test_labels_that_may_be_of_adults_are_told_beside_the_operating_curves():
    # FairFace's 20-29 tells nothing of 25; whoever is 25 at least counts.
    models = report.LineUp("dlib-age")
    record = report.build(labelled(models, [(10, 12), (20, 29), (20, 29), (25, 32)]), models, resamples=20)
    assert record["straddling"] == {"13": 0, "16": 0, "18": 0, "25": 2}
    assert record["records"][0]["operating"]["18"]["25_and_over"] == 1
    html = page.render({**record, "run": RUN}, page.Pictures())
    sentence = "Labels that reach over 25 on both sides, 2, are not among those aged 25 and over."
    assert html.count(sentence) == 1
    assert sentence in html.split("Operating curves</h2>")[1].split("<h2")[0]
    assert "reach over T" not in html


def test_a_perfect_model_is_calibrated(built):
    second = next(item for item in built["records"] if item["model"] == "second")
    assert [item["ece"] for item in second["calibration"].values()] == [0, 0, 0, 0]
    assert np.trace(second["confusion"]) == np.sum(second["confusion"]) == 11


def test_the_report_as_text(built):
    text = report.as_text(built)
    assert json.loads(text) == built
    assert set(built) == {
        "report_version", "dataset", "seed", "resamples", "drawn", "faces", "faces_all", "faces_before",
        "left_out", "left_out_share", "comparable", "bins", "label_mix", "straddling", "models",
        "records", "table_1", "table_2", "differences", "qualitative", "run",
    }  # fmt: skip
    assert (built["faces"], built["faces_all"], built["comparable"]) == (11, 12, False)


def test_the_page_fetches_nothing_and_shows_no_photograph_unasked(built):
    html = page.render(built, page.Pictures())
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|<img|url\((?!#)", html)
    assert "Not comparable" in html
    assert "reproduce &lt;&amp;&gt;" in html
    picture = Picture(np.zeros((8, 8, 3), np.uint8), 'a "face"', ("x",))
    shown = page.render(built, page.Pictures(qualitative=(picture,)))
    assert re.findall(r'<img src="(data:image/jpeg;base64,)[^"]*"', shown) == ["data:image/jpeg;base64,"]
    assert 'alt="a &quot;face&quot;"' in shown
    # Each column and row of a table has its head, each plot its name.
    assert html.count("<caption>") == html.count("<table>")
    assert html.count('role="img"><title>') == html.count("<svg") == 4


def test_questions_in_the_papers_order(other):
    asked = report.questions(report.LineUp(other, others=("dlib-age",)))
    assert [name for name, model in asked if model == other] == list(report.PAPER_APPROACHES)
    assert len([name for name, model in asked if model == "dlib-age"]) == len(usable_approaches())
    for bad in ({}, {"baseline": other, "attention": other}, {"others": ("unknown",)}):
        with pytest.raises(ValueError, match=r"each once|unknown model"):
            report.LineUp(**bad)


def test_without_the_papers_models_their_tables_are_empty(other):
    models = report.LineUp(others=(other,))
    record = report.build(answers(models, {other: AGES}), models, resamples=20)
    assert [row["kind"] for row in record["table_1"]] == ["uniform", "majority"]
    assert record["table_2"] == record["differences"] == []
    shown = page.render({**record, "run": RUN}, page.Pictures())
    assert "Neither the baseline nor the attention model is here: nothing to compare." in shown
    assert "Guesses that look at no face" in shown
    for untrue in (
        "Baseline and attention",
        "The same faces in both",
        "The baseline is trained",
        "One model",
    ):
        assert untrue not in shown
    assert not re.search(r"<tbody>\s*</tbody>", shown)


def test_one_of_the_papers_models_is_compared_with_none(built):
    models = report.LineUp("dlib-age")
    record = report.build(answers(models, {"dlib-age": AGES}), models, resamples=20)
    shown = page.render({**record, "run": RUN}, page.Pictures())
    assert "Only one of the two models is here: nothing to compare." in shown
    assert "The same faces in both" not in shown
    assert "The same faces in both" in page.render(built, page.Pictures())


def test_the_page_says_over_how_many_faces_the_mean_error_is(built):
    # All twelve ages are exact; that of 14 lies in no group.
    assert "over all faces of exact age, 12 of 12, those" in page.render(built, page.Pictures())
    models = report.LineUp("dlib-age")
    record = {
        **report.build(labelled(models, [(25, 32), (30, 30), (35, 35)]), models, resamples=20),
        "run": RUN,
    }
    assert record["records"][0]["mae_faces"] == 2
    assert "over all faces of exact age, 2 of 3, those" in page.render(record, page.Pictures())
    record = {**report.build(labelled(models, [(25, 32)]), models, resamples=20), "run": RUN}
    assert "No face is of exact age, so there is no mean error." in page.render(record, page.Pictures())
    for item in record["records"]:
        del item["mae_faces"]  # as a report has it that was made before
    assert "over all faces of exact age, those" in page.render(record, page.Pictures())


def test_a_response_map_is_red_where_it_is_highest():
    pixels = np.full((56, 56, 3), 100, np.uint8)
    response = np.zeros((14, 14), np.float32)
    response[:7] = 5
    overlay = figures.response_overlay(pixels, response)
    assert overlay.shape == pixels.shape
    assert overlay[2, 28, 0] > overlay[2, 28, 2]
    assert overlay[53, 28, 2] > overlay[53, 28, 0]
    assert (pixels == 100).all()
    for bad in (np.zeros((0, 3)), np.zeros(5), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="a finite response map"):
            figures.response_overlay(pixels, bad)


def test_plots_without_matplotlib_say_what_to_install(monkeypatch):
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(plots.OutputError, match=r"ageveil\[report\]"):
        plots.check_installed()
