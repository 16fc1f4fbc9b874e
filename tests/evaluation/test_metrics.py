import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.calibration import calibration_curve
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_curve
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import mean_absolute_error as sklearn_absolute_error

from ageveil.evaluation.metrics import (
    BETWEEN_GROUPS,
    FAIRFACE_BINS,
    OLDEST,
    bin_indices,
    bin_probabilities,
    brier_score,
    confusion_matrix,
    exact_accuracy,
    log_loss,
    macro_exact_accuracy,
    majority_row,
    mean_absolute_error,
    minors_judged_over,
    misjudged_share,
    one_off_accuracy,
    operating_curve,
    pass_threshold,
    recall_by_group,
    reliability,
    uniform_row,
)
from ageveil.types import AGE_GROUPS, age_group

SCORES = [exact_accuracy, one_off_accuracy, macro_exact_accuracy, recall_by_group]
ALL = [*SCORES, mean_absolute_error]
LAST = 7


FEW = st.integers(0, 5)


@st.composite
def scored_faces(draw, weights=FEW):
    """Predicted groups, true groups and weights with a sum above 0, each of shape (N,)."""
    faces = draw(st.integers(1, 40))
    groups = arrays(np.int64, faces, elements=st.integers(0, LAST))
    drawn = draw(arrays(np.float64, faces, elements=weights.map(float)).filter(np.any))
    return draw(groups), draw(groups), drawn


def slow_scores(predicted, true, weights):
    """All four scores by a loop written from their definitions."""
    total = exact = one_off = 0.0
    faces, hits = [0.0] * 8, [0.0] * 8
    for guess, group, weight in zip(predicted.tolist(), true.tolist(), weights.tolist(), strict=True):
        total += weight
        faces[group] += weight
        if guess == group:
            exact += weight
            hits[group] += weight
        if guess in {group - 1, group, group + 1}:
            one_off += weight
    recalls = [hit / count if count else math.nan for hit, count in zip(hits, faces, strict=True)]
    occurring = [recall for recall in recalls if not math.isnan(recall)]
    return exact / total, one_off / total, sum(occurring) / len(occurring), recalls


# Against other sources of truth


@given(scored_faces())
def test_scores_equal_a_slow_loop(faces):
    predicted, true, weights = faces
    for score, expected in zip(SCORES, slow_scores(predicted, true, weights), strict=True):
        np.testing.assert_allclose(score(predicted, true, weights=weights), expected, rtol=1e-12)


@given(scored_faces(st.floats(0.01, 100)))
@settings(deadline=None)  # the second library is slow at its first call
def test_scores_equal_scikit_learn(faces):
    predicted, true, weights = faces
    exact = accuracy_score(true, predicted, sample_weight=weights)
    assert exact_accuracy(predicted, true, weights=weights) == pytest.approx(exact)
    recalls = recall_score(
        true, predicted, labels=range(8), average=None, sample_weight=weights, zero_division=np.nan
    )
    np.testing.assert_allclose(recall_by_group(predicted, true, weights=weights), recalls)
    macro = recall_score(
        true, predicted, labels=np.unique(true), average="macro", sample_weight=weights, zero_division=np.nan
    )
    assert macro_exact_accuracy(predicted, true, weights=weights) == pytest.approx(macro)


@given(st.data(), st.integers(1, 40))
@settings(deadline=None)
def test_the_mean_absolute_error_equals_scikit_learn(data, faces):
    expected = data.draw(arrays(np.float64, faces, elements=st.floats(-50, 200)))
    ages = data.draw(arrays(np.int64, faces, elements=st.integers(0, OLDEST)))
    weights = data.draw(arrays(np.float64, faces, elements=st.floats(0.01, 100)))
    reference = sklearn_absolute_error(ages, expected, sample_weight=weights)
    assert mean_absolute_error(expected, ages, weights=weights) == pytest.approx(reference)


def test_scores_by_hand():
    true = [0, 0, 1, 3, 3, 3, 7, 7]
    predicted = [0, 7, 2, 3, 2, 5, 7, 6]
    assert exact_accuracy(predicted, true) == 3 / 8
    assert one_off_accuracy(predicted, true) == 6 / 8
    assert macro_exact_accuracy(predicted, true) == pytest.approx((1 / 2 + 0 + 1 / 3 + 1 / 2) / 4)
    recalls = [1 / 2, 0, np.nan, 1 / 3, np.nan, np.nan, np.nan, 1 / 2]
    np.testing.assert_allclose(recall_by_group(predicted, true), recalls)
    assert mean_absolute_error([10.0, 20.5, 101.0], [12, 20, 116]) == pytest.approx((2 + 0.5 + 15) / 3)


