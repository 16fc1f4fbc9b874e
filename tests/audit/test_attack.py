"""Attackers on real crops: they name bare faces and fail on noise; an audit that was stopped goes on."""

import json
import re

import numpy as np
import pytest

from ageveil.audit import attack, page, report
from ageveil.audit.attack import Plan, run
from ageveil.audit.people import choose, find_people
from ageveil.audit.recognition import RECOGNISERS
from ageveil.audit.releases import jittered, release

OURS = RECOGNISERS["dlib-resnet"]
RUN = {
    "command": "ageveil audit <&>", "commit": "abc", "version": "1", "date": "2020-01-01", "hardware": "x",
    "software": "y", "seconds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return Plan(["original", "mask", "permutation"], [OURS], releases=(1, 3), seed=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "embeddings"


@pytest.fixture(scope="module")
def found(people, plan, cache):
    steps = []
    result = run(people, plan, cache=cache, advance=lambda: steps.append(1))
    assert len(steps) == plan.steps(people) == 3 * (18 + 2 * 6)
    return result


def test_every_attacker_is_measured_against_every_approach(found, plan):
    assert list(found) == list(plan.approaches)
    for reached in found.values():
        assert set(reached.success) == {(a, n) for a in ("naive", "aware", "adapted") for n in (1, 3)}
        assert set(reached.by.values()) == {"dlib-resnet"}
        assert reached.chance == pytest.approx(100 / 6)


def test_the_strongest_is_the_highest_of_each_figure(found):
    for reached in found.values():
        for figure in attack.FIGURES:
            for count in (1, 3):
                best = max(getattr(reached.success[a, count], figure).value for a in attack.ATTACKERS)
                assert reached.strongest(figure, count).value == best


def test_an_audit_that_was_stopped_goes_on(people, plan, found, cache, monkeypatch):
    files = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o600}
    assert cache.stat().st_mode & 0o777 == 0o700
    steps = []
    looked = []
    real = attack.embeddings
    monkeypatch.setattr(attack, "embeddings", lambda *a, **k: looked.append(a[2]) or real(*a, **k))
    next(cache.iterdir()).unlink()
    again = run(people, plan, cache=cache, advance=lambda: steps.append(1))
    assert len(looked) == 1  # what was lost, and nothing else
    assert len(steps) == plan.steps(people)
    assert {path.name for path in cache.iterdir()} == set(files)
    for approach, reached in found.items():
        for key, success in reached.success.items():
            assert again[approach].success[key] == success


def test_other_seeds_and_faces_have_other_embeddings(people, crops, plan, cache):
    count = len(list(cache.iterdir()))
    run(people, Plan(["mask"], [OURS], ("naive",), (1,), seed=5), cache=cache)
    assert len(list(cache.iterdir())) == count + 2
    run(choose(crops, people=5, seed=1), Plan(["mask"], [OURS], ("naive",), (1,), seed=5), cache=cache)
    assert len(list(cache.iterdir())) == count + 4


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"approaches": ["mask", "mask"]}, "two approaches have the name 'mask'"),
        ({"recognisers": [OURS, OURS]}, "two recognisers have the name 'dlib-resnet'"),
        ({"approaches": ["nothing"]}, "unknown approach"),
        ({"approaches": []}, "or more"),
        ({"attackers": ()}, "or more"),
        ({"releases": (5,)}, "releases ascend from 1"),
        ({"releases": (1, 5, 5)}, "releases ascend from 1"),
        ({"releases": ()}, "releases ascend from 1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(changes, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        Plan(**{"approaches": ["mask"], "recognisers": [OURS]} | changes)


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
    assert entry["reidentification"]["aware"]["rank1"]["value"] == pytest.approx(
        found["mask"].success["aware", 1].rank1.value
    )
    assert entry["releases"]["3"]["naive"]["rank5"]["value"] == pytest.approx(
        found["mask"].success["naive", 3].rank5.value
    )
    assert entry["age"] is None
    shown = page.render({**record, "run": RUN})
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|<img|url\((?!#)", shown)
    assert "ageveil audit &lt;&amp;&gt;" in shown
    assert "Lower bounds" in shown
    assert shown.count("<caption>") == shown.count("<table>") == 2


@pytest.fixture(scope="module")
def celebrities(ageveil_data, tmp_path_factory):
    """Twenty people of LFW, four faces each."""
    few = tmp_path_factory.mktemp("lfw")
    for person in sorted((ageveil_data / "lfw").iterdir())[:20]:
        (few / person.name).mkdir()
        for picture in sorted(person.glob("*.jpg"))[:4]:
            (few / person.name / picture.name).symlink_to(picture)
    return choose(find_people(few, few.parent / "crops"), gallery=2, probes=2)


def test_attackers_name_bare_faces_and_not_noise(celebrities):
    plan = Plan(["original", "mosaic", "permutation"], [OURS], releases=(1,))
    found = run(celebrities, plan)
    assert found["original"].success["naive", 1].rank1.value > 90
    assert found["mosaic"].strongest("rank1", 1).value > 50
    noise = found["permutation"].strongest("rank1", 1)
    assert noise.low <= 5 <= noise.high + 10
    assert noise.value < 25
