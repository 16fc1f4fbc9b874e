"""Rating boards: what each of their marks asks of a viewer, read from the TOML files in `boards_data`.

One file describes one board: `schema`, `version`, `key`, `name`, `region`, `medium`, `standing` (its legal
standing in a sentence), `reviewed` (when its facts were last checked), and one `[[ratings]]` for each mark:

    field                     what it holds
    mark                      as the board prints it
    kind                      one of `ageveil.types.RatingKind`
    source                    where the rule stands
    minimum_age               in years, 0..25; left out where the board names none
    accompanied_minimum_age   in years, beside an adult; with kind "accompanied" and no other
    alternative_minimum_age   in years, where sources disagree; used only when asked for
    medium                    where it differs from the board's
    aliases                   other names of the mark

A mark that needs no age is of kind "none" and has the minimum age 0, and every mark of age 0 is of that
kind. Files are checked on load; nothing is read when this module is imported.
"""

from __future__ import annotations

import datetime
import functools
import importlib.resources
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, cast, get_args

from ageveil.errors import DataError
from ageveil.types import Rating, RatingKind

SCHEMA = 1
"""Version of the file format that `parse_board` reads."""

BOARD_KEYS = (
    "mpa", "esrb", "tv", "pegi", "bbfc", "fsk", "usk", "cero", "grac", "acb", "classind", "iarc",
)  # fmt: skip
"""The boards that come with the package, in the order in which they are listed."""

MAX_MINIMUM_AGE = 25
"""No board asks for more years; a larger number in a file is a slip of the pen."""

_BOARD_FIELDS: Mapping[str, type] = {
    "schema": int, "version": int, "key": str, "name": str, "region": str, "medium": str, "standing": str,
    "reviewed": datetime.date, "ratings": list,
}  # fmt: skip
_RATING_FIELDS: Mapping[str, type] = {"mark": str, "kind": str, "source": str}
_AGE_FIELDS = ("minimum_age", "accompanied_minimum_age", "alternative_minimum_age")
_OPTIONAL_FIELDS: Mapping[str, type] = {**dict.fromkeys(_AGE_FIELDS, int), "medium": str, "aliases": list}
_TYPE_NAMES: Mapping[type, str] = {
    str: "text", int: "a whole number", list: "a list", datetime.date: "a date", dict: "a table",
}  # fmt: skip
_KINDS: tuple[str, ...] = get_args(RatingKind)


