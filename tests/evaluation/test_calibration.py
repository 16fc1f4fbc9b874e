"""Buffers against brute force, published sample sizes and SciPy; the reading against the pipeline itself."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ageveil.boards import get_rating
from ageveil.errors import DataError, ModelError
from ageveil.evaluation import accuracy, calibration
from ageveil.evaluation.calibration import Question, Reading, check_buffer, faces_needed, solve_buffer
from ageveil.evaluation.intervals import upper_limit
from ageveil.image import read_image, write_image
from ageveil.pipeline import Pipeline
from ageveil.training.labels import LabelledImage
from ageveil.types import AgeDistribution, CanonicalCrop, ModelInfo

PEGI18 = get_rating("pegi", "18")
YEARS = ModelInfo("years", "1", "CC0-1.0", "year", "0" * 64, "a test")
GROUPS = ModelInfo("groups", "1", "CC0-1.0", "group", "0" * 64, "a test")


def table(accepted_up_to, tries=None):
    """P(age >= t) of faces that are 0.999 up to an age each and 0.001 beyond; shape (N, tries, 101)."""
    reach = np.array(accepted_up_to if tries is None else tries, float)
    reach = reach.reshape(len(reach), -1)
    return np.where(np.arange(101) <= reach[:, :, None], 0.999, 0.001)


def smallest_by_loop(at_least, ages, minimum_age, confidence, share, level=0.95, window=5):
    """The definition, buffer by buffer and face by face, with SciPy's beta quantiles."""
    for buffer in range(101 - minimum_age):
        faces = accepted = 0
        for tries, age in zip(at_least, ages, strict=True):
            if minimum_age - window <= age < minimum_age:
                faces += 1
                accepted += any(one[minimum_age + buffer] >= confidence for one in tries)
        bound = 1.0 if accepted == faces else scipy.stats.beta.ppf(level, accepted + 1, faces - accepted)
        if bound <= share:
            return buffer, faces, accepted, bound
    return None


# Limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "needed"), [(0.01, 299), (0.05, 59), (0.1, 29), (0.02, 149), (0.001, 2995)]
)
def test_as_many_faces_are_needed_as_tables_of_acceptance_sampling_say(share, needed):
    """Sizes of zero-failure plans at 95 % (59 for 95 % reliability, 299 for 99 %), as published."""
    assert faces_needed(share) == needed
    assert upper_limit(0, needed) <= share < upper_limit(0, needed - 1)


@given(st.floats(1e-4, 0.9), st.floats(0.5, 0.999))
def test_one_face_less_would_not_do(share, level):
    needed = faces_needed(share, level=level)
    assert (1 - share) ** needed <= (1 - level) * (1 + 1e-9)
    assert needed == 1 or (1 - share) ** (needed - 1) > (1 - level) * (1 - 1e-9)


@pytest.mark.parametrize("bad", [0, 1, -0.1, 1.5, math.nan])
def test_shares_lie_between_0_and_1(bad):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        faces_needed(bad)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        faces_needed(0.1, level=bad)


# Solving ----------------------------------------------------------------------------------------------------


def solve(at_least, ages, **values):
    wanted = {"minimum_age": 18, "confidence": 0.99, "max_false_accept": 0.1, **values}
    return solve_buffer(at_least, np.array(ages), **wanted)


def test_nobody_is_accepted_without_a_buffer():
    solution = solve(table([10] * 29), [15] * 29)
    assert (solution.buffer, solution.faces, solution.accepted) == (0, 29, 0)
    assert solution.bound == pytest.approx(1 - 0.05 ** (1 / 29))


def test_the_buffer_ends_just_above_the_last_face_that_must_not_pass():
    # 29 faces: with one accepted the limit is 15 %, so none may pass; one is sure of 25 years.
    solution = solve(table([10] * 28 + [25]), [15] * 29)
    assert (solution.buffer, solution.accepted) == (8, 0)
    # 100 faces: 5 accepted have the limit 10.2 %, 4 have 8.9 %.
    assert solve(table([10] * 95 + [20, 20, 20, 20, 30]), [17] * 100).buffer == 3
    assert solve(table([10] * 96 + [20, 20, 20, 30]), [17] * 100).buffer == 0


