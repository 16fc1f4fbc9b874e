"""Boards: every mark against a table typed by hand from the boards' public rules, and damaged files."""

import datetime
import importlib.resources
import re
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ageveil.boards import (
    BOARD_KEYS,
    MAX_MINIMUM_AGE,
    Board,
    equivalents,
    get_rating,
    load_boards,
    parse_board,
    read_boards,
)
from ageveil.errors import DataError

# board: (mark, minimum age, kind, minimum age beside an adult), in the order in which the board lists them.
RULES = {
    "mpa": [
        ("G", 0, "none", None), ("PG", None, "advisory", None), ("PG-13", 13, "advisory", None),
        ("R", 17, "accompanied", 0), ("NC-17", 18, "voluntary", None),
    ],
    "esrb": [
        ("E", 0, "none", None), ("E10+", 10, "voluntary", None), ("T", 13, "voluntary", None),
        ("M", 17, "voluntary", None), ("AO", 18, "voluntary", None), ("RP", None, "voluntary", None),
    ],
    "tv": [
        ("TV-Y", 0, "none", None), ("TV-Y7", 7, "advisory", None), ("TV-G", 0, "none", None),
        ("TV-PG", None, "advisory", None), ("TV-14", 14, "advisory", None), ("TV-MA", 17, "advisory", None),
    ],
    "pegi": [
        ("3", 3, "voluntary", None), ("7", 7, "legal", None), ("12", 12, "legal", None),
        ("16", 16, "legal", None), ("18", 18, "legal", None),
    ],
    "bbfc": [
        ("U", 0, "none", None), ("PG", None, "advisory", None), ("12A", 12, "accompanied", 0),
        ("12", 12, "legal", None), ("15", 15, "legal", None), ("18", 18, "legal", None),
        ("R18", 18, "legal", None),
    ],
    "fsk": [
        ("0", 0, "none", None), ("6", 6, "legal", None), ("12", 12, "legal", None),
        ("12 cinema", 12, "accompanied", 6), ("16", 16, "legal", None), ("18", 18, "legal", None),
    ],
    "usk": [
        ("0", 0, "none", None), ("6", 6, "legal", None), ("12", 12, "legal", None),
        ("16", 16, "legal", None), ("18", 18, "legal", None),
    ],
    "cero": [
        ("A", 0, "none", None), ("B", 12, "voluntary", None), ("C", 15, "voluntary", None),
        ("D", 17, "voluntary", None), ("Z", 18, "legal", None),
    ],
    "grac": [
        ("ALL", 0, "none", None), ("12", 12, "legal", None), ("15", 15, "legal", None),
        ("Adult", 19, "legal", None),
    ],
    "acb": [
        ("G", 0, "none", None), ("PG", None, "advisory", None), ("M", 15, "advisory", None),
        ("MA15+", 15, "accompanied", 0), ("R18+", 18, "legal", None), ("X18+", 18, "legal", None),
        ("RC", None, "refused", None),
    ],
    "classind": [
        ("L", 0, "none", None), ("10", 10, "legal", None), ("12", 12, "legal", None),
        ("14", 14, "legal", None), ("16", 16, "legal", None), ("18", 18, "legal", None),
    ],
    "iarc": [
        ("3", 3, "voluntary", None), ("7", 7, "voluntary", None), ("12", 12, "voluntary", None),
        ("16", 16, "voluntary", None), ("18", 18, "voluntary", None),
    ],
}  # fmt: skip

REGIONS = {
    "mpa": "United States", "esrb": "United States, Canada and Mexico", "tv": "United States",
    "pegi": "Europe", "bbfc": "United Kingdom", "fsk": "Germany", "usk": "Germany", "cero": "Japan",
    "grac": "South Korea", "acb": "Australia", "classind": "Brazil",
    "iarc": "countries without a board of their own",
}  # fmt: skip

GOOD = """\
schema = 1
version = 1
key = "demo"
name = "Demo Board"
region = "Nowhere"
medium = "films"
standing = "Legal."
reviewed = 2026-11-22

[[ratings]]
mark = "A"
minimum_age = 0
kind = "none"
source = "Guide, A"

[[ratings]]
mark = "Demo 16+"
aliases = ["Sixteen"]
minimum_age = 16
alternative_minimum_age = 15
accompanied_minimum_age = 10
kind = "accompanied"
medium = "video"
source = "Guide, 16"
"""


