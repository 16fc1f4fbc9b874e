"""What makes an estimator's probabilities trustworthy: a temperature, and the buffer of the decision rule.

The temperature is fitted on faces that the estimator was not trained on, one for each approach. The buffer
is solved by `ageveil.evaluation.calibration`; here is its record, and how those stored beside a model's
weights are read. Pure but for the reading.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ageveil.errors import DataError
from ageveil.types import MAX_AGE

LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 0.05, 20.0
"""`fit_temperature` looks between these."""

BUFFERS_FILE = "buffers.json"
"""Lies in the folder of a model's weight file."""

BUFFERS_VERSION = 2
"""Version of that file's format."""

_LEAST_PROBABILITY = 1e-12
_GRID = 61
_GOLDEN = (math.sqrt(5) - 1) / 2


def apply_temperature(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Raise probabilities to the power 1 / temperature and scale them to sum 1 again.

    Above 1 the temperature takes away certainty, below 1 it adds some; the order of the classes stays. The
    same as dividing a network's logits by the temperature before its softmax.

    >>> apply_temperature(np.array([0.1, 0.9]), 0.5).round(4)
    array([0.0122, 0.9878])

    Args:
        probabilities: Shape (..., K), 0 or more, each row with a sum above 0. What is 0 stays 0.
        temperature: Above 0.

    Returns:
        A new array of the same shape; each row sums to 1.

    Raises:
        ValueError: An argument lies outside its range.

    Source:
        Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"a temperature is a finite number above 0, got {temperature}")
    with np.errstate(divide="ignore"):  # the logarithm of 0, which comes back as 0
        scaled = np.log(_checked(probabilities)) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def fit_temperature(
    probabilities: NDArray[np.floating[Any]], low: NDArray[np.integer[Any]], high: NDArray[np.integer[Any]]
) -> float:
    """Find the temperature under which the labels are most probable.

    A label is an interval of classes (of years, or of groups); an exact one is as long as one class. What is
    minimised is the mean of -log(probability of the interval) over the faces. It may have more than one
    minimum where labels are intervals, so a grid of 61 temperatures, evenly spaced in the logarithm, is
    tried first and the best one's neighbourhood is searched by golden sections.

    Args:
        probabilities: As the model gave them, shape (N, K), N of 1 or more. Below 1e-12 they count as 1e-12,
            so that one face whose true age was thought impossible does not decide alone.
        low: First class of each label, shape (N,), 0 or more. Beyond the last class (ages above 100) it
            counts as the last.
        high: Last class of each label, included, shape (N,), not below `low`; as `low` beyond the last class.

    Returns:
        A temperature between `LEAST_TEMPERATURE` and `GREATEST_TEMPERATURE`, to about 1e-6 of itself. It is
        1 where no other fits better, and one of the ends where the labels want to go beyond.

    Raises:
        ValueError: A shape is another one, there is no face, or a label runs backwards.

    Source:
        Guo et al. 2017 (as `apply_temperature`) for exact labels; for intervals the censored likelihood.
    """
    probabilities = _checked(probabilities)
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(f"expected probabilities of shape (N, K) with a face, got {probabilities.shape}")
    inside = _inside(low, high, *probabilities.shape)
    logarithms = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))

    def loss(log_temperature: float) -> float:
        scaled = logarithms / math.exp(log_temperature)
        return float(np.mean(_log_sum(scaled) - _log_sum(np.where(inside, scaled, -np.inf))))

    grid = np.linspace(math.log(LEAST_TEMPERATURE), math.log(GREATEST_TEMPERATURE), _GRID)
    best = int(np.argmin([loss(value) for value in grid.tolist()]))
    found = _golden_section(loss, float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)]))
    ends = (found, float(grid[0]), float(grid[-1]))
    found = min(ends, key=loss)
    return 1.0 if loss(found) >= loss(0.0) else math.exp(found)