@pytest.mark.parametrize("true", range(8))
@pytest.mark.parametrize("predicted", range(8))
def test_one_face_in_every_pair_of_groups(predicted, true):
    neighbours = {
        0: {0, 1},
        1: {0, 1, 2},
        2: {1, 2, 3},
        3: {2, 3, 4},
        4: {3, 4, 5},
        5: {4, 5, 6},
        6: {5, 6, 7},
    }
    neighbours[7] = {6, 7}
    assert exact_accuracy([predicted], [true]) == (predicted == true)
    assert macro_exact_accuracy([predicted], [true]) == (predicted == true)
    assert one_off_accuracy([predicted], [true]) == (predicted in neighbours[true])


def test_every_age_has_its_group():
    ages = np.arange(OLDEST + 1)
    groups = bin_indices(ages, ages, AGE_GROUPS)
    assert groups.tolist() == [
        next((index for index, (low, high) in enumerate(AGE_GROUPS) if low <= min(age, 100) <= high), -1)
        for age in range(117)
    ]
    assert all((age_group(age) is None) == (groups[age] == BETWEEN_GROUPS) for age in range(117))


# Properties


@given(scored_faces())
def test_weights_of_one_change_nothing(faces):
    predicted, true, _ = faces
    for score in SCORES:
        np.testing.assert_array_equal(
            score(predicted, true), score(predicted, true, weights=np.ones(len(true)))
        )
    assert mean_absolute_error(predicted, true) == mean_absolute_error(
        predicted, true, weights=[1] * len(true)
    )


@given(scored_faces())
def test_a_whole_weight_stands_for_so_many_faces(faces):
    predicted, true, weights = faces
    often = weights.astype(int)
    more_predicted, more_true = np.repeat(predicted, often), np.repeat(true, often)
    for score in ALL:
        np.testing.assert_allclose(
            score(predicted, true, weights=weights), score(more_predicted, more_true), rtol=1e-12
        )


@given(scored_faces(st.floats(0, 1e6)))
def test_shares_stay_in_order_within_0_and_1(faces):
    predicted, true, weights = faces
    exact = exact_accuracy(predicted, true, weights=weights)
    assert 0 <= exact <= one_off_accuracy(predicted, true, weights=weights) <= 1
    assert 0 <= macro_exact_accuracy(predicted, true, weights=weights) <= 1
    for score in SCORES[:3]:
        assert score(true, true, weights=weights) == 1


@given(scored_faces(), st.randoms(use_true_random=False))
def test_the_order_of_faces_does_not_matter(faces, random):
    order = list(range(len(faces[0])))
    random.shuffle(order)
    for score in ALL:
        np.testing.assert_allclose(
            score(*(part[order] for part in faces[:2]), weights=faces[2][order]),
            score(*faces[:2], weights=faces[2]),
            rtol=1e-12,
        )


