"""How sure a figure is, given the number of faces behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9  # weights add up to a share with an error of this size at most, in percent

Statistic = Callable[[NDArray[np.float64]], float]
"""Computes a figure from weights, shape (N,): how often each face counts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval, all in the unit of the figure.

    Attributes:
        value: The figure, from every face once.
        low: Lower end of the interval.
        high: Upper end. `value` may lie outside: the bootstrap of a skewed figure can miss it.

    Raises:
        ValueError: A number is not finite, or `low` lies above `high`.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise ValueError(f"an estimate is finite, got {self.value} in {self.low} to {self.high}")
        if self.low > self.high:
            raise ValueError(f"an interval runs from low to high, got {self.low} to {self.high}")


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
    people: NDArray[np.int64] | None = None,
) -> Estimate:
    """Estimate how far a figure would move with other faces of the same kind: percentile bootstrap.

    Each resample draws n of the n faces with replacement. The statistic gets the draw as weights, so no data
    are copied:

    >>> errors = np.array([1.0, 2.0, 3.0, 6.0])
    >>> bootstrap(lambda weights: float(np.average(errors, weights=weights)), 4, seed=0).value
    3.0

    The same n, resamples and seed give the same resamples (within one version of NumPy), so figures of the
    same faces vary together: for the difference between two models, subtract inside the statistic. An
    interval is about these faces being a sample; it does not know of damaged labels or of a biased data set,
    and it has no width where the figure cannot vary, as for 0 hits of n (see `clopper_pearson`).

    Args:
        statistic: Called with float64 weights of shape (n,), whole numbers that sum to n (with `people`, to
            about n): first with all ones, then once for each resample, each time with a new array.
        n: Number of faces, 1 or more.
        level: Share of the resampled figures between the ends, in (0, 1).
        resamples: Number of resamples, 1 or more. The ends themselves move a little with the draw.
        seed: 0 or more; seeds NumPy's PCG64. State it beside a published figure.
        people: Whose each face is, shape (n,), 0 or more. Several faces of one person err alike, so people
            are drawn then, each with all faces.

    Returns:
        The figure of all faces, and the (1 - level) / 2 and (1 + level) / 2 quantiles of the resampled
        figures, interpolated linearly.

    Raises:
        ValueError: A number lies outside its range, or the statistic is not finite.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13; for people, Field and Welsh
        2007, "Bootstrapping clustered data".
    """
    n, resamples = _whole("faces", n, 1), _whole("resamples", resamples, 1)
    tail = _tail(level)
    rng = np.random.default_rng(_whole("seed", seed, 0))
    value = _finite(statistic(np.ones(n)))
    units = np.arange(n) if people is None else np.unique(people, return_inverse=True)[1]
    if len(units) != n:
        raise ValueError(f"expected a person for each of {n} faces, got {len(units)}")
    count = int(units.max()) + 1
    figures = np.empty(resamples)
    for index in range(resamples):
        draws = np.bincount(rng.integers(count, size=count), minlength=count)
        figures[index] = _finite(statistic(draws[units].astype(np.float64)))
    low, high = np.quantile(figures, (tail, 1 - tail))
    return Estimate(value, float(low), float(high))


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Estimate:
    """Bound a probability from the share of trials that succeeded: the exact binomial interval.

    Unlike the bootstrap it has a width where no trial or every trial succeeded. It covers the true
    probability at least as often as `level` says, in small samples more often.

    >>> none_in_a_hundred = clopper_pearson(0, 100)
    >>> none_in_a_hundred.low, round(none_in_a_hundred.high, 4)
    (0.0, 0.0362)

    Args:
        successes: 0..trials.
        trials: 1 or more; time and memory grow with it (some 0.1 s for 100,000).
        level: Coverage, in (0, 1).

    Returns:
        The share of successes and its interval, fractions in [0, 1].

    Raises:
        ValueError: A number lies outside its range.

    Source:
        Clopper and Pearson 1934, Biometrika 26(4), 404-413.
    """
    trials, successes = _whole("trials", trials, 1), _whole("successes", successes, 0)
    if successes > trials:
        raise ValueError(f"expected at most as many successes as trials, got {successes} of {trials}")
    tail = _tail(level)
    low = _lower_limit(successes, trials, tail)
    high = 1 - _lower_limit(trials - successes, trials, tail)
    return Estimate(successes / trials, low, high)


