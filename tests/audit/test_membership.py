"""Membership: told where an estimator gives it away, and not where it does not."""

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from ageveil import estimation
from ageveil.audit.membership import membership, memberships
from ageveil.evaluation import accuracy
from ageveil.training.labels import LabelledImage
from ageveil.training.splits import left_out
from ageveil.types import AgeDistribution


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("digits", [None, 1])
def test_figures_are_those_of_another_library(rng, digits):
    trained, others = rng.normal(0, 1, 300), rng.normal(0.7, 1.2, 200)
    if digits is not None:  # with many that are equal
        trained, others = trained.round(digits), others.round(digits)
    found = membership(trained, others, resamples=20)
    inside = np.repeat([1, 0], [300, 200])
    scores = -np.concatenate([trained, others])
    assert found.auc.value == pytest.approx(100 * roc_auc_score(inside, scores))
    false, true, _ = roc_curve(inside, scores, drop_intermediate=False)
    assert found.advantage.value == pytest.approx(100 * (true - false).max())
    assert (found.trained, found.others) == (300, 200)


def test_a_model_that_knows_its_faces_by_heart_gives_them_away(rng):
    found = membership(rng.random(100), 2 + rng.random(100), resamples=20)
    assert found.auc.value == found.advantage.value == 100


def test_a_model_that_errs_alike_gives_nothing_away(rng):
    found = membership(rng.normal(size=2000), rng.normal(size=2000), resamples=200)
    assert found.auc.low < 50 < found.auc.high
    assert found.advantage.value < 5


def test_an_advantage_is_never_negative(rng):
    assert membership(2 + rng.random(50), rng.random(50), resamples=20).advantage.value == 0


@pytest.mark.parametrize(("trained", "others"), [([], [1.0]), ([1.0], []), ([1.0], [np.inf])])
def test_errors_that_tell_nothing_are_refused(trained, others):
    with pytest.raises(ValueError, match="finite errors of both kinds"):
        membership(np.array(trained), np.array(others))


class Faces(NamedTuple):
    """What `memberships` asks of faces, by name of the picture."""

    images: tuple


def test_ages_of_which_more_was_left_out_do_not_take_part(monkeypatch):
    images = tuple(LabelledImage(Path(f"{number}.jpg"), number % 30, number % 30) for number in range(600))
    split = estimation.Split(0.2, 7, {(13, 17): 0.6}, None)
    asked = []

    def estimate_all(faces, questions, **_):
        asked.extend(faces.images)
        years = np.full(101, 1 / 101)
        answers = tuple(
            AgeDistribution.from_years(years, approach="mask", model=estimation.MODELS["dlib-age"].info)
            for _ in faces.images
        )
        return {("mask", "x"): SimpleNamespace(distributions=answers, images=faces.images)}

    monkeypatch.setattr(estimation, "split_of", lambda _: split)
    monkeypatch.setattr(accuracy, "estimate_all", estimate_all)
    monkeypatch.setattr(accuracy, "part", lambda faces, chosen: Faces(tuple(images[i] for i in chosen)))
    found = memberships(Faces(images), ["mask"], "x", limit=50)["mask"]
    assert not any(13 <= image.age <= 17 for image in asked)
    outside = set(left_out(images, share=0.2, seed=7, hold_out={(13, 17): 0.6}).tolist())
    assert (found.trained, found.others) == (50, 50)
    assert sum(images.index(image) in outside for image in asked) == 50
    assert found.auc.value == 50  # all are judged alike
