import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ageveil.evaluation.intervals import Estimate, bootstrap, clopper_pearson, upper_limit
from ageveil.evaluation.metrics import exact_accuracy, macro_exact_accuracy

SEEDS = st.integers(0, 2**32)


def mean_of(values):
    return lambda weights: np.average(values, weights=weights)


def stray(chance, resamples=20_000):
    """How far, in probability, an end may lie from the true quantile: five binomial deviations."""
    return 5 * (chance * (1 - chance) / resamples) ** 0.5


# Estimates


def test_an_estimate_may_lie_outside_its_interval():
    assert Estimate(3.0, 1.0, 2.0).value == 3.0
    assert Estimate(1.0, 1.0, 1.0).low == 1.0


def test_an_interval_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match=r"from low to high, got 2\.0 to 1\.0"):
        Estimate(1.5, 2.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(3))
def test_an_estimate_is_finite(bad, place):
    numbers = [1.0, 1.0, 1.0]
    numbers[place] = bad
    with pytest.raises(ValueError, match="an estimate is finite"):
        Estimate(*numbers)


# People


def test_copies_of_the_same_people_make_a_figure_no_surer():
    values = np.random.default_rng(3).normal(0, 1, 40)
    one_each = bootstrap(mean_of(values), 40, seed=2)
    copies, people = np.repeat(values, 3), np.repeat(np.arange(40) * 7, 3)
    together = bootstrap(mean_of(copies), 120, seed=2, people=people)
    np.testing.assert_allclose((together.low, together.high), (one_each.low, one_each.high), atol=1e-12)
    apart = bootstrap(mean_of(copies), 120, seed=2)
    assert apart.high - apart.low < 0.7 * (together.high - together.low)


def test_everybody_has_a_number():
    with pytest.raises(ValueError, match="a person for each of 3 faces, got 2"):
        bootstrap(mean_of(np.arange(3.0)), 3, seed=0, people=np.array([0, 1]))


# Bootstrap against other sources of truth


@pytest.mark.parametrize(("hits", "faces"), [(30, 100), (97, 100), (1, 12)])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_resampled_hits_are_binomial(hits, faces, level):
    """Hits in a resample follow the binomial law of the observed share, whose quantiles are known."""
    true = np.zeros(faces, np.int64)
    predicted = (np.arange(faces) >= hits).astype(np.int64)
    result = bootstrap(
        lambda weights: exact_accuracy(predicted, true, weights=weights),
        faces, level=level, resamples=20_000, seed=1,
    )  # fmt: skip
    assert result.value == hits / faces
    law = scipy.stats.binom(faces, hits / faces)
    for end, chance in ((result.low, (1 - level) / 2), (result.high, (1 + level) / 2)):
        slack = stray(chance)
        assert law.ppf(chance - slack) / faces <= end <= law.ppf(chance + slack) / faces


@pytest.mark.parametrize("level", [0.4, 0.8, 0.95])
def test_every_resample_of_four_faces_is_as_frequent_as_counted(level):
    """All 4 ** 4 equally likely resamples, by a loop; distances chosen so that no two means are close."""
    values = np.array([0.0, 1.0, 10.0, 100.0])
    means = sorted(sum(drawn) / 4 for drawn in itertools.product(values.tolist(), repeat=4))
    result = bootstrap(mean_of(values), 4, level=level, resamples=20_000, seed=2)
    for end, chance in ((result.low, (1 - level) / 2), (result.high, (1 + level) / 2)):
        slack = stray(chance)
        assert means[int((chance - slack) * 255)] <= end <= means[int((chance + slack) * 255) + 1]


