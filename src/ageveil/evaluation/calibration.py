"""Solve the buffer of the decision rule from faces of known age, and check it on others."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization, estimation
from ageveil.calibration import Buffer, percent
from ageveil.decision import decide, settle
from ageveil.draws import ChaChaDraws
from ageveil.errors import AgeveilError, DataError
from ageveil.evaluation import copies
from ageveil.evaluation.accuracy import Faces
from ageveil.evaluation.intervals import Estimate, clopper_pearson, upper_limit
from ageveil.pipeline import Pipeline, map_ordered
from ageveil.training.labels import LabelledImage
from ageveil.training.preparation import left_out_reason
from ageveil.training.splits import face_of
from ageveil.types import MAX_AGE, AgeDistribution, AnonymizedFace, Outcome, Policy, Rating

WINDOW = 5
"""Years below the minimum age within which false accepts are counted."""

ADULT = 25
"""No board asks for more years, so whoever is this old should be allowed."""

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Solution:
    """The smallest buffer that keeps the promise, and what was counted for it.

    Attributes:
        buffer: In whole years.
        faces: Faces within the window below the minimum age.
        accepted: How many of them are accepted with this buffer.
        bound: One-sided upper limit of the share accepted.
    """

    buffer: int
    faces: int
    accepted: int
    bound: float


def faces_needed(max_false_accept: float, *, level: float = 0.95) -> int:
    """So many faces, none of them accepted, show that the share accepted is at most `max_false_accept`.

    >>> faces_needed(0.01), faces_needed(0.05)
    (299, 59)

    Raises:
        ValueError: A number does not lie above 0 and below 1.
    """
    _check_share("a largest share of false accepts", max_false_accept)
    _check_share("a level", level)
    # Of n with none accepted the upper limit is 1 - (1 - level) ** (1 / n).
    return max(1, math.ceil(math.log1p(-level) / math.log1p(-max_false_accept)))


def solve_buffer(
    at_least: NDArray[np.float64],
    ages: NDArray[np.integer[Any]],
    *,
    minimum_age: int,
    confidence: float,
    max_false_accept: float,
    level: float = 0.95,
    window: int = WINDOW,
) -> Solution:
    """Find the smallest buffer b under which few of those a little too young are allowed.

    A face aged T - window to T - 1 is accepted if P(age >= T + b) >= c in one of its tries. b is solved when
    the one-sided upper limit of the share accepted is at most `max_false_accept`. Buffers are tried from the
    longest down for as long as they satisfy it, and a longer one accepts no more faces. So the limit holds
    for the buffer that is found as it does for one fixed beforehand: to end below the shortest buffer that
    is truly good enough, the limit of the one just below that would have to fail, which happens with
    probability 1 - level at most.

    Args:
        at_least: P(age >= t) of each face, try and age t, shape (N, tries, 101); never rising with t.
        ages: True ages in years, shape (N,). Faces outside the window are left aside.
        minimum_age: T, 1 to 100.
        confidence: c, above 0.5 and below 1.
        max_false_accept: Above 0 and below 1.
        level: Of the limit, above 0 and below 1.
        window: Years below T, 1 or more.

    Raises:
        ValueError: An argument lies outside its range or is of another shape.
        DataError: There are too few faces to show so small a share, or even the longest buffer, 100 - T
            years, lets too many pass. The message tells the smallest share that these faces can show.

    Source:
        Clopper and Pearson 1934 for the limit; Angelopoulos et al. 2021, "Learn then Test", on testing in a
        fixed order.
    """
    _check_question(minimum_age, confidence, window)
    at_least, ages = _checked_table(at_least, ages)
    inside = at_least[in_window(ages, minimum_age, window)]
    check_enough(len(inside), minimum_age, max_false_accept, level=level, window=window)
    solution, counted = None, -1
    for buffer in range(MAX_AGE - minimum_age, -1, -1):
        accepted = int((inside[:, :, minimum_age + buffer] >= confidence).any(axis=1).sum())
        if accepted != counted:  # the limit takes a while, and most buffers accept as many as the one before
            bound, counted = upper_limit(accepted, len(inside), level=level), accepted
        if bound > max_false_accept:
            break
        solution = Solution(buffer, len(inside), accepted, bound)
    if solution is None:
        raise DataError(
            f"no buffer will do: with the longest, {buffer} years, {accepted} of {len(inside)} faces aged "
            f"{_window_text(minimum_age, window)} are still accepted, which shows a share of at most "
            f"{percent(bound)}, and {percent(max_false_accept)} was asked for; with none accepted so many "
            f"faces show {percent(upper_limit(0, len(inside), level=level))}"
        )
    return solution


def check_enough(
    faces: int, minimum_age: int, max_false_accept: float, *, level: float = 0.95, window: int = WINDOW
) -> None:
    """Check that so many faces could show the share that is asked for, if none of them was accepted.

    Raises:
        ValueError: `max_false_accept` or `level` does not lie above 0 and below 1.
        DataError: There are too few faces.
    """
    needed = faces_needed(max_false_accept, level=level)
    if faces < needed:
        lowest = (
            f"show {percent(upper_limit(0, faces, level=level))} at the lowest" if faces else "show nothing"
        )
        raise DataError(
            f"{faces} faces aged {_window_text(minimum_age, window)} are too few: {needed} are needed to "
            f"show that at most {percent(max_false_accept)} of them pass (one-sided {percent(level)}, none "
            f"accepted), and {faces} {lowest}"
        )


def in_window(ages: NDArray[np.integer[Any]], minimum_age: int, window: int = WINDOW) -> NDArray[np.bool_]:
    """Which ages lie up to `window` years below the minimum age; shape as `ages`."""
    return (ages >= minimum_age - window) & (ages < minimum_age)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a model reads from faces of known age, behind one approach.

    Attributes:
        ages: True ages, shape (N,).
        tries: For each face the distributions of its tries, at least one, each with draws of its own.
        left_out: Number of faces that could not be used, by reason.
    """

    ages: NDArray[np.int64]
    tries: tuple[tuple[AgeDistribution, ...], ...]
    left_out: dict[str, int]

    def at_least(self) -> NDArray[np.float64]:
        """P(age >= t) of each face, try and age t, shape (N, tries, 101)."""
        rows = [[[one.at_least(age) for age in range(MAX_AGE + 1)] for one in tries] for tries in self.tries]
        return np.array(rows, np.float64) if rows else np.empty((0, 1, MAX_AGE + 1))