@given(scored_faces())
def test_arguments_are_left_as_they_are(faces):
    copies = [part.copy() for part in faces]
    for part in faces:
        part.flags.writeable = False
    for score in ALL:
        score(faces[0], faces[1], weights=faces[2])
    bin_indices(faces[1], faces[1], AGE_GROUPS)
    for part, copy in zip(faces, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_small_and_unsigned_integers_do_not_wrap_around(kind):
    predicted, true = np.array([0, 7, 3], kind), np.array([7, 0, 4], kind)
    assert one_off_accuracy(predicted, true) == pytest.approx(1 / 3)
    assert mean_absolute_error([0.0, 110.0], np.array([110, 0], kind)) == 110


# Bounds and errors


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("group", [0, LAST])
def test_the_first_and_the_last_group_are_accepted(score, group):
    assert np.nanmax(score([group], [group])) == 1


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("group", [-1, 8, 2**40])
def test_other_groups_are_refused_on_both_sides(score, group):
    with pytest.raises(ValueError, match=r"predicted groups in 0\.\.7, got .*" + str(group)):
        score([3, group], [3, 3])
    with pytest.raises(ValueError, match=r"true groups in 0\.\.7, got .*" + str(group)):
        score([3, 3], [3, group])


def test_ages_up_to_the_bounds_are_accepted():
    assert bin_indices([0, 116], [0, 116], AGE_GROUPS).tolist() == [0, 7]
    assert mean_absolute_error([0, 116], [0, 116]) == 0


@pytest.mark.parametrize("age", [-1, 117])
def test_other_ages_are_refused(age):
    with pytest.raises(ValueError, match=r"ages in 0\.\.116, got .*" + str(age)):
        bin_indices([50, age], [50, age], AGE_GROUPS)
    with pytest.raises(ValueError, match=r"ages in 0\.\.116, got .*" + str(age)):
        mean_absolute_error([50, 50], [50, age])


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize("empty", [[], np.empty(0, np.int64), np.empty((0, 8), np.int64)])
def test_empty_arrays_are_refused(score, empty):
    with pytest.raises(ValueError, match="with N of 1 or more"):
        score(empty, empty)
    with pytest.raises(ValueError, match="with N of 1 or more"):
        bin_indices(empty, empty, AGE_GROUPS)


@pytest.mark.parametrize("score", ALL)
def test_other_shapes_are_refused(score):
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        score([[1, 2]], [[1, 2]])
    with pytest.raises(ValueError, match=r"shape \(\)"):
        score(1, 1)
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        score([1], [1, 2])
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        score([1, 2, 3], [1, 2])


@pytest.mark.parametrize("bad", [[1.0, 2.0], [True, False], ["1", "2"], [None, 1]])
def test_groups_and_ages_that_are_no_integers_are_refused(bad):
    for score in SCORES:
        with pytest.raises(ValueError, match="predicted groups as integers"):
            score(bad, [1, 2])
        with pytest.raises(ValueError, match="true groups as integers"):
            score([1, 2], bad)
    with pytest.raises(ValueError, match="ages as integers"):
        mean_absolute_error([1, 2], bad)
    with pytest.raises(ValueError, match="ages as integers"):
        bin_indices(bad, bad, AGE_GROUPS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_expected_ages_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="finite estimates"):
        mean_absolute_error([20.0, bad], [20, 30])


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize(
    "bad", [[0, 0], [-1, 2], [-1e-9, 2], [np.nan, 1], [np.inf, 1], [-np.inf, 1], [1e308, 1e308]]
)
def test_other_weights_are_refused(score, bad):
    with pytest.raises(ValueError, match="weights of 0 or more with a finite sum above 0"):
        score([1, 2], [1, 2], weights=bad)


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize("bad", [[], [1], [1, 1, 1], [[1, 1]], 1])
def test_weights_of_another_shape_are_refused(score, bad):
    with pytest.raises(ValueError, match=r"weights of shape \(2,\)"):
        score([1, 2], [1, 2], weights=bad)


# Bins of ages -----------------------------------------------------------------------------------------------


def test_each_fairface_label_has_its_own_bin():
    lows, highs = [0, 3, 10, 20, 30, 40, 50, 60, 70, 71], [2, 9, 19, 29, 39, 49, 59, 69, 100, 116]
    assert bin_indices(lows, highs, FAIRFACE_BINS).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_a_label_over_a_bins_edge_has_none():
    # One year more on either side than the bin of 10-19 holds.
    assert bin_indices([9, 10, 10], [19, 19, 20], FAIRFACE_BINS).tolist() == [-1, 2, -1]


def test_bin_probabilities_are_sums_over_years():
    years = np.random.default_rng(0).dirichlet(np.ones(101), 5)
    found = bin_probabilities(years, FAIRFACE_BINS)
    slow = [[sum(row[age] for age in range(low, high + 1)) for low, high in FAIRFACE_BINS] for row in years]
    np.testing.assert_allclose(found, slow)
    np.testing.assert_allclose(found.sum(axis=1), 1)  # FairFace's bins leave no gap


@pytest.mark.parametrize("shape", [(0, 101), (101,), (3, 100)])
def test_years_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"years of shape \(N, 101\)"):
        bin_probabilities(np.zeros(shape), FAIRFACE_BINS)


def test_labels_that_run_backwards_are_refused():
    with pytest.raises(ValueError, match="none below it"):
        bin_indices([10], [9], FAIRFACE_BINS)
    with pytest.raises(ValueError, match="a highest age for each lowest one"):
        bin_indices([10, 11], [19], FAIRFACE_BINS)


def test_nine_bins_are_scored_as_eight_groups_are():
    true, predicted = [8, 8, 0, 1], [8, 7, 1, 8]
    assert exact_accuracy(predicted, true, classes=9) == 1 / 4
    assert one_off_accuracy(predicted, true, classes=9) == 3 / 4
    assert macro_exact_accuracy(predicted, true, classes=9) == pytest.approx((1 / 2 + 0 + 0) / 3)
    with pytest.raises(ValueError, match=r"true groups in 0\.\.7"):
        exact_accuracy([0], [8])