def test_the_interval_of_a_mean_equals_that_of_scipy():
    ages = np.random.default_rng(3).gamma(2.0, 4.0, 300)
    ours = bootstrap(mean_of(ages), 300, resamples=10_000, seed=4)
    theirs = scipy.stats.bootstrap(
        (ages,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5)
    )
    # The ends of two independent runs differ by some 0.03 standard errors each (density at the quantile).
    tolerance = 0.15 * theirs.standard_error
    assert ours.value == pytest.approx(ages.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_a_95_percent_interval_covers_the_truth_about_as_often():
    covered = 0
    for seed in range(200):
        hits = np.random.default_rng(1000 + seed).random(200) < 0.6
        result = bootstrap(mean_of(hits), 200, resamples=300, seed=seed)
        covered += result.low <= 0.6 <= result.high
    # Binomial(200, 0.95): 190 expected, under 175 in less than 1 of 10,000 runs, 200 in 1 of 28,000.
    assert 175 <= covered < 200


# Bootstrap: what the statistic gets


def test_the_statistic_gets_all_ones_and_then_resamples():
    seen = []
    bootstrap(lambda weights: float(seen.append(weights) or 0), 6, resamples=50, seed=0)
    assert len(seen) == 51
    assert seen[0].tolist() == [1.0] * 6
    for weights in seen:
        assert weights.shape == (6,)
        assert weights.dtype == np.float64
        assert weights.sum() == 6
        assert (weights >= 0).all()
        assert (weights % 1 == 0).all()
    assert len({weights.tobytes() for weights in seen}) > 40  # new arrays, not one overwritten


@given(st.integers(1, 20), SEEDS)
@settings(max_examples=20, deadline=None)
def test_every_face_is_drawn_equally_often(faces, seed):
    total = np.zeros(faces)

    def statistic(weights):
        total[:] += weights
        return 0.0

    bootstrap(statistic, faces, resamples=1000, seed=seed)
    drawn = total - 1  # less the first call
    # 1000 * N draws in N cells: each count has a deviation under the square root of 1000.
    assert np.abs(drawn - 1000).max() < 7 * np.sqrt(1000)


# Bootstrap: properties


@given(arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 50)), SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_interval_of_symmetric_values_holds_their_mean(half, seed):
    values = np.concatenate([half, -half])
    result = bootstrap(mean_of(values), len(values), resamples=200, seed=seed)
    assert result.value == pytest.approx(0, abs=1e-12)
    # At least half of the resampled means lie on each side, so an end beyond 0 has a chance under 1e-40.
    assert result.low <= 1e-12
    assert result.high >= -1e-12


@given(arrays(np.float64, st.integers(1, 15), elements=st.floats(-100, 100)), SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_same_seed_gives_the_same_interval_within_the_data(values, seed):
    result = bootstrap(mean_of(values), len(values), resamples=40, seed=seed)
    assert result == bootstrap(mean_of(values), len(values), resamples=40, seed=seed)
    assert values.min() - 1e-9 <= result.low <= result.high <= values.max() + 1e-9


def test_another_seed_gives_another_interval():
    values = np.arange(50.0) ** 2
    assert bootstrap(mean_of(values), 50, seed=0) != bootstrap(mean_of(values), 50, seed=1)


@given(SEEDS, st.floats(0.01, 0.98), st.floats(0.001, 0.5))
@settings(max_examples=30, deadline=None)
def test_a_higher_level_is_never_narrower(seed, level, more):
    higher = level + (0.999 - level) * more
    values = np.arange(20.0) ** 2
    inner = bootstrap(mean_of(values), 20, level=level, resamples=60, seed=seed)
    outer = bootstrap(mean_of(values), 20, level=higher, resamples=60, seed=seed)
    assert outer.low <= inner.low <= inner.high <= outer.high


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_figures_of_the_same_faces_are_resampled_together(seed):
    """The paired difference of two models that always differ by 2 years has no width."""
    errors = np.arange(30.0)
    first, second = mean_of(errors), mean_of(errors + 2)
    difference = bootstrap(lambda weights: second(weights) - first(weights), 30, resamples=50, seed=seed)
    assert (difference.low, difference.high) == (pytest.approx(2), pytest.approx(2))
    low, high = (bootstrap(figure, 30, resamples=50, seed=seed).low for figure in (first, second))
    assert high - low == pytest.approx(2)


def test_one_face_has_no_width():
    assert bootstrap(mean_of(np.array([7.0])), 1, seed=0) == Estimate(7.0, 7.0, 7.0)


def test_a_figure_without_variation_has_no_width():
    assert bootstrap(mean_of(np.full(9, 0.5)), 9, seed=0) == Estimate(0.5, 0.5, 0.5)


def test_one_resample_is_both_ends():
    result = bootstrap(mean_of(np.arange(9.0)), 9, resamples=1, seed=0)
    assert result.low == result.high


def test_a_group_missing_from_a_resample_is_no_error():
    predicted, true = np.array([0, 1, 2]), np.array([0, 1, 3])
    result = bootstrap(lambda weights: macro_exact_accuracy(predicted, true, weights=weights), 3, seed=0)
    # Of 27 resamples one draws the miss alone (0), and more than 2.5 % none of it (1).
    assert (result.value, result.low, result.high) == (pytest.approx(2 / 3), 0.0, 1.0)


# Bootstrap: errors


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.1, 95, np.nan])
def test_levels_outside_0_and_1_are_refused(level):
    with pytest.raises(ValueError, match="level lies above 0 and below 1"):
        bootstrap(np.sum, 3, level=level, seed=0)
    with pytest.raises(ValueError, match="level lies above 0 and below 1"):
        clopper_pearson(1, 3, level=level)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, None])
