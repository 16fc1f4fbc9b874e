"""Data sets whose labels stand in a table beside the pictures: Adience, FairFace and a CSV of one's own.

A table that does not read as documented ends in a DataError with its name and line. Pictures are named by
paths within the data set's folder; a path that leads out of it is refused.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ageveil.errors import DataError
from ageveil.training.labels import OLDEST, Dataset, LabelledImage

NO_AGE = "no age label"
"""Why a picture of a data set is left out: the field of the age is empty, or `None` in Adience."""

ADIENCE_FOLDS = 5
ADIENCE_LAYOUTS: dict[str, str] = {"aligned": "landmark_aligned_face", "faces": "coarse_tilt_aligned_face"}
"""Folder of Adience's pictures -> how their names begin; the first folder that is there is read."""
ADIENCE_COLUMNS = ("user_id", "original_image", "face_id", "age", "gender")
ADIENCE_GENDERS = {"f": "female", "m": "male"}
ADIENCE_REPAIRS = {"(25, 23)": (25, 32)}
"""Labels that are no interval as they stand -> how the users of the data set read them."""

FAIRFACE_COLUMNS = ("file", "age", "gender", "race")
FAIRFACE_AGES: dict[str, tuple[int, int]] = {
    "0-2": (0, 2), "3-9": (3, 9), "03-Sep": (3, 9), "10-19": (10, 19), "Oct-19": (10, 19), "20-29": (20, 29),
    "30-39": (30, 39), "40-49": (40, 49), "50-59": (50, 59), "60-69": (60, 69), "more than 70": (70, OLDEST),
}  # fmt: skip
"""FairFace's age labels, among them what a spreadsheet made of two of them (3 September, October 2019)."""

_FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}
_ADIENCE_AGES = re.compile(r"\(([0-9]{1,3}), ([0-9]{1,3})\)|([0-9]{1,3})")
_NUMBER = re.compile(r"[0-9]{1,3}")

Row = tuple[str, dict[str, str]]
"""Where a row stands, for messages, and its fields by column."""


def read_adience(folder: Path) -> Dataset:
    """Read Adience in the layout in which its authors give it out.

    The folder holds `fold_0_data.txt` to `fold_4_data.txt` and the pictures:
    `aligned/USER/landmark_aligned_face.FACE.IMAGE` where there is a folder `aligned`, otherwise
    `faces/USER/coarse_tilt_aligned_face.FACE.IMAGE`. Both are cropped by other rules than the canonical
    crop's, so neither counts as aligned here.

    `(25, 23)` is read as 25 to 32; every other label is kept as the interval or the age that it states.
    Gender `u` (unknown) is None. The identity is the user, whose album may show several people.

    Args:
        folder: Holds the five tables.

    Returns:
        Records in the order of the tables; `left_out` counts pictures without an age.

    Raises:
        DataError: A table is missing, empty or does not read as documented, an age is no age or interval
            within 0..116, there is no folder of pictures, a user stands in two folds, or no picture has an
            age.

    Source:
        Eidinger, Enbar and Hassner 2014, "Age and Gender Estimation of Unfiltered Faces".
    """
    pictures = next((name for name in ADIENCE_LAYOUTS if (folder / name).is_dir()), None)
    tables = [folder / f"fold_{fold}_data.txt" for fold in range(ADIENCE_FOLDS)]
    missing = [table.name for table in tables if not table.is_file()]
    if missing:
        raise DataError(f"Adience needs its five fold files; not in {str(folder)!r}: {', '.join(missing)}")
    if pictures is None:
        raise DataError(
            f"expected Adience's pictures in 'aligned' or 'faces' in {str(folder)!r}, found neither"
        )
    images: list[LabelledImage] = []
    rows = 0
    for fold, table in enumerate(tables):
        before = rows
        for where, row in _rows(table, ADIENCE_COLUMNS, delimiter="\t"):
            rows += 1
            ages = _adience_ages(where, row["age"])
            if ages is not None:
                name = (
                    f"{row['user_id']}/{ADIENCE_LAYOUTS[pictures]}.{row['face_id']}.{row['original_image']}"
                )
                images.append(
                    LabelledImage(
                        _within(where, folder / pictures, name),
                        *ages,
                        identity=row["user_id"],
                        gender=ADIENCE_GENDERS.get(row["gender"]),
                        fold=fold,
                    )
                )
        if rows == before:
            raise DataError(f"{str(table)!r} has no row: a fold is missing")
    return _dataset("adience", folder, images, rows)


