"""Temperatures against other ways to find and apply them; buffers on record, read back and refused."""

import copy
import json
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ageveil import calibration
from ageveil.calibration import Buffer, Use, apply_temperature, fit_temperature
from ageveil.errors import DataError
from ageveil.estimation import MODELS
from ageveil.runtime import find

ROWS = arrays(np.float64, (3, 5), elements=st.floats(0.001, 1))


def softmax_rows(seed, faces=400, classes=101, spread=2.0):
    """Logits, and labels drawn from their softmax, so that the true temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (faces, classes))
    draws = rng.gumbel(size=logits.shape)
    return logits, (logits + draws).argmax(axis=1)


def loss_by_loop(probabilities, low, high, temperature):
    """Mean of -log P(label), face by face and class by class."""
    total = 0.0
    for row, first, last in zip(probabilities, low, high, strict=True):
        powers = [p ** (1 / temperature) for p in row]
        total -= math.log(math.fsum(powers[first : last + 1]) / math.fsum(powers))
    return total / len(probabilities)


# Applying ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.7])
def test_a_temperature_divides_the_logits(temperature):
    logits, _ = softmax_rows(0, faces=20)
    scaled = apply_temperature(scipy.special.softmax(logits, axis=1), temperature)
    np.testing.assert_allclose(scaled, scipy.special.softmax(logits / temperature, axis=1), rtol=1e-9)


def test_certainty_stays_and_ties_stay():
    np.testing.assert_array_equal(apply_temperature(np.array([0.0, 1.0, 0.0]), 3.0), [0, 1, 0])
    np.testing.assert_allclose(apply_temperature(np.array([0.5, 0.5, 0.0]), 0.1), [0.5, 0.5, 0])


def test_great_and_small_temperatures_are_the_limits():
    row = np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(apply_temperature(row, 1e9), np.full(3, 1 / 3), atol=1e-8)
    np.testing.assert_allclose(apply_temperature(row, 1e-4), [0, 1, 0], atol=1e-12)


def test_single_precision_comes_back_in_double_and_untouched():
    row = np.array([[0.25, 0.75]], np.float32)
    before = row.copy()
    assert apply_temperature(row, 2.0).dtype == np.float64
    np.testing.assert_array_equal(row, before)


@given(ROWS, st.floats(0.1, 10), st.floats(0.1, 10))
def test_temperatures_multiply(rows, first, second):
    twice = apply_temperature(apply_temperature(rows, first), second)
    np.testing.assert_allclose(twice, apply_temperature(rows, first * second), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_above_0(bad):
    with pytest.raises(ValueError, match="finite number above 0"):
        apply_temperature(np.array([0.5, 0.5]), bad)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[0.5, -0.1]], "0 or more"),
        ([[0.5, math.nan]], "finite"),
        ([[0.0, 0.0], [0.5, 0.5]], "sum above 0"),
        (0.5, "in rows"),
    ],
)
def test_rows_are_probabilities(rows, says):
    with pytest.raises(ValueError, match=says):
        apply_temperature(np.array(rows), 1.0)


# Fitting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.5, 1.6, 2.0])
def test_exact_labels_give_the_temperature_that_scipy_finds(true):
    logits, labels = softmax_rows(1)
    probabilities = scipy.special.softmax(logits * true, axis=1)  # too sure by the factor `true`
    log_rows = scipy.special.log_softmax(logits * true, axis=1)

    def loss(temperature):
        scaled = scipy.special.log_softmax(log_rows / temperature, axis=1)
        return -scaled[np.arange(len(labels)), labels].mean()

    theirs = scipy.optimize.minimize_scalar(
        loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8}
    )
    ours = fit_temperature(probabilities, labels, labels)
    assert ours == pytest.approx(theirs.x, rel=1e-4)
    assert ours == pytest.approx(true, rel=0.1)  # 400 labels drawn from the true distribution


def test_intervals_are_fitted_no_worse_than_on_a_fine_grid():
    logits, labels = softmax_rows(2, faces=60, classes=12)
    probabilities = scipy.special.softmax(logits * 2, axis=1)
    rng = np.random.default_rng(3)
    low = np.maximum(labels - rng.integers(0, 3, 60), 0)
    high = np.minimum(labels + rng.integers(0, 3, 60), 11)
    found = loss_by_loop(probabilities, low, high, fit_temperature(probabilities, low, high))
    others = [loss_by_loop(probabilities, low, high, t) for t in np.geomspace(0.05, 20, 300)]
    assert found <= min(others) + 1e-9


def test_a_label_that_allows_everything_counts_for_nothing():
    logits, labels = softmax_rows(4, faces=50, classes=10)
    rows = scipy.special.softmax(2 * logits, axis=1)
    more = np.concatenate([rows, rows])
    low, high = np.concatenate([labels, np.zeros(50, int)]), np.concatenate([labels, np.full(50, 9)])
    assert fit_temperature(more, low, high) == pytest.approx(fit_temperature(rows, labels, labels), rel=1e-4)
    assert fit_temperature(rows, np.zeros(50, int), np.full(50, 9)) == 1.0


def test_labels_beyond_the_last_class_count_as_it():
    logits, labels = softmax_rows(5, faces=50)
    rows = scipy.special.softmax(logits, axis=1)
    old = np.where(labels > 80, 116, labels)
    assert fit_temperature(rows, old, old) == fit_temperature(
        rows, np.minimum(old, 100), np.minimum(old, 100)
    )


def test_labels_that_are_always_or_never_right_lead_to_the_ends():
    sure = np.tile([0.6, 0.4], (5, 1))
    right, wrong = np.zeros(5, int), np.ones(5, int)
    assert fit_temperature(sure, right, right) == pytest.approx(calibration.LEAST_TEMPERATURE)
    assert fit_temperature(sure, wrong, wrong) == pytest.approx(calibration.GREATEST_TEMPERATURE)


def test_one_impossible_label_does_not_break_the_fit():
    logits, labels = softmax_rows(6, faces=300, classes=20)
    rows = scipy.special.softmax(logits, axis=1)
    rows[0, labels[0]] = 0
    assert 0.8 < fit_temperature(rows, labels, labels) < 2


@pytest.mark.parametrize(
    ("rows", "low", "high", "says"),
    [
        (np.empty((0, 3)), [], [], "with a face"),
        ([0.5, 0.5], [0], [0], "shape"),
        ([[0.5, 0.5]], [0, 0], [0, 0], "expected 1 labels"),
        ([[0.5, 0.5]], [-1], [0], "0 or more"),
        ([[0.5, 0.5]], [1], [0], "not below it"),
    ],
)
def test_what_cannot_be_fitted(rows, low, high, says):
    with pytest.raises(ValueError, match=says):
        fit_temperature(np.array(rows), np.array(low, int), np.array(high, int))


# Buffers on record ------------------------------------------------------------------------------------------

SOLVED = Buffer(
    board="pegi", rating="18", minimum_age=18, approach="mask", model="a", sha256="0" * 64,
    detector="centerface", landmarks="5", confidence=0.99, max_false_accept=0.01, window=5, tries=3,
    level=0.95, buffer=7, faces=320, accepted=0, bound=0.0094,
    adults=200, adults_allowed=150, data="utkface:train", validation="share 0.1, seed 1", seed=0,
)  # fmt: skip


def test_the_statement_holds_every_figure():
    assert SOLVED.statement() == (
        "buffer 7 years: at most 1 % of those up to 5 years too young pass (one-sided 95 %, 0 of 320 faces, "
        "3 tries with one photograph, validation faces of utkface:train)"
    )


def changed(**values):
    return Buffer.from_json({**SOLVED.to_json(), **values})


def test_one_is_told_in_the_singular():
    words = changed(buffer=1, tries=1, validation=None).statement()
    assert words.startswith("buffer 1 year: ")
    assert "1 try with one photograph, utkface:train)" in words


def test_records_survive_json(tmp_path):
    path = tmp_path / "buffers.json"
    other = changed(minimum_age=16, validation=None)
    path.write_text(calibration.format_buffers([SOLVED, other]))
    assert calibration.read_buffers(path) == (SOLVED, other)


def test_no_buffers_are_an_empty_file(tmp_path):
    path = tmp_path / "buffers.json"
    path.write_text(calibration.format_buffers([]))
    assert calibration.read_buffers(path) == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("board", ""), ("rating", 18), ("sha256", None), ("validation", ""), ("validation", 3),
        ("minimum_age", 0), ("minimum_age", 101), ("minimum_age", 18.0), ("minimum_age", "18"),
        ("buffer", -1), ("buffer", 83), ("buffer", True), ("tries", 0), ("window", 0), ("seed", -1),
        ("faces", 0), ("accepted", 321), ("accepted", -1), ("adults", -1), ("adults_allowed", 201),
        ("confidence", 1.0), ("level", 0.0), ("bound", 0.011), ("max_false_accept", math.nan),
    ],
)  # fmt: skip
def test_a_damaged_field_is_named(field, value, tmp_path):
    data = {**SOLVED.to_json(), field: value}
    with pytest.raises(ValueError, match=f"^{field}"):
        Buffer.from_json(data)
    path = tmp_path / "buffers.json"
    path.write_text(json.dumps({"version": 2, "buffers": [SOLVED.to_json(), data]}))
    with pytest.raises(DataError, match=rf"buffers\.json'.*{field}"):
        calibration.read_buffers(path)


def test_the_limits_of_a_record_are_allowed():
    assert changed(buffer=82, accepted=320, adults_allowed=200, bound=0.01).buffer == 82


@pytest.mark.parametrize("field", list(SOLVED.to_json()))
def test_a_missing_field_is_named(field):
    data = SOLVED.to_json()
    del data[field]
    with pytest.raises(ValueError, match=f"^{field}: missing"):
        Buffer.from_json(data)


def test_an_unknown_field_or_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"^years: unknown"):
        changed(years=7)
    with pytest.raises(ValueError, match="as an object, got list"):
        Buffer.from_json([])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"version": 1, "buffers": []}',
        '{"version": 2}',
        '{"version": 2, "buffers": {}}',
        "[" * 9999,
    ],
)
def test_a_damaged_file_is_a_data_error(tmp_path, text):
    path = tmp_path / "buffers.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"buffers\.json"):
        calibration.read_buffers(path)


def test_a_file_that_is_missing_or_no_text_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        calibration.read_buffers(tmp_path / "no.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no JSON text"):
        calibration.read_buffers(tmp_path / "bytes.json")


USE = Use("0" * 64, 18, "mask", 0.99, "centerface", "5")


@pytest.mark.parametrize(
    "other",
    [
        {"sha256": "1" * 64}, {"minimum_age": 17}, {"approach": "mosaic"}, {"confidence": 0.98},
        {"detector": "dlib-hog"}, {"landmarks": "68"},
    ],
)  # fmt: skip
def test_a_buffer_serves_what_it_was_solved_for_alone(other):
    assert SOLVED.use == USE
    assert calibration.find_buffer([SOLVED], USE) is SOLVED
    assert calibration.find_buffer([SOLVED], USE._replace(**other)) is None
    assert calibration.find_buffer([], USE) is None


def test_a_higher_confidence_keeps_the_nearest_lower_ones_buffer():
    # Whoever asks for more allows nobody more: without a buffer it would.
    low, high = changed(confidence=0.95, buffer=3), changed(confidence=0.999, buffer=9)
    stored = [high, SOLVED, low]
    for asked, found in (
        (0.94, None), (0.95, low), (0.98, low), (0.99, SOLVED), (0.995, SOLVED), (0.999, high),
        (0.9995, high),
    ):  # fmt: skip
        assert calibration.find_buffer(stored, USE._replace(confidence=asked)) is found
    again = changed(buffer=8)
    assert calibration.find_buffer([SOLVED, again, low], USE._replace(confidence=0.995)) is again
    assert calibration.find_buffer([SOLVED], USE._replace(confidence=0.995, approach="mosaic")) is None


def test_a_new_buffer_takes_the_place_of_the_old_one():
    other = changed(approach="mosaic")
    again = changed(buffer=9, max_false_accept=0.01, tries=4, board="mpa", rating="NC-17")
    assert calibration.merge_buffer([SOLVED, other], again) == (other, again)
    assert calibration.merge_buffer([], SOLVED) == (SOLVED,)
    assert copy.deepcopy(SOLVED) == SOLVED


@pytest.mark.parametrize("looser", [{"max_false_accept": 0.02}, {"tries": 2}])
def test_a_looser_promise_takes_no_stricter_ones_place(looser):
    with pytest.raises(DataError, match=r"a stricter buffer is stored already \(1 %, 3 tries\)"):
        calibration.merge_buffer([SOLVED], changed(**looser))
    # Nor that of one whose promise holds for a higher confidence too.
    with pytest.raises(DataError, match="a stricter buffer is stored already"):
        calibration.merge_buffer([SOLVED], changed(confidence=0.995, **looser))
    # For another use it stands beside.
    assert len(calibration.merge_buffer([SOLVED], changed(confidence=0.98, **looser))) == 2
    assert len(calibration.merge_buffer([SOLVED], changed(landmarks="68", **looser))) == 2


def test_stored_buffers_lie_beside_the_weights(tmp_path):
    weights = tmp_path / "a.onnx"
    assert calibration.read_stored_buffers(weights) == ()
    file = tmp_path / "buffers.json"
    file.write_text(calibration.format_buffers([SOLVED]))
    assert calibration.read_stored_buffers(weights) == (SOLVED,)
    assert calibration.read_stored_buffers(tmp_path / "elsewhere" / "a.onnx") == ()
    file.write_text("{}")
    with pytest.raises(DataError, match="version 2"):
        calibration.read_stored_buffers(weights)
    assert calibration.read_stored_buffers(None) == ()


def test_what_is_shipped_reads_as_documented():
    for model in MODELS.values():
        stored = calibration.read_stored_buffers(find(model.weights))
        uses = [(b.sha256, b.minimum_age, b.approach, b.confidence) for b in stored]
        assert len(uses) == len(set(uses))