@dataclass(frozen=True, slots=True)
class Board:
    """A classification board and its marks.

    Attributes:
        key: Short name, as "mpa".
        name: Full name.
        region: Where its marks apply.
        medium: What it rates; a rating may narrow it.
        standing: Its legal standing, in a sentence.
        version: Of the board's data, 1 or more; it grows when a mark changes.
        reviewed: When the data was last checked against the sources.
        ratings: One for each mark, in the board's order.
        alternatives: Other readings of some of the marks, where sources disagree about the age.
        aliases: Pairs of another name and the mark it stands for.
    """

    key: str
    name: str
    region: str
    medium: str
    standing: str
    version: int
    reviewed: datetime.date
    ratings: tuple[Rating, ...]
    alternatives: tuple[Rating, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def rating(self, mark: str | int, *, minimum_age: int | None = None) -> Rating:
        """Find a mark; see `get_rating`.

        Raises:
            ValueError: The board has no such mark, or not with that minimum age.
        """
        wanted = _plain(str(mark), self.key)
        names = {_plain(rating.mark, self.key): rating.mark for rating in self.ratings}
        names |= {_plain(alias, self.key): name for alias, name in self.aliases}
        if wanted not in names:
            marks = ", ".join(rating.mark for rating in self.ratings)
            raise ValueError(f"{self.key} has no mark {str(mark)!r}; choose one of {marks}")
        readings = [one for one in (*self.ratings, *self.alternatives) if one.mark == names[wanted]]
        if minimum_age is None:
            return readings[0]  # the board's own reading stands before the alternatives
        for reading in readings:
            if reading.minimum_age == minimum_age:
                return reading
        ages = " or ".join("no age" if one.minimum_age is None else str(one.minimum_age) for one in readings)
        raise ValueError(f"{self.key} {readings[0].mark} asks for {ages}, not for {minimum_age!r}")


def get_rating(board: str, mark: str | int, *, minimum_age: int | None = None) -> Rating:
    """Find one mark of one board.

    Case, spaces and signs do not matter, and the board's key may stand before the mark: "PG-13", "pg13" and
    "MPA PG-13" are the same, and so are "16", "16+", "PEGI 16" and 16.

    >>> get_rating("mpa", "r").minimum_age, get_rating("pegi", 16).mark, get_rating("ACB", "ma 15+").mark
    (17, '16', 'MA15+')
    >>> get_rating("grac", "adult").minimum_age, get_rating("grac", "adult", minimum_age=18).minimum_age
    (19, 18)

    Args:
        board: A key of `load_boards`.
        mark: The mark, or one of its aliases.
        minimum_age: Choose the reading with this minimum age, in years, where sources disagree (GRAC Adult:
            19, or 18). It cannot set an age that no source gives. None takes the board's own.

    Raises:
        ValueError: There is no such board or mark, or the mark has no such reading.
        DataError: A board file is missing or damaged.
    """
    return get_board(board).rating(mark, minimum_age=minimum_age)


def equivalents(rating: Rating, board: str) -> tuple[Rating, ...]:
    """The marks of another board that ask for as much as `rating` does: "what is MPA R in PEGI terms?".

    Rule: of the board's marks with a minimum age not below that of `rating`, those with the smallest one,
    in the board's order. An empty tuple means that no mark there is as strict; a weaker mark never fills
    in. Only minimum ages without an adult are compared, in the board's own reading, never kinds: a mark
    that comes back keeps its kind, and one that only advises (MPA PG-13) still bars nobody.

    >>> [one.mark for one in equivalents(get_rating("mpa", "R"), "pegi")]
    ['18']
    >>> equivalents(get_rating("mpa", "NC-17"), "tv")
    ()

    Raises:
        ValueError: `rating` has no minimum age (undecided, refused, or advice without an age), or there is
            no such board.
        DataError: A board file is missing or damaged.
    """
    if rating.minimum_age is None:
        raise ValueError(f"{rating.board} {rating.mark} has no minimum age that could be compared")
    target = get_board(board)
    aged = [(one.minimum_age, one) for one in target.ratings if one.minimum_age is not None]
    strict_enough = [(age, one) for age, one in aged if age >= rating.minimum_age]
    smallest = min((age for age, _ in strict_enough), default=None)
    return tuple(one for age, one in strict_enough if age == smallest)


@functools.cache
def load_boards() -> Mapping[str, Board]:
    """All boards of the package by key, read and checked on the first call.

    >>> [rating.mark for rating in load_boards()["mpa"].ratings]
    ['G', 'PG', 'PG-13', 'R', 'NC-17']

    Raises:
        DataError: A board file is missing or damaged.
    """
    return read_boards(importlib.resources.files("ageveil") / "boards_data")


def read_boards(folder: Traversable) -> Mapping[str, Board]:
    """Read `<key>.toml` for each of `BOARD_KEYS` from a folder (a `pathlib.Path` will do); read-only.

    Raises:
        DataError: A file is missing, cannot be read, is not UTF-8, or is damaged.
    """
    return MappingProxyType({key: _read_board(folder, f"{key}.toml") for key in BOARD_KEYS})


def parse_board(text: str, name: str) -> Board:
    """Read one board from the text of its file.

    Args:
        text: TOML, as the head of this module describes it.
        name: Of the file, `<key>.toml`; errors begin with it.

    Raises:
        DataError: The text is not TOML, a field is unknown, missing, empty or of another type, the schema
            is another one, the key is not that of the file's name, or the facts of a mark contradict each
            other; the message names the file and the field.
    """
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number with too many digits
        raise DataError(f"{name}: expected TOML: {error}") from error
    where = f"{name}: "
    _check_fields(data, _BOARD_FIELDS, {}, where)
    if data["schema"] != SCHEMA:
        raise DataError(f"{where}schema: expected {SCHEMA}, got {data['schema']}")
    if data["version"] < 1:
        raise DataError(f"{where}version: expected 1 or more, got {data['version']}")
    if f"{data['key']}.toml" != name:
        raise DataError(f"{where}key: expected the name of the file, got {data['key']!r}")
    entries = data["ratings"]
    if not entries:
        raise DataError(f"{where}ratings: expected one mark or more, got none")
    for index, entry in enumerate(entries):
        _check_rating(entry, f"{where}ratings[{index}]")
    _check_names_differ(entries, data["key"], where)
    return Board(
        key=data["key"],
        name=data["name"],
        region=data["region"],
        medium=data["medium"],
        standing=data["standing"],
        version=data["version"],
        reviewed=data["reviewed"],
        ratings=tuple(_make_rating(data, entry, entry.get("minimum_age")) for entry in entries),
        alternatives=tuple(
            _make_rating(data, entry, entry["alternative_minimum_age"])
            for entry in entries
            if "alternative_minimum_age" in entry
        ),
        aliases=tuple((alias, entry["mark"]) for entry in entries for alias in entry.get("aliases", ())),
    )


def _read_board(folder: Traversable, name: str) -> Board:
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: expected UTF-8: {error.reason} at byte {error.start}") from error
    return parse_board(text, name)


def get_board(board: str) -> Board:
    """The board of that key, in any case and spacing.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    boards = load_boards()
    key = _plain(board)
    if key not in boards:
        raise ValueError(f"there is no board {board!r}; choose one of {', '.join(boards)}")
    return boards[key]


def _plain(text: str, key: str = "") -> str:
    """Letters and digits in lower case, without the board's key before them: "PEGI 16+" becomes "16"."""
    plain = "".join(character for character in text.casefold() if character.isalnum())
    while key and plain.startswith(key) and plain != key:  # twice in "TV TV-14"
        plain = plain.removeprefix(key)
    return plain


def _make_rating(board: Mapping[str, Any], entry: Mapping[str, Any], minimum_age: int | None) -> Rating:
    return Rating(
        board=board["key"],
        region=board["region"],
        mark=entry["mark"],
        minimum_age=minimum_age,
        kind=cast(RatingKind, entry["kind"]),
        accompanied_minimum_age=entry.get("accompanied_minimum_age"),
        medium=entry.get("medium", board["medium"]),
        source=entry["source"],
    )


def _check_fields(
    entry: Mapping[str, Any], required: Mapping[str, type], optional: Mapping[str, type], where: str
) -> None:
    """Check that the fields are the known ones, each of its type and, where it is text, not empty."""
    known = {**required, **optional}
    for field in required:
        if field not in entry:
            raise DataError(f"{where}{field}: missing")
    for field, value in entry.items():
        if field not in known:
            raise DataError(f"{where}{field!r}: unknown; known are {', '.join(known)}")
        _check_value(value, known[field], f"{where}{field}")


def _check_value(value: object, expected: type, where: str) -> None:
    # The very type: a bool is an int to isinstance, and a time of day a date.
    if type(value) is not expected:
        raise DataError(f"{where}: expected {_TYPE_NAMES[expected]}, got {value!r}")
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where}: expected text, got nothing")


