"""The records that pass between rooms. All are frozen and check themselves on creation.

Coordinates are continuous pixels: x to the right, y down, the centre of the first pixel at (0, 0); boxes are
half open, so a box from 0 to 10 holds the pixels 0..9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""An RGB picture, shape (H, W, 3), uint8 in [0, 255]."""

Resolution = Literal["year", "group"]
Outcome = Literal["allow", "deny", "step_up"]
BufferSource = Literal["hand", "stored", "none"]
RatingKind = Literal["none", "advisory", "voluntary", "legal", "accompanied", "refused"]

MAX_AGE = 100
"""Distributions run over the whole years 0..100; whoever is older counts as 100."""

AGE_GROUPS: tuple[tuple[int, int], ...] = (
    (0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, MAX_AGE),
)  # fmt: skip
"""The paper's eight groups (Ye et al. 2018, section IV-A), both ends included."""

AGE_GROUP_NAMES: tuple[str, ...] = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+")

RECEIPT_VERSION = 1


def age_group(age: int) -> int | None:
    """Index of the group that holds an age, or None for an age between the groups.

    >>> age_group(13), age_group(14), age_group(103)
    (2, None, 7)

    Raises:
        ValueError: `age` is negative.
    """
    if age < 0:
        raise ValueError(f"an age is 0 or more, got {age}")
    for index, (low, high) in enumerate(AGE_GROUPS):
        if low <= min(age, MAX_AGE) <= high:
            return index
    return None


