"""What training minimises: how badly logits fit an age, or an interval that holds it.

N is the number of faces; ages are whole years 0..100, and an exact age is an interval whose ends are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ageveil.types import AGE_GROUPS, MAX_AGE

# Two people guess a child's age within a year, an old person's within several. So does a label.
_SPREAD_AT_BIRTH, _SPREAD_A_YEAR, _LARGEST_SPREAD = 1.0, 0.06, 3.5
_LEAST_BELIEF = 1e-4  # in any year: a teacher that is wrong about an interval knows nothing of its years


def interval_likelihood(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Negative logarithm of the probability that an interval holds, also called interval-censored likelihood.

    Args:
        logits: Over the years 0..100, shape (N, 101).
        low: Youngest age of each label, shape (N,), integers in 0..100.
        high: Oldest age of each label, included, shape (N,).

    Returns:
        Shape (N,), 0 or more.

    Source:
        Turnbull 1976, "The empirical distribution function with arbitrarily grouped, censored and truncated
        data".
    """
    years = torch.arange(logits.shape[1], device=logits.device)
    inside = (years >= low[:, None]) & (years <= high[:, None])
    logs = functional.log_softmax(logits.float(), 1)
    return -torch.logsumexp(logs.masked_fill(~inside, -torch.inf), 1)


def label_distribution(ages: Tensor) -> Tensor:
    """Spread exact ages over the neighbouring years: a Gaussian on 0..100, wider for older people.

    Args:
        ages: Shape (N,), integers in 0..100.

    Returns:
        Shape (N, 101), rows sum to 1.

    Source:
        Geng 2016, "Label distribution learning".
    """
    years = torch.arange(MAX_AGE + 1, device=ages.device)
    spread = (_SPREAD_AT_BIRTH + _SPREAD_A_YEAR * ages.float()).clamp(max=_LARGEST_SPREAD)
    return torch.softmax(-0.5 * ((years - ages[:, None]) / spread[:, None]) ** 2, 1)


def bounded(answers: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """What a teacher's answers say once an interval is known to hold the age.

    Args:
        answers: Probabilities of the years 0..100, shape (N, 101).
        low: Youngest age of each label, shape (N,), integers in 0..100.
        high: Oldest age of each label, included, shape (N,).

    Returns:
        Shape (N, 101), float32. Rows of intervals hold nothing outside them and sum to 1; the less a teacher
        believed an interval, the more evenly its row is spread. Rows of exact ages are as they came.
    """
    years = torch.arange(answers.shape[1], device=answers.device)
    inside = (years >= low[:, None]) & (years <= high[:, None])
    kept = (answers.float() + _LEAST_BELIEF) * inside
    return torch.where((low < high)[:, None], kept / kept.sum(1, keepdim=True), answers.float())


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of predicted from target distributions, shape (N,), in nats.

    Args:
        logits: Shape (N, K).
        target: Shape (N, K), rows sum to 1.
    """
    logs = functional.log_softmax(logits.float(), 1)
    return (torch.xlogy(target, target) - target * logs).sum(1)


def ranked_probability_score(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Squared distance between the predicted and the true cumulative distribution, summed over years.

    Being wrong by ten years costs more than by one, which a likelihood does not say. What an interval leaves
    open, the years from its lower to its upper end, costs nothing.

    Args:
        logits: Over the years 0..100, shape (N, 101).
        low: Shape (N,), integers in 0..100.
        high: Shape (N,), included.

    Returns:
        Shape (N,), in years, 0 or more.

    Source:
        Epstein 1969, "A scoring system for probability forecasts of ranked categories".
    """
    cumulative = torch.softmax(logits.float(), 1).cumsum(1)[:, :-1]
    years = torch.arange(cumulative.shape[1], device=logits.device)
    younger, reached = years < low[:, None], years >= high[:, None]
    return (younger * cumulative**2 + reached * (1 - cumulative) ** 2).sum(1)


def group_likelihood(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Negative logarithm of the probability of the true age group, given that the age lies in a group.

    A label distribution blurs where groups meet, on purpose; this term asks for the side.

    Args:
        logits: Over the years 0..100, shape (N, 101).
        low: Shape (N,), integers in 0..100.
        high: Shape (N,), included.

    Returns:
        Shape (N,), 0 or more; 0 where no group holds the whole label.

    Source:
        Ye et al. 2018, section IV, for the groups.
    """
    logs = functional.log_softmax(logits.float(), 1)
    groups = torch.stack([logs[:, first : last + 1].logsumexp(1) for first, last in AGE_GROUPS], 1)
    first, last = (torch.tensor(ends, device=logits.device) for ends in zip(*AGE_GROUPS, strict=True))
    holds = (low[:, None] >= first) & (high[:, None] <= last)
    true = (groups * holds).sum(1)  # at most one group holds a label
    return torch.where(holds.any(1), groups.logsumexp(1) - true, 0.0)


def expectation_error(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Years between the expected age and the label: 0 where an interval holds the expected age.

    The expected age is what is reported as one number. A label distribution asks for the right years, and of
    a doubt that is skewed it does not ask that the mean be near.

    Args:
        logits: Over the years 0..100, shape (N, 101).
        low: Shape (N,), integers in 0..100.
        high: Shape (N,), included.

    Returns:
        Shape (N,), 0 or more.

    Source:
        Gao et al. 2018, "Age estimation using expectation of label distribution learning".
    """
    years = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
    expected = torch.softmax(logits.float(), 1) @ years
    return (low - expected).clamp(min=0) + (expected - high).clamp(min=0)


def year_loss(
    logits: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    ranked: float,
    grouped: float = 0.0,
    expected: float = 0.0,
) -> Tensor:
    """The loss of a network over years.

    Divergence from the label distribution where the age is exact, interval likelihood where it is not, and
    shares of the ranked probability score, of the group's likelihood and of the expected age's error for
    both.

    Args:
        logits: Shape (N, 101).
        low: Shape (N,), integers in 0..100.
        high: Shape (N,), included.
        ranked: Weight of the ranked probability score.
        grouped: Weight of the group's likelihood.
        expected: Weight of the expected age's error.

    Returns:
        Shape (N,).
    """
    exact = divergence(logits, label_distribution(low))
    fit = torch.where(low == high, exact, interval_likelihood(logits, low, high))
    if grouped:
        fit = fit + grouped * group_likelihood(logits, low, high)
    if expected:
        fit = fit + expected * expectation_error(logits, low, high)
    return fit + ranked * ranked_probability_score(logits, low, high)