def countable(
    images: Sequence[LabelledImage], indices: Sequence[int], minimum_age: int
) -> tuple[dict[int, int], dict[str, int]]:
    """Which faces can be counted: those of an exact age, and of each person or picture one.

    The limits are those of independent faces, and pictures of one person are not. Where a person is known,
    the first picture within the window below the minimum age counts, and the first outside it. Where none
    is, a picture counts once, however often it is listed; a picture of UTKFace and its crop are one.

    Args:
        images: What a data set says of its faces.
        indices: Which of them to look at, in order.
        minimum_age: T, in years.

    Returns:
        Number of a face -> its age, in order; and how many were left aside, by reason.
    """
    ages: dict[int, int] = {}
    aside: Counter[str] = Counter()
    known: set[tuple[str, bool]] = set()
    for index in indices:
        age, identity = images[index].age, images[index].identity
        if age is None:
            aside["no exact age"] += 1
            continue
        # A person is met at more than one age, a picture is not.
        side = identity is not None and minimum_age - WINDOW <= age < minimum_age
        face = face_of(images[index]), side
        if face in known:
            again = "the same picture again" if identity is None else "another picture of the same person"
            aside[again] += 1
            continue
        known.add(face)
        ages[index] = age
    return ages, dict(aside)


class Distinct(NamedTuple):
    """Faces that show a photograph each.

    Attributes:
        ages: Number of a face -> its age, in order.
        left_out: How many were left aside, by reason.
        seen: Sketches of all faces that solve a buffer or trained the model.
    """

    ages: dict[int, int]
    left_out: dict[str, int]
    seen: copies.Sketches


