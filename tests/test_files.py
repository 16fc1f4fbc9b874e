"""Files are written as a whole or not at all."""

import os

import pytest

from ageveil.errors import OutputError
from ageveil.files import DRAFT, write_bytes, write_text


def test_chunks_follow_each_other(tmp_path):
    write_bytes(tmp_path / "a", [b"one", memoryview(b"two")])
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    write_text(tmp_path / "a", "ä\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\n"


def test_a_private_file_is_for_its_owner_alone(tmp_path):
    before = os.umask(0o022)
    try:
        write_bytes(tmp_path / "private", [b""], private=True)
        write_bytes(tmp_path / "shared", [b""])
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o644


def broken():
    yield b"half"
    raise OSError(28, "No space left on device")


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(OutputError, match=r"cannot write .*/a': No space left on device"):
        write_bytes(path, broken())
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["no/such/folder", "a\0b"])
def test_a_place_that_cannot_be_written(tmp_path, name):
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / name, "")


def test_the_name_of_a_draft_is_known(tmp_path):
    seen = []

    def look():
        seen.extend(entry.name for entry in tmp_path.iterdir())
        yield b""

    write_bytes(tmp_path / "a", look())
    assert [DRAFT.fullmatch(name) is not None for name in seen] == [True]
