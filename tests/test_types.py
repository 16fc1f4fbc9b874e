"""Tests of the records. The truth is a brute-force loop, a hand calculation, or the rule as it is written."""

import copy
import itertools
import json
import math
import pickle
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ageveil.types import (
    AGE_GROUP_NAMES,
    AGE_GROUPS,
    AgeDistribution,
    AnonymizedFace,
    AnonymizedPicture,
    Box,
    CanonicalCrop,
    Face,
    ModelInfo,
    Policy,
    Receipt,
    age_group,
    check_image,
)

YEAR_MODEL = ModelInfo("m", "1", "CC0-1.0", "year", "0" * 64, "nowhere")
GROUP_MODEL = ModelInfo("g", "1", "CC0-1.0", "group", "0" * 64, "nowhere")
IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])
NAN, INF = float("nan"), float("inf")


def years_distribution(years):
    return AgeDistribution.from_years(np.asarray(years, float), approach="mask", model=YEAR_MODEL)


def groups_distribution(groups):
    return AgeDistribution.from_groups(np.asarray(groups, float), approach="mask", model=GROUP_MODEL)


def years_at(**shares):
    """101 probabilities: `y25=0.5` puts a half on the year 25."""
    years = np.zeros(101)
    for name, share in shares.items():
        years[int(name[1:])] = share
    return years


def receipt(**changes):
    fields = {
        "approach": "mosaic",
        "parameters": {"cell": 10},
        "region": (1, 2, 30, 20),
        "eye_region": (1, 2, 30, 20),
        "size": (40, 40),
    }
    return Receipt(**(fields | changes))


# --- Age groups ---


def test_groups_as_the_paper_lists_them():
    # Ye et al. 2018, section IV-A: 0-2, 4-6, 8-13, 15-20, 25-32, 38-43, 48-53, 60+.
    listed = {
        0: [0, 1, 2],
        1: [4, 5, 6],
        2: [*range(8, 14)],
        3: [*range(15, 21)],
        4: [*range(25, 33)],
        5: [*range(38, 44)],
        6: [*range(48, 54)],
        7: [*range(60, 131)],
    }
    expected = {age: group for group, ages in listed.items() for age in ages}
    assert {age: age_group(age) for age in range(131)} == {age: expected.get(age) for age in range(131)}


def test_group_names_say_their_ages():
    for name, (low, high) in zip(AGE_GROUP_NAMES, AGE_GROUPS, strict=True):
        assert name == (f"{low}-{high}" if high < 100 else f"{low}+")


def test_a_negative_age_is_refused():
    with pytest.raises(ValueError, match=r"0 or more, got -1"):
        age_group(-1)


# --- Pictures ---


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 7, 3)])
def test_an_rgb_picture_is_returned_as_it_is(shape):
    pixels = np.zeros(shape, np.uint8)
    assert check_image(pixels) is pixels


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ([[[0, 0, 0]]], "got list"),
        (None, "got NoneType"),
        (np.zeros((4, 4), np.uint8), r"got shape \(4, 4\)"),
        (np.zeros((4, 4, 1), np.uint8), r"got shape \(4, 4, 1\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got shape \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "got shape"),
        (np.zeros((0, 4, 3), np.uint8), "got shape"),
        (np.zeros((4, 0, 3), np.uint8), "got shape"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((4, 4, 3), np.int8), "got int8"),
        (np.zeros((4, 4, 3), np.bool_), "got bool"),
    ],
)
def test_anything_else_is_no_picture(pixels, message):
    with pytest.raises(ValueError, match=message):
        check_image(pixels)


# --- Boxes ---


@pytest.mark.parametrize(
    "corners", [(0, 0, 0, 1), (0, 0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 0), (NAN, 0, 1, 1), (0, 0, INF, 1)]
)
def test_a_box_has_finite_corners_and_an_area(corners):
    with pytest.raises(ValueError, match="a box has"):
        Box(*corners)


def test_sides_and_area():
    box = Box(1.5, 2, 4, 12)
    assert (box.width, box.height, box.area) == (2.5, 10, 25)
    assert box.as_tuple() == (1.5, 2, 4, 12)


small = st.integers(-4, 14)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), small, small, st.integers(1, 9), st.integers(1, 9)
)


