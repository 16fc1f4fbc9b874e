"""Files are written as a whole or not at all."""

import os
import sys

import pytest

from ageveil.errors import OutputError
from ageveil.files import DRAFT, check_writable, write_bytes, write_text


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


def test_a_place_that_could_be_written_stays_as_it_is(tmp_path):
    check_writable(tmp_path / "new" / "a")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    (tmp_path / "b").write_bytes(b"before")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    check_writable(tmp_path / "b")
    check_writable(tmp_path / "link")  # the link is what would be replaced
    assert (tmp_path / "b").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "link", "new"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/a", "Not a directory|File exists"), ("a\0b/c", "not a file name"), ("folder", "Is a directory")],
)
def test_a_place_that_could_not_be_written_is_told_before(tmp_path, name, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"cannot write .*: ({reason})"):
        check_writable(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="left out: a folder that nobody may write to needs Linux")
def test_a_folder_that_takes_no_file_is_told_before():
    with pytest.raises(OutputError, match="cannot write '/proc/a'"):  # not even the superuser's
        check_writable("/proc/a")


def test_the_name_of_a_draft_is_known(tmp_path):
    seen = []

    def look():
        seen.extend(entry.name for entry in tmp_path.iterdir())
        yield b""

    write_bytes(tmp_path / "a", look())
    assert [DRAFT.fullmatch(name) is not None for name in seen] == [True]