def _checked(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    values = np.asarray(probabilities, np.float64)
    if values.ndim == 0 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("expected finite probabilities of 0 or more in rows")
    if not (values.sum(axis=-1) > 0).all():
        raise ValueError("expected rows of probabilities with a sum above 0")
    return values


def _inside(
    low: NDArray[np.integer[Any]], high: NDArray[np.integer[Any]], faces: int, classes: int
) -> NDArray[np.bool_]:
    """Shape (N, K): which classes each label allows."""
    low, high = np.asarray(low), np.asarray(high)
    if low.shape != (faces,) or high.shape != (faces,):
        raise ValueError(f"expected {faces} labels, got shapes {low.shape} and {high.shape}")
    if (low < 0).any() or (low > high).any():
        raise ValueError("expected labels that run from a class of 0 or more to one not below it")
    first, last = np.minimum(low, classes - 1)[:, None], np.minimum(high, classes - 1)[:, None]
    inside: NDArray[np.bool_] = (np.arange(classes) >= first) & (np.arange(classes) <= last)
    return inside


def _log_sum(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the sum of exponentials of each row; a row has a finite value at least."""
    greatest = scaled.max(axis=1)
    result: NDArray[np.float64] = greatest + np.log(np.exp(scaled - greatest[:, None]).sum(axis=1))
    return result


def _golden_section(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where `loss` has a minimum between two points, to 1e-6; each step drops the part beside the worse."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    while high - low > 1e-6:
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return (low + high) / 2


class Use(NamedTuple):
    """What a buffer is for: it says nothing of any other.

    Attributes:
        sha256: Of the model's weight file.
        minimum_age: T, in years.
        approach: How faces are anonymized.
        confidence: c, the probability that the rule asks for.
        detector: How faces are found.
        landmarks: By which the eye region is found.
    """

    sha256: str
    minimum_age: int
    approach: str
    confidence: float
    detector: str
    landmarks: str


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer of the decision rule, and what was measured to state its error.

    Attributes:
        board: Key of the classification body for which it was solved.
        rating: Its mark.
        minimum_age: T, in years. The buffer serves every rating with this minimum age.
        approach: How faces were anonymized.
        model: Name of the estimator.
        sha256: Of its weight file: a buffer says nothing of other weights.
        detector: How faces were found and so cropped; as `Pipeline.detector`.
        landmarks: By which the eye region was found; as `Pipeline.landmarks`.
        confidence: c, the probability that the rule asks for.
        max_false_accept: Largest share of those too young that may be allowed.
        window: The share is of faces aged T - window to T - 1.
        tries: Tries with one photograph, each with a fresh draw; a face is accepted if one of them is.
        level: Probability, before the faces are drawn, that `bound` will not lie below the true share.
        buffer: b, in whole years.
        faces: Number of faces in the window.
        accepted: How many of them the rule accepts with this buffer.
        bound: Upper limit of the true share, one-sided, at most `max_false_accept`.
        adults: Number of faces aged 25 and over.
        adults_allowed: How many of them are allowed at the first try.
        data: Which faces, in a word.
        validation: How they were split off from those that trained the model; None where all were used.
        seed: Of the approach's draws.

    Raises:
        ValueError: A value is of another type, lies outside its range or contradicts another.
    """

    board: str
    rating: str
    minimum_age: int
    approach: str
    model: str
    sha256: str
    detector: str
    landmarks: str
    confidence: float
    max_false_accept: float
    window: int
    tries: int
    level: float
    buffer: int
    faces: int
    accepted: int
    bound: float
    adults: int
    adults_allowed: int
    data: str
    validation: str | None
    seed: int

    def __post_init__(self) -> None:
        for name in (
            "board", "rating", "approach", "model", "sha256", "detector", "landmarks", "data", "validation",
        ):  # fmt: skip
            value = getattr(self, name)
            if (not isinstance(value, str) or not value) and not (name == "validation" and value is None):
                raise ValueError(f"{name}: expected a text, got {value!r}")
        top = MAX_AGE - self.minimum_age if _is_whole(self.minimum_age) else MAX_AGE
        for name, lowest, highest in (
            ("minimum_age", 1, MAX_AGE), ("window", 1, MAX_AGE), ("tries", 1, None), ("buffer", 0, top),
            ("faces", 1, None), ("accepted", 0, self.faces), ("adults", 0, None),
            ("adults_allowed", 0, self.adults), ("seed", 0, None),
        ):  # fmt: skip
            _check_whole(name, getattr(self, name), lowest, highest)
        for name in ("confidence", "max_false_accept", "level", "bound"):
            _check_share(name, getattr(self, name))
        if self.bound > self.max_false_accept:
            raise ValueError(f"bound: expected at most max_false_accept {self.max_false_accept}")

    def statement(self) -> str:
        """What the buffer promises, in a line.

        It is true of faces like those it was measured on, and of nobody else.
        """
        years, times = _count(self.buffer, "year"), _count(self.tries, "try", "tries")
        data = self.data if self.validation is None else f"validation faces of {self.data}"
        return (
            f"buffer {years}: at most {percent(self.max_false_accept)} of those up to "
            f"{_count(self.window, 'year')} too young pass (one-sided {percent(self.level)}, "
            f"{self.accepted} of {_count(self.faces, 'face')}, {times} with one photograph, {data})"
        )

    @property
    def use(self) -> Use:
        """For what it was solved."""
        return Use(
            self.sha256, self.minimum_age, self.approach, self.confidence, self.detector, self.landmarks
        )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:  # noqa: ANN401 - whatever a JSON file holds
        """Read a record.

        Raises:
            ValueError: A field is missing, unknown or damaged; the message begins with its name.
        """
        if not isinstance(data, dict):
            raise ValueError(f"expected a buffer as an object, got {type(data).__name__}")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in names:
            if name not in data:
                raise ValueError(f"{name}: missing")
        for name in data:
            if name not in names:
                raise ValueError(f"{name}: unknown")
        return cls(**data)


def read_buffers(path: Path) -> tuple[Buffer, ...]:
    """Read a file of buffers.

    Raises:
        DataError: It cannot be read or is damaged; the message names the file and what is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is no JSON text") from error
    if not isinstance(data, dict) or data.get("version") != BUFFERS_VERSION:
        raise DataError(f"{str(path)!r}: expected buffers of version {BUFFERS_VERSION}")
    if not isinstance(data.get("buffers"), list):
        raise DataError(f"{str(path)!r}: buffers: expected a list")
    try:
        return tuple(Buffer.from_json(entry) for entry in data["buffers"])
    except ValueError as error:
        raise DataError(f"{str(path)!r}: {error}") from error


def read_stored_buffers(weights: Path | None) -> tuple[Buffer, ...]:
    """Read the buffers that lie beside a model's weight file; none where there is no such file.

    Args:
        weights: The model's weight file, as `ageveil.runtime.find` tells; None where it is not installed.

    Raises:
        DataError: There is a file of buffers and it is damaged: it is not passed over in silence.
    """
    path = weights.with_name(BUFFERS_FILE) if weights else None
    return read_buffers(path) if path and path.exists() else ()


def format_buffers(buffers: Iterable[Buffer]) -> str:
    """The text of a file of buffers."""
    entries = [buffer.to_json() for buffer in buffers]
    return json.dumps({"version": BUFFERS_VERSION, "buffers": entries}, indent=1, allow_nan=False) + "\n"


def merge_buffer(buffers: Sequence[Buffer], new: Buffer) -> tuple[Buffer, ...]:
    """Add a buffer. One for the same use gives way to it.

    Raises:
        DataError: It promises less than the one that would give way, as `check_no_looser` says.
    """
    check_no_looser(buffers, new.use, new.max_false_accept, new.tries)
    return (*(buffer for buffer in buffers if buffer.use != new.use), new)


def check_no_looser(buffers: Iterable[Buffer], use: Use, max_false_accept: float, tries: int) -> None:
    """Check that a promise does not take the place of a stricter one that holds for the same use.

    Raises:
        DataError: A stored buffer allows a smaller share, or holds for more tries.
    """
    stored = find_buffer(buffers, use)
    if stored is not None and (stored.max_false_accept < max_false_accept or stored.tries > tries):
        raise DataError(
            f"a stricter buffer is stored already ({percent(stored.max_false_accept)}, "
            f"{_count(stored.tries, 'try', 'tries')}): write to another file, or remove it first"
        )


def find_buffer(buffers: Iterable[Buffer], use: Use) -> Buffer | None:
    """The buffer whose promise holds for this use; None where none does.

    That is one solved for it, else for the nearest lower confidence: who asks for a higher one allows nobody
    whom the rule with the lower one does not allow, so the promise holds all the more. Of several that were
    solved for one use the last counts.
    """
    holding = [
        buffer
        for buffer in buffers
        if buffer.use._replace(confidence=use.confidence) == use and buffer.confidence <= use.confidence
    ]
    nearest = max((buffer.confidence for buffer in holding), default=None)
    return next((buffer for buffer in reversed(holding) if buffer.confidence == nearest), None)


def percent(share: float) -> str:
    """A share in percent, to four significant digits.

    >>> percent(0.01), percent(0.0625), percent(0.95)
    ('1 %', '6.25 %', '95 %')
    """
    return f"{100 * share:.4g} %"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_whole(name: str, value: Any, lowest: int, highest: Any) -> None:  # noqa: ANN401 - from a file
    if not _is_whole(value) or value < lowest or (_is_whole(highest) and value > highest):
        limits = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
        raise ValueError(f"{name}: expected a whole number, {limits}, got {value!r}")


def _check_share(name: str, value: Any) -> None:  # noqa: ANN401 - from a file
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"{name}: expected a number above 0 and below 1, got {value!r}")