def cells(box):
    """The unit squares of a box with whole corners."""
    return set(itertools.product(range(box.x0, box.x1), range(box.y0, box.y1)))


@given(boxes, boxes)
def test_overlap_counts_the_shared_squares(one, other):
    assert one.overlap(other) == other.overlap(one) == len(cells(one) & cells(other))


@given(boxes, st.integers(1, 9), st.integers(1, 9))
def test_clipping_keeps_the_squares_inside(box, width, height):
    inside = cells(box) & cells(Box(0, 0, width, height))
    clipped = box.clipped(width, height)
    assert (set() if clipped is None else cells(clipped)) == inside


# --- Faces and crops ---


@pytest.mark.parametrize("points", [5, 68])
def test_a_face_keeps_a_read_only_copy_of_its_landmarks(points):
    landmarks = np.arange(2 * points, dtype=np.float64).reshape(points, 2)
    face = Face(Box(0, 0, 9, 9), landmarks, 1.0, "d")
    landmarks[0, 0] = 99
    assert face.landmarks[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        face.landmarks[0, 0] = 1


@pytest.mark.parametrize("shape", [(4, 2), (6, 2), (67, 2), (5, 3), (10,)])
def test_landmarks_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="landmarks have shape"):
        Face(Box(0, 0, 9, 9), np.zeros(shape), 1.0, "d")
    with pytest.raises(ValueError, match="landmarks have shape"):
        CanonicalCrop(np.zeros((8, 8, 3), np.uint8), np.zeros(shape), IDENTITY, 0.0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_landmarks_are_finite(value):
    with pytest.raises(ValueError, match="finite"):
        Face(Box(0, 0, 9, 9), np.full((5, 2), value), 1.0, "d")


@pytest.mark.parametrize("value", [NAN, -0.1])
def test_a_disagreement_that_would_pass_every_limit_is_refused(value):
    with pytest.raises(ValueError, match="eye disagreement"):
        Face(Box(0, 0, 9, 9), np.zeros((5, 2)), 1.0, "d", value)


def crop(**changes):
    fields = {
        "pixels": np.zeros((8, 8, 3), np.uint8),
        "landmarks": np.zeros((5, 2)),
        "to_image": IDENTITY,
        "outside": 0.0,
    }
    return CanonicalCrop(**(fields | changes))


@pytest.mark.parametrize("outside", [0.0, 0.5, 1.0])
def test_a_crop_keeps_read_only_copies(outside):
    made = crop(outside=outside)
    assert made.size == 8
    for array in (made.pixels, made.landmarks, made.to_image):
        assert not array.flags.writeable
    assert IDENTITY.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": np.zeros((8, 9, 3), np.uint8)}, "square"),
        ({"pixels": np.zeros((8, 8), np.uint8)}, "RGB"),
        ({"to_image": np.eye(3)}, r"shape \(2, 3\)"),
        ({"outside": -0.01}, "share"),
        ({"outside": 1.01}, "share"),
        ({"outside": NAN}, "share"),
    ],
)
def test_a_crop_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        crop(**changes)


# --- Receipts ---


def test_a_receipt_as_json():
    assert receipt(eye_region=None).to_json() == {
        "version": 1,
        "approach": "mosaic",
        "parameters": {"cell": 10},
        "region": [1, 2, 30, 20],
        "eye_region": None,
        "size": [40, 40],
    }


regions = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h), *(st.integers(low, low + 400) for low in (0, 0, 1, 1))
)
receipts = st.builds(
    Receipt,
    approach=st.text(max_size=9),
    parameters=st.dictionaries(
        st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), max_size=3
    ),
    region=regions,
    eye_region=st.none() | regions,
    size=st.tuples(st.integers(802, 999), st.integers(802, 999)),
)


@given(receipts)
def test_json_round_trip(made):
    assert Receipt.from_json(json.loads(json.dumps(made.to_json()))) == made


@given(receipts)
def test_a_receipt_can_be_copied_pickled_and_hashed(made):
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301 - our own bytes
        assert other == made
        assert hash(other) == hash(made)