@given(scored_faces(st.floats(0.01, 100)))
def test_the_confusion_matrix_equals_scikit_learn(faces):
    predicted, true, weights = faces
    expected = sklearn_confusion_matrix(true, predicted, labels=range(8), sample_weight=weights)
    np.testing.assert_allclose(confusion_matrix(predicted, true, weights=weights), expected)


# Guesses ----------------------------------------------------------------------------------------------------


@given(arrays(np.int64, st.integers(1, 40), elements=st.integers(0, LAST)))
def test_guesses_equal_scikit_learn_and_a_slow_loop(true):
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(true), 1)), true)
    row = majority_row(true)
    assert row.exact == pytest.approx(dummy.score(np.zeros((len(true), 1)), true))
    assert row.exact <= row.one_off <= 1
    pairs = [(guess, group) for guess in range(8) for group in true.tolist()]
    uniform = uniform_row(true)
    assert uniform.exact == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert uniform.one_off == pytest.approx(sum(abs(a - b) <= 1 for a, b in pairs) / len(pairs))


def test_guesses_by_hand():
    # Five groups with two neighbours each give the paper's 37.5 %.
    assert uniform_row([1, 2, 3, 4, 5]).one_off == pytest.approx(0.375)
    assert (majority_row([0, 0, 7]).exact, majority_row([0, 0, 7]).one_off) == (2 / 3, 2 / 3)


# Probabilities ----------------------------------------------------------------------------------------------


@st.composite
def events(draw):
    faces = draw(st.integers(1, 60))
    probabilities = draw(arrays(np.float64, faces, elements=st.floats(0, 1)))
    return probabilities, draw(arrays(np.bool_, faces))


@given(events(), st.integers(1, 12))
def test_reliability_equals_a_slow_loop(events, bins):
    said, happened = events
    found = reliability(said, happened, bins=bins)
    error = 0.0
    for index, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:], strict=True)):
        inside = [i for i, p in enumerate(said) if low < p <= high or (index == 0 and p == 0)]
        assert found.counts[index] == len(inside)
        if inside:
            mean, share = np.mean(said[inside]), np.mean(happened[inside])
            np.testing.assert_allclose([found.said[index], found.happened[index]], [mean, share], atol=1e-12)
            error += abs(mean - share) * len(inside) / len(said)
        else:
            assert np.isnan(found.said[index])
    assert found.error == pytest.approx(error, abs=1e-12)


def test_reliability_equals_scikit_learn():
    rng = np.random.default_rng(1)
    said = rng.random(500)
    happened = rng.random(500) < said**2
    found = reliability(said, happened, bins=10)
    share, mean = calibration_curve(happened, said, n_bins=10)
    np.testing.assert_allclose(found.happened, share)
    np.testing.assert_allclose(found.said, mean)


def test_a_perfectly_honest_forecast_has_no_error():
    assert reliability([0.0, 0.0, 1.0], [False, False, True]).error == 0
    assert reliability([0.5, 0.5], [False, True]).error == 0
    assert reliability([1.0, 1.0], [False, False]).error == 1


@given(events())
def test_the_brier_score_equals_scikit_learn(events):
    said, happened = events
    expected = brier_score_loss(happened, said, labels=[False, True], pos_label=True)
    assert brier_score(said, happened) == pytest.approx(expected)


@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_the_log_loss_equals_scikit_learn(faces, classes, seed):
    rng = np.random.default_rng(seed)
    shares, true = rng.random((faces, classes)) + 1e-3, rng.integers(0, classes, faces)
    weights = rng.integers(1, 5, faces)
    rows = shares / shares.sum(1, keepdims=True)
    expected = sklearn_log_loss(true, rows, labels=range(classes), sample_weight=weights)
    assert log_loss(rows, true, weights=weights) == pytest.approx(expected)
    # What a face's age between the groups takes from all of them changes nothing.
    assert log_loss(rows * rng.uniform(0.1, 1, (faces, 1)), true, weights=weights) == pytest.approx(expected)


def test_the_log_loss_of_what_was_thought_impossible_is_bounded():
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(math.log(1e6))
    assert log_loss([[0.0, 0.0, 0.0]], [1]) == pytest.approx(math.log(3))  # nothing said: a guess
    for bad in ([], [0.5, 0.5], [[-0.1, 1.1]], [[np.nan, 1.0]], [[np.inf, 1.0]]):
        with pytest.raises(ValueError, match="expected probabilities of 0 or more"):
            log_loss(bad, [0])
    with pytest.raises(ValueError, match="one true group for each row"):
        log_loss([[0.5, 0.5]], [0, 1])
    with pytest.raises(ValueError, match=r"true groups in 0\.\.1"):
        log_loss([[0.5, 0.5]], [2])