def test_other_numbers_of_faces_and_resamples_are_refused(bad):
    with pytest.raises(ValueError, match="faces as a whole number of 1 or more"):
        bootstrap(np.sum, bad, seed=0)
    with pytest.raises(ValueError, match="resamples as a whole number of 1 or more"):
        bootstrap(np.sum, 3, resamples=bad, seed=0)


@pytest.mark.parametrize("bad", [-1, 2.0, True, None])
def test_other_seeds_are_refused(bad):
    with pytest.raises(ValueError, match="seed as a whole number of 0 or more"):
        bootstrap(np.sum, 3, seed=bad)


@pytest.mark.parametrize("figure", [np.nan, np.inf])
def test_a_statistic_that_is_not_finite_is_refused(figure):
    with pytest.raises(ValueError, match="finite figure"):
        bootstrap(lambda weights: figure, 3, seed=0)
    with pytest.raises(ValueError, match="finite figure"):
        bootstrap(lambda weights: 1.0 if (weights == 1).all() else figure, 3, seed=0)


# Clopper-Pearson


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0.01, 0.9999))
@settings(deadline=None)
def test_the_exact_interval_equals_that_of_scipy(trials, successes, level):
    assume(successes <= trials)
    ours = clopper_pearson(successes, trials, level=level)
    theirs = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    assert ours.value == successes / trials
    assert ours.low == pytest.approx(theirs.low, rel=1e-8, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("successes", [0, 1, 45, 1625, 3248, 3249])
def test_the_exact_interval_equals_quantiles_of_the_beta_law(successes):
    ours = clopper_pearson(successes, 3249)
    if successes:
        assert ours.low == pytest.approx(scipy.stats.beta.ppf(0.025, successes, 3250 - successes), rel=1e-8)
    if successes < 3249:
        assert ours.high == pytest.approx(
            scipy.stats.beta.ppf(0.975, successes + 1, 3249 - successes), rel=1e-8
        )


@pytest.mark.parametrize("trials", [1, 10, 3249, 20_000])
def test_no_success_and_all_successes_by_hand(trials):
    # With none of n the upper end solves (1 - p) ** n = 0.025.
    assert clopper_pearson(0, trials).low == 0
    assert clopper_pearson(0, trials).high == pytest.approx(1 - 0.025 ** (1 / trials), rel=1e-9)
    assert clopper_pearson(trials, trials).low == pytest.approx(0.025 ** (1 / trials), rel=1e-9)
    assert clopper_pearson(trials, trials).high == 1


@given(st.integers(1, 60), st.integers(0, 60))
def test_successes_and_failures_mirror_each_other(trials, successes):
    assume(successes <= trials)
    ours, other = clopper_pearson(successes, trials), clopper_pearson(trials - successes, trials)
    assert ours.low <= ours.value <= ours.high
    assert (ours.low, ours.high) == (pytest.approx(1 - other.high), pytest.approx(1 - other.low))


@pytest.mark.parametrize(
    ("successes", "trials"), [(2, 1), (-1, 5), (0, 0), (0, -1), (1.0, 5), (1, 5.0), (True, 5)]
)
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="expected"):
        clopper_pearson(successes, trials)


# One-sided limits


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
@settings(max_examples=60, deadline=None)
def test_the_upper_limit_is_that_of_scipy(counts, level):
    hits, trials = counts
    theirs = scipy.stats.binomtest(hits, trials, alternative="less").proportion_ci(level, method="exact")
    assert upper_limit(hits, trials, level=level) == pytest.approx(theirs.high, abs=1e-12)


@pytest.mark.parametrize(("trials", "limit"), [(29, 0.1), (59, 0.05), (299, 0.01), (2995, 0.001)])
def test_the_rule_of_three(trials, limit):
    assert upper_limit(0, trials) <= limit < upper_limit(0, trials - 1)
    assert upper_limit(0, trials) == pytest.approx(3 / trials, rel=1.6 / trials + 0.002)


def test_all_of_all_may_be_all():
    assert upper_limit(7, 7) == 1.0


@pytest.mark.parametrize(("hits", "trials"), [(2, 1), (-1, 1), (0, 0), (True, 2), (0.5, 2)])
def test_an_upper_limit_takes_counts(hits, trials):
    with pytest.raises(ValueError, match="expected"):
        upper_limit(hits, trials)


@pytest.mark.parametrize("level", [0, 1, np.nan])
def test_an_upper_limit_has_a_level(level):
    with pytest.raises(ValueError, match="a level lies"):
        upper_limit(0, 5, level=level)