def check_image(pixels: Any) -> Image:  # noqa: ANN401 - this is where a caller's argument becomes an Image
    """Return `pixels` if it is an RGB picture.

    Raises:
        ValueError: The array is not of shape (H, W, 3) with H, W of 1 or more, or not uint8.
    """
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"expected a NumPy array of shape (H, W, 3), got {type(pixels).__name__}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected an RGB array of shape (H, W, 3), got shape {pixels.shape}")
    if pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 values in [0, 255], got {pixels.dtype}")
    return pixels


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only copy, so that no later edit reaches into a record; one that is read-only stays."""
    if not array.flags.writeable and array.base is None:
        return array
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


class Draws(Protocol):
    """A source of uniform draws: `ageveil.draws.ChaChaDraws`, or a NumPy Generator in tests."""

    def integers(self, low: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Draw one integer in [0, bound) for each bound, in C order."""
        ...


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, xyxy, half open.

    Raises:
        ValueError: A side is not finite or not longer than 0.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x0, self.y0, self.x1, self.y1))):
            raise ValueError(f"a box has finite corners, got {self.as_tuple()}")
        if self.x1 <= self.x0 or self.y1 <= self.y0:
            raise ValueError(f"a box has an area above 0, got {self.as_tuple()}")

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    def as_tuple(self) -> tuple[float, float, float, float]:
        """Corners as (x0, y0, x1, y1)."""
        return (self.x0, self.y0, self.x1, self.y1)

    def overlap(self, other: Box) -> float:
        """Area shared with another box, in square pixels.

        >>> Box(0, 0, 4, 4).overlap(Box(2, 1, 9, 9))
        6
        """
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0, width) * max(0, height)

    def clipped(self, width: int, height: int) -> Box | None:
        """The part inside a picture of that size, or None where nothing is left."""
        x0, y0, x1, y1 = max(self.x0, 0), max(self.y0, 0), min(self.x1, width), min(self.y1, height)
        return Box(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face found in a picture.

    Attributes:
        box: In pixels of the picture; it may reach over the border.
        landmarks: Shape (5, 2), dlib's order (image-right eye: outer, inner corner; image-left eye: outer,
            inner corner; nose base), or (68, 2), the iBUG 300-W order. In pixels of the picture, read-only.
        score: The detector's own confidence; comparable only within one detector.
        detector: Its name in `ageveil.detection.DETECTORS`.
        eye_disagreement: How far the landmarks' eyes lie from where the detector saw them, in distances
            between the eyes; 0 where the detector gives no such points. Large for profiles.

    Raises:
        ValueError: The landmarks are of another shape or not finite, or the eye disagreement is no number
            of 0 or more.
    """

    box: Box
    landmarks: NDArray[np.float64]
    score: float
    detector: str
    eye_disagreement: float = 0.0

    def __post_init__(self) -> None:
        landmarks = _frozen(np.asarray(self.landmarks, np.float64))
        if landmarks.shape not in {(5, 2), (68, 2)}:
            raise ValueError(f"landmarks have shape (5, 2) or (68, 2), got {landmarks.shape}")
        if not np.isfinite(landmarks).all():
            raise ValueError("landmarks are finite, got NaN or infinity")
        if not self.eye_disagreement >= 0:  # NaN would pass every limit
            raise ValueError(f"an eye disagreement is 0 or more, got {self.eye_disagreement}")
        object.__setattr__(self, "landmarks", landmarks)


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalCrop:
    """A face warped upright to a fixed size, with the eye centres at fixed places. Still a bare face.

    Attributes:
        pixels: Shape (S, S, 3), uint8, read-only.
        landmarks: The face's landmarks in pixels of the crop, shape (5, 2) or (68, 2).
        to_image: Shape (2, 3): maps (x, y, 1) of the crop to pixels of the picture.
        outside: Share of the crop's pixels that lie outside the picture (black), in [0, 1].

    Raises:
        ValueError: The crop is not square, or a shape is another one.
    """

    pixels: Image
    landmarks: NDArray[np.float64]
    to_image: NDArray[np.float64]
    outside: float

    def __post_init__(self) -> None:
        pixels = check_image(self.pixels)
        if pixels.shape[0] != pixels.shape[1]:
            raise ValueError(f"a canonical crop is square, got shape {pixels.shape}")
        if self.landmarks.shape not in {(5, 2), (68, 2)}:
            raise ValueError(f"landmarks have shape (5, 2) or (68, 2), got {self.landmarks.shape}")
        if self.to_image.shape != (2, 3):
            raise ValueError(f"a similarity has shape (2, 3), got {self.to_image.shape}")
        if not 0 <= self.outside <= 1:
            raise ValueError(f"the share outside lies in [0, 1], got {self.outside}")
        for name in ("pixels", "landmarks", "to_image"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    @property
    def size(self) -> int:
        """Side S in pixels."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done to a face, as versioned JSON. It proves form, not origin, and holds no seed, draw or key.

    Attributes:
        approach: Name in `ageveil.anonymization.APPROACHES`.
        parameters: Sizes in pixels of the crop (`cell`, `radius`, `sigma`), what else the approach states
            (the `pixels` and `epsilon` of noise, the `levels` and `filter` of a veil), or the cipher's `iv`
            in hex.
        region: What was processed, xyxy in whole pixels, half open; of the crop or of the picture.
        eye_region: Where the eyes are, xyxy in whole pixels of the crop; None for a region of a picture.
        size: (width, height) of what `region` refers to.
    """

    approach: str
    parameters: Mapping[str, int | float | str] = field(hash=False)
    region: tuple[int, int, int, int]
    eye_region: tuple[int, int, int, int] | None
    size: tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        for region in (self.region, self.eye_region):
            if region is not None:
                x0, y0, x1, y1 = region
                if not (0 <= x0 < x1 <= self.size[0] and 0 <= y0 < y1 <= self.size[1]):
                    raise ValueError(f"a region lies within {self.size} and has an area, got {region}")

    def to_json(self) -> dict[str, Any]:
        """The receipt as JSON values."""
        return {
            "version": RECEIPT_VERSION,
            "approach": self.approach,
            "parameters": dict(self.parameters),
            "region": list(self.region),
            "eye_region": None if self.eye_region is None else list(self.eye_region),
            "size": list(self.size),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:  # noqa: ANN401 - whatever a JSON file holds
        """Read a receipt.

        Raises:
            ValueError: Another version, or a field is missing or of another kind.
        """
        if not isinstance(data, dict) or data.get("version") != RECEIPT_VERSION:
            raise ValueError(f"expected a receipt of version {RECEIPT_VERSION}")
        try:
            approach, parameters, eyes = data["approach"], data["parameters"], data["eye_region"]
            region, (width, height) = _four(data["region"]), _whole(data["size"], 2)
        except KeyError as error:
            raise ValueError(f"a receipt has no field {error}") from error
        if not isinstance(approach, str) or not isinstance(parameters, dict):
            raise ValueError("the approach of a receipt is a text and its parameters are an object")
        if not all(type(value) in {int, float, str} for value in parameters.values()):
            raise ValueError("a receipt's parameters are numbers and texts")
        return cls(approach, parameters, region, None if eyes is None else _four(eyes), (width, height))

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # A read-only view of a dict cannot be pickled or copied as it is.
        values = (self.approach, dict(self.parameters), self.region, self.eye_region, self.size)
        return type(self), values


def _whole(values: Any, count: int) -> list[int]:  # noqa: ANN401 - whatever a JSON file holds
    if not isinstance(values, list) or len(values) != count or {type(value) for value in values} != {int}:
        raise ValueError(f"expected {count} whole numbers in a receipt, got another value")
    return values


def _four(values: Any) -> tuple[int, int, int, int]:  # noqa: ANN401 - whatever a JSON file holds
    x0, y0, x1, y1 = _whole(values, 4)
    return (x0, y0, x1, y1)


@dataclass(frozen=True, slots=True, eq=False)
class AnonymizedFace:
    """An anonymized canonical crop: all that an estimator ever gets.

    Attributes:
        pixels: Shape (S, S, 3), uint8, read-only.
        eye_mask: Shape (S, S), bool, read-only: True inside the eye region.
        receipt: What was done.
    """

    pixels: Image
    eye_mask: NDArray[np.bool_]
    receipt: Receipt

    def __post_init__(self) -> None:
        pixels = check_image(self.pixels)
        if self.eye_mask.shape != pixels.shape[:2] or self.eye_mask.dtype != np.bool_:
            raise ValueError(
                f"an eye mask is bool of shape {pixels.shape[:2]}, "
                f"got {self.eye_mask.dtype} of shape {self.eye_mask.shape}"
            )
        if self.receipt.size != (pixels.shape[1], pixels.shape[0]):
            raise ValueError(f"the receipt is for size {self.receipt.size}, the crop is {pixels.shape[:2]}")
        object.__setattr__(self, "pixels", _frozen(pixels))
        object.__setattr__(self, "eye_mask", _frozen(self.eye_mask))

    @property
    def approach(self) -> str:
        """Name of the approach."""
        return self.receipt.approach


@dataclass(frozen=True, slots=True, eq=False)
class AnonymizedPicture:
    """A whole picture in which every face found was anonymized and the leak check passed.

    Attributes:
        pixels: Shape (H, W, 3), uint8, read-only.
        receipts: One for each processed face or region, in the order of processing; regions in pixels of the
            picture.
        faces: How many faces were found. One within another is hidden as well but does not count: detectors
            find a large face in parts at times.
    """

    pixels: Image
    receipts: tuple[Receipt, ...]
    faces: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _frozen(check_image(self.pixels)))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of an estimator: it stands in every result.

    Attributes:
        name: Key in `ageveil.estimation.MODELS`.
        version: Of the weights.
        licence: SPDX expression of the weights.
        resolution: "year", or "group" for one that knows the eight groups only.
        sha256: Of the weight file.
        source: Where the weights come from.
        calibrated: Approaches for which its probabilities were calibrated.
    """

    name: str
    version: str
    licence: str
    resolution: Resolution
    sha256: str
    source: str
    calibrated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class AgeDistribution:
    """How probable each age is, for one face.

    Make it with `from_years` or `from_groups`. With resolution "group", ages between groups get nothing and
    a group with years on both sides of a threshold counts toward neither side.

    Attributes:
        years: Shape (101,), float64, read-only, sums to 1; None with resolution "group".
        groups: Shape (8,), the probabilities of `AGE_GROUPS`.
        approach: How the face was anonymized.
        model: The estimator.
    """

    years: NDArray[np.float64] | None
    groups: NDArray[np.float64]
    approach: str
    model: ModelInfo

    @classmethod
    def from_years(cls, years: NDArray[np.floating[Any]], *, approach: str, model: ModelInfo) -> Self:
        """Make a distribution from probabilities over the years 0..100.

        Args:
            years: Shape (101,), not negative, sum 1 within 1e-3 (then scaled to 1).
            approach: How the face was anonymized.
            model: The estimator.

        Raises:
            ValueError: The array is not such a distribution.
        """
        years = _distribution(years, MAX_AGE + 1)
        groups = np.array([years[low : high + 1].sum() for low, high in AGE_GROUPS])
        return cls(years, _frozen(groups), approach, model)

    @classmethod
    def from_groups(cls, groups: NDArray[np.floating[Any]], *, approach: str, model: ModelInfo) -> Self:
        """Make a distribution from probabilities of the eight groups, shape (8,), sum 1 within 1e-3.

        Raises:
            ValueError: The array is not such a distribution.
        """
        return cls(None, _distribution(groups, len(AGE_GROUPS)), approach, model)

    @property
    def group(self) -> int:
        """Index of the most probable group in `AGE_GROUPS`."""
        return int(self.groups.argmax())

    @property
    def between_groups(self) -> float:
        """Probability of the ages that lie in no group."""
        return max(0.0, 1.0 - float(self.groups.sum()))

    @property
    def expected(self) -> float:
        """Expected age in years; with resolution "group" that of the group centres, 60+ counting as 70."""
        if self.years is not None:
            return float(self.years @ np.arange(MAX_AGE + 1))
        centres = [(low + high) / 2 for low, high in AGE_GROUPS[:-1]] + [70.0]
        return float(self.groups @ np.array(centres))

    def at_least(self, age: int) -> float:
        """P(age >= `age`), counting only what certainly lies there.

        Raises:
            ValueError: `age` is negative.
        """
        if age < 0:
            raise ValueError(f"an age is 0 or more, got {age}")
        if self.years is not None:
            return min(1.0, float(self.years[age:].sum()))
        return min(
            1.0, sum(float(p) for p, (low, _) in zip(self.groups, AGE_GROUPS, strict=True) if low >= age)
        )

    def below(self, age: int) -> float:
        """P(age < `age`), counting only what certainly lies there.

        Raises:
            ValueError: `age` is negative.
        """
        if age < 0:
            raise ValueError(f"an age is 0 or more, got {age}")
        if self.years is not None:
            return min(1.0, float(self.years[:age].sum()))
        return min(
            1.0, sum(float(p) for p, (_, high) in zip(self.groups, AGE_GROUPS, strict=True) if high < age)
        )

    def interval(self, level: float = 0.9) -> tuple[int, int]:
        """Shortest run of years, both ends included, that holds at least `level` of the probability.

        Among equally short runs the more probable one counts, then the younger. With resolution "group" the
        run is of whole groups, as few as hold it.

        Raises:
            ValueError: `level` is not in (0, 1].
        """
        if not 0 < level <= 1:
            raise ValueError(f"a level lies in (0, 1], got {level}")
        weights = self.groups if self.years is None else self.years
        starts, ends = _shortest_run(weights, level)
        if self.years is None:
            return AGE_GROUPS[starts][0], AGE_GROUPS[ends][1]
        return starts, ends


