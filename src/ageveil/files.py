"""Write files: all of one or nothing, so that no reader ever meets half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from ageveil.errors import OutputError

DRAFT = re.compile(r"\.ageveil-[0-9a-f]{16}\.part")
"""Name of a file that is not yet written as a whole. One stays behind where the process is killed."""


def write_bytes(
    path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview], *, private: bool = False
) -> None:
    """Write a file. It is made beside its target and then takes its name.

    Args:
        path: Where to; an existing file, or a link to one, is replaced.
        chunks: What to write, in order.
        private: Only its owner may read it; otherwise it follows the user's umask.

    Raises:
        OutputError: The file cannot be written; then nothing has changed.
    """
    # Not `tempfile`: its files are for their owner alone, always.
    target = Path(path)
    draft = _draft(target)
    mode = 0o600 if private else 0o666
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())  # or a loss of power could leave an empty file under the final name
        os.replace(draft, target)
    except (OSError, ValueError) as error:
        raise _refusal(target, error) from error
    finally:
        with contextlib.suppress(OSError, ValueError):  # gone already where all went well
            draft.unlink()


def check_writable(path: str | os.PathLike[str]) -> None:
    """See that a file could be written, before hours of work for it. Its folder is made where it is missing.

    Args:
        path: Where to; what is there is left as it is.

    Raises:
        OutputError: It cannot be written.
    """
    target = Path(path)
    draft = _draft(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(exist_ok=False)
        draft.unlink()
        if target.is_dir() and not target.is_symlink():  # a draft would not take its name
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except (OSError, ValueError) as error:
        raise _refusal(target, error) from error


def _draft(target: Path) -> Path:
    """A name beside a file that is yet to be written, as `DRAFT` knows it."""
    return target.parent / f".ageveil-{secrets.token_hex(8)}.part"


def _refusal(target: Path, error: OSError | ValueError) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) else "not a file name"
    return OutputError(f"cannot write {str(target)!r}: {reason}")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8.

    Raises:
        OutputError: As `write_bytes`.
    """
    write_bytes(path, [text.encode()])


def make_directory(path: Path, *, private: bool = False) -> None:
    """Make a directory, and those above it, where it is missing.

    Args:
        path: The directory.
        private: Only its owner may look into it; one that is there already is closed to the others.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if private:
            path.chmod(0o700)
    except OSError as error:
        raise OutputError(f"cannot write to {str(path)!r}: {error.strerror}") from error
