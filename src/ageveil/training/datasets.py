"""Read labelled faces from data sets in the layout in which their authors ship them.

Only names and labels are read here; no picture is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ageveil.errors import DataError
from ageveil.types import age_group

OLDEST = 116
"""The oldest age that a label may state, in years: that of the oldest face in UTKFace."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
"""How the name of a picture ends, in lower case; case does not count."""

UTKFACE_GENDERS = {"0": "male", "1": "female"}
UTKFACE_RACES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"}

# ASCII digits only: `int` alone would also take "1_0", "+5" and digits of other scripts.
_AGE = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture of one face and what its data set says of the person.

    Attributes:
        path: The picture; it is not checked that it can be read.
        age_low: Youngest age that the label allows, in whole years.
        age_high: Oldest age that the label allows, included; equal to `age_low` where the age is exact.
        identity: Who it is, in the data set's own words; None where it does not tell.
        gender: In the data set's own words; None where it does not tell or the label is damaged.
        race: As `gender`.
        aligned: The picture is an aligned crop with the canonical framing, as UTKFace's are.

    Raises:
        ValueError: Not 0 <= `age_low` <= `age_high` <= `OLDEST`.
    """

    path: Path
    age_low: int
    age_high: int
    identity: str | None = None
    gender: str | None = None
    race: str | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.age_low <= self.age_high <= OLDEST:
            raise ValueError(
                f"ages run from a lower to a higher one within 0..{OLDEST}, "
                f"got {self.age_low} to {self.age_high}"
            )

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


Reader = Callable[[Path], tuple[LabelledImage, ...]]
"""Reads the data set in a folder."""


def read_utkface(folder: Path) -> tuple[LabelledImage, ...]:
    """Read UTKFace: one folder of pictures whose names are their labels.

    Names are `age_gender_race_time.jpg.chip.jpg` (aligned and cropped) or `age_gender_race_time.jpg` (as
    taken). A few names of the release lack the gender or the race; since nothing tells which, both are
    None. A code that UTKFace does not define, or an empty one, is None as well. The time is not read.

    Left aside on purpose: folders and what lies in them, hidden files (names that begin with a dot, such as
    the `._` companions that macOS writes), and files that do not end in one of `IMAGE_SUFFIXES`. Every other
    file must carry a label, so that a folder of something else is not read as a smaller UTKFace.

    Args:
        folder: Holds the pictures directly.

    Returns:
        One record for each picture, in the order of the names' code points; `age` is always exact.

    Raises:
        DataError: The folder is missing, cannot be listed or holds no picture, or a picture's name has not
            three or four fields or begins with no age within 0..116.

    Source:
        Zhang, Song and Qi 2017, "Age Progression/Regression by Conditional Adversarial Autoencoder".
    """
    return tuple(_utkface_image(folder / name) for name in _picture_names(folder))


def read_dataset(spec: str) -> tuple[LabelledImage, ...]:
    """Read the data set that a text such as "utkface:faces/test" names.

    Args:
        spec: A key of `DATASETS`, a colon, and the folder (which may hold colons of its own).

    Returns:
        One record for each picture, in the order that its reader documents; at least one.

    Raises:
        ValueError: There is no colon or no folder after it, or the name is not in `DATASETS`.
        DataError: The folder does not read as that data set.
    """
    name, _, folder = spec.partition(":")
    if not folder:
        raise ValueError(f"expected a data set as NAME:DIR, as in utkface:faces, got {spec!r}")
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose one of: {', '.join(sorted(DATASETS))}")
    return DATASETS[name](Path(folder))


def _picture_names(folder: Path) -> list[str]:
    """Sorted names of the pictures that lie directly in a folder; at least one.

    A link that leads nowhere counts: reading it fails later, where leaving it out would go unnoticed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_picture_name(entry.name) and not entry.is_dir()]
    except OSError as error:
        # repr, since a name that is no valid text could otherwise not be printed.
        raise DataError(f"cannot list the data set folder {str(folder)!r}: {error.strerror}") from error
    if not names:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"expected pictures ({endings}) in the data set folder {str(folder)!r}, found none")
    return sorted(names)


def _is_picture_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _utkface_image(path: Path) -> LabelledImage:
    fields = path.name.split("_")
    if len(fields) not in {3, 4} or not _AGE.fullmatch(fields[0]) or int(fields[0]) > OLDEST:
        raise DataError(
            f"expected a name as age_gender_race_time.jpg with an age within 0..{OLDEST}, got {str(path)!r}"
        )
    age, aligned = int(fields[0]), path.name.endswith(".chip.jpg")
    if len(fields) == 3:
        return LabelledImage(path, age, age, aligned=aligned)
    gender, race = UTKFACE_GENDERS.get(fields[1]), UTKFACE_RACES.get(fields[2])
    return LabelledImage(path, age, age, gender=gender, race=race, aligned=aligned)


DATASETS: dict[str, Reader] = {
    "utkface": read_utkface,
}
"""Name of a data set -> what reads its folder."""