def read_fairface(folder: Path) -> Dataset:
    """Read one part of FairFace in the layout in which its authors ship it.

    The part is named by its folder of pictures, as `fairface:DIR/val`; the labels stand beside it, in
    `DIR/fairface_label_val.csv`, and name pictures as `val/1.jpg`. Both paddings ship alike; neither has the
    canonical framing.

    Args:
        folder: Folder of the part's pictures.

    Returns:
        Records in the order of the table, each with an interval of ages.

    Raises:
        DataError: There is no such folder or table, the table does not read as documented, or it names a
            picture of another part.

    Source:
        Kärkkäinen and Joo 2021, "FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age".
    """
    whole = Path(os.path.abspath(folder))  # "." and ".." have no name of their own
    part = whole.name
    table = whole.parent / f"fairface_label_{part}.csv"
    if not table.is_file() or not whole.is_dir():
        raise DataError(
            f"expected a part of FairFace, as DIR/val with DIR/fairface_label_val.csv, got {str(folder)!r}"
        )
    images = []
    for where, row in _rows(table, FAIRFACE_COLUMNS):
        directory, _, name = row["file"].partition("/")
        if directory != part:
            raise DataError(f"{where}: expected a picture as {part}/1.jpg, got {row['file']!r}")
        if row["age"] not in FAIRFACE_AGES:
            raise DataError(f"{where}: expected an age of {', '.join(FAIRFACE_AGES)}, got {row['age']!r}")
        images.append(
            LabelledImage(
                _within(where, folder, name),
                *FAIRFACE_AGES[row["age"]],
                gender=row["gender"].lower() or None,
                race=row["race"] or None,
            )
        )
    return _dataset("fairface", table, images, len(images))


def read_csv(table: Path) -> Dataset:
    """Read a table of one's own: UTF-8, separated by commas, the names of the columns in the first line.

    Columns, in any order; others are not read:

    - `file`: the picture, as a path within the folder of the table;
    - `age`: whole years within 0..116; or `age_low` and `age_high`, both included. Empty: left out;
    - `identity`, `gender`, `race` (optional): any words; empty where unknown. Splits keep the pictures of
      one identity together, so give it where there are several pictures of a person;
    - `fold` (optional): a part of one's own cross-validation, 0 or more; empty for none;
    - `aligned` (optional): 1 or true where the picture is cropped as UTKFace's aligned faces are.

    Args:
        table: The file.

    Returns:
        Records in the order of the table; `left_out` counts pictures without an age.

    Raises:
        DataError: The table is missing or does not read as documented, a path leads out of its folder or
            stands twice with unlike ages, a picture or an identity stands in two folds, or no picture has an
            age.
    """
    images: list[LabelledImage] = []
    rows = 0
    labels: dict[Path, tuple[int, int]] = {}
    folds: dict[str, int] = {}
    for where, row in _rows(table, ("file",)):
        rows += 1
        texts = _age_fields(where, row)
        if not any(texts):
            continue
        aligned = row.get("aligned", "").lower()
        if aligned not in _FLAGS:
            raise DataError(f"{where}: expected aligned as 0, 1, true or false, got {row['aligned']!r}")
        low, high = (_number(where, "an age", text) for text in texts)
        _check_ages(where, low, high)
        path = _within(where, table.parent, row["file"])
        if labels.setdefault(path, (low, high)) != (low, high):
            raise DataError(f"{where}: {row['file']!r} stood above with another age")
        fold = _number(where, "a fold", row["fold"]) if row.get("fold") else None
        # Without an identity nothing else tells that a fold would test what another one trained; by its real
        # path, since a link has a name of its own.
        if fold is not None and (first := folds.setdefault(os.path.realpath(path), fold)) != fold:
            raise DataError(f"{where}: the picture {row['file']!r} stands in two folds, {first} and {fold}")
        images.append(
            LabelledImage(
                path,
                low,
                high,
                identity=row.get("identity") or None,
                gender=row.get("gender") or None,
                race=row.get("race") or None,
                aligned=_FLAGS[aligned],
                fold=fold,
            )
        )
    return _dataset("csv", table, images, rows)


