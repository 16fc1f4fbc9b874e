"""Attackers on real crops: they name bare faces and fail on noise; an audit that was stopped goes on."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ageveil import anonymization
from ageveil.anonymization import APPROACHES, usable_approaches
from ageveil.audit import attack, page, report
from ageveil.audit.attack import Found, Plan, run
from ageveil.audit.people import choose, find_people
from ageveil.audit.recognition import RECOGNISERS, embed
from ageveil.audit.reconstruction import Naming, Reconstruction
from ageveil.audit.reidentification import Success, measure
from ageveil.audit.releases import behaviour, draws_at_random, jittered, release, seen
from ageveil.evaluation.intervals import Estimate
from ageveil.runtime import Weights

OURS = RECOGNISERS["dlib-resnet"]
LEARNED = replace(OURS, name="learned", approaches=("mask",))
RUN = {
    "command": "ageveil audit <&>", "commit": "abc", "version": "1", "date": "2020-01-01", "hardware": "x",
    "software": "y", "seconds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return Plan(["original", "mosaic", "mask", "permutation"], [OURS], releases=(1, 3), seed=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "embeddings"


@pytest.fixture(scope="module")
def found(people, plan, cache):
    steps = []
    result = run(people, plan, cache=cache, advance=lambda: steps.append(1))
    # Eighteen faces once; of six probes three frames, and of the twelve others where draws are random.
    assert len(steps) == plan.steps(people) == 4 * (18 + 3 * 6) + 3 * 12
    return result


def test_every_attacker_is_measured_against_every_approach(found, plan):
    assert list(found) == list(plan.approaches)
    for reached in found.values():
        assert set(reached.once) == set(reached.by) == {"naive", "aware", "adapted"}
        assert set(reached.fused) == {(a, n) for a in ("naive", "aware", "adapted") for n in (1, 3)}
        assert set(reached.by.values()) == {"dlib-resnet"}
        assert reached.chance == pytest.approx(100 / 6)


def test_the_highest_of_each_figure_counts_whoever_reached_it(people, monkeypatch):
    # Of one attempt the first face of each person is named, and no other is near; of the other attempt all
    # are named at the second place. So rank-1 is the first's, and rank-5 the second's.
    true = people.person[~people.gallery]
    eye = np.eye(people.count)[true]
    one, two = eye.copy(), 0.5 * eye
    one[::2] = -eye[::2]
    two[np.arange(len(true)), (true + 1) % people.count] = 1.0
    monkeypatch.setattr(attack, "_scores", lambda attacker, view: [one, two])
    reached = run(people, Plan(["original"], [OURS], ("naive",), (1,)))["original"].once["naive"]
    alone = [measure(scores, true) for scores in (one, two)]
    assert alone[0].rank1.value > alone[1].rank1.value
    assert alone[1].rank5.value > alone[0].rank5.value
    assert (reached.rank1, reached.rank5) == (alone[0].rank1, alone[1].rank5)


def test_an_audit_that_was_stopped_goes_on(people, plan, found, cache, monkeypatch):
    files = {path.name for path in cache.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o600}
    assert cache.stat().st_mode & 0o777 == 0o700
    steps, looked = [], []
    real = attack.seen
    monkeypatch.setattr(attack, "seen", lambda *a, **k: looked.append(a[2]) or real(*a, **k))
    first, second, *_ = sorted(cache.iterdir())
    first.unlink()
    second.write_bytes(b"")  # as where the disk was full
    again = run(people, plan, cache=cache, advance=lambda: steps.append(1))
    assert len(looked) == 2  # what was lost, and nothing else
    assert len(steps) == plan.steps(people)
    assert {path.name for path in cache.iterdir()} == files
    for approach, reached in found.items():
        assert again[approach].once == reached.once
        assert again[approach].fused == reached.fused


def test_other_seeds_faces_and_sizes_have_other_embeddings(people, crops, cache, monkeypatch):
    def count(people, seed=5):
        run(people, Plan(["mosaic"], [OURS], ("naive",), (1,), seed=seed), cache=cache)
        return len(list(cache.iterdir()))

    before = len(list(cache.iterdir()))
    assert count(people) == before + 2
    assert count(people) == before + 2
    assert count(people, seed=6) == before + 4
    other = choose(crops, people=5, seed=1)
    assert count(other) == before + 6
    entry = replace(APPROACHES["mosaic"], sizes=lambda size: {"cell": 30})
    monkeypatch.setattr(anonymization, "APPROACHES", {**APPROACHES, "mosaic": entry})
    assert count(people) == before + 7  # the bare faces are the same


def test_another_network_of_an_approach_has_other_embeddings(monkeypatch):
    before = behaviour("mosaic")
    for sha256 in ("0" * 64, "1" * 64):
        weights = Weights(None, "net.onnx", sha256, "", "", "")
        entry = replace(APPROACHES["mosaic"], weights=weights)
        monkeypatch.setattr(anonymization, "APPROACHES", {**APPROACHES, "mosaic": entry})
        after = behaviour("mosaic")
        assert after != before
        before = after


@pytest.fixture
def looks(monkeypatch):
    """Which recogniser looked behind which approach, in order."""
    noted = []
    real = attack.seen
    monkeypatch.setattr(attack, "seen", lambda *a, **k: noted.append((a[4].name, a[2])) or real(*a, **k))
    return noted


def test_who_has_learned_looks_behind_what_it_learned_for_and_adapts(people, looks):
    plan = Plan(["mosaic", "mask"], [OURS, LEARNED], releases=(1, 2))
    steps = []
    both = run(people, plan, advance=lambda: steps.append(1))
    assert set(looks) == {
        ("dlib-resnet", "original"), ("dlib-resnet", "mosaic"), ("dlib-resnet", "mask"),
        ("learned", "original"), ("learned", "mask"),
    }  # fmt: skip
    # Eighteen faces once, of six probes two frames, and of the other twelve where draws are random; what has
    # learned looks at one picture.
    assert len(steps) == plan.steps(people) == (18 + (18 + 12) + (18 + 12 + 24)) + (18 + 18)
    alone = run(people, replace(plan, recognisers=[OURS]))
    for attacker in ("naive", "aware"):
        assert both["mask"].once[attacker] == alone["mask"].once[attacker]
        assert both["mask"].fused[attacker, 2] == alone["mask"].fused[attacker, 2]
        assert both["mask"].by[attacker] == "dlib-resnet"
    assert both["mosaic"].once == alone["mosaic"].once


def test_who_has_learned_compares_with_either_gallery_and_under_the_metric(people, monkeypatch):
    # By each way to score, the learned recogniser's adapted attacker names all; the other names nobody.
    true = people.person[~people.gallery]
    eye = np.eye(people.count)[true]
    for way in ("naive", "aware", "adapted"):
        asked = []

        def scores(attacker, view, way=way, asked=asked):
            asked.append(attacker)
            return [eye if attacker == way and len(asked) > 3 else -eye]

        monkeypatch.setattr(attack, "_scores", scores)
        reached = run(people, Plan(["mask"], [OURS, LEARNED], releases=(1,)))["mask"]
        assert asked == ["naive", "aware", "adapted"] * 2
        assert {attacker: success.rank1.value for attacker, success in reached.once.items()} == {
            "naive": 0, "aware": 0, "adapted": 100,
        }  # fmt: skip
        assert reached.by["adapted"] == "learned"


def test_without_an_adapted_attacker_nobody_looks_with_what_has_learned(people, looks):
    plan = Plan(["mask"], [OURS, LEARNED], ("naive", "aware"), (1,))
    run(people, plan)
    assert {name for name, _ in looks} == {"dlib-resnet"}
    assert plan.steps(people) == 36


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"approaches": ["mask", "mask"]}, "two approaches have the name 'mask'"),
        ({"recognisers": [OURS, OURS]}, "two recognisers have the name 'dlib-resnet'"),
        ({"approaches": ["nothing"]}, "unknown approach"),
        ({"approaches": []}, "or more"),
        ({"attackers": ()}, "or more"),
        ({"recognisers": [LEARNED]}, "a recogniser that looks behind every approach"),
        ({"releases": (5,)}, "releases ascend from 1"),
        ({"releases": (1, 5, 5)}, "releases ascend from 1"),
        ({"releases": ()}, "releases ascend from 1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(changes, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        Plan(**{"approaches": ["mask"], "recognisers": [OURS]} | changes)


def test_draws_at_random_are_those_of_cells_and_noise():
    assert {name for name in usable_approaches() if draws_at_random(name)} == {"mosaic", "grid", "dp-pix"}


def test_several_frames_are_fused_in_both_ways(people):
    numbers = [0, 4]
    rows = seen(people.crop, numbers, "mosaic", (1, 3), OURS, seed=2)
    assert rows.shape == (2, 2, 2, 128)
    for place, face in enumerate(numbers):
        frames = np.stack([release(people.crop(face), "mosaic", number, [2, face]) for number in range(3)])
        each = embed(frames, OURS).astype(float)
        each /= np.linalg.norm(each, axis=1, keepdims=True)
        mean = each.sum(0) / np.linalg.norm(each.sum(0))
        np.testing.assert_allclose(rows[place, 0, 0], each[0], atol=1e-4)
        np.testing.assert_allclose(rows[place, 0, 1], each[0], atol=1e-4)
        np.testing.assert_allclose(rows[place, 1, 0], mean, atol=1e-4)
        picture = embed(np.rint(frames.mean(0)).astype(np.uint8)[None], OURS)[0]
        np.testing.assert_allclose(rows[place, 1, 1], picture / np.linalg.norm(picture), atol=1e-4)


def test_the_first_release_is_the_crop_and_later_ones_differ_as_frames_do(people):
    crop = people.crop(0)
    frames = [release(crop, "original", number, [1, 2]) for number in range(4)]
    np.testing.assert_array_equal(frames[0], crop.pixels)
    for one, frame in enumerate(frames[1:], 1):
        difference = np.abs(frame.astype(int) - crop.pixels).mean()
        assert 0.5 < difference < 25, one
        np.testing.assert_array_equal(frame, release(crop, "original", one, [1, 2]))
    assert (release(crop, "mosaic", 0, [1, 2]) != release(crop, "mosaic", 0, [1, 3])).any()


def test_landmarks_move_with_the_frame(people):
    crop = people.crop(0)
    moved = jittered(crop, np.random.default_rng(8))
    # Where a point was drawn before, it is found at its new place after.
    pixels = np.zeros_like(crop.pixels)
    x, y = np.rint(crop.landmarks[0]).astype(int)
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    marked = jittered(
        type(crop)(pixels, crop.landmarks, crop.to_image, crop.outside), np.random.default_rng(8)
    )
    rows, columns = np.nonzero(marked.pixels[..., 0] > 128)
    assert np.abs([columns.mean(), rows.mean()] - moved.landmarks[0]).max() < 1


def test_the_report_says_what_was_found(people, plan, found):
    record = report.build(found, people, plan)
    assert json.loads(report.as_text(record)) == record
    assert record["lower_bound"] is True
    assert (record["people"], record["gallery"], record["probes"]) == (6, 12, 6)
    entry = record["approaches"]["mask"]
    assert entry["reidentification"]["aware"]["rank1"]["value"] == found["mask"].once["aware"].rank1.value
    assert entry["releases"]["3"]["naive"]["rank5"]["value"] == found["mask"].fused["naive", 3].rank5.value
    assert entry["reidentification"]["aware"]["tar_far_1e3"] is None  # of 30 others nothing so rare is known
    assert entry["age"] is None
    assert entry["verdict"].endswith("A lower bound: stronger recognisers exist.")
    assert "A cipher" in record["approaches"]["permutation"]["verdict"]
    shown = page.render({**record, "run": RUN})
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|<img|url\((?!#)", shown)
    assert "ageveil audit &lt;&amp;&gt;" in shown
    assert "Lower bounds" in shown
    assert shown.count("<caption>") == shown.count("<table>") == 2


@pytest.mark.parametrize(
    ("rank1", "frames", "says"),
    [
        (60.0, 60.0, "Hides from people, not from software: it named 60"),
        (20.0, 15.0, "Hides from people, and in part from software: it named 20"),
        (4.0, 15.0, "and in part from software: it named 4 of 100 faces among 50 people, 15 of 100 from 30"),
        (4.0, 5.0, "Software hardly names anybody: it named 4"),
    ],
)
def test_the_worst_of_both_decides_the_verdict(rank1, frames, says):
    def success(value):
        figure = Estimate(value, value, value)
        return Success(figure, figure, figure, figure, ())

    reached = Found({"naive": success(rank1)}, {("naive", 30): success(frames)}, {"naive": "x"}, 2.0)
    said = report.verdict("mask", reached, 50, (1, 30), lower_bound=False)
    assert says in said
    assert "lower bound" not in said


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        (
            Estimate(20.0, 12.0, 28.0),
            "Hides from people, and in part from software: it named 4 of 100 faces among 50 people "
            "(guessing: 2.0). A network that paints back what is hidden raises what an aware attacker names "
            "from 5 to 25 of 100.",
        ),
        (
            Estimate(20.0, -1.0, 41.0),
            "Software hardly names anybody: it named 4 of 100 faces among 50 people",
        ),
    ],
)
def test_a_reconstruction_counts_where_it_names_more_beyond_chance(gain, says):
    def success(value):
        figure = Estimate(value, value, value)
        return Success(figure, figure, figure, figure, ())

    none = Estimate(0.0, 0.0, 0.0)
    undone = Reconstruction(
        (none, none), (none, none), Naming(success(1.0), success(40.0), Estimate(0.0, -1.0, 1.0)),
        Naming(success(5.0), success(25.0), gain), 10,
    )  # fmt: skip
    reached = Found({"naive": success(4.0)}, {}, {"naive": "x"}, 2.0)
    said = report.verdict("mask", reached, 50, (1,), {"inpainter": undone}, lower_bound=False)
    assert said.startswith(says)


@pytest.mark.parametrize("rank1", [1.0, 70.0])
def test_of_a_cipher_the_verdict_tells_what_was_measured_and_no_more(rank1):
    figure = Estimate(rank1, rank1, rank1)
    reached = Found({"naive": Success(figure, figure, figure, figure, ())}, {}, {"naive": "x"}, 2.0)
    said = report.verdict("des-ecb", reached, 50, (1,), lower_bound=False)
    assert said.startswith("A cipher: ")
    assert said.endswith(
        f"Without it, software named {rank1:.0f} of 100 faces among 50 people (guessing: 2.0)."
    )


@pytest.fixture(scope="module")
def celebrities(ageveil_data, tmp_path_factory):
    """Twenty people of LFW, four faces each."""
    few = tmp_path_factory.mktemp("lfw")
    for person in sorted((ageveil_data / "lfw").iterdir())[:20]:
        (few / person.name).mkdir()
        for picture in sorted(person.glob("*.jpg"))[:4]:
            (few / person.name / picture.name).symlink_to(picture)
    return choose(find_people(few, few.parent / "crops"), gallery=2, probes=2)


def test_a_network_that_has_learned_names_masked_faces_and_not_noise(celebrities):
    learned = replace(RECOGNISERS["dlib-resnet-adapted"], approaches=("mask", "permutation"))
    found = run(celebrities, Plan(["mask", "permutation"], [RECOGNISERS["pixels"], learned], releases=(1,)))
    assert found["mask"].by["adapted"] == "dlib-resnet-adapted"
    assert found["mask"].once["adapted"].rank1.value > 80
    assert found["permutation"].once["adapted"].rank1.low <= 5  # which is guessing
    assert found["permutation"].once["adapted"].rank1.high < found["mask"].once["adapted"].rank1.low


def test_attackers_name_bare_faces_and_not_noise(celebrities):
    plan = Plan(["original", "mosaic", "des-ctr"], [OURS], releases=(1,))
    found = run(celebrities, plan)
    assert found["original"].once["naive"].rank1.value > 90
    assert found["mosaic"].strongest("rank1").value > 50
    assert found["des-ctr"].strongest("rank1").low <= 5  # which is guessing
    assert found["des-ctr"].strongest("rank1").high < found["mosaic"].strongest("rank1").low
