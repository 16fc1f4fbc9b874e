"""Attributes: read where a face shows them, and not where it does not."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from ageveil.audit import attributes
from ageveil.audit.attributes import read_attribute
from ageveil.audit.recognition import RECOGNISERS
from ageveil.errors import UnusableFaceError


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_an_attribute_that_shows_is_read(rng):
    labels = [("a", "b", "c")[number % 3] for number in range(300)]
    centres = {value: rng.normal(size=12) for value in "abc"}
    rows = np.stack([centres[label] + 0.2 * rng.normal(size=12) for label in labels])
    found = read_attribute(rows, labels, resamples=50)
    assert found.recall.value > 99
    assert found.guessing == pytest.approx(100 / 3)
    assert (found.values, found.faces) == (("a", "b", "c"), 300)


def test_an_attribute_that_does_not_show_is_guessed(rng):
    labels = list(rng.choice(["x", "y"], 1000, p=[0.9, 0.1]))
    found = read_attribute(rng.normal(size=(1000, 8)), labels, resamples=200)
    assert found.recall.low - 3 < 50 < found.recall.high + 3  # however rare a value is


def test_what_is_said_is_measured_as_another_library_does(rng, monkeypatch):
    labels = [("x", "y")[number % 4 == 0] for number in range(200)]
    said = []
    real = attributes._classify

    def spy(rows, true, others, values):
        said.append(real(rows, true, others, values))
        return said[-1]

    monkeypatch.setattr(attributes, "_classify", spy)
    rows = rng.normal(size=(200, 6))
    rows[::4, 0] += 1
    found = read_attribute(rows, labels, resamples=5)
    true = np.array([("x", "y").index(label) for label in labels])
    part = attributes._parts(true, 0)
    told = np.empty(200, int)
    for fold, answers in enumerate(said):
        told[part == fold] = answers
    assert found.recall.value == pytest.approx(100 * balanced_accuracy_score(true, told))
    assert {np.bincount(part[true == value]).max() for value in (0, 1)} == {30, 10}


def test_rare_values_and_unknown_labels_are_left_out(rng):
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 4 + [None] * 6
    found = read_attribute(rng.normal(size=(50, 4)), labels, resamples=5)
    assert (found.values, found.faces) == (("a", "b"), 40)


def test_one_value_cannot_be_told_apart(rng):
    with pytest.raises(ValueError, match="two values or more with 5 faces each, got 1"):
        read_attribute(rng.normal(size=(20, 4)), ["a"] * 18 + ["b"] * 2)


class Faces(NamedTuple):
    """What `attributes` asks of faces: the crops of the tests' people, with other words beside them."""

    images: tuple
    crops: object

    def crop(self, number):
        if number == 0:
            raise UnusableFaceError("as a profile is")
        return self.crops.crop(number)


@pytest.fixture
def faces(crops):
    """Eighteen faces, of which the first cannot be used: ten of one gender; four of the rarer race."""
    images = [
        replace(image, gender=("female", "male")[number < 10], race=("a", "b")[number >= 14])
        for number, image in enumerate(crops.images)
    ]
    return Faces(tuple(images), crops)


def test_what_too_few_faces_state_is_left_out(faces):
    steps = []
    found = attributes.attributes(
        faces, ["mask", "original"], [RECOGNISERS["dlib-resnet"]], advance=lambda: steps.append(1)
    )
    assert {approach: list(told) for approach, told in found.items()} == {
        "mask": ["gender"], "original": ["gender"],
    }  # fmt: skip
    assert (found["mask"]["gender"].values, found["mask"]["gender"].faces) == (("female", "male"), 17)
    assert len(steps) == 2 * 17


def test_where_no_face_can_be_used_nothing_is_told(faces):
    only = Faces(faces.images[:1], faces.crops)
    assert attributes.attributes(only, ["mask"], [RECOGNISERS["dlib-resnet"]]) == {"mask": {}}


def test_a_classifier_that_fails_is_not_taken_for_too_few_faces(faces, monkeypatch):
    def fail(*_):
        raise np.linalg.LinAlgError("singular")  # a ValueError

    monkeypatch.setattr(attributes, "_classify", fail)
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        attributes.attributes(faces, ["mask"], [RECOGNISERS["dlib-resnet"]])


def test_a_recogniser_that_has_learned_reads_what_it_learned_to_see_behind(faces, monkeypatch):
    looks = []
    real = attributes.seen
    monkeypatch.setattr(attributes, "seen", lambda *a, **k: looks.append((a[4].name, a[2])) or real(*a, **k))
    ours = RECOGNISERS["dlib-resnet"]
    learned = replace(ours, name="learned", approaches=("mask",))
    attributes.attributes(faces, ["mask", "original"], [ours, learned])
    assert looks == [("dlib-resnet", "mask"), ("learned", "mask"), ("dlib-resnet", "original")]


def test_of_several_recognisers_the_best_reading_counts(faces):
    each = [attributes.attributes(faces, ["mask"], [one])["mask"]["gender"] for one in RECOGNISERS.values()]
    best = attributes.attributes(faces, ["mask"], list(RECOGNISERS.values()))["mask"]["gender"]
    assert best.recall.value == max(one.recall.value for one in each)
