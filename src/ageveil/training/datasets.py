"""Read labelled faces from data sets in the layout in which their authors ship them.

Only names and labels are read here; no picture is opened. Data sets whose labels stand in a table are read in
`ageveil.training.tables`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from ageveil.errors import DataError
from ageveil.training.labels import OLDEST, Dataset, LabelledImage
from ageveil.training.tables import read_adience, read_csv, read_fairface

__all__ = [
    "DATASETS",
    "IMAGE_SUFFIXES",
    "OLDEST",
    "UTKFACE_GENDERS",
    "UTKFACE_RACES",
    "Dataset",
    "LabelledImage",
    "Reader",
    "read_dataset",
    "read_folder",
    "read_lfw",
    "read_utkface",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
"""How the name of a picture ends, in lower case; case does not count."""

UTKFACE_GENDERS = {"0": "male", "1": "female"}
UTKFACE_RACES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"}

# ASCII digits only: `int` alone would also take "1_0", "+5" and digits of other scripts.
_AGE = re.compile(r"[0-9]{1,3}")
_FOLDER_AGES = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3})|(\+))?")


Reader = Callable[[Path], Dataset]
"""Reads the data set at a path: a folder, or the file of a table."""


def read_utkface(folder: Path) -> Dataset:
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
    return Dataset("utkface", tuple(_utkface_image(folder / name) for name in _picture_names(folder)))


def read_folder(folder: Path) -> Dataset:
    """Read a folder of one's own: one folder of pictures for each age, as `25`, `15-20` or `60+`.

    Two numbers are an interval, both ends included; `60+` is 60 to 116. Left aside: hidden files and folders,
    files that do not end in one of `IMAGE_SUFFIXES`, and folders within those of the ages. A picture that
    lies beside the folders is an error, since it has no age. Give identities by a table (`read_csv`).

    Args:
        folder: Holds the folders.

    Returns:
        Records in the order of the ages and, within, of the names' code points.

    Raises:
        DataError: The folder is missing, cannot be listed or holds no folder of an age with a picture, a
            folder's name is no age, or a picture lies beside the folders.
    """
    ages: list[tuple[int, int, Path]] = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if _is_folder(entry):
            ages.append((*_folder_ages(path), path))
        elif _is_picture_name(entry.name):
            raise DataError(
                f"expected every picture in the folder of its age, as 25/a.jpg, got {str(path)!r}"
            )
    images = [
        LabelledImage(path / name, low, high)
        for low, high, path in sorted(ages)
        for name in sorted(entry.name for entry in _entries(path) if _is_picture(entry))
    ]
    if not images:
        raise DataError(f"expected folders of pictures, named by age, in {str(folder)!r}, found none")
    return Dataset("folder", tuple(images))


def read_lfw(folder: Path) -> Dataset:
    """Read a folder of people in the layout of Labeled Faces in the Wild: one folder of pictures for each.

    The pictures state no age, so each record allows every age; they serve the audit. Left aside: hidden files
    and folders, files that do not end in one of `IMAGE_SUFFIXES`, and folders without a picture.

    Args:
        folder: Holds the folders, each named as its person.

    Returns:
        Records in the order of the names of people and, within, of pictures.

    Raises:
        DataError: The folder is missing, cannot be listed or holds no folder with a picture, or a picture
            lies beside the folders.

    Source:
        Huang et al. 2007, "Labeled Faces in the Wild".
    """
    images: list[LabelledImage] = []
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if not _is_folder(entry) and _is_picture_name(entry.name):
            raise DataError(
                f"expected every picture in the folder of its person, got {str(folder / entry.name)!r}"
            )
        if _is_folder(entry):
            path = folder / entry.name
            names = sorted(picture.name for picture in _entries(path) if _is_picture(picture))
            images += [LabelledImage(path / name, 0, OLDEST, identity=entry.name) for name in names]
    if not images:
        raise DataError(
            f"expected a folder of pictures for each person in {str(folder)!r}, found none with a picture"
        )
    return Dataset("lfw", tuple(images))


def read_dataset(spec: str) -> Dataset:
    """Read the data set that a text such as "utkface:faces/test" names.

    Args:
        spec: A key of `DATASETS`, a colon, and a path (which may hold colons of its own): of a folder, for
            "fairface" that of one part's pictures (as "fairface:DIR/val"), for "csv" that of the table.

    Returns:
        The data set, in the order that its reader documents; with at least one picture.

    Raises:
        ValueError: There is no colon or no path after it, or the name is not in `DATASETS`.
        DataError: The path does not read as that data set.
    """
    name, _, path = spec.partition(":")
    if not path:
        raise ValueError(f"expected a data set as NAME:DIR, as in utkface:faces, got {spec!r}")
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose one of: {', '.join(sorted(DATASETS))}")
    return DATASETS[name](Path(path))


def _picture_names(folder: Path) -> list[str]:
    """Sorted names of the pictures that lie directly in a folder; at least one.

    A link that leads nowhere counts: reading it fails later, where leaving it out would go unnoticed.
    """
    names = [entry.name for entry in _entries(folder) if _is_picture(entry)]
    if not names:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"expected pictures ({endings}) in the data set folder {str(folder)!r}, found none")
    return sorted(names)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        # repr, since a name that is no valid text could otherwise not be printed.
        raise DataError(f"cannot list the data set folder {str(folder)!r}: {error.strerror}") from error


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return _is_picture_name(entry.name) and not _is_folder(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder lies there, or a link to one; a link that leads nowhere is none, as one in a circle.

    Raises:
        DataError: Nothing can be told of it.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        # Python itself answers only where there is no file.
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            return False
        raise DataError(f"cannot look at {entry.path!r} in the data set: {error.strerror}") from error


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


def _folder_ages(path: Path) -> tuple[int, int]:
    """The ages that the name of a folder states."""
    match = _FOLDER_AGES.fullmatch(path.name)
    if match is not None:
        low = int(match[1])
        high = OLDEST if match[3] else int(match[2] or match[1])
        if low <= high <= OLDEST:
            return low, high
    raise DataError(
        f"expected a folder named by ages within 0..{OLDEST}, as 25, 15-20 or 60+, got {str(path)!r}"
    )


DATASETS: dict[str, Reader] = {
    "adience": read_adience,
    "csv": read_csv,
    "fairface": read_fairface,
    "folder": read_folder,
    "lfw": read_lfw,
    "utkface": read_utkface,
}
"""Name of a data set -> what reads it."""