def distinct(
    faces: Faces,
    ages: Mapping[int, int],
    trained: Sequence[int],
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Distinct:
    """Which of these faces show a photograph that neither trained the model nor is here already.

    Names do not tell that: `ageveil.evaluation.copies` compares what is seen.

    Args:
        faces: From `ageveil.evaluation.accuracy.open_faces`.
        ages: Number of a face -> its age, as `countable` finds them.
        trained: Numbers of the faces that trained the model.
        workers: Threads; by default one for each core.
        advance: Called after each of all these faces.
    """
    counted = list(ages)
    rows = copies.sketch(faces.crop, [*counted, *trained], workers=workers, advance=advance)
    own = rows[: len(counted)]
    known = copies.are_among(own, rows[len(counted) :])
    again = ~known & copies.are_repeated(own)
    reasons = {
        "the same picture trained, under another name": int(known.sum()),
        "the same picture again": int(again.sum()),
    }
    left = {index: ages[index] for index, out in zip(counted, known | again, strict=True) if not out}
    return Distinct(left, {reason: count for reason, count in reasons.items() if count}, rows)


def checking(
    faces: Faces,
    ages: Mapping[int, int],
    seen: copies.Sketches,
    minimum_age: int,
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[int], dict[str, int]]:
    """Which faces can check a buffer: those of photographs that neither solved it nor trained the model.

    Args:
        faces: Those that are to check it.
        ages: Number of one of them -> its age, as `countable` finds them.
        seen: From `distinct`.
        minimum_age: T, in years.
        workers: Threads; by default one for each core.
        advance: Called after each of these faces.

    Returns:
        Numbers of the faces that can check, in order; and how many were left aside, by reason.

    Raises:
        DataError: No face has an exact age.
        ValueError: None can, or none of those that are a little too young.
    """
    if not ages:
        raise DataError("no face that is to check the buffer has an exact age")
    rows = copies.sketch(faces.crop, list(ages), workers=workers, advance=advance)
    known = copies.are_among(rows, seen)
    young = in_window(np.array(list(ages.values())), minimum_age)
    if known.all() or (young.any() and known[young].all()):
        raise ValueError("the faces that solve a buffer cannot check it: --check takes others")
    again = ~known & copies.are_repeated(rows)
    reasons = {
        "the same picture solved the buffer or trained": int(known.sum()),
        "the same picture again": int(again.sum()),
    }
    left = [index for index, out in zip(ages, known | again, strict=True) if not out]
    return left, {reason: count for reason, count in reasons.items() if count}


def read_faces(
    faces: Faces,
    indices: Sequence[int],
    pipeline: Pipeline,
    *,
    tries: int = 1,
    seed: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Reading:
    """Estimate the age of faces through the very pipeline that serves, each as often as it may be tried.

    Args:
        faces: From `ageveil.evaluation.accuracy.open_faces`.
        indices: Which of them; their labels are exact ages.
        pipeline: Says which approach and model.
        tries: Tries with the same photograph, 1 or more; each anonymizes it afresh.
        seed: Of a mosaic's draws, one stream for each face and try; ciphers draw fresh keys.
        workers: Threads that prepare faces; by default one for each core.
        advance: Called after each face.

    Raises:
        ValueError: A number lies outside its range.
        DataError: A label is an interval, or a picture's data set is damaged.
        ModelError: The model's weights are missing or damaged.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed lies from 0 to 2**64 - 1, got {seed}")
    if not 1 <= tries < 2**32:
        raise ValueError(f"tries are 1 or more, got {tries}")

    def prepare(index: int) -> list[AnonymizedFace]:
        crop = faces.crop(index)
        # The first try's stream is that of `accuracy.estimate_all`.
        streams = [(attempt << 64 | seed).to_bytes(16) + index.to_bytes(16) for attempt in range(tries)]
        return [
            anonymization.anonymize_crop(crop, pipeline.approach, rng=ChaChaDraws(stream))
            for stream in streams
        ]

    left_out: Counter[str] = Counter()
    ages: list[int] = []
    distributions: list[AgeDistribution] = []
    batch: list[AnonymizedFace] = []
    # Closed here rather than some time later, so that an error leaves no thread behind.
    with contextlib.closing(map_ordered(prepare, indices, workers)) as prepared:
        for index, hidden in zip(indices, prepared, strict=True):
            advance()
            if isinstance(hidden, AgeveilError):
                left_out[left_out_reason(hidden)] += 1
                continue
            ages.append(_exact_age(faces.images[index]))
            batch += hidden
            if len(batch) >= _BATCH:
                distributions += estimation.estimate(batch, pipeline.model, threads=pipeline.options.threads)
                batch.clear()
    distributions += estimation.estimate(batch, pipeline.model, threads=pipeline.options.threads)
    starts = range(0, len(distributions), tries)
    grouped = tuple(tuple(distributions[start : start + tries]) for start in starts)
    return Reading(np.array(ages, np.int64), grouped, dict(left_out))


def _exact_age(labelled: LabelledImage) -> int:
    if labelled.age is None:
        raise DataError(f"{labelled.path.name}: an exact age is needed, the label is an interval")
    return labelled.age


@dataclass(frozen=True, slots=True)
class Question:
    """For what a buffer is to be solved.

    Attributes:
        rating: Its minimum age is T.
        confidence: c of the decision rule.
        max_false_accept: Largest share of those up to five years too young that may be allowed.
        tries: Tries with one photograph.
        level: Of the one-sided limit.

    Raises:
        ValueError: The rating is settled without a face, so that no buffer matters, or a number lies outside
            its range.
    """

    rating: Rating
    confidence: float = 0.99
    max_false_accept: float = 0.01
    tries: int = 1
    level: float = 0.95

    def __post_init__(self) -> None:
        settled = settle(self.rating, Policy(self.confidence))
        if settled is not None:
            raise ValueError(f"a buffer needs a rating that asks for an age. {settled.reason}")
        if self.tries < 1:
            raise ValueError(f"tries are 1 or more, got {self.tries}")
        faces_needed(self.max_false_accept, level=self.level)

    @property
    def minimum_age(self) -> int:
        """T, in years."""
        return cast(int, self.rating.minimum_age)  # a rating without one is settled

    def matters(self, age: int) -> bool:
        """Whether a face of that age is counted: a little too young, or an adult."""
        return age >= ADULT or self.minimum_age - WINDOW <= age < self.minimum_age


def calibrate(
    reading: Reading, question: Question, pipeline: Pipeline, *, data: str, validation: str | None, seed: int
) -> Buffer:
    """Solve the buffer for a question and put it on record.

    Args:
        reading: Of faces that did not train the model, by `read_faces` with the question's tries.
        question: What is asked.
        pipeline: That of the reading.
        data: Which faces, in a word.
        validation: How they were split off; None where all were used.
        seed: That of the reading.

    Raises:
        DataError: As `solve_buffer`.
    """
    solution = solve_buffer(
        reading.at_least(),
        reading.ages,
        minimum_age=question.minimum_age,
        confidence=question.confidence,
        max_false_accept=question.max_false_accept,
        level=question.level,
    )
    adults = _tally(reading, question, solution.buffer, ADULT, None)
    info = estimation.get_model(pipeline.model).info
    return Buffer(
        board=question.rating.board,
        rating=question.rating.mark,
        minimum_age=question.minimum_age,
        approach=anonymization.get_approach(pipeline.approach).name,
        model=info.name,
        sha256=info.sha256,
        detector=pipeline.detector,
        landmarks=pipeline.landmarks,
        confidence=question.confidence,
        max_false_accept=question.max_false_accept,
        window=WINDOW,
        tries=question.tries,
        level=question.level,
        buffer=solution.buffer,
        faces=solution.faces,
        accepted=solution.accepted,
        bound=solution.bound,
        adults=adults.faces,
        adults_allowed=adults.allow,
        data=data,
        validation=validation,
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Band:
    """How the rule answers faces of some ages at their first try.

    Attributes:
        low: Youngest age, in years.
        high: Oldest age, included; None where there is no end.
        faces: Number of faces.
        allow: How many are allowed.
        deny: How many are denied.
        step_up: How many are asked for other proof.
    """

    low: int
    high: int | None
    faces: int
    allow: int
    deny: int
    step_up: int


@dataclass(frozen=True, slots=True)
class Check:
    """How a buffer does on other faces than those that solved it.

    Attributes:
        false_accept: Share of the faces within the window below T that are accepted in one of their tries,
            with its two-sided 95 % interval; None where there is no such face.
        faces: Number of those faces.
        accepted: How many of them are accepted.
        bands: Answers by age.
        left_out: Faces that could not be used, by reason.
    """

    false_accept: Estimate | None
    faces: int
    accepted: int
    bands: tuple[Band, ...]
    left_out: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The check as JSON values."""
        return asdict(self)


def check_buffer(reading: Reading, question: Question, buffer: int) -> Check:
    """Measure a buffer on faces, by the very rule that decides.

    Args:
        reading: Of the faces, with the question's tries.
        question: For what the buffer was solved.
        buffer: In whole years.
    """
    policy = Policy(question.confidence, buffer)
    young = in_window(reading.ages, question.minimum_age)
    passed = [
        any(decide(one, question.rating, policy).outcome == "allow" for one in tries)
        for tries, inside in zip(reading.tries, young, strict=True)
        if inside
    ]
    edges = sorted(
        {
            0,
            max(0, question.minimum_age - WINDOW),
            question.minimum_age,
            min(question.minimum_age + buffer, ADULT),
            ADULT,
        }
    )
    ends: list[int | None] = [edge - 1 for edge in edges[1:]]
    return Check(
        false_accept=clopper_pearson(sum(passed), len(passed)) if passed else None,
        faces=len(passed),
        accepted=sum(passed),
        bands=tuple(
            _tally(reading, question, buffer, low, high)
            for low, high in zip(edges, [*ends, None], strict=True)
        ),
        left_out=reading.left_out,
    )


def _tally(reading: Reading, question: Question, buffer: int, low: int, high: int | None) -> Band:
    policy = Policy(question.confidence, buffer)
    outcomes = Counter[Outcome](
        decide(tries[0], question.rating, policy).outcome
        for age, tries in zip(reading.ages.tolist(), reading.tries, strict=True)
        if age >= low and (high is None or age <= high)
    )
    return Band(low, high, outcomes.total(), outcomes["allow"], outcomes["deny"], outcomes["step_up"])


def _check_question(minimum_age: int, confidence: float, window: int) -> None:
    if not 1 <= minimum_age <= MAX_AGE:
        raise ValueError(f"a minimum age lies from 1 to {MAX_AGE}, got {minimum_age}")
    if window < 1:
        raise ValueError(f"a window is 1 year or more, got {window}")
    Policy(confidence)  # checks it


def _checked_table(
    at_least: NDArray[np.float64], ages: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.integer[Any]]]:
    at_least, ages = np.asarray(at_least, np.float64), np.asarray(ages)
    if at_least.ndim != 3 or at_least.shape[2] != MAX_AGE + 1 or at_least.shape[1] < 1:
        raise ValueError(f"expected P(age >= t) of shape (N, tries, {MAX_AGE + 1}), got {at_least.shape}")
    if ages.shape != at_least.shape[:1]:
        raise ValueError(f"expected {len(at_least)} ages, got shape {ages.shape}")
    # A comparison, so that NaN fails too. Sums over fewer years may differ in their last digit.
    if not (np.diff(at_least, axis=2) <= 1e-9).all():
        raise ValueError("expected P(age >= t) that never rises with t")
    return at_least, ages


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} lies above 0 and below 1, got {value}")


def _window_text(minimum_age: int, window: int) -> str:
    return f"{max(0, minimum_age - window)} to {minimum_age - 1}"