def test_only_faces_up_to_five_years_too_young_count():
    sure = table([10] * 60 + [99] * 200)
    ages = [13, 17] * 30 + [12, 18, 40, 0] * 50
    assert (solve(sure, ages).buffer, solve(sure, ages).faces) == (0, 60)
    with pytest.raises(DataError, match="no buffer will do"):
        solve(np.where(np.arange(101) >= 0, 1.0, 0.0) * np.ones((260, 1, 1)), ages)


def test_the_window_stops_at_birth():
    assert solve(table([0] * 60), [0, 1, 2] * 20, minimum_age=3).faces == 60


def test_one_try_of_several_is_enough_to_pass():
    once, thrice = [[10]] * 59 + [[19]], [[10, 10, 10]] * 59 + [[10, 19, 10]]
    ages, share = [16] * 60, 0.05
    assert solve(table([10] * 60), ages, max_false_accept=share).buffer == 0
    assert solve(table(None, once), ages, max_false_accept=share).buffer == 2
    assert solve(table(None, thrice), ages, max_false_accept=share).buffer == 2


def test_a_face_that_just_reaches_the_confidence_is_accepted():
    at_least = np.full((29, 1, 101), 0.2)
    at_least[:, :, :19] = 0.99
    assert solve(at_least, [17] * 29).buffer == 1
    assert solve(at_least, [17] * 29, confidence=np.nextafter(0.99, 1)).buffer == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.lists(st.integers(0, 100), min_size=2, max_size=2)),
        min_size=40, max_size=120,
    ),
    st.integers(1, 25), st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([0.8, 0.95]), st.integers(1, 9),
)  # fmt: skip
@settings(max_examples=60)
def test_it_is_what_the_definition_says(faces, minimum_age, share, level, window):
    ages = np.array([age for age, _ in faces])
    at_least = table(None, [reach for _, reach in faces])
    expected = smallest_by_loop(at_least, ages, minimum_age, 0.9, share, level, window)
    question = {
        "minimum_age": minimum_age, "confidence": 0.9, "max_false_accept": share, "level": level,
        "window": window,
    }  # fmt: skip
    if expected is None:
        with pytest.raises(DataError):
            solve_buffer(at_least, ages, **question)
        return
    found = solve_buffer(at_least, ages, **question)
    assert (found.buffer, found.faces, found.accepted) == expected[:3]
    assert found.bound == pytest.approx(expected[3], rel=1e-9)