@pytest.mark.parametrize("key", RULES)
def test_every_mark_of_a_board_is_as_its_rules_say(key: str) -> None:
    board = load_boards()[key]
    assert [
        (rating.mark, rating.minimum_age, rating.kind, rating.accompanied_minimum_age)
        for rating in board.ratings
    ] == RULES[key]
    assert board.key == key
    assert board.region == REGIONS[key]
    assert board.reviewed == datetime.date(2026, 11, 22)
    assert {rating.board for rating in board.ratings} == {key}
    assert {rating.region for rating in board.ratings} == {REGIONS[key]}


def test_the_package_holds_these_boards_and_no_other_file() -> None:
    files = importlib.resources.files("ageveil") / "boards_data"
    assert {file.name for file in files.iterdir()} == {f"{key}.toml" for key in RULES}
    assert tuple(load_boards()) == BOARD_KEYS == tuple(RULES)


def test_every_text_is_one_line() -> None:
    texts = [text for board in load_boards().values() for text in (board.name, board.medium, board.standing)]
    texts += [
        text for board in load_boards().values() for one in board.ratings for text in (one.source, one.medium)
    ]
    assert len(texts) == 3 * 12 + 2 * sum(map(len, RULES.values()))
    assert all(text == text.strip() and text.isprintable() for text in texts)