def _distribution(values: NDArray[np.floating[Any]], length: int) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    if values.shape != (length,):
        raise ValueError(f"expected {length} probabilities, got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > 1e-3:
        raise ValueError(f"expected finite probabilities of 0 or more that sum to 1, got sum {values.sum()}")
    return _frozen(values / values.sum())


def _shortest_run(weights: NDArray[np.float64], level: float) -> tuple[int, int]:
    """First and last index of the shortest run whose weights sum to `level`; sums within 1e-12 are equal."""
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    for length in range(1, len(weights) + 1):
        mass = sums[length:] - sums[:-length]
        best = int((mass >= mass.max() - 1e-12).argmax())
        if mass[best] >= min(level, sums[-1]) - 1e-12:
            return best, best + length - 1
    raise AssertionError("the whole range holds everything")  # pragma: no cover - the last run is all


@dataclass(frozen=True, slots=True)
class Rating:
    """One mark of a classification board.

    Attributes:
        board: Its key, as "mpa".
        region: Where it applies.
        mark: As printed, "R", "18", "M".
        minimum_age: In years; None where the board sets none (undecided or refused).
        kind: "none", "advisory" (never denies), "voluntary" (denies by default, a policy may waive it),
            "legal", "accompanied" (an adult at the viewer's side settles it) or "refused" (denied to all).
        accompanied_minimum_age: Minimum age beside an adult, where there is such a rule.
        medium: What it rates.
        source: Where the rule stands.
    """

    board: str
    region: str
    mark: str
    minimum_age: int | None
    kind: RatingKind
    accompanied_minimum_age: int | None
    medium: str
    source: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How sure a decision must be.

    Attributes:
        confidence: Probability that an answer other than "step up" needs, in (0.5, 1).
        buffer: Whole years that are added to the minimum age before allowing, 0 or more. None: the buffer
            stored with the model, or 0 where none is; `ageveil.pipeline` looks it up.
        accompanied: An adult is at the viewer's side, as the caller knows from elsewhere.
        waive_voluntary: Treat voluntary ratings as advice.

    Raises:
        ValueError: A value lies outside its range.
    """

    confidence: float = 0.99
    buffer: int | None = None
    accompanied: bool = False
    waive_voluntary: bool = False

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"a confidence lies above 0.5 and below 1, got {self.confidence}")
        if self.buffer is not None and (type(self.buffer) is not int or self.buffer < 0):
            raise ValueError(f"a buffer is a whole number of years, 0 or more, got {self.buffer!r}")


@dataclass(frozen=True, slots=True)
class Decision:
    """May this viewer see a title of this rating: allow, deny, or step up (ask for other proof).

    Attributes:
        outcome: "allow", "deny" or "step_up".
        rating: What was asked for.
        policy: Under which policy; its buffer is the one that was applied.
        minimum_age: The age that was required, in years; None where none applies.
        probability_at_least: P(age >= minimum age + buffer); None where no face was read.
        probability_below: P(age < minimum age); None where no face was read.
        calibrated: The model's probabilities were calibrated for this approach.
        reason: One plain sentence.
        buffer_source: Where that buffer comes from: "hand" for one that the caller's policy named, "stored"
            for one that was measured, or "none" where neither is there or needed; then it is 0.
        buffer_statement: What a stored buffer promises, in a line; None with other ones.
    """

    outcome: Outcome
    rating: Rating
    policy: Policy = field(repr=False)
    minimum_age: int | None
    probability_at_least: float | None
    probability_below: float | None
    calibrated: bool
    reason: str
    buffer_source: BufferSource
    buffer_statement: str | None = None
