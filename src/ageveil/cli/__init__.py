"""The command line: one file a verb, all thin, with heavy imports inside the verb.

Exit codes stand in `ageveil.errors`; 10 and 11 mean deny and step up where `--exit-code` asks for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

from ageveil.errors import AgeveilError, OutputError

_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Every error that a user can meet ends in one line and a documented exit code."""
    _print_whatever_the_encoding()
    try:
        from ageveil.cli.app import app

        code = app(standalone_mode=False)
        sys.stdout.flush()  # here rather than at exit, where nobody could tell what went wrong
        if code == _INTERRUPTED:  # Typer turns Ctrl-C into this result
            raise KeyboardInterrupt
    except BaseException as error:
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _print_whatever_the_encoding() -> None:
    """Escape what the terminal's encoding lacks, such as bars or a name that is no valid text."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _report(error: BaseException) -> int:
    """Tell an error in one line and return its exit code."""
    from ageveil.cli.output import fail

    if os.environ.get("AGEVEIL_TRACE") == "1":
        traceback.print_exception(error)
    match error:
        case SystemExit():
            _drop_output()  # Typer leaves so when whoever read the output has gone
            return error.code if isinstance(error.code, int) else 1
        case AgeveilError():
            return fail(str(error), error.exit_code)
        case ValueError():
            return fail(str(error), 2)
        case KeyboardInterrupt() | EOFError():
            return fail("interrupted", _INTERRUPTED)
        case BrokenPipeError():
            _drop_output()  # nothing more can be told
            return 1
        case OSError():
            # The rooms answer for all that is read, so that this is the output of the program itself.
            _drop_output()
            return fail(f"cannot write the output: {error.strerror or 'error'}", OutputError.exit_code)
        case MemoryError():
            return fail("not enough memory", 1)
    return _usage_or_unexpected(error)


def _drop_output() -> None:
    """Lead standard output nowhere, so that Python does not fail on the rest of it at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_or_unexpected(error: BaseException) -> int:
    """Tell a usage error, or name an unexpected error by its type, without its data."""
    from ageveil.cli.output import fail

    message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
    if callable(message) and isinstance(code, int):
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            error.show()  # type: ignore[attr-defined] # Typer names this class in no public module
            return code
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        return fail(f"{message().rstrip('.')}{hint}", code)
    if type(error).__name__ == "Abort":  # what earlier versions of Typer make of Ctrl-C
        return fail("interrupted", _INTERRUPTED)
    return fail(f"unexpected {type(error).__name__}; please report it (set AGEVEIL_TRACE=1 to see where)", 1)
