"""Figures against slow loops and by hand; attackers on faces that are told apart with ease, or not at all."""

import numpy as np
import pytest

from ageveil.audit import reidentification
from ageveil.audit.reidentification import (
    FIGURES,
    Success,
    accepted_share,
    adapted_scores,
    cosine_scores,
    distance_scores,
    learn_metric,
    measure,
    normalized,
    places,
    strongest,
    templates,
)
from ageveil.evaluation.intervals import Estimate

RNG = np.random.default_rng(5)


def people_of(count, each, noise, size=16, seed=1):
    """Embeddings of people: a direction each, and noise around it."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, size))
    person = np.repeat(np.arange(count), each)
    return centres[person] + noise * rng.normal(size=(len(person), size)), person


def test_templates_are_the_means_of_normalized_rows():
    rows, person = people_of(3, 4, 0.5)
    for number, template in enumerate(templates(rows, person, 3)):
        mean = sum(row / np.sqrt((row**2).sum()) for row in rows[person == number])
        np.testing.assert_allclose(template, mean / np.sqrt((mean**2).sum()))


def test_scores_are_cosines():
    rows, person = people_of(3, 2, 0.5)
    scores = cosine_scores(7 * rows[::2], rows[1::2], person[1::2], 3)
    for i, j in np.ndindex(3, 3):
        a, b = rows[2 * i], rows[2 * j + 1]
        assert scores[i, j] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_distances_are_those_of_a_slow_loop():
    rows, person = people_of(4, 5, 0.5)
    probes = RNG.normal(size=(6, 16))
    scores = distance_scores(probes, rows, person, 4)
    for i, j in np.ndindex(6, 4):
        mean = [np.mean([row[axis] for row in rows[person == j]]) for axis in range(16)]
        assert scores[i, j] == pytest.approx(-sum((a - b) ** 2 for a, b in zip(probes[i], mean, strict=True)))


def test_distances_name_whom_angles_do_not():
    # One number tells people apart, and two angles are all that one number has.
    person = np.repeat(np.arange(20), 6)
    rows = (person - 9.5)[:, None] + 0.1 * np.random.default_rng(3).normal(size=(120, 1))
    gallery = np.arange(120) % 6 < 3
    named = [
        measure(way(rows[~gallery], rows[gallery], person[gallery], 20), person[~gallery], resamples=10)
        for way in (cosine_scores, distance_scores)
    ]
    assert named[0].rank1.value < 15
    assert named[1].rank1.value > 95


def test_distances_name_nobody_where_nothing_is_left():
    rng, person = np.random.default_rng(4), np.repeat(np.arange(50), 6)
    rows, gallery = rng.normal(size=(300, 8)), np.arange(300) % 6 < 3
    scores = distance_scores(rows[~gallery], rows[gallery], person[gallery], 50)
    found = measure(scores, person[~gallery], resamples=100)
    assert found.rank1.low <= 2 <= found.rank1.high


def test_a_row_of_zeros_stays():
    np.testing.assert_array_equal(normalized(np.zeros((1, 3))), np.zeros((1, 3)))


def test_places_are_those_of_a_slow_loop():
    scores, true = RNG.integers(0, 6, (40, 7)).astype(float), RNG.integers(0, 7, 40)
    for row, who, place in zip(scores, true, places(scores, true), strict=True):
        assert place == sum(1 for score in row if score >= row[who])  # who scores alike comes before


def slow_share(own, others, far):
    """The largest share of own scores above a threshold that at most `far` of the others pass."""
    best = 0.0
    for threshold in [-np.inf, *others.ravel(), *own]:
        if np.mean(others > threshold) <= far:
            best = max(best, float(np.mean(own > threshold)))
    return best


@pytest.mark.parametrize("far", [0.001, 0.01, 0.1, 0.35, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_the_accepted_share_is_that_of_a_slow_search(far, seed):
    rng = np.random.default_rng(seed)
    own, others = rng.integers(2, 9, 12).astype(float), rng.integers(0, 7, (12, 5)).astype(float)
    assert accepted_share(own, others, far) == pytest.approx(slow_share(own, others, far))


def test_weights_count_as_copies():
    own, others = RNG.normal(size=9), RNG.normal(size=(9, 4))
    weights = np.array([2, 0, 1, 1, 3, 0, 1, 0, 1.0])
    copies = np.repeat(np.arange(9), weights.astype(int))
    for far in (0.05, 0.3):
        assert accepted_share(own, others, far, weights) == pytest.approx(
            accepted_share(own[copies], others[copies], far)
        )


def test_who_is_always_right_has_full_marks():
    success = measure(np.eye(6)[[0, 0, 1, 2, 3, 4, 5]], np.array([0, 0, 1, 2, 3, 4, 5]), resamples=50)
    for figure in (success.rank1, success.rank5):
        # Six of six people: by hand, 0.025 ** (1 / 6).
        assert (figure.value, figure.low, figure.high) == (100, pytest.approx(100 * 0.025 ** (1 / 6)), 100)
    assert success.tar_far_1e2 is success.tar_far_1e3 is None  # 35 others are too few
    assert success.roc
    assert all(passed == 100 and far >= 100 / 35 for far, passed in success.roc)


def test_who_guesses_is_right_as_often_as_chance():
    rng = np.random.default_rng(2)
    true = np.repeat(np.arange(50), 20)
    success = measure(rng.normal(size=(1000, 50)), true, resamples=100)
    assert success.rank1.low <= 2 <= success.rank1.high
    assert success.rank5.low <= 10 <= success.rank5.high
    assert success.tar_far_1e2.low <= 1 <= success.tar_far_1e2.high
    assert 0.2 < success.tar_far_1e2.value < 2.5


def test_equal_scores_name_nobody():
    assert measure(np.zeros((10, 4)), np.arange(10) % 4, resamples=10).rank1.value == 0


@pytest.mark.parametrize("scores", [np.full((2, 3), np.nan), np.zeros((2, 1))])
def test_scores_that_tell_nothing_are_refused(scores):
    with pytest.raises(ValueError, match="finite scores of two people"):
        measure(scores, np.array([0, 0]))


def test_a_metric_learns_to_look_away_from_what_varies_within_people():
    # All vary along the first four directions far more than they differ from each other.
    def faces(count, seed):
        rows, person = people_of(count, 6, 0.05, size=32, seed=seed)
        rows[:, :4] += 6 * np.random.default_rng(seed + 1).normal(size=(len(rows), 4))
        return rows, person

    rows, person = faces(40, 20)
    gallery = np.arange(len(rows)) % 6 < 3

    def named(scores):
        return measure(scores, person[~gallery], resamples=10).rank1.value

    plain = named(cosine_scores(rows[~gallery], rows[gallery], person[gallery], 40))
    adapted = adapted_scores({"clear": rows, "anonymized": rows}, person, person % 5, gallery)
    assert plain < 60
    assert named(adapted["clear", "cosine"]) > 80
    assert named(adapted["clear", "distance"]) > 80


def test_an_attacker_never_learns_from_whom_it_names(monkeypatch):
    rows, person = people_of(15, 4, 0.1, seed=3)
    gallery = np.arange(len(rows)) % 4 < 2
    fold = person % 5

    class Telltale:
        """Scores how many folds it has not learned from that a face's person is in."""

        def __init__(self, who):
            self.unseen = sorted(set(fold) - set(fold[np.isin(person, who)]))

        def apply(self, embeddings, _):
            return np.isin(embeddings[:, :1], self.unseen).astype(float) * len(self.unseen)

    monkeypatch.setattr(reidentification, "learn_metric", lambda _, who: Telltale(who))
    told = fold[:, None].astype(float)
    scores = adapted_scores({"clear": told, "anonymized": told}, person, fold, gallery)
    for kind in ("clear", "anonymized"):
        # Two folds unseen, and both faces in them: no distance between any two.
        assert (scores[kind, "distance"] == 0).all()
        # One fold unseen, the probe's own; an angle to nothing is none.
        same = fold[~gallery][:, None] == np.arange(15) % 5
        np.testing.assert_allclose(scores[kind, "cosine"], same)


