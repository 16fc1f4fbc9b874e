"""Gaps between people: seen where they were made, and not where they were not; shares by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from ageveil.audit import fairness
from ageveil.estimation import get_model
from ageveil.evaluation.accuracy import Estimates
from ageveil.training.labels import LabelledImage
from ageveil.types import AgeDistribution


def estimates_of(rows):
    """Of (age, said age, gender, race): an estimator that is sure."""
    images, said = [], []
    for number, (age, guess, gender, race) in enumerate(rows):
        images.append(
            LabelledImage(Path(f"{number}.jpg"), age_low=age, age_high=age, gender=gender, race=race)
        )
        years = np.zeros(101)
        years[guess] = 1
        said.append(AgeDistribution.from_years(years, approach="mask", model=get_model("ageveil").info))
    return Estimates("utkface", tuple(images), tuple(said), "mask", "ageveil", len(rows), {})


def faces(off, times=40):
    """So many times five faces: those of women are off by so many years."""
    rng = np.random.default_rng(1)
    ages = np.tile([5, 10, 16, 30, 40], times)
    return estimates_of(
        [
            (age, age + (off if place % 2 else 0), ("male", "female")[place % 2], rng.choice(["a", "b"]))
            for place, age in enumerate(ages.tolist())
        ]
    )


def test_a_gap_that_was_made_is_named(monkeypatch):
    monkeypatch.setattr(fairness, "FEW", 20)
    found = fairness.fairness({("mask", "ageveil"): faces(4)}, resamples=20)["mask"]
    gap = found["widest"]["over_18"]
    assert (gap["trait"], gap["highest"], gap["lowest"], gap["apart"]) == ("gender", "female", "male", True)
    # Of women under 18 those of 16 are taken for 20: one in three.
    assert gap["points"] == pytest.approx(100 / 3)
    assert found["widest"]["mae_years"]["points"] == pytest.approx(4)
    assert {trait: [row["value"] for row in rows] for trait, rows in found["parts"].items()}["gender"] == [
        "female", "male",
    ]  # fmt: skip


def test_where_there_is_no_gap_none_is_apart(monkeypatch):
    monkeypatch.setattr(fairness, "FEW", 20)
    found = fairness.fairness({("mask", "ageveil"): faces(0)}, resamples=20)["mask"]["widest"]
    assert {name: (gap["points"], gap["apart"]) for name, gap in found.items()} == {
        "exact": (0, False), "mae_years": (0, False), "over_13": (0, False), "over_18": (0, False),
    }  # fmt: skip


def test_few_faces_name_no_gap_that_may_be_chance():
    found = fairness.fairness({("mask", "ageveil"): faces(4, times=1)}, resamples=5)["mask"]["widest"]
    assert list(found.values()) == [None] * 4


def test_few_faces_name_a_share_that_is_no_chance():
    # 44 of whom 12 pass, and 206 of whom 6 do: the exact intervals are 15.0 to 42.8 % and 1.1 to 6.2 %.
    rows = [(16, 20 if at < 12 else 10, None, "few") for at in range(44)]
    rows += [(16, 20 if at < 6 else 10, None, "many") for at in range(206)]
    gap = fairness.fairness({("mask", "ageveil"): estimates_of(rows)}, resamples=5)["mask"]["widest"]
    shown = gap["over_18"]
    assert (shown["highest"], shown["lowest"], shown["apart"]) == ("few", "many", True)
    assert shown["points"] == pytest.approx(100 * (12 / 44 - 6 / 206))
    assert gap["mae_years"] is None
    # Nine are too few to choose the widest from many pairs, and intervals over people are not exact.
    nine = estimates_of([(16, 20, None, "few")] * 9 + rows[44:])
    assert fairness.fairness({("mask", "ageveil"): nine}, resamples=5)["mask"]["widest"]["over_18"] is None
    alone = estimates_of(rows)
    alone = replace(alone, images=tuple(replace(image, identity=image.path.name) for image in alone.images))
    assert fairness.fairness({("mask", "ageveil"): alone}, resamples=5)["mask"]["widest"]["over_18"] is None


def test_a_mean_error_rests_on_exact_ages_alone():
    # 120 faces of each, but only 99 of one have an exact age; their errors are 10 years and 0.
    rows = [(16, 26, None, "a")] * 120 + [(16, 16, None, "b")] * 120
    known = estimates_of(rows)
    some = tuple(
        replace(image, age_low=8, age_high=12) if 120 <= at < 141 else image
        for at, image in enumerate(known.images)
    )

    def gap(estimates):
        return fairness.fairness({("mask", "ageveil"): estimates}, resamples=5)["mask"]["widest"]["mae_years"]

    assert gap(known)["points"] == pytest.approx(10)
    assert gap(replace(known, images=some)) is None


def test_shares_are_those_of_a_slow_count():
    estimates = faces(4)
    for gender in ("female", "male"):
        for age in fairness.OVER:
            share, count = fairness.taken_for_older(estimates, "gender", gender, age)
            under = older = 0
            for image, distribution in zip(estimates.images, estimates.distributions, strict=True):
                if image.gender == gender and image.age < age:
                    under += 1
                    older += distribution.years[age:].sum() >= 0.5
            assert (count, share.value) == (under, pytest.approx(100 * older / under))
            exact = scipy.stats.binomtest(int(older), under).proportion_ci(0.95, "exact")
            assert (share.low, share.high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=1e-6)


def test_of_nobody_nothing_is_said():
    estimates = estimates_of([(30, 31, "male", None), (50, 50, "male", None)])
    assert fairness.taken_for_older(estimates, "gender", "male", 13) is None
    assert fairness.by_trait(estimates, "race", resamples=5) == []
    (row,) = fairness.by_trait(estimates, "gender", resamples=5)
    assert row["over_13"] is row["over_18"] is None