def test_a_receipt_cannot_be_edited():
    parameters = {"cell": 10}
    made = receipt(parameters=parameters)
    parameters["cell"] = 99
    assert made.parameters["cell"] == 10
    with pytest.raises(TypeError):
        made.parameters["cell"] = 99
    with pytest.raises(FrozenInstanceError):
        made.approach = "mask"


@pytest.mark.parametrize("name", ["region", "eye_region"])
@pytest.mark.parametrize(
    "region",
    [(0, 0, 0, 5), (0, 0, 5, 0), (5, 0, 4, 5), (-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 41, 5), (0, 0, 5, 31)],
)
def test_regions_lie_within_the_size_and_have_an_area(name, region):
    with pytest.raises(ValueError, match="a region lies within"):
        receipt(**{"size": (40, 30), "region": (0, 0, 40, 30), "eye_region": None, name: region})


def test_a_region_may_fill_the_size():
    assert receipt(size=(40, 30), region=(0, 0, 40, 30), eye_region=(39, 29, 40, 30)).region == (0, 0, 40, 30)


def damaged():
    """JSON values that are no receipt: each differs from a good one in one thing."""
    good = receipt().to_json()
    yield from ({name: value for name, value in good.items() if name != left} for left in good)
    for name, values in {
        "version": [0, 2, "1", None],
        "approach": [None, 3, ["mask"]],
        "parameters": [None, 3, [["cell", 10]], {"cell": None}, {"cell": [1]}, {"cell": True}],
        "region": [None, 3, "1234", [1, 2, 30], [1, 2, 30, 20, 5], [1, 2, 30, 20.0], [1, 2, 30, "20"],
                   [1, 2, 30, True], [1, 2, 30, INF], [1, 2, 1, 20], {"1": 1, "2": 2, "3": 3, "4": 4}],
        "eye_region": [3, [], [1, 2, 30, None], [1, 2, 30, 41]],
        "size": [None, 40, [40], [40, 40, 40], [40, "40"], [INF, 40], [0, 0]],
    }.items():  # fmt: skip
        yield from (good | {name: value} for value in values)


@pytest.mark.parametrize("data", [None, [], "receipt", 1, {}, *damaged()])
def test_anything_else_is_no_receipt(data):
    with pytest.raises(ValueError, match=r"receipt|region"):
        Receipt.from_json(data)


# --- Anonymized faces and pictures ---


def anonymized(**changes):
    fields = {
        "pixels": np.zeros((40, 40, 3), np.uint8),
        "eye_mask": np.zeros((40, 40), np.bool_),
        "receipt": receipt(),
    }
    return AnonymizedFace(**(fields | changes))


def test_an_anonymized_face_keeps_read_only_copies():
    pixels = np.zeros((40, 40, 3), np.uint8)
    face = anonymized(pixels=pixels)
    pixels[0] = 9
    assert face.approach == "mosaic"
    assert not face.pixels.any()
    assert not face.pixels.flags.writeable
    assert not face.eye_mask.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eye_mask": np.zeros((40, 39), np.bool_)}, "eye mask"),
        ({"eye_mask": np.zeros((40, 40), np.uint8)}, "eye mask"),
        ({"receipt": receipt(size=(40, 41))}, "the receipt is for size"),
        ({"pixels": np.zeros((40, 40, 3))}, "uint8"),
    ],
)
def test_an_anonymized_face_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        anonymized(**changes)


def test_an_anonymized_picture_keeps_a_read_only_copy():
    pixels = np.zeros((4, 5, 3), np.uint8)
    picture = AnonymizedPicture(pixels, ())
    pixels[0] = 9
    assert not picture.pixels.any()
    assert not picture.pixels.flags.writeable
    with pytest.raises(ValueError, match="RGB"):
        AnonymizedPicture(pixels[0], ())


# --- Age distributions ---


@pytest.mark.parametrize(
    ("make", "length"), [(years_distribution, 101), (groups_distribution, 8)], ids=["years", "groups"]
)
def test_what_is_no_distribution_is_refused(make, length):
    even = np.full(length, 1 / length)
    for wrong in (even[:-1], np.append(even, 0), np.stack([even, even]), np.empty(0)):
        with pytest.raises(ValueError, match=f"expected {length} probabilities"):
            make(wrong)
    negative, infinite, missing = even.copy(), even.copy(), even.copy()
    negative[:2] += [-2 / length, 2 / length]
    infinite[0], missing[0] = INF, NAN
    for wrong in (negative, infinite, missing, even * 1.0011, even * 0.9989, 0 * even):
        with pytest.raises(ValueError, match="expected finite probabilities"):
            make(wrong)