def test_by_distance_noise_is_named_no_oftener_than_by_guessing():
    # As many directions as faces: the metric overfits, and would tell those it has learned from.
    rng = np.random.default_rng(8)
    person = np.repeat(np.arange(20), 6)
    rows = {kind: rng.normal(size=(120, 128)) for kind in ("clear", "anonymized")}
    gallery = np.arange(120) % 6 < 3
    scores = adapted_scores(rows, person, person % 5, gallery)
    for found in scores.values():
        assert measure(found, person[~gallery], resamples=200).rank1.low <= 5


def test_a_metric_takes_away_what_an_approach_does_to_every_face():
    rows, person = people_of(30, 4, 0.1, seed=4)
    shift = np.zeros(16)
    shift[0] = 20
    metric = learn_metric({"clear": rows, "anonymized": rows + shift}, person)
    clear, hidden = metric.apply(rows, "clear"), metric.apply(rows + shift, "anonymized")
    np.testing.assert_allclose(clear.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(hidden.mean(0), 0, atol=1e-9)


def test_a_metric_whitens_the_scatter_within_people(monkeypatch):

    monkeypatch.setattr(reidentification, "_SHRINKAGE", 0.0)
    rows, person = people_of(30, 5, 0.3, seed=6)
    metric = learn_metric({"clear": rows}, person)
    mapped = metric.apply(rows, "clear")
    rest = mapped - np.stack([mapped[person == who].mean(0) for who in person])
    np.testing.assert_allclose(rest.T @ rest / len(rest), np.eye(mapped.shape[1]), atol=1e-6)


def test_a_metric_needs_two_people():
    with pytest.raises(ValueError, match="two people or more, got 1"):
        learn_metric({"clear": np.ones((3, 4))}, np.zeros(3, int))


def test_few_sorted_scores_give_the_share_that_all_give():
    rng = np.random.default_rng(3)
    own, others = rng.normal(1, 1, 400), rng.normal(size=(400, 99))
    for far in (1e-4, 1e-3, 1e-2, 0.05, 0.2):
        threshold = np.sort(others, axis=None)[::-1][int(np.floor(far * others.size + 1e-9))]
        assert accepted_share(own, others, far) == np.mean(own > threshold)


def test_figures_are_the_highest_of_several_attempts():
    def success(*values):
        figures = [None if value is None else Estimate(value, value, value) for value in values]
        return Success(*figures, roc=((1.0, values[0]),))

    best = strongest([success(9.0, 20.0, None, 3.0), success(8.0, 30.0, 5.0, 4.0)])
    assert [getattr(best, figure).value for figure in FIGURES] == [9, 30, 5, 4]
    assert best.roc == ((1.0, 9.0),)
