"""The record of a labelled picture, and of a data set of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ageveil.types import age_group

OLDEST = 116
"""The oldest age that a label may state, in years: that of the oldest face in UTKFace."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture of one face and what its data set says of the person.

    Attributes:
        path: The picture; it is not checked that it can be read.
        age_low: Youngest age that the label allows, in whole years.
        age_high: Oldest age that the label allows, included; equal to `age_low` where the age is exact.
        identity: Who it is, in the data set's own words; None where it does not tell.
        gender: "female" or "male", or a word of a data set of one's own; None where the data set does not
            tell or the label is damaged.
        race: In the data set's own words; None as for `gender`.
        aligned: The picture is an aligned crop with the canonical framing, as UTKFace's are.
        fold: Part of the data set's own cross-validation, 0 or more; None where it has none.

    Raises:
        ValueError: Not 0 <= `age_low` <= `age_high` <= `OLDEST`, or `fold` is negative.
    """

    path: Path
    age_low: int
    age_high: int
    identity: str | None = None
    gender: str | None = None
    race: str | None = None
    aligned: bool = False
    fold: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.age_low <= self.age_high <= OLDEST:
            raise ValueError(
                f"ages run from a lower to a higher one within 0..{OLDEST}, "
                f"got {self.age_low} to {self.age_high}"
            )
        if self.fold is not None and self.fold < 0:
            raise ValueError(f"a fold is 0 or more, got {self.fold}")

    @property
    def age(self) -> int | None:
        """The exact age in years, or None where the label is an interval."""
        return self.age_low if self.age_low == self.age_high else None

    @property
    def age_group(self) -> int | None:
        """Index in `AGE_GROUPS` of the group that holds the whole label, or None where none does.

        >>> LabelledImage(Path("a.jpg"), 8, 12).age_group, LabelledImage(Path("b.jpg"), 3, 9).age_group
        (2, None)
        """
        # A group has no gaps, so one that holds both ends holds all between them.
        low = age_group(self.age_low)
        return low if low == age_group(self.age_high) else None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled pictures as one reader gives them.

    Attributes:
        name: Key in `ageveil.training.datasets.DATASETS`.
        images: One record for each picture whose label states an age or an interval; at least one.
        left_out: Number of pictures whose label states neither, by reason.

    Raises:
        ValueError: There is no picture.
    """

    name: str
    images: tuple[LabelledImage, ...]
    left_out: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("a data set holds at least one picture")