def _dataset(name: str, source: Path, images: Sequence[LabelledImage], rows: int) -> Dataset:
    """The data set of a table's records, once it is known that there are some and that folds share nobody."""
    if not images:
        raise DataError(f"expected pictures with an age in {str(source)!r}, found none")
    folds: dict[str, int] = {}
    for image in images:
        if image.identity is not None and image.fold is not None:
            first = folds.setdefault(image.identity, image.fold)
            if first != image.fold:
                raise DataError(
                    f"{str(source)!r}: the folds share an identity: {image.identity!r} stands in {first} "
                    f"and {image.fold}"
                )
    left_out = rows - len(images)
    return Dataset(name, tuple(images), {NO_AGE: left_out} if left_out else {})


def _rows(table: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[Row]:
    """The rows of a table that has these columns, and maybe others.

    Raises:
        DataError: The table cannot be read, lacks a column, or a row has another number of fields.
    """
    # Adience's tables know no quotes: a quote in a name is a letter.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, quoting=quoting, strict=True)
            names = list(reader.fieldnames or ())
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(f"{str(table)!r} has columns twice: {', '.join(map(repr, twice))}")
            lacking = [column for column in columns if column not in names]
            if lacking:
                raise DataError(f"{str(table)!r} lacks the columns {', '.join(lacking)}")
            for row in reader:
                where = f"{str(table)!r}, line {reader.line_num}"
                # DictReader marks fields too many by the key None and fields too few by the value None.
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: expected {len(reader.fieldnames or ())} fields, got another number"
                    )
                yield where, {key: value.strip() for key, value in row.items()}
    except OSError as error:
        raise DataError(f"cannot read the table {str(table)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the table {str(table)!r} is not UTF-8 text") from error
    except csv.Error as error:
        raise DataError(f"the table {str(table)!r} is damaged: {error}") from error


def _within(where: str, folder: Path, name: str) -> Path:
    """The path of a picture that a table names.

    Raises:
        DataError: It leads out of the folder, or is no path at all.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise DataError(f"{where}: expected the path of a picture within the data set, got {name!r}")
    return folder / name


def _adience_ages(where: str, text: str) -> tuple[int, int] | None:
    """The interval that one of Adience's labels states; None for none."""
    if text in {"", "None"}:
        return None
    if text in ADIENCE_REPAIRS:
        return ADIENCE_REPAIRS[text]
    match = _ADIENCE_AGES.fullmatch(text)
    if match is None:
        raise DataError(f"{where}: expected an age as 35, (25, 32) or None, got {text!r}")
    low, high = int(match[1] or match[3]), int(match[2] or match[3])
    _check_ages(where, low, high)
    return low, high


def _age_fields(where: str, row: dict[str, str]) -> tuple[str, str]:
    """The texts of the lower and the higher age of a row: both filled or both empty."""
    single, pair = "age" in row, "age_low" in row and "age_high" in row
    if single == pair:
        raise DataError(f"{where}: expected a column age, or age_low and age_high")
    texts = (row["age"], row["age"]) if single else (row["age_low"], row["age_high"])
    if bool(texts[0]) != bool(texts[1]):
        raise DataError(f"{where}: expected age_low and age_high both, or neither")
    return texts


def _number(where: str, what: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):  # ASCII digits only: `int` alone would also take "1_0", "+5" and "٣"
        raise DataError(f"{where}: expected {what} as a whole number, got {text!r}")
    return int(text)


def _check_ages(where: str, low: int, high: int) -> None:
    if not low <= high <= OLDEST:
        raise DataError(f"{where}: expected ages from low to high within 0..{OLDEST}, got {low} to {high}")