@pytest.mark.parametrize("factor", [0.9991, 1, 1.0009])
def test_small_errors_of_the_sum_are_scaled_away(factor):
    assert years_distribution(np.full(101, factor / 101)).years.sum() == pytest.approx(1, abs=1e-15)
    assert groups_distribution(np.full(8, factor / 8)).groups.sum() == pytest.approx(1, abs=1e-15)


def test_a_distribution_is_read_only():
    made = years_distribution(np.full(101, 1 / 101))
    assert not made.years.flags.writeable
    assert not made.groups.flags.writeable
    assert not groups_distribution(np.full(8, 1 / 8)).groups.flags.writeable


def test_groups_sum_their_years_by_hand():
    made = years_distribution(years_at(y2=0.1, y3=0.05, y4=0.2, y59=0.15, y60=0.3, y100=0.2))
    assert made.groups == pytest.approx([0.1, 0.2, 0, 0, 0, 0, 0, 0.5])
    assert made.between_groups == pytest.approx(0.2)
    assert made.group == 7
    assert made.expected == pytest.approx(0.2 + 0.15 + 0.8 + 8.85 + 18 + 20)


def test_the_expected_age_of_groups_by_hand():
    # Centres 1, 5, 10.5, 17.5, 28.5, 40.5, 50.5, and 70 for 60+.
    made = groups_distribution([0, 0.5, 0, 0.25, 0, 0, 0, 0.25])
    assert made.expected == pytest.approx(2.5 + 4.375 + 17.5)
    assert made.between_groups == 0
    assert made.group == 1
    assert made.years is None


weights = st.lists(st.integers(0, 9), min_size=101, max_size=101).filter(any)


@given(weights)
def test_group_probabilities_and_the_rest_sum_to_one(shares):
    made = years_distribution(np.array(shares) / sum(shares))
    assert made.groups.sum() + made.between_groups == pytest.approx(1, abs=1e-12)
    by_hand = [sum(shares[low : high + 1]) / sum(shares) for low, high in AGE_GROUPS]
    assert made.groups == pytest.approx(by_hand, abs=1e-12)
    assert 0 <= made.between_groups <= 1


@given(weights, st.integers(0, 130))
def test_tails_of_years_are_sums_and_complement_each_other(shares, age):
    made = years_distribution(np.array(shares) / sum(shares))
    at_least = float(Fraction(sum(shares[age:]), sum(shares)))
    assert made.at_least(age) == pytest.approx(at_least, abs=1e-12)
    assert made.at_least(age) + made.below(age) == pytest.approx(1, abs=1e-12)
    assert 0 <= made.at_least(age) <= 1


def test_tails_at_both_ends():
    made = years_distribution(years_at(y0=0.25, y99=0.25, y100=0.5))
    tails = [(made.at_least(age), made.below(age)) for age in (0, 1, 99, 100, 101, 200)]
    # Whoever is older counts as 100, so nothing is certain to lie at 101 or above.
    assert tails == [(1, 0), (0.75, 0.25), (0.75, 0.25), (0.5, 0.5), (0, 1), (0, 1)]


@pytest.mark.parametrize("make", [years_distribution, groups_distribution])
def test_a_negative_threshold_is_refused(make):
    made = make(np.full(101, 1 / 101) if make is years_distribution else np.full(8, 1 / 8))
    for tail in (made.at_least, made.below):
        with pytest.raises(ValueError, match="an age is 0 or more"):
            tail(-1)


