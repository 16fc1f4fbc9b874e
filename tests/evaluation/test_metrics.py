import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, recall_score
from sklearn.metrics import mean_absolute_error as sklearn_absolute_error

from ageveil.evaluation.metrics import (
    BETWEEN_GROUPS,
    OLDEST,
    exact_accuracy,
    group_indices,
    macro_exact_accuracy,
    mean_absolute_error,
    one_off_accuracy,
    recall_by_group,
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
    groups = group_indices(ages)
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
    group_indices(faces[1])
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
    assert group_indices([0, 116]).tolist() == [0, 7]
    assert mean_absolute_error([0, 116], [0, 116]) == 0


@pytest.mark.parametrize("age", [-1, 117])
def test_other_ages_are_refused(age):
    with pytest.raises(ValueError, match=r"ages in 0\.\.116, got .*" + str(age)):
        group_indices([50, age])
    with pytest.raises(ValueError, match=r"ages in 0\.\.116, got .*" + str(age)):
        mean_absolute_error([50, 50], [50, age])


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize("empty", [[], np.empty(0, np.int64), np.empty((0, 8), np.int64)])
def test_empty_arrays_are_refused(score, empty):
    with pytest.raises(ValueError, match="with N of 1 or more"):
        score(empty, empty)
    with pytest.raises(ValueError, match="with N of 1 or more"):
        group_indices(empty)


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
        group_indices(bad)


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