def test_boards_are_read_once_and_cannot_be_changed() -> None:
    boards = load_boards()
    assert load_boards() is boards
    with pytest.raises(TypeError):
        boards["mpa"] = boards["esrb"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        boards["mpa"].key = "other"  # type: ignore[misc]
    assert isinstance(hash(boards["grac"]), int)


def test_a_cinema_rule_does_not_reach_other_media() -> None:
    assert get_rating("fsk", "12").accompanied_minimum_age is None
    assert get_rating("fsk", "12").medium == "films and video"
    assert get_rating("fsk", "12 cinema").medium == "films in cinemas"
    assert get_rating("bbfc", "12").medium == "video"
    assert get_rating("bbfc", "12A").medium == "films in cinemas"


@pytest.mark.parametrize("key", RULES)
def test_every_printed_mark_is_found(key: str) -> None:
    for rating in load_boards()[key].ratings:
        for text in (rating.mark, rating.mark.lower(), f" {rating.mark} ", f"{key} {rating.mark}"):
            assert get_rating(key, text) is rating


@pytest.mark.parametrize(
    ("board", "mark", "expected"),
    [
        ("mpa", "pg13", "PG-13"),
        ("MPA", "nc 17", "NC-17"),
        ("mpa", "R", "R"),
        ("esrb", "M", "M"),
        ("esrb", "e10", "E10+"),
        ("tv", "14", "TV-14"),
        ("TV", "tvma", "TV-MA"),
        ("pegi", 16, "16"),
        ("Pegi", "16+", "16"),
        ("bbfc", "12a", "12A"),
        ("acb", "R18+", "R18+"),
        ("acb", "r 18", "R18+"),
        ("acb", "MA 15+", "MA15+"),
        ("classind", "livre", "L"),
        ("grac", "Adult Only", "Adult"),
        ("grac", 19, "Adult"),
    ],
)
def test_spelling_is_forgiven(board: str, mark: str | int, expected: str) -> None:
    assert get_rating(board, mark).mark == expected


@pytest.mark.parametrize("mark", ["", " ", "+", "17", "PG-1", "PG-133", "R R", "rated R", "R\n\nG"])
def test_an_unknown_mark_is_named_with_the_choices(mark: str) -> None:
    message = re.escape(f"mpa has no mark {mark!r}; choose one of G, PG, PG-13, R, NC-17")
    with pytest.raises(ValueError, match=f"^{message}$"):
        get_rating("mpa", mark)


@pytest.mark.parametrize("board", ["", " ", "mpaa", "mp", "R", "mpa esrb"])
def test_an_unknown_board_is_named_with_the_choices(board: str) -> None:
    choices = "mpa, esrb, tv, pegi, bbfc, fsk, usk, cero, grac, acb, classind, iarc"
    with pytest.raises(ValueError, match=f"^there is no board '{board}'; choose one of {choices}$"):
        get_rating(board, "R")


def test_another_reading_of_an_age_is_chosen_by_the_age() -> None:
    own = get_rating("grac", "adult")
    other = get_rating("grac", "adult", minimum_age=18)
    assert (own.minimum_age, other.minimum_age) == (19, 18)
    assert get_rating("grac", "adult", minimum_age=19) is own
    assert (other.mark, other.kind, other.source) == (own.mark, own.kind, own.source)


@pytest.mark.parametrize(
    ("board", "mark", "age", "ages"),
    [
        ("grac", "adult", 17, "19 or 18"),
        ("grac", "adult", 20, "19 or 18"),
        ("mpa", "R", 16, "17"),
        ("mpa", "PG", 7, "no age"),
    ],
)
def test_no_age_that_no_source_gives(board: str, mark: str, age: int, ages: str) -> None:
    with pytest.raises(ValueError, match=rf"asks for {ages}, not for {age}$"):
        get_rating(board, mark, minimum_age=age)


@pytest.mark.parametrize(
    ("board", "mark", "other", "expected"),
    [
        ("mpa", "R", "pegi", ["18"]),  # 17: the next is 18
        ("mpa", "G", "pegi", ["3"]),  # 0: PEGI has nothing lower than 3
        ("mpa", "G", "tv", ["TV-Y", "TV-G"]),  # two marks of age 0
        ("pegi", "18", "mpa", ["NC-17"]),
        ("pegi", "16", "mpa", ["R"]),
        ("pegi", "12", "mpa", ["PG-13"]),  # PG has no age and is passed over
        ("pegi", "18", "bbfc", ["18", "R18"]),
        ("pegi", "12", "bbfc", ["12A", "12"]),
        ("mpa", "NC-17", "tv", []),  # TV-MA is 17: nothing as strict
        ("grac", "Adult", "pegi", []),  # 19: nothing as strict
        ("esrb", "E10+", "classind", ["10"]),
        ("pegi", "7", "fsk", ["12", "12 cinema"]),  # 6 would be weaker
        ("usk", "18", "grac", ["Adult"]),  # in the board's own reading, 19
        ("acb", "M", "mpa", ["R"]),  # 15: PG-13 would be weaker
        ("mpa", "R", "mpa", ["R"]),
    ],
)
def test_equivalents_by_hand(board: str, mark: str, other: str, expected: list[str]) -> None:
    assert [rating.mark for rating in equivalents(get_rating(board, mark), other)] == expected


def test_equivalents_of_another_reading() -> None:
    assert [one.mark for one in equivalents(get_rating("grac", "adult", minimum_age=18), "pegi")] == ["18"]


@pytest.mark.parametrize(("board", "mark"), [("mpa", "PG"), ("esrb", "RP"), ("acb", "RC")])
def test_no_equivalents_without_an_age(board: str, mark: str) -> None:
    with pytest.raises(ValueError, match=f"^{board} {mark} has no minimum age"):
        equivalents(get_rating(board, mark), "pegi")


def test_no_equivalents_in_an_unknown_board() -> None:
    with pytest.raises(ValueError, match="there is no board 'x'"):
        equivalents(get_rating("mpa", "R"), "x")


def test_equivalents_against_a_search_year_by_year() -> None:
    for marks in RULES.values():
        for mark, age, _, _ in marks:
            if age is None:
                continue
            source = next(key for key, value in RULES.items() if value is marks)
            for other, others in RULES.items():
                expected: list[str] = []
                for year in range(age, MAX_MINIMUM_AGE + 1):  # the first year at which a mark stands
                    expected = [name for name, minimum, _, _ in others if minimum == year]
                    if expected:
                        break
                found = equivalents(get_rating(source, mark), other)
                assert [one.mark for one in found] == expected


def test_a_whole_file_is_read() -> None:
    board = parse_board(GOOD, "demo.toml")
    assert (board.key, board.name, board.version, board.standing) == ("demo", "Demo Board", 1, "Legal.")
    first, second = board.ratings
    assert (first.mark, first.medium, first.region, first.source) == ("A", "films", "Nowhere", "Guide, A")
    assert (second.mark, second.medium, second.accompanied_minimum_age) == ("Demo 16+", "video", 10)
    assert [one.minimum_age for one in board.alternatives] == [15]
    assert board.rating("16") is second
    assert board.rating("sixteen") is second
    assert board.rating("sixteen", minimum_age=15) is board.alternatives[0]


@pytest.mark.parametrize("age", [1, MAX_MINIMUM_AGE])
def test_the_outermost_ages_are_read(age: int) -> None:
    text = GOOD[: GOOD.index("aliases")] + f'minimum_age = {age}\nkind = "legal"\nsource = "s"\n'
    assert parse_board(text, "demo.toml").ratings[1].minimum_age == age


# what is replaced, by what, and how the message goes on after the name of the file
DAMAGE = {
    "not TOML": ("schema = 1", "schema 1", r"expected TOML: .*line 1"),
    "number without end": ("version = 1", "version = 1" + "0" * 5000, r"expected TOML: "),
    "other schema": ("schema = 1", "schema = 2", r"schema: expected 1, got 2"),
    "schema true": ("schema = 1", "schema = true", r"schema: expected a whole number, got True"),
    "version 0": ("version = 1", "version = 0", r"version: expected 1 or more, got 0"),
    "key of another file": ('key = "demo"', 'key = "mpa"', r"key: expected the name of the file, got 'mpa'"),
    "board field missing": ('region = "Nowhere"\n', "", r"region: missing"),
    "board field unknown": ("version = 1", "version = 1\nurl = 1", r"'url': unknown; known are schema, "),
    "board field empty": ('"Demo Board"', '" "', r"name: expected text, got nothing"),
    "date as text": ("2026-11-22", '"2026-11-22"', r"reviewed: expected a date, got '2026-11-22'"),
    "date with time": ("2026-11-22", "2026-11-22T00:00:00", r"reviewed: expected a date, got "),
    "ratings of another type": (
        GOOD[GOOD.index("\n[[") :],
        "ratings = 1",
        r"ratings: expected a list, got 1",
    ),
    "ratings not tables": (
        GOOD[GOOD.index("\n[[") :],
        "ratings = [1]",
        r"ratings\[0\]: expected a table, got 1",
    ),
    "no ratings": (GOOD[GOOD.index("\n[[") :], "ratings = []", r"ratings: expected one mark or more"),
    "mark missing": ('mark = "A"\n', "", r"ratings\[0\]\.mark: missing"),
    "mark a number": ('mark = "A"', "mark = 1", r"ratings\[0\]\.mark: expected text, got 1"),
    "mark without letters": ('mark = "A"', 'mark = "+"', r"ratings\[0\]\.mark: expected a letter or a digit"),
    "source missing": ('source = "Guide, 16"\n', "", r"ratings\[1\]\.source: missing"),
    "rating field unknown": ("minimum_age = 0", "minimum_age = 0\nage = 0", r"ratings\[0\]\.'age': unknown"),
    "kind unknown": ('"none"', '"free"', r"ratings\[0\]\.kind: expected one of none, advisory, .*got 'free'"),
    "age as text": ("minimum_age = 16", 'minimum_age = "16"', r"ratings\[1\]\.minimum_age: expected a whole"),
    "age as fraction": (
        "minimum_age = 16",
        "minimum_age = 16.0",
        r"ratings\[1\]\.minimum_age: expected a whole",
    ),
    "age below 0": (
        "minimum_age = 0",
        "minimum_age = -1",
        r"ratings\[0\]\.minimum_age: expected 0 to 25 years",
    ),
    "age above 25": (
        "minimum_age = 16",
        "minimum_age = 26",
        r"ratings\[1\]\.minimum_age: expected 0 to 25 years",
    ),
    "none from 1": (
        "minimum_age = 0",
        "minimum_age = 1",
        r"ratings\[0\]\.minimum_age: expected 0 with kind 'none'",
    ),
    "legal from 0": (
        '"none"',
        '"legal"',
        r"ratings\[0\]\.minimum_age: expected 0 with kind 'none' and with no",
    ),
    "none without age": (
        "minimum_age = 0\n",
        "",
        r"ratings\[0\]\.minimum_age: missing, kind 'none' needs it",
    ),
    "accompanied without age": (
        "minimum_age = 16\nalternative_minimum_age = 15\n",
        "",
        r"ratings\[1\]\.minimum_age: missing, kind 'accompanied' needs it",
    ),
    "legal without age": (
        'minimum_age = 0\nkind = "none"',
        'kind = "legal"',
        r"ratings\[0\]\.minimum_age: missing",
    ),
    "refused with age": (
        'minimum_age = 0\nkind = "none"',
        'minimum_age = 18\nkind = "refused"',
        r"ratings\[0\]\.minimum_age: expected none with kind 'refused', got 18",
    ),
    "accompanied without its age": (
        "accompanied_minimum_age = 10\n",
        "",
        r"ratings\[1\]\.accompanied_minimum_age: missing, kind 'accompanied' needs it",
    ),
    "legal with accompanied age": (
        '"accompanied"',
        '"legal"',
        r"ratings\[1\]\.accompanied_minimum_age: expected with kind 'accompanied' alone, got 'legal'",
    ),
    "accompanied age above": (
        "accompanied_minimum_age = 10",
        "accompanied_minimum_age = 17",
        r"ratings\[1\]\.minimum_age: expected more than accompanied_minimum_age 17, got 16",
    ),
    "accompanied age the same": (
        "accompanied_minimum_age = 10",
        "accompanied_minimum_age = 16",
        r"ratings\[1\]\.minimum_age: expected more than accompanied_minimum_age 16, got 16",
    ),
    "accompanied age below 0": (
        "accompanied_minimum_age = 10",
        "accompanied_minimum_age = -1",
        r"ratings\[1\]\.accompanied_minimum_age: expected 0 to 25 years, got -1",
    ),
    "alternative the same": (
        "alternative_minimum_age = 15",
        "alternative_minimum_age = 16",
        r"ratings\[1\]\.alternative_minimum_age: expected another age",
    ),
    "alternative to no age": (
        'minimum_age = 0\nkind = "none"',
        'alternative_minimum_age = 3\nkind = "advisory"',
        r"ratings\[0\]\.alternative_minimum_age: expected another age than an existing minimum_age",
    ),
    "alternative below accompanied": (
        "alternative_minimum_age = 15",
        "alternative_minimum_age = 10",
        r"ratings\[1\]\.alternative_minimum_age: expected more than accompanied_minimum_age 10, got 10",
    ),
    "same mark twice": ('"Demo 16+"', '"A"', r"ratings\[1\]\.mark: 'A' is there already"),
    "same mark but for case and signs": (
        '"Demo 16+"',
        '"demo a+"',
        r"ratings\[1\]\.mark: 'demo a\+' is there",
    ),
    "alias of another mark": ('"Sixteen"', '"a"', r"ratings\[1\]\.aliases\[0\]: 'a' is there already"),
    "alias a number": ('"Sixteen"', "16", r"ratings\[1\]\.aliases\[0\]: expected text, got 16"),
    "aliases as text": ('["Sixteen"]', '"Sixteen"', r"ratings\[1\]\.aliases: expected a list, got 'Sixteen'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_an_error_that_names_file_and_field(case: str) -> None:
    old, new, message = DAMAGE[case]
    assert old in GOOD
    start = (
        GOOD.rindex(old) if old in {"minimum_age = 16", "alternative_minimum_age = 15"} else GOOD.index(old)
    )
    text = GOOD[:start] + new + GOOD[start + len(old) :]
    with pytest.raises(DataError, match=rf"^demo\.toml: {message}") as caught:
        parse_board(text, "demo.toml")
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^demo\.toml: schema: missing$"):
        parse_board("", "demo.toml")


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.text(max_size=5))
def test_any_damage_is_a_board_or_a_data_error(start: int, length: int, new: str) -> None:
    text = GOOD[:start] + new + GOOD[start + length :]
    try:
        board = parse_board(text, "demo.toml")
    except DataError as error:
        assert str(error).startswith("demo.toml: ")  # noqa: PT017 - no error is fine as well
    else:
        assert isinstance(board, Board)


def write_boards(folder) -> None:
    for key in BOARD_KEYS:
        (folder / f"{key}.toml").write_text(GOOD.replace('"demo"', f'"{key}"'), encoding="utf-8")


def test_a_folder_of_boards_is_read(tmp_path) -> None:
    write_boards(tmp_path)
    boards = read_boards(tmp_path)
    assert tuple(boards) == BOARD_KEYS
    assert all(board.key == key and board.name == "Demo Board" for key, board in boards.items())


def test_a_missing_file_is_an_error(tmp_path) -> None:
    write_boards(tmp_path)
    (tmp_path / "cero.toml").unlink()
    with pytest.raises(DataError, match=r"^cero\.toml: cannot be read: No such file"):
        read_boards(tmp_path)


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path) -> None:
    write_boards(tmp_path)
    (tmp_path / "tv.toml").unlink()
    (tmp_path / "tv.toml").mkdir()
    with pytest.raises(DataError, match=r"^tv\.toml: cannot be read: "):
        read_boards(tmp_path)


def test_a_file_in_another_encoding_is_an_error(tmp_path) -> None:
    write_boards(tmp_path)
    (tmp_path / "iarc.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(DataError, match=r"^iarc\.toml: expected UTF-8: .* at byte 8$"):
        read_boards(tmp_path)