def _check_rating(entry: object, where: str) -> None:
    _check_value(entry, dict, where)
    mark = cast(dict[str, Any], entry)
    _check_fields(mark, _RATING_FIELDS, _OPTIONAL_FIELDS, f"{where}.")
    for index, alias in enumerate(mark.get("aliases", ())):
        _check_value(alias, str, f"{where}.aliases[{index}]")
    if mark["kind"] not in _KINDS:
        raise DataError(f"{where}.kind: expected one of {', '.join(_KINDS)}, got {mark['kind']!r}")
    for field in _AGE_FIELDS:
        if field in mark and not 0 <= mark[field] <= MAX_MINIMUM_AGE:
            raise DataError(f"{where}.{field}: expected 0 to {MAX_MINIMUM_AGE} years, got {mark[field]}")
    accompanied = mark.get("accompanied_minimum_age")
    _check_accompanied(mark["kind"], accompanied, where)
    _check_minimum(mark["kind"], mark.get("minimum_age"), accompanied, f"{where}.minimum_age")
    if "alternative_minimum_age" in mark:
        field = f"{where}.alternative_minimum_age"
        if mark["alternative_minimum_age"] == mark.get("minimum_age") or "minimum_age" not in mark:
            raise DataError(f"{field}: expected another age than an existing minimum_age")
        _check_minimum(mark["kind"], mark["alternative_minimum_age"], accompanied, field)


def _check_accompanied(kind: str, accompanied: int | None, where: str) -> None:
    if kind == "accompanied" and accompanied is None:
        raise DataError(f"{where}.accompanied_minimum_age: missing, kind 'accompanied' needs it")
    if kind != "accompanied" and accompanied is not None:
        raise DataError(
            f"{where}.accompanied_minimum_age: expected with kind 'accompanied' alone, got {kind!r}"
        )


def _check_minimum(kind: str, minimum: int | None, accompanied: int | None, where: str) -> None:
    """Check that a minimum age, or its absence, fits the kind of the mark."""
    if minimum is None:
        # Advice may name no age and a voluntary mark may be undecided; the others mean nothing without one.
        if kind in {"none", "legal", "accompanied"}:
            raise DataError(f"{where}: missing, kind {kind!r} needs it")
        return
    if kind == "refused":
        raise DataError(f"{where}: expected none with kind 'refused', got {minimum}")
    if (kind == "none") != (minimum == 0):
        raise DataError(
            f"{where}: expected 0 with kind 'none' and with no other, got {minimum} with {kind!r}"
        )
    if accompanied is not None and accompanied >= minimum:
        raise DataError(f"{where}: expected more than accompanied_minimum_age {accompanied}, got {minimum}")


def _check_names_differ(entries: list[dict[str, Any]], key: str, where: str) -> None:
    seen: set[str] = set()
    for field, name in _names(entries):
        plain = _plain(name, key)
        if not plain:
            raise DataError(f"{where}{field}: expected a letter or a digit, got {name!r}")
        if plain in seen:
            raise DataError(f"{where}{field}: {name!r} is there already, or differs only in case and signs")
        seen.add(plain)


def _names(entries: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Field and value of every name by which a mark can be found."""
    for index, entry in enumerate(entries):
        yield f"ratings[{index}].mark", entry["mark"]
        for number, alias in enumerate(entry.get("aliases", ())):
            yield f"ratings[{index}].aliases[{number}]", alias