def widened(share: Estimate, people: int) -> Estimate:
    """A share in percent that was bootstrapped over people or faces, with a width where resampling gave none.

    That happens where all people have the same share, as 0 or 100. Each person counts then as one trial, and
    the interval is that of Clopper and Pearson:

    >>> none_of_ten = widened(Estimate(0.0, 0.0, 0.0), 10)
    >>> none_of_ten.low, round(none_of_ten.high, 1)
    (0.0, 30.8)

    Args:
        share: In percent.
        people: Number of people drawn from, 1 or more.
    """
    if share.high - share.low > _ROUNDING:
        return share
    hits = round(share.value / 100 * people, 6)
    low = clopper_pearson(math.floor(hits), people).low
    high = clopper_pearson(math.ceil(hits), people).high
    return Estimate(share.value, 100 * low, 100 * high)


def widened_difference(points: Estimate, people: int) -> Estimate:
    """A difference of two shares of the same people, with a width where resampling gave none.

    That happens where it is the same for everybody, as where two models agree on every face. How many others
    there may be is what Clopper and Pearson say of none in so many, and any of those may differ by 100 points
    either way:

    >>> none = widened_difference(Estimate(0.0, 0.0, 0.0), 10)
    >>> round(none.low, 1), round(none.high, 1)
    (-30.8, 30.8)

    Args:
        points: In percent, -100 to 100.
        people: Number of people drawn from, 1 or more.
    """
    if points.high - points.low > _ROUNDING:
        return points
    others = clopper_pearson(0, people).high
    return Estimate(
        points.value,
        points.value - others * (100 + points.value),
        points.value + others * (100 - points.value),
    )


def upper_limit(successes: int, trials: int, *, level: float = 0.95) -> float:
    """Bound a probability from above alone: the upper end of the one-sided exact binomial interval.

    With probability `level` or more it will not lie below the true probability. The rule of three says that
    no success among n trials shows a probability of about 3 / n at most, at the level 0.95:

    >>> upper_limit(0, 298) > 0.01 > upper_limit(0, 299)
    True

    Args:
        successes: 0..trials.
        trials: 1 or more.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: A number lies outside its range.

    Source:
        Clopper and Pearson 1934, as `clopper_pearson`, with the whole of 1 - level on one side.
    """
    trials, successes = _whole("trials", trials, 1), _whole("successes", successes, 0)
    if successes > trials:
        raise ValueError(f"expected at most as many successes as trials, got {successes} of {trials}")
    return 1 - _lower_limit(trials - successes, trials, 2 * _tail(level))


def _lower_limit(successes: int, trials: int, tail: float) -> float:
    """The probability at which so many successes or more happen with probability `tail`; by bisection."""
    if successes == 0:
        return 0.0
    counts = np.arange(successes, trials + 1)
    log_ways = np.array([-math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in counts.tolist()])
    log_ways += math.lgamma(trials + 1)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        log_chances = log_ways + counts * math.log(middle) + (trials - counts) * math.log1p(-middle)
        if np.exp(log_chances).sum() < tail:
            low = middle
        else:
            high = middle
    return low


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a level lies above 0 and below 1, got {level}")
    return (1 - level) / 2


def _whole(name: str, value: int, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ValueError(f"expected {name} as a whole number of {lowest} or more, got {value!r}")
    return int(value)


def _finite(figure: float) -> float:
    if not math.isfinite(figure):
        raise ValueError(f"expected a finite figure from the statistic, got {figure}")
    return float(figure)