# Which groups lie wholly at or above a threshold, and wholly below it; by hand from the groups' ages.
STRADDLING = {
    0: ("01234567", ""),
    1: ("1234567", ""),
    2: ("1234567", ""),
    3: ("1234567", "0"),
    4: ("1234567", "0"),
    5: ("234567", "0"),
    6: ("234567", "0"),
    7: ("234567", "01"),
    8: ("234567", "01"),
    10: ("34567", "01"),
    12: ("34567", "01"),
    13: ("34567", "01"),
    14: ("34567", "012"),
    15: ("34567", "012"),
    16: ("4567", "012"),
    17: ("4567", "012"),
    18: ("4567", "012"),
    20: ("4567", "012"),
    21: ("4567", "0123"),
    25: ("4567", "0123"),
    60: ("7", "0123456"),
    61: ("", "0123456"),
    100: ("", "0123456"),
    101: ("", "01234567"),
}


@pytest.mark.parametrize(("age", "sides"), STRADDLING.items())
def test_a_straddling_group_counts_toward_neither_side(age, sides):
    shares = np.array([1, 2, 4, 8, 16, 32, 64, 128]) / 255
    made = groups_distribution(shares)
    above, below = (sum(shares[int(group)] for group in groups) for groups in sides)
    assert made.at_least(age) == pytest.approx(above)
    assert made.below(age) == pytest.approx(below)


def brute_interval(shares, level):
    """First shortest run with the most weight that holds `level`, in exact fractions."""
    total = sum(shares)
    for length in range(1, len(shares) + 1):
        runs = [sum(shares[start : start + length]) for start in range(len(shares) - length + 1)]
        if max(runs) >= Fraction(level) * total - Fraction(total, 10**12):
            start = runs.index(max(runs))
            return start, start + length - 1
    raise AssertionError("the whole range holds everything")


levels = st.sampled_from([0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1]) | st.floats(0.001, 1)


@given(weights, levels)
def test_the_interval_of_years_is_that_of_a_brute_force_search(shares, level):
    assert years_distribution(np.array(shares) / sum(shares)).interval(level) == brute_interval(shares, level)


@given(st.lists(st.integers(0, 9), min_size=8, max_size=8).filter(any), levels)
def test_the_interval_of_groups_is_a_run_of_whole_groups(shares, level):
    first, last = brute_interval(shares, level)
    made = groups_distribution(np.array(shares) / sum(shares))
    assert made.interval(level) == (AGE_GROUPS[first][0], AGE_GROUPS[last][1])


@pytest.mark.parametrize(
    ("shares", "level", "expected"),
    [
        ({"y30": 1}, 0.9, (30, 30)),
        ({"y0": 0.5, "y100": 0.5}, 0.5, (0, 0)),  # equally short and probable: the younger
        ({"y0": 0.5, "y100": 0.5}, 0.51, (0, 100)),
        ({"y20": 0.3, "y21": 0.3, "y40": 0.1, "y41": 0.3}, 0.4, (20, 21)),  # equally short: the likelier
        ({"y20": 0.25, "y25": 0.5, "y26": 0.25}, 1, (20, 26)),
    ],
)
def test_the_interval_by_hand(shares, level, expected):
    assert years_distribution(years_at(**shares)).interval(level) == expected


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5, 0.9])
def test_of_equal_runs_the_youngest_counts_whatever_the_rounding(level):
    assert years_distribution(np.full(101, 1 / 101)).interval(level) == (0, math.ceil(101 * level) - 1)


@pytest.mark.parametrize("level", [0, -0.1, 1.0001, NAN])
def test_a_level_lies_above_0_and_up_to_1(level):
    with pytest.raises(ValueError, match="a level lies in"):
        years_distribution(np.full(101, 1 / 101)).interval(level)


# --- Policies ---


@pytest.mark.parametrize("confidence", [0.500001, 0.9, 0.999999])
@pytest.mark.parametrize("buffer", [0, 1, 30, None])
def test_a_policy_within_its_ranges(confidence, buffer):
    policy = Policy(confidence=confidence, buffer=buffer)
    assert (policy.confidence, policy.buffer) == (confidence, buffer)


@pytest.mark.parametrize("confidence", [0.5, 1, 0, 1.5, -0.9, NAN])
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="a confidence lies above"):
        Policy(confidence=confidence)


@pytest.mark.parametrize("buffer", [-1, 1.0, True, False, "1"])
def test_a_buffer_is_a_whole_number_of_years(buffer):
    with pytest.raises(ValueError, match="a buffer is a whole number"):
        Policy(buffer=buffer)
