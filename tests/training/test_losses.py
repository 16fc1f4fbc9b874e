"""The losses against slow loops, SciPy and PyTorch's own cross entropy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, norm
from torch.nn import functional

from ageveil.training.losses import (
    bounded,
    divergence,
    expectation_error,
    group_likelihood,
    interval_likelihood,
    label_distribution,
    ranked_probability_score,
    year_loss,
)

EXACT = torch.tensor([0, 17, 18, 64, 100])


@pytest.fixture
def logits():
    return torch.from_numpy(np.random.default_rng(7).normal(0, 2, (5, 101))).float()


def probabilities(logits):
    weights = [[math.exp(value) for value in row] for row in logits.double().tolist()]
    return [[value / sum(row) for value in row] for row in weights]


def test_the_likelihood_of_an_interval_is_the_sum_over_its_years(logits):
    low, high = torch.tensor([0, 10, 20, 60, 0]), torch.tensor([2, 19, 20, 100, 100])
    expected = [
        -math.log(sum(row[a : b + 1]))
        for row, a, b in zip(probabilities(logits), low.tolist(), high.tolist(), strict=True)
    ]
    np.testing.assert_allclose(interval_likelihood(logits, low, high), expected, rtol=1e-5, atol=1e-6)


def test_a_bounded_answer_is_the_one_given_the_interval(logits):
    answers = torch.softmax(logits, 1)
    low, high = torch.tensor([0, 10, 20, 60, 0]), torch.tensor([2, 19, 20, 100, 100])
    made = bounded(answers, low, high).tolist()
    for row, said, a, b in zip(made, answers.tolist(), low.tolist(), high.tolist(), strict=True):
        if a == b:
            assert row == said
            continue
        held = [value + 1e-4 if a <= year <= b else 0 for year, value in enumerate(said)]
        assert row == pytest.approx([value / sum(held) for value in held], abs=1e-6)


def test_a_teacher_that_rules_an_interval_out_leaves_its_years_alike():
    answers = torch.zeros(1, 101)
    answers[0, 90] = 1.0
    made = bounded(answers, torch.tensor([3]), torch.tensor([9]))[0]
    assert made[3:10].tolist() == pytest.approx([1 / 7] * 7)
    assert made.sum() == pytest.approx(1)


def test_an_interval_of_one_year_is_a_cross_entropy(logits):
    expected = functional.cross_entropy(logits, EXACT, reduction="none")
    torch.testing.assert_close(interval_likelihood(logits, EXACT, EXACT), expected)


def test_a_certain_answer_outside_the_interval_has_a_finite_gradient():
    logits = torch.zeros(1, 101)
    logits[0, 90] = 200.0
    logits.requires_grad_(requires_grad=True)
    interval_likelihood(logits, torch.tensor([1]), torch.tensor([2])).sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("age", [0, 1, 18, 41, 42, 100])
def test_label_distributions_are_gaussians_on_the_years(age):
    spread = min(1 + 0.06 * age, 3.5)
    density = norm.pdf(np.arange(101), age, spread)
    made = label_distribution(torch.tensor([age]))[0]
    np.testing.assert_allclose(made, density / density.sum(), atol=1e-6)
    assert int(made.argmax()) == age


def test_divergence_is_that_of_scipy(logits):
    target = label_distribution(EXACT)
    predicted = np.array(probabilities(logits))
    expected = entropy(target.double().numpy(), predicted, axis=1)
    np.testing.assert_allclose(divergence(logits, target), expected, rtol=1e-4)


def test_divergence_from_a_point_is_finite(logits):
    target = functional.one_hot(EXACT, 101).float()
    expected = functional.cross_entropy(logits, EXACT, reduction="none")
    torch.testing.assert_close(divergence(logits, target), expected)


def test_the_likelihood_of_a_group_is_its_share_of_all_groups(logits):
    groups = [(0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100)]
    # Held by 8-13, by 15-20, by none (it reaches beyond), by none (between groups), by 60 and over.
    low, high = torch.tensor([8, 17, 15, 22, 70]), torch.tensor([12, 17, 21, 22, 100])
    rows = probabilities(logits)
    shares = [[sum(row[a : b + 1]) for a, b in groups] for row in rows]
    expected = [-math.log(share[g] / sum(share)) for share, g in zip(shares, (2, 3, 0, 0, 7), strict=True)]
    expected[2] = expected[3] = 0
    np.testing.assert_allclose(group_likelihood(logits, low, high), expected, rtol=1e-4, atol=1e-6)
    both = year_loss(logits, low, high, ranked=0.1, grouped=0.5)
    alone = year_loss(logits, low, high, ranked=0.1)
    np.testing.assert_allclose(both - alone, 0.5 * np.array(expected), atol=1e-5)


def slow_score(row, low, high):
    total = 0.0
    for year in range(100):
        below = sum(row[: year + 1])
        if year < low:
            total += below**2
        if year >= high:
            total += (1 - below) ** 2
    return total


def test_the_ranked_score_against_a_slow_loop(logits):
    low, high = torch.tensor([0, 10, 20, 60, 0]), torch.tensor([2, 19, 20, 100, 100])
    expected = [
        slow_score(row, a, b)
        for row, a, b in zip(probabilities(logits), low.tolist(), high.tolist(), strict=True)
    ]
    np.testing.assert_allclose(ranked_probability_score(logits, low, high), expected, rtol=1e-4, atol=1e-5)


def test_the_expected_age_errs_by_its_distance_from_the_label(logits):
    means = [sum(year * p for year, p in enumerate(row)) for row in probabilities(logits)]
    ages = [math.floor(mean) for mean in means]
    low = torch.tensor([ages[0] - 8, ages[1] + 6, ages[2] - 9, ages[3] + 5, ages[4]])
    high = torch.tensor([ages[0] + 8, ages[1] + 9, ages[2] - 4, ages[3] + 5, ages[4]])
    wrong = [0, low[1] - means[1], means[2] - high[2], low[3] - means[3], means[4] - high[4]]
    np.testing.assert_allclose(expectation_error(logits, low, high), np.array(wrong, float), atol=1e-3)
    both = year_loss(logits, low, high, ranked=0.1, expected=0.5)
    alone = year_loss(logits, low, high, ranked=0.1)
    np.testing.assert_allclose(both - alone, 0.5 * np.array(wrong, float), atol=1e-3)


@pytest.mark.parametrize("distance", [0, 1, 7])
def test_a_certain_answer_costs_its_distance_in_years(distance):
    logits = torch.full((1, 101), -200.0)
    logits[0, 30 + distance] = 200.0
    age = torch.tensor([30])
    assert float(ranked_probability_score(logits, age, age)) == pytest.approx(distance, abs=1e-5)


def test_the_loss_joins_its_parts(logits):
    low, high = torch.tensor([0, 17, 18, 60, 40]), torch.tensor([0, 17, 29, 69, 40])
    fit = [
        divergence(logits, label_distribution(low))[i]
        if low[i] == high[i]
        else interval_likelihood(logits, low, high)[i]
        for i in range(5)
    ]
    expected = torch.stack(fit) + 0.3 * ranked_probability_score(logits, low, high)
    torch.testing.assert_close(year_loss(logits, low, high, ranked=0.3), expected)