def test_misjudged_shares_by_hand():
    assert misjudged_share([0.5, 0.49, 0.2, 0.8], [True, True, False, False]) == 2 / 4
    assert misjudged_share([0.5, 0.49], [True, True], weights=[3, 1]) == 1 / 4


@given(events(), st.integers(0, 2**32 - 1))
def test_the_operating_curve_equals_scikit_learns_roc(events, seed):
    said, under = events
    # A third of the others is neither under the age nor entitled: of a borderline age.
    entitled = ~under & (np.random.default_rng(seed).random(len(under)) > 1 / 3)
    if not under.any() or not entitled.any():
        with pytest.raises(ValueError, match="faces under the age and entitled ones"):
            operating_curve(said, under=under, entitled=entitled)
        return
    chosen = under | entitled
    false, true, thresholds = roc_curve(entitled[chosen], said[chosen], drop_intermediate=False)
    curve = operating_curve(said, under=under, entitled=entitled)
    np.testing.assert_allclose(curve.false_accepts, false)
    np.testing.assert_allclose(curve.passed, true)
    np.testing.assert_allclose(curve.thresholds, thresholds)


@pytest.mark.parametrize("bad", [[], [1.1, 0], [-0.1, 0], [np.nan, 0], [[0.5, 0.5]]])
def test_what_is_no_probability_is_refused(bad):
    for function in (reliability, brier_score, misjudged_share):
        with pytest.raises(ValueError, match="expected probabilities"):
            function(bad, [True, False])
    with pytest.raises(ValueError, match="expected probabilities"):
        pass_threshold(bad, 0.9)


def test_outcomes_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="truth values"):
        brier_score([0.5], [1])
    with pytest.raises(ValueError, match="one outcome for each probability"):
        reliability([0.5], [True, False])
    with pytest.raises(ValueError, match="1 bin or more"):
        reliability([0.5], [True], bins=0)


# Minors -----------------------------------------------------------------------------------------------------


@given(
    arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1)),
    st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]),
)
def test_the_threshold_is_the_highest_that_enough_pass(probabilities, share):
    threshold = pass_threshold(probabilities, share)
    assert threshold in probabilities
    assert (probabilities >= threshold).sum() >= share * len(probabilities) - 1e-9
    higher = probabilities[probabilities > threshold]
    if higher.size:
        assert (probabilities >= higher.min()).sum() < share * len(probabilities)


@pytest.mark.parametrize("share", [0, 1.01, np.nan])
def test_shares_to_pass_lie_above_0_up_to_1(share):
    with pytest.raises(ValueError, match="a share to pass"):
        pass_threshold([0.5], share)


def test_minors_by_hand():
    # Ten adults say 0.1 to 1.0: 90 % of them pass at 0.2.
    adults = [round(0.1 * step, 1) for step in range(1, 11)]
    young = {12: 0.9, 13: 0.19, 15: 0.2, 17: 0.5, 18: 0.9, 24: 0.9}
    said, ages = [*adults, *young.values()], [25, *[40] * 9, *young]
    at = pass_threshold(adults, 0.9)
    found = minors_judged_over(said, ages, threshold=at)
    assert (found.threshold, found.passed, found.judged_over, found.minors) == (0.2, 0.9, 2, 3)
    older = minors_judged_over(said, ages, threshold=at, minors=(15, 17))
    assert (older.judged_over, older.minors) == (2, 2)
    fixed = minors_judged_over(said, ages, threshold=0.5)
    assert (fixed.passed, fixed.judged_over) == (0.6, 1)


def test_minors_need_minors_but_no_adults():
    with pytest.raises(ValueError, match="faces aged 13 to 17, got none"):
        minors_judged_over([0.5, 0.5], [12, 30], threshold=0.4)
    with pytest.raises(ValueError, match="expected probabilities"):
        pass_threshold([], 0.9)  # nobody to fix the threshold on
    alone = minors_judged_over([0.5], [15], threshold=0.4)
    assert (alone.judged_over, alone.minors) == (1, 1)
    assert math.isnan(alone.passed)
    with pytest.raises(ValueError, match="one probability for each age"):
        minors_judged_over([0.5], [15, 30], threshold=0.4)
