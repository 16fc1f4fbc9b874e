"""Accuracy on small sets whose outcome is worked out by hand, and on UTKFace beside published figures."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from ageveil import detection, estimation
from ageveil.errors import DataError, ModelError, NoFaceError
from ageveil.evaluation import accuracy
from ageveil.image import Limits, read_image, write_image
from ageveil.pipeline import Pipeline
from ageveil.training.datasets import read_dataset
from ageveil.training.labels import LabelledImage
from ageveil.training.preparation import canonical_crop, prepare
from ageveil.training.splits import split_validation
from ageveil.types import AgeDistribution, CanonicalCrop

# Eight groups, and who is in none.
GROUPS = [(0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100)]
WAY = Pipeline("mask", "dlib-age", allow_others=True)


def group_of(age):
    """Index of the group of an age, None between groups."""
    return next((index for index, (low, high) in enumerate(GROUPS) if low <= age <= high), None)


@pytest.fixture(scope="session")
def faces(astronaut, grace_hopper):
    """Two portraits cut as photographs of a viewer."""
    return read_image(astronaut)[:260, 60:380], read_image(grace_hopper)[:450]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, faces, astronaut):
    """Nine pictures named as UTKFace names them. Five are usable and in a group, one is between groups."""
    folder = tmp_path_factory.mktemp("utkface")
    young, old = faces
    write_image(folder / "29_1_0_1.jpg", young)
    write_image(folder / "39_1_0_2.jpg", np.ascontiguousarray(young[:, ::-1]))
    write_image(folder / "50_1_0_3.png", young)
    write_image(folder / "78_1_0_4.jpg", old)
    write_image(folder / "90_1_0_5.png", np.ascontiguousarray(old[:, ::-1]))
    write_image(folder / "35_1_0_6.jpg", young)  # between the groups
    write_image(folder / "30_0_0_7.jpg", np.full((90, 90, 3), 120, np.uint8))  # no face
    (folder / "31_0_0_8.jpg").write_bytes(astronaut.read_bytes()[:3000])  # cut short
    write_image(folder / "32_0_0_9.png", np.ascontiguousarray(old[:, :262]))  # half a face
    return folder


@pytest.fixture(scope="session")
def images(folder):
    return read_dataset(f"utkface:{folder}").images


@pytest.fixture(scope="session")
def report(images):
    return accuracy.evaluate(images, WAY, resamples=200)


def test_figures_are_those_of_the_pipeline_one_by_one(images, report):
    # The mask draws nothing, so that the way a viewer takes gives the same distributions.
    exact = one_off = grouped = 0
    recalls = {}
    errors, losses = [], []
    for image in images:
        try:
            distribution = WAY.estimate(image.path).distribution
        except Exception:  # noqa: S112 - counted below
            continue
        errors.append(abs(sum(age * p for age, p in enumerate(distribution.years)) - image.age))
        true = group_of(image.age)
        if true is None:
            continue
        masses = [sum(distribution.years[low : high + 1]) for low, high in GROUPS]
        guess = masses.index(max(masses))
        losses.append(-math.log(masses[true] / sum(masses)))
        grouped += 1
        exact += guess == true
        one_off += abs(guess - true) <= 1
        recalls.setdefault(true, []).append(guess == true)
    assert (report.faces, report.faces_all) == (grouped, len(errors)) == (5, 6)
    assert report.exact.value == pytest.approx(100 * exact / 5)
    assert report.one_off.value == pytest.approx(100 * one_off / 5)
    assert report.macro_exact.value == pytest.approx(
        100 * np.mean([np.mean(hits) for hits in recalls.values()])
    )
    assert report.log_loss.value == pytest.approx(math.fsum(losses) / 5, abs=1e-4)
    assert report.mae_years.value == pytest.approx(math.fsum(errors) / 6, abs=1e-4)
    assert report.mae_faces == 6


def test_what_cannot_be_used_is_counted_by_reason(report):
    assert report.left_out == {"no face found": 1, "unreadable picture": 1, "unusable face": 1}
    assert (report.approach, report.model) == ("mask", "dlib-age")


def test_two_viewers_are_left_out_unless_the_largest_is_meant(tmp_path, faces):
    young = faces[0]
    write_image(tmp_path / "29_1_0_1.jpg", np.concatenate([young, young[:, ::-1]], axis=1))
    write_image(tmp_path / "29_1_0_2.jpg", young)
    images = read_dataset(f"utkface:{tmp_path}").images
    strict = accuracy.evaluate(images, replace(WAY, allow_others=False), resamples=20)
    assert (strict.faces, strict.left_out) == (1, {"several faces": 1})
    lenient = accuracy.evaluate(images, WAY, resamples=20)
    assert (lenient.faces, lenient.left_out) == (2, {})


def test_the_pipelines_limits_hold(images):
    report = accuracy.evaluate(images, replace(WAY, limits=Limits(max_side=330)), resamples=20)
    # The three pictures of the older portrait are 450 pixels high.
    assert report.left_out == {"no face found": 1, "unreadable picture": 4}


def test_intervals_hold_their_figures(report):
    for name in ("exact", "one_off", "macro_exact"):
        estimate = getattr(report, name)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 100
    for estimate in (report.log_loss, report.mae_years):
        assert 0 <= estimate.low <= estimate.value <= estimate.high


def test_the_report_as_json(report):
    record = report.to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record) == {
        "exact", "one_off", "macro_exact", "log_loss", "mae_years", "mae_faces", "recall", "tail_error",
        "faces", "faces_all", "left_out", "left_out_share", "comparable", "approach", "model", "licence",
    }  # fmt: skip
    for name in ("exact", "one_off", "macro_exact", "log_loss", "mae_years"):
        estimate = getattr(report, name)
        assert record[name] == {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    assert (record["faces"], record["faces_all"]) == (5, 6)
    assert record["licence"] == "CC0-1.0"
    assert record["tail_error"] == {}
    # Three of nine pictures were left out: far more than a figure that stands beside others may lack.
    assert (record["left_out_share"], record["comparable"]) == (3 / 9, False)
    assert list(record["recall"]) == ["0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+"]
    assert [found and found["faces"] for found in record["recall"].values()] == [
        None, None, None, None, 1, 1, 1, 2,
    ]  # fmt: skip
    # Of one face that is judged rightly or wrongly, Clopper-Pearson knows that 2.5 % is at an end.
    for name in ("25-32", "38-43", "48-53"):
        found = record["recall"][name]
        ends = {0.0: (0.0, 97.5), 100.0: (2.5, 100.0)}[found["value"]]
        assert (found["low"], found["high"]) == pytest.approx(ends)


@pytest.mark.parametrize(("left_out", "comparable"), [(14, True), (15, True), (16, False)])
def test_more_than_1_5_percent_left_out_is_not_comparable(report, left_out, comparable):
    assert replace(report, left_out={"no face found": left_out}, total=1000).comparable is comparable


@pytest.mark.parametrize("approach", ["mosaic", "mask", "encryption"])
def test_the_same_seed_gives_the_same_figures(images, approach):
    way = replace(WAY, approach=approach)
    first, again = (accuracy.evaluate(images, way, seed=3, resamples=50, workers=w).to_json() for w in (1, 2))
    if approach == "encryption":
        # Its keys are fresh each time: the counts are all that stays.
        assert first["approach"] == again["approach"] == "permutation"
        assert (first["faces"], first["left_out"]) == (again["faces"], again["left_out"])
        return
    assert first.pop("mae_years")["value"] == pytest.approx(again.pop("mae_years")["value"], abs=1e-4)
    assert first == again


def test_another_seed_draws_another_mosaic(images):
    way = replace(WAY, approach="mosaic")
    first, other = (accuracy.evaluate(images, way, seed=s, resamples=20).mae_years.value for s in (0, 1))
    assert abs(first - other) > 1e-3


def test_every_face_has_draws_of_its_own(tmp_path, faces):
    # The same picture twice: one mosaic for both would show as an interval without width, as the mask's.
    for number in (1, 2):
        write_image(tmp_path / f"29_1_0_{number}.png", faces[0])
    images = read_dataset(f"utkface:{tmp_path}").images
    mask, mosaic = (
        accuracy.evaluate(images, replace(WAY, approach=a), resamples=50) for a in ("mask", "mosaic")
    )
    assert mask.mae_years.high - mask.mae_years.low < 1e-4
    assert mosaic.mae_years.high - mosaic.mae_years.low > 1e-2


def test_progress_counts_every_picture(images):
    calls = []
    accuracy.evaluate(images, WAY, resamples=20, advance=lambda: calls.append(1))
    assert len(calls) == len(images) == 9


@pytest.mark.parametrize("names", [[], ["30_0_0_7.jpg"], ["35_1_0_6.jpg"], ["35_1_0_6.jpg", "31_0_0_8.jpg"]])
def test_without_a_face_in_a_group_there_is_no_figure(images, names):
    chosen = [image for image in images if image.path.name in names]
    with pytest.raises(
        DataError,
        match=r"no face (has a label within|(with an age in one of the groups|of the data set) could be)",
    ):
        accuracy.evaluate(chosen, WAY)


def test_an_interval_within_a_group_counts_for_accuracy_and_not_for_years(folder):
    inside = LabelledImage(folder / "29_1_0_1.jpg", 25, 32)
    across = LabelledImage(folder / "29_1_0_1.jpg", 21, 30)
    report = accuracy.evaluate([inside, across], WAY, resamples=20)
    assert (report.faces, report.faces_all) == (1, 2)
    assert report.mae_years is None
    assert (report.to_json()["mae_years"], report.to_json()["mae_faces"]) == (None, 0)
    exact = LabelledImage(folder / "29_1_0_1.jpg", 29, 29)
    report = accuracy.evaluate([exact, across], WAY, resamples=20)
    assert report.mae_years is not None
    assert (report.faces_all, report.to_json()["mae_faces"]) == (2, 1)


@pytest.mark.parametrize(
    ("dataset", "ages", "groups"),
    [("utkface", (35, 36), "25-32, 38-43"), ("fairface", (-1,), "0-2, 3-9")],
)
def test_labels_that_lie_in_no_group_are_told_before_any_work(dataset, ages, groups):
    # Of FairFace only an interval over two bins lies in none.
    labels = [(8, 12) if age < 0 else (age, age) for age in ages]
    images = [LabelledImage(Path("missing.jpg"), low, high) for low, high in labels]
    calls = []
    with pytest.raises(DataError, match=f"no face has a label within one of the groups .*{groups}"):
        accuracy.evaluate(images, WAY, dataset=dataset, advance=lambda: calls.append(1))
    assert calls == []


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused_before_any_work(seed):
    with pytest.raises(ValueError, match="a seed lies from 0"):
        accuracy.evaluate([LabelledImage(Path("missing.jpg"), 1, 1)], WAY, seed=seed)


def test_a_model_that_is_missing_ends_the_evaluation(images, monkeypatch):
    # Not every face for itself "left out": the figures would be of nothing.
    def missing(*_, **__):
        raise ModelError("weights.onnx is not installed")

    monkeypatch.setattr(detection, "find_boxes", missing)
    with pytest.raises(ModelError):
        accuracy.evaluate(images, WAY)


# Several approaches ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def both(images):
    faces = accuracy.photographs(images, WAY, dataset="utkface")
    crops = []

    def counted(index):
        crops.append(index)
        return faces.crop(index)

    pairs = [("mask", "dlib-age"), ("mosaic", "dlib-age"), ("mask", "dlib-age")]
    found = accuracy.estimate_all(replace(faces, crop=counted), pairs, seed=7)
    return found, crops


def test_several_approaches_give_what_each_gives_alone(images, both):
    found, _ = both
    assert list(found) == [("mask", "dlib-age"), ("mosaic", "dlib-age")]
    for (approach, _), estimates in found.items():
        alone = accuracy.evaluate(images, replace(WAY, approach=approach), seed=7, resamples=20)
        together = accuracy.score(estimates, seed=7, resamples=20)
        assert together.exact == alone.exact
        assert together.mae_years.value == pytest.approx(alone.mae_years.value, abs=1e-4)
        assert (together.left_out, together.total) == (alone.left_out, 9)


def test_each_face_is_cropped_once(both):
    _, crops = both
    assert sorted(crops) == list(range(9))


@pytest.mark.parametrize("pairs", [[], [("pixelate", "dlib-age")], [("mask", "no-such-model")]])
def test_unknown_questions_are_refused_before_any_work(images, pairs):
    faces = replace(accuracy.photographs(images, WAY, dataset="utkface"), crop=None)
    with pytest.raises(ValueError, match=r"one approach and one model|unknown"):
        accuracy.estimate_all(faces, pairs)


def test_prepared_faces_give_the_figures_of_their_pictures(tmp_path, folder, report):
    dataset = read_dataset(f"utkface:{folder}")
    prepare(dataset, tmp_path / "prepared", WAY)
    faces = accuracy.open_faces(f"prepared:{tmp_path / 'prepared'}", WAY)
    assert (faces.dataset, len(faces.images), faces.total) == ("utkface", 6, 9)
    (estimates,) = accuracy.estimate_all(faces, [("mask", "dlib-age")]).values()
    again = accuracy.score(estimates, resamples=200)
    assert again.exact == report.exact
    assert again.mae_years.value == pytest.approx(report.mae_years.value, abs=1e-4)
    assert (again.left_out, again.left_out_share) == (report.left_out, report.left_out_share)


def test_a_draw_of_prepared_faces_tells_what_it_left_out_itself(tmp_path, folder):
    prepare(read_dataset(f"utkface:{folder}"), tmp_path / "prepared", WAY)
    place = f"prepared:{tmp_path / 'prepared'}"
    everybody = accuracy.open_faces(place, WAY)
    names = [image.path.name for image in everybody.images]
    lost = []
    for seed in range(60):
        drawn = accuracy.open_faces(place, WAY, limit=3, seed=seed)
        assert drawn.total == 3 == len(drawn.images) + sum(drawn.left_out.values())
        assert all(drawn.left_out[reason] <= everybody.left_out[reason] for reason in drawn.left_out)
        places = [names.index(image.path.name) for image in drawn.images]
        assert places == sorted(set(places))
        for index, whole in enumerate(places):
            assert (drawn.crop(index).pixels == everybody.crop(whole).pixels).all()
        lost.append(sum(drawn.left_out.values()))
    # Three of nine pictures show no usable face. Of three that are drawn that is one, with a hypergeometric
    # deviation of sqrt(3 * 1/3 * 2/3 * 6/8) = 0.71: the mean of 60 lies within four of 0.71 / sqrt(60).
    assert np.mean(lost) == pytest.approx(1, abs=4 * 0.71 / math.sqrt(60))
    for limit in (9, 10):
        same = accuracy.open_faces(place, WAY, limit=limit)
        assert (same.images, same.total, same.left_out) == (everybody.images, 9, everybody.left_out)
    with pytest.raises(ValueError, match="a limit is 1 or more, got 0"):
        accuracy.open_faces(place, WAY, limit=0)


# Parts of a data set ----------------------------------------------------------------------------------------


def made_up(labels, years, dataset="utkface"):
    """Estimates by hand: (age low, age high, gender) and the one year that the model says."""
    info = estimation.get_model("dlib-age").info
    said = [AgeDistribution.from_years(np.eye(101)[year], approach="mask", model=info) for year in years]
    images = tuple(LabelledImage(Path("x.jpg"), low, high, gender=g) for low, high, g in labels)
    return accuracy.Estimates(dataset, images, tuple(said), "mask", "dlib-age", len(images), {})


def test_parts_by_gender_by_hand():
    estimates = made_up(
        [(30, 30, "male"), (30, 30, "male"), (40, 40, "female"), (35, 35, "female"), (50, 50, None)],
        [30, 41, 30, 36, 5],
    )
    female, male, unknown = accuracy.score_by(estimates, "gender", resamples=20)
    assert (female.value, male.value, unknown.value) == ("female", "male", None)
    assert [(row.faces, row.faces_all) for row in (female, male, unknown)] == [(1, 2), (2, 2), (1, 1)]
    assert [row.exact.value for row in (female, male, unknown)] == [0, 50, 0]
    assert [row.one_off.value for row in (female, male, unknown)] == [100, 100, 0]
    assert [row.mae_years.value for row in (female, male, unknown)] == [5.5, 5.5, 45]
    reference = binomtest(1, 2).proportion_ci(method="exact")
    assert (male.exact.low, male.exact.high) == pytest.approx((100 * reference.low, 100 * reference.high))
    assert all(row.few for row in (female, male, unknown))


def test_parts_by_group_are_the_recalls():
    estimates = made_up([(1, 1, None), (30, 30, None), (35, 35, None)], [1, 40, 35])
    rows = accuracy.score_by(estimates, "group", resamples=20)
    assert [(row.value, row.faces, row.exact.value) for row in rows] == [("0-2", 1, 100), ("25-32", 1, 0)]


@pytest.mark.parametrize(("known", "few"), [(99, True), (100, False)])
def test_the_error_in_years_of_a_part_has_faces_of_its_own(known, few):
    # Of 150 men some have an exact age, a fifth of them between the groups; the others' is an interval.
    labels = [(35, 35, "male")] * 20 + [(30, 30, "male")] * (known - 20) + [(25, 32, "male")] * (150 - known)
    (row,) = accuracy.score_by(made_up(labels, [30] * 150), "gender", resamples=2)
    assert (row.few, row.mae_faces, row.mae_few) == (False, known, few)
    assert (row.to_json()["mae_faces"], row.to_json()["mae_few"]) == (known, few)


@pytest.mark.parametrize(("faces", "few"), [(99, True), (100, False)])
def test_parts_below_a_hundred_faces_are_few(faces, few):
    (row,) = accuracy.score_by(made_up([(30, 30, "male")] * faces, [30] * faces), "gender", resamples=2)
    assert row.few is row.to_json()["few"] is few


def test_a_part_without_a_grouped_age_has_no_accuracy():
    (row,) = accuracy.score_by(made_up([(35, 35, "male")], [30]), "gender", resamples=2)
    assert (row.exact, row.one_off, row.faces, row.mae_years.value) == (None, None, 0, 5)


def of_people(*shares):
    """Estimates of 12 pictures of each person, of which a share is taken for the right group."""
    labels = [(30, 30, "male")] * (12 * len(shares))
    years = [30 if n < 12 * share else 70 for share in shares for n in range(12)]
    estimates = made_up(labels, years)
    images = tuple(replace(image, identity=f"p{n // 12}") for n, image in enumerate(estimates.images))
    return replace(estimates, images=images)


def test_pictures_of_one_person_are_no_independent_faces():
    (row,) = accuracy.score_by(of_people(*[0, 1] * 30), "gender")
    # Sixty people, half of them judged rightly each time: the binomial's standard deviation is 6.5 points.
    assert row.exact.value == 50
    assert (row.exact.low, row.exact.high) == pytest.approx((50 - 12.65, 50 + 12.65), abs=2.5)
    report = accuracy.score(of_people(*[0, 1] * 30))
    recall, faces = report.recall["25-32"]
    assert (recall, faces) == (row.exact, 720)


@pytest.mark.parametrize(("share", "hits"), [(0, 0), (1 / 3, 4), (1, 12)])
def test_people_who_are_all_alike_leave_doubt(share, hits):
    (row,) = accuracy.score_by(of_people(*[share] * 12), "gender", resamples=200)
    reference = binomtest(hits, 12).proportion_ci(method="exact")
    assert (row.exact.low, row.exact.high) == pytest.approx((100 * reference.low, 100 * reference.high))


@pytest.mark.parametrize(("said", "hits"), [(30, 20), (70, 0)])
def test_faces_that_are_all_right_or_all_wrong_leave_doubt(said, hits):
    report = accuracy.score(made_up([(30, 30, None)] * 20, [said] * 20), resamples=20)
    reference = binomtest(hits, 20).proportion_ci(method="exact")
    for share in (report.exact, report.one_off, report.macro_exact):
        assert (share.low, share.high) == pytest.approx((100 * reference.low, 100 * reference.high))


def test_the_mean_over_groups_rests_on_the_smallest():
    # Nine right faces, one of them alone in its group. Of three right faces, one for each group, the chance
    # is 0.025 where each has the chance 0.025 ** (1 / 3) = 0.2924; of nine faces it would be 0.6637.
    ages = [1] + [30] * 3 + [70] * 5
    report = accuracy.score(made_up([(age, age, None) for age in ages], ages), resamples=20)
    found = report.macro_exact
    assert (found.value, found.low, found.high) == (100, pytest.approx(29.24, abs=0.01), 100)
    assert report.exact.low == pytest.approx(66.37, abs=0.01)
    # All wrong, it is the other way round.
    wrong = [30 if age != 30 else 70 for age in ages]
    found = accuracy.score(made_up([(age, age, None) for age in ages], wrong), resamples=20).macro_exact
    assert (found.value, found.low, found.high) == (0, 0, pytest.approx(70.76, abs=0.01))


def test_the_mean_over_groups_counts_each_person_once():
    # Two people, each with a right face in each of three groups, whose chances hang together: two trials,
    # 0.025 ** (1 / 2) = 0.1581.
    ages = [1, 30, 70] * 2
    estimates = made_up([(age, age, None) for age in ages], ages)
    images = tuple(replace(image, identity=f"p{n // 3}") for n, image in enumerate(estimates.images))
    found = accuracy.score(replace(estimates, images=images), resamples=20).macro_exact
    assert (found.value, found.low, found.high) == (100, pytest.approx(15.81, abs=0.01), 100)


def test_a_person_who_is_alone_in_several_groups_is_one_trial():
    # All right; but one person stands for three of four groups, so the mean may be as low as that one's
    # chance lets it, of which one trial tells: 0.025.
    people = [("a", 1), ("a", 30), ("a", 70), *((f"b{n}", 5) for n in range(40))]
    estimates = made_up([(age, age, None) for _, age in people], [age for _, age in people])
    images = tuple(
        replace(image, identity=name) for image, (name, _) in zip(estimates.images, people, strict=True)
    )
    found = accuracy.score(replace(estimates, images=images), resamples=20).macro_exact
    assert (found.value, found.low, found.high) == (100, pytest.approx(2.5), 100)


def test_one_person_who_is_half_right_tells_nothing():
    (row,) = accuracy.score_by(of_people(0.5), "gender", resamples=20)
    assert (row.exact.value, row.exact.low, row.exact.high) == (50, 0, 100)


def test_other_parts_are_refused():
    with pytest.raises(ValueError, match="choose one of gender, race, group"):
        accuracy.score_by(made_up([(30, 30, None)], [30]), "path")


# FairFace ---------------------------------------------------------------------------------------------------


def test_fairface_is_scored_over_its_own_bins_by_hand():
    estimates = made_up(
        [(0, 2, None), (3, 9, None), (10, 19, None), (70, 116, None)], [1, 12, 25, 70], "fairface"
    )
    report = accuracy.score(estimates, resamples=20)
    assert list(report.recall) == ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"]
    assert (report.exact.value, report.one_off.value) == (50, 100)
    # Under 10 is called 12 once; under 20 is called 25 once; each in four faces and with certainty.
    assert [report.tail_error[age].misjudged.value for age in (10, 20)] == [25, 25]
    assert [report.tail_error[age].brier.value for age in (10, 20)] == pytest.approx([0.25, 0.25])
    record = report.to_json()
    assert set(record["tail_error"]) == {"10", "20"}
    assert record["tail_error"]["10"]["faces"] == 4


def test_a_model_of_groups_cannot_answer_fairface(images, monkeypatch):
    entry = estimation.get_model("dlib-age")
    coarse = replace(entry, info=replace(entry.info, name="coarse", resolution="group"))
    monkeypatch.setattr(estimation, "MODELS", {"coarse": coarse})
    faces = accuracy.photographs(images, replace(WAY, model="coarse"), dataset="fairface")
    with pytest.raises(ValueError, match="coarse knows the paper's eight groups only"):
        accuracy.estimate_all(faces, [("mask", "coarse")])


# Samples ----------------------------------------------------------------------------------------------------


def numbered(count):
    return [LabelledImage(Path(f"{index}.jpg"), 30, 30) for index in range(count)]


@pytest.mark.parametrize("limit", [None, 20, 21])
def test_without_a_smaller_limit_all_are_taken(limit):
    assert accuracy.sample(numbered(20), limit, seed=0) == tuple(numbered(20))


@pytest.mark.parametrize("limit", [1, 5, 19])
def test_a_sample_is_drawn_once_each_in_order(limit):
    drawn = accuracy.sample(numbered(20), limit, seed=4)
    places = [int(image.path.stem) for image in drawn]
    assert len(places) == limit
    assert places == sorted(set(places))
    assert drawn == accuracy.sample(numbered(20), limit, seed=4)


def test_samples_are_random():
    draws = {accuracy.sample(numbered(20), 5, seed=seed) for seed in range(50)}
    assert len(draws) > 40
    # Each picture is in a quarter of the samples: 12.5 of 50, give or take four standard deviations of 3.1.
    hits = [sum(image in draw for draw in draws) for image in numbered(20)]
    assert all(1 <= count <= 25 for count in hits)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="a limit is 1 or more, got 0"):
        accuracy.sample(numbered(3), 0, seed=0)


# Aligned pictures -------------------------------------------------------------------------------------------


def test_an_aligned_picture_becomes_the_crop_as_it_is(faces):
    # A canonical crop saved and read again is such a picture: nothing moves.
    crop = WAY.align_viewer(faces[1])[1]
    again = canonical_crop(crop.pixels, WAY, aligned=True)
    assert (again.pixels == crop.pixels).all()
    assert again.outside == 0
    warped = canonical_crop(faces[1], WAY, aligned=False)
    assert (warped.pixels == crop.pixels).all()


def test_an_aligned_picture_without_a_face_is_an_error():
    with pytest.raises(NoFaceError):
        canonical_crop(np.full((200, 200, 3), 99, np.uint8), WAY, aligned=True)


# Published figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approach", "exact", "one_off"),
    # Of the dlib age network on the 3,249 grouped faces of this set, with chips cut by dlib itself.
    [("original", 65.7, 93.0), ("mosaic", 56.7, 86.3)],
)
def test_utkface_lands_at_the_published_figures(ageveil_data, approach, exact, one_off):
    images = accuracy.sample(read_dataset(f"utkface:{ageveil_data / 'utkface' / 'test'}").images, 300, seed=0)
    report = accuracy.evaluate(images, replace(WAY, approach=approach), resamples=50)
    assert report.faces > 180
    assert sum(report.left_out.values()) <= 6
    for estimate, published in ((report.exact, exact), (report.one_off, one_off)):
        # Three standard deviations of a share of so many faces, and 1.5 points for another framing.
        tolerance = 300 * math.sqrt(published / 100 * (1 - published / 100) / report.faces) + 1.5
        assert abs(estimate.value - published) <= tolerance


def test_behind_the_mask_the_variant_for_commercial_use_sees_more_than_dlib(ageveil_data):
    # Neither has seen a face of UTKFace. dlib's network takes nearly everybody behind a mask for a grown-up.
    images = read_dataset(f"utkface:{ageveil_data / 'utkface' / 'train'}").images
    some = accuracy.sample(images, 300, seed=0)
    ours, dlibs = (
        accuracy.evaluate(some, replace(WAY, model=model), resamples=50)
        for model in ("ageveil-open", "dlib-age")
    )
    assert ours.faces == dlibs.faces > 180
    # Measured on other faces: 12 and 30 points more. Three standard errors of 200 faces are 10.
    assert ours.exact.value > dlibs.exact.value
    assert ours.macro_exact.value > dlibs.macro_exact.value + 15


def test_a_part_of_the_faces_keeps_their_crops(images):
    faces = accuracy.photographs(images, WAY, dataset="utkface")
    some = accuracy.part(faces, [5, 0])
    assert some.images == (faces.images[5], faces.images[0])
    assert some.total == 2
    for place, index in enumerate((5, 0)):
        np.testing.assert_array_equal(some.crop(place).pixels, faces.crop(index).pixels)


def hashed_below(images, share, seed):
    """By hand: a file is drawn where the first 48 bits of the hash of seed and name lie below the share."""
    return {
        image.path.name
        for image in images
        if int(hashlib.sha256(f"{seed} file {image.path.name}".encode()).hexdigest()[:12], 16) < share * 2**48
    }


@pytest.fixture(scope="module")
def two_ages():
    images = tuple(
        LabelledImage(Path(f"{age}_0_0_{number}.jpg"), age, age) for age in (16, 30) for number in range(900)
    )
    # Small crops of noise, each another: no two show one photograph.
    noise = np.random.default_rng(0).integers(0, 256, (len(images), 24, 24, 3), np.uint8)

    def crop(index):
        return CanonicalCrop(noise[index], np.full((5, 2), 12.0), np.eye(2, 3), 0.0)

    return accuracy.Faces("utkface", images, crop, len(images), {}, {"no age": 3})


def test_of_faces_that_a_model_kept_out_every_age_has_its_share(two_ages):
    pytest.importorskip(
        "ageveil_weights_research", reason="left out: weights/research is not installed (make demo)"
    )
    own = accuracy.split_to_choose_by("ageveil")
    assert own.hold_out[13, 17] > own.share  # of minors it kept more out
    kept = accuracy.kept_out(two_ages, own)
    assert {image.path.name for image in kept.images} == hashed_below(two_ages.images, own.share, own.seed)
    counts = [sum(image.age == age for image in kept.images) for age in (16, 30)]
    # 900 draws with a chance of a tenth: 90, and nearly always within four deviations of 9.
    assert all(54 <= count <= 126 for count in counts)
    first = two_ages.images.index(kept.images[0])
    np.testing.assert_array_equal(kept.crop(0).pixels, two_ages.crop(first).pixels)
    assert (kept.total, kept.left_out, kept.labels_left_out) == (len(kept.images), {}, {"no age": 3})
    few = accuracy.kept_out(two_ages, own, limit=20, seed=1)
    assert len(few.images) == 20
    assert set(few.images) < set(kept.images)


def test_a_face_that_trained_a_model_is_never_among_those_kept_out(two_ages):
    split = estimation.Split(0.1, 5, {(13, 17): 0.02}, None)
    kept = {image.path.name for image in accuracy.kept_out(two_ages, split).images}
    _, validating = split_validation(two_ages.images, share=0.1, hold_out=split.hold_out, seed=5)
    assert kept == {two_ages.images[index].path.name for index in validating}
    assert kept < hashed_below(two_ages.images, 0.1, 5)


def test_who_keeps_no_faces_to_choose_by_is_told():
    with pytest.raises(DataError, match="dlib-age does not say which faces it kept out of training"):
        accuracy.split_to_choose_by("dlib-age")
    with pytest.raises(ValueError, match=r"models by fold test each face already.*model-\{fold\}.onnx"):
        accuracy.split_to_choose_by("model-{fold}.onnx")