def test_the_promise_holds_for_19_of_20_samples():
    """Of faces that pass with probability 10.2 % without a buffer and 1 % with a year, 1 year is enough."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(200):
        draws = rng.random(200)
        reach = np.select([draws < 0.01, draws < 0.102], [19, 18], 10)
        broken += solve(table(reach), [15] * 200).buffer == 0
    # At most 5 % may break it; at 5 %, more than so many of 200 do with a chance of 1 in 1,000.
    assert broken <= scipy.stats.binom(200, 0.05).ppf(0.999)
    assert broken > 0  # or the buffers would be longer than they need be


def test_too_few_faces_are_told_with_what_they_can_show():
    with pytest.raises(DataError) as error:
        solve(table([10] * 298), [15] * 298, max_false_accept=0.01)
    assert "298 faces aged 13 to 17 are too few: 299 are needed" in str(error.value)
    assert f"298 show {100 * (1 - 0.05 ** (1 / 298)):.4g} % at the lowest" in str(error.value)
    with pytest.raises(DataError, match=r"0 faces aged 13 to 17 .* 0 show nothing"):
        solve(np.empty((0, 1, 101)), [])


def test_no_buffer_up_to_a_hundred_years_may_do():
    at_least = np.ones((60, 1, 101))
    with pytest.raises(DataError) as error:
        solve(at_least, [15] * 60)
    assert "82 years, 60 of 60 faces aged 13 to 17 are still accepted" in str(error.value)
    assert "4.87 %" in str(error.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"minimum_age": 0}, "from 1 to 100"),
        ({"minimum_age": 101}, "from 1 to 100"),
        ({"window": 0}, "1 year or more"),
        ({"confidence": 0.5}, "above 0.5"),
        ({"confidence": 1.0}, "below 1"),
        ({"max_false_accept": 0.0}, "above 0"),
        ({"level": 1.0}, "below 1"),
    ],
)
def test_a_question_that_makes_no_sense(values, says):
    with pytest.raises(ValueError, match=says):
        solve(table([10] * 60), [15] * 60, **values)


@pytest.mark.parametrize(
    ("at_least", "ages", "says"),
    [
        (np.ones((60, 101)), [15] * 60, "shape"),
        (np.ones((60, 1, 100)), [15] * 60, "shape"),
        (np.ones((60, 0, 101)), [15] * 60, "shape"),
        (np.ones((60, 1, 101)), [15] * 59, "60 ages"),
        (np.linspace(0, 1, 101) * np.ones((60, 1, 1)), [15] * 60, "never rises"),
        (np.full((60, 1, 101), np.nan), [15] * 60, "never rises"),
    ],
)
def test_a_table_that_makes_no_sense(at_least, ages, says):
    with pytest.raises(ValueError, match=says):
        solve(at_least, ages)


# Questions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("board", "mark"), [("mpa", "G"), ("mpa", "PG-13"), ("acb", "RC"), ("esrb", "RP"), ("tv", "TV-MA")]
)
def test_ratings_that_ask_for_no_face_have_no_buffer(board, mark):
    with pytest.raises(ValueError, match="asks for an age"):
        Question(get_rating(board, mark))


@pytest.mark.parametrize("values", [{"tries": 0}, {"max_false_accept": 0}, {"confidence": 0.4}, {"level": 1}])
def test_a_question_checks_itself(values):
    with pytest.raises(ValueError, match=r"."):
        Question(PEGI18, **values)


def test_those_a_little_too_young_and_adults_matter():
    question = Question(PEGI18)
    assert [age for age in range(101) if question.matters(age)] == [*range(13, 18), *range(25, 101)]


def test_one_picture_of_a_person_counts_on_each_side():
    images = [
        LabelledImage(Path(f"{index}.jpg"), low, high, identity=identity)
        for index, (low, high, identity) in enumerate([
            (15, 15, "a"), (16, 16, "a"), (30, 30, "a"), (31, 31, "a"), (15, 15, "b"), (14, 16, "c"),
            (17, 17, None), (17, 17, None), (12, 12, "b"), (18, 18, "b"),
        ])
    ]  # fmt: skip
    ages, aside = calibration.countable(images, range(10), 18)
    assert ages == {0: 15, 2: 30, 4: 15, 6: 17, 7: 17, 8: 12}
    assert aside == {"another picture of the same person": 3, "no exact age": 1}
    assert calibration.countable(images, [3, 1], 18) == ({3: 31, 1: 16}, {})
    assert calibration.countable(images, [], 18) == ({}, {})


def test_a_picture_counts_once_however_often_it_is_listed():
    whole = "17_0_0_20170103200501234.jpg"
    images = [
        LabelledImage(Path(place), age, age)
        for place, age in [
            ("mine/1.jpg", 16), ("mine/1.jpg", 16), ("mine/../mine/1.jpg", 16),
            (f"chips/{whole}.chip.jpg", 17), (f"wild/{whole}", 17), (f"chips/{whole}.chip.jpg", 17),
            ("mine/2.jpg", 30), ("mine/2.jpg", 30),
        ]
    ]  # fmt: skip
    ages, aside = calibration.countable(images, range(8), 18)
    assert (ages, aside) == ({0: 16, 3: 17, 6: 30}, {"the same picture again": 5})
    # Whichever of the two comes first counts.
    assert calibration.countable(images, [4, 3], 18) == ({4: 17}, {"the same picture again": 1})


def test_pictures_of_one_name_in_other_folders_are_other_faces():
    # As a folder for each age has them.
    images = [LabelledImage(Path(f"{age}/{name}.jpg"), age, age) for age in (16, 17) for name in "ab"]
    assert calibration.countable(images, range(4), 18) == ({0: 16, 1: 16, 2: 17, 3: 17}, {})


def test_one_face_many_times_shows_no_share():
    # 59 faces would show 5 %; these rows are of one picture.
    images = [LabelledImage(Path("1.jpg"), 17, 17)] * 59
    ages, _ = calibration.countable(images, range(59), 18)
    with pytest.raises(DataError, match="1 faces aged 13 to 17 are too few: 59 are needed"):
        calibration.check_enough(len(ages), 18, 0.05)


def test_a_photograph_that_trained_or_is_here_already_counts_no_more():
    noise = np.random.default_rng(3).integers(0, 256, (6, 24, 24, 3), np.uint8)
    shown = [0, 1, 2, 1, 3, 2, 4, 5]  # which photograph each face shows

    def crop(index):
        return CanonicalCrop(noise[shown[index]], np.full((5, 2), 12.0), np.eye(2, 3), 0.0)

    images = tuple(LabelledImage(Path(f"{index}.jpg"), 16, 16) for index in range(8))
    faces = accuracy.Faces("utkface", images, crop, 8)
    ages, looked = {0: 16, 1: 17, 2: 15, 3: 27, 4: 30}, []
    found = calibration.distinct(faces, ages, [5, 6, 7], advance=lambda: looked.append(1))
    assert found.ages == {0: 16, 1: 17, 4: 30}
    assert found.left_out == {"the same picture trained, under another name": 1, "the same picture again": 1}
    assert len(looked) == len(found.seen) == 8
    assert calibration.distinct(faces, {0: 16, 4: 30}, [])[:2] == ({0: 16, 4: 30}, {})


def test_faces_that_solved_a_buffer_or_trained_the_model_do_not_check_it():
    noise = np.random.default_rng(4).integers(0, 256, (6, 24, 24, 3), np.uint8)

    def showing(photographs):
        def crop(index):
            return CanonicalCrop(noise[photographs[index]], np.full((5, 2), 12.0), np.eye(2, 3), 0.0)

        images = tuple(LabelledImage(Path(f"{n}.jpg"), 16, 16) for n in range(len(photographs)))
        return accuracy.Faces("utkface", images, crop, len(photographs))

    solving = calibration.distinct(showing([0, 1, 2]), {0: 16, 1: 17}, [2])
    others = showing([3, 1, 2, 4, 3])
    assert calibration.checking(others, {0: 16, 1: 17, 2: 15, 3: 30, 4: 16}, solving.seen, 18) == (
        [0, 3],
        {"the same picture solved the buffer or trained": 2, "the same picture again": 1},
    )
    assert calibration.checking(others, {0: 16, 3: 30}, solving.seen, 18) == ([0, 3], {})
    with pytest.raises(ValueError, match="the faces that solve a buffer cannot check it"):
        calibration.checking(others, {1: 17, 2: 15}, solving.seen, 18)
    with pytest.raises(ValueError, match="cannot check it"):  # nobody is left who is a little too young
        calibration.checking(others, {1: 17, 2: 15, 3: 30}, solving.seen, 18)
    with pytest.raises(DataError, match="no face that is to check the buffer has an exact age"):
        calibration.checking(others, {}, solving.seen, 18)


# Reading and checking ---------------------------------------------------------------------------------------


def person(*, at, model=YEARS, sure=0.995):
    """A distribution with `sure` at one year and the rest at birth."""
    years = np.zeros(101)
    years[at], years[0] = sure, 1 - sure
    return AgeDistribution.from_years(years, approach="mask", model=model)


def test_a_table_is_made_of_tail_sums():
    reading = Reading(np.array([15, 16]), ((person(at=20), person(at=3)), (person(at=30), person(at=40))), {})
    table = reading.at_least()
    assert table.shape == (2, 2, 101)
    assert table[0, 0, 20] == pytest.approx(0.995)
    assert table[0, 0, 21] == 0
    assert (table[:, :, 0] == 1).all()
    assert Reading(np.array([], int), (), {}).at_least().shape == (0, 1, 101)


def test_a_model_of_groups_counts_what_certainly_lies_above():
    groups = np.array([0, 0, 0, 0.4, 0.6, 0, 0, 0])  # 15-20 and 25-32
    one = AgeDistribution.from_groups(groups, approach="mask", model=GROUPS)
    row = Reading(np.array([15]), ((one,),), {}).at_least()[0, 0]
    assert row[[0, 15, 16, 25, 26]].tolist() == pytest.approx([1, 1, 0.6, 0.6, 0])


def test_answers_are_counted_by_age_and_tries():
    young_twice = (person(at=5), person(at=30))  # passes at the second try alone
    reading = Reading(
        np.array([10, 13, 17, 18, 20, 24, 25, 60]),
        (
            (person(at=10),) * 2, young_twice, (person(at=22),) * 2, (person(at=40),) * 2,
            (person(at=5),) * 2, (person(at=21),) * 2, (person(at=21),) * 2, (person(at=70),) * 2,
        ),
        {"no face found": 1},
    )  # fmt: skip
    found = check_buffer(reading, Question(PEGI18, tries=2), 4)
    assert (found.faces, found.accepted) == (2, 2)
    low, high = scipy.stats.binomtest(2, 2).proportion_ci(method="exact")
    assert (found.false_accept.low, found.false_accept.high) == (pytest.approx(low), high)
    counts = [(b.low, b.high, b.faces, b.allow, b.deny, b.step_up) for b in found.bands]
    assert counts == [
        (0, 12, 1, 0, 1, 0), (13, 17, 2, 1, 1, 0), (18, 21, 2, 1, 1, 0), (22, 24, 1, 0, 0, 1),
        (25, None, 2, 1, 0, 1),
    ]  # fmt: skip
    assert found.to_json()["left_out"] == {"no face found": 1}


@pytest.mark.parametrize(
    ("rating", "buffer", "bands"),
    [
        (("pegi", "18"), 0, [0, 13, 18, 25]),
        (("pegi", "18"), 30, [0, 13, 18, 25]),
        (("pegi", "7"), 1, [0, 2, 7, 8, 25]),
        (("esrb", "M"), 2, [0, 12, 17, 19, 25]),
    ],
)
def test_bands_follow_each_other(rating, buffer, bands):
    question = Question(get_rating(*rating))
    found = check_buffer(Reading(np.array([30]), ((person(at=30),),), {}), question, buffer)
    assert [band.low for band in found.bands] == bands
    assert [band.high for band in found.bands] == [low - 1 for low in bands[1:]] + [None]
    assert (found.false_accept, found.faces) == (None, 0)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory, astronaut, grace_hopper):
    """Two usable photographs, one without a face, and one whose label is an interval."""
    folder = tmp_path_factory.mktemp("ages")
    for age, image in {
        "17": read_image(astronaut)[:260, 60:380],
        "78": read_image(grace_hopper)[:450],
        "16": np.full((90, 90, 3), 120, np.uint8),
        "20-30": read_image(astronaut),
    }.items():
        (folder / age).mkdir()
        write_image(folder / age / "a.png", np.ascontiguousarray(image))
    return accuracy.open_faces(f"folder:{folder}", Pipeline("mosaic", allow_others=True))


def ages_of(faces):
    return [index for index, image in enumerate(faces.images) if image.age is not None]


def test_a_reading_is_what_the_evaluation_estimates(portraits):
    way, ticks = Pipeline("mosaic", allow_others=True), []
    reading = calibration.read_faces(
        portraits, ages_of(portraits), way, seed=7, advance=lambda: ticks.append(1)
    )
    estimates = accuracy.estimate_all(portraits, [("mosaic", way.model)], seed=7)["mosaic", way.model]
    assert reading.ages.tolist() == [17, 78]
    assert reading.left_out == {"no face found": 1}
    assert len(ticks) == 3
    theirs = {
        image.age: distribution
        for image, distribution in zip(estimates.images, estimates.distributions, strict=True)
    }
    for age, (one,) in zip(reading.ages.tolist(), reading.tries, strict=True):
        np.testing.assert_allclose(one.years, theirs[age].years, atol=1e-5)  # batches differ in size


def test_every_try_draws_afresh_and_the_seed_repeats_them(portraits):
    way = Pipeline("mosaic", allow_others=True)
    first, again = (calibration.read_faces(portraits, ages_of(portraits), way, tries=3, seed=1) for _ in "ab")
    assert len(first.tries) == 2
    assert first.at_least().shape == (2, 3, 101)
    np.testing.assert_array_equal(first.at_least(), again.at_least())
    assert len({one.years.tobytes() for one in first.tries[0]}) == 3
    mask = calibration.read_faces(portraits, ages_of(portraits), Pipeline("mask", allow_others=True), tries=2)
    np.testing.assert_allclose(mask.at_least()[:, 0], mask.at_least()[:, 1], atol=1e-6)


@pytest.mark.parametrize("values", [{"seed": -1}, {"seed": 2**64}, {"tries": 0}])
def test_a_reading_checks_its_numbers(portraits, values):
    with pytest.raises(ValueError, match=r"seed lies|1 or more"):
        calibration.read_faces(portraits, [0], Pipeline("mask"), **values)


def test_an_interval_is_no_exact_age(portraits):
    (index,) = set(range(len(portraits.images))) - set(ages_of(portraits))
    with pytest.raises(DataError, match="an interval"):
        calibration.read_faces(portraits, [index], Pipeline("mask", allow_others=True))


def test_an_error_of_the_model_is_not_left_out(portraits):
    def crop(index):
        raise ModelError("damaged")

    broken = accuracy.Faces("folder", portraits.images, crop, 1)
    with pytest.raises(ModelError, match="damaged"):
        calibration.read_faces(broken, [0], Pipeline("mask"))


def test_an_error_in_the_middle_ends_the_reading():
    # Not one label is an exact age, and cropping takes its time: the first face ends it all.
    begun = []

    def crop(index):
        begun.append(index)
        time.sleep(0.05)
        return CanonicalCrop(np.zeros((224, 224, 3), np.uint8), np.full((5, 2), 99.0), np.eye(2, 3), 0.0)

    images = tuple(LabelledImage(Path(f"{number}.jpg"), 10, 20) for number in range(100))
    faces = accuracy.Faces("folder", images, crop, 100)
    with pytest.raises(DataError, match="an interval") as error:
        calibration.read_faces(faces, range(100), Pipeline("original"), workers=1)
    # The error is still at hand, and with it all that it went through; yet nothing goes on.
    count = len(begun)
    time.sleep(0.2)
    assert len(begun) == count <= 3, error


def test_a_calibration_is_put_on_record():
    ages = np.array([15] * 29 + [30, 40])
    tries = ((person(at=10),),) * 28 + ((person(at=25),), (person(at=24),), (person(at=50),))
    question = Question(PEGI18, max_false_accept=0.1)
    way = Pipeline("mask")
    buffer = calibration.calibrate(Reading(ages, tries, {}), question, way, data="d", validation=None, seed=3)
    assert (buffer.buffer, buffer.faces, buffer.accepted, buffer.bound) == (
        8,
        29,
        0,
        pytest.approx(1 - 0.05 ** (1 / 29)),
    )
    assert (buffer.adults, buffer.adults_allowed, buffer.minimum_age) == (2, 1, 18)
    assert (buffer.board, buffer.rating, buffer.approach, buffer.seed) == ("pegi", "18", "mask", 3)
