"""The command line: one file a verb, all thin, with heavy imports inside the verb.

Exit codes stand in `ageveil.errors`; 10 and 11 mean deny and step up where `--exit-code` asks for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback

from ageveil.errors import AgeveilError, OutputError

_INTERRUPTED = 130

# Top-level module -> the extra that installs it; its absence is told as one line.
_EXTRAS = {
    **dict.fromkeys(("torch", "lightning", "pydantic", "safetensors", "onnx", "onnxscript"), "train"),
    "matplotlib": "report",
    **dict.fromkeys(
        (
            "fastapi",
            "uvicorn",
            "sqlalchemy",
            "alembic",
            "jwt",
            "limits",
            "prometheus_client",
            "pydantic_settings",
        ),
        "service",
    ),
}


def main() -> None:
    """Run the command line. Every error that a user can meet ends in one line and a documented exit code."""
    _print_whatever_the_encoding()
    _end_orderly_when_told()
    try:
        from ageveil.cli.app import app

        code = app(standalone_mode=False)
        if sys.stdout is not None:  # None where the caller closed it
            sys.stdout.flush()  # here rather than at exit, where nobody could tell what went wrong
        if code == _INTERRUPTED:  # Typer turns Ctrl-C into this result
            raise KeyboardInterrupt
    except BaseException as error:
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _end_orderly_when_told() -> None:
    """Treat a request to end, as from `timeout` or a service manager, as Ctrl-C: temporary files go."""
    with contextlib.suppress(ValueError):  # only the main thread may say so
        signal.signal(signal.SIGTERM, signal.default_int_handler)


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
    if isinstance(error, SystemExit) and not error.code:  # Typer leaves so after shell completion
        return 0
    if isinstance(error, SystemExit | OSError):
        _drop_output()
    message, code = _explain(error)
    return fail(message, code) if message else code


def _explain(error: BaseException) -> tuple[str, int]:
    """What to tell of an error, in one line or not at all, and its exit code."""
    message, code = "", 1
    match error:
        case SystemExit() | BrokenPipeError():
            pass  # whoever read the output has gone (Typer makes the one of the other): nothing can be told
        case AgeveilError():
            message, code = str(error), error.exit_code
        case ValueError():
            message, code = str(error), 2
        case ModuleNotFoundError() if (name := (error.name or "").partition(".")[0]) in _EXTRAS:
            message, code = f"{name} is missing: run `pip install 'ageveil[{_EXTRAS[name]}]'`", 2
        case KeyboardInterrupt() | EOFError():
            message, code = "interrupted", _INTERRUPTED
        case OSError():
            # The rooms answer for all that they read and write, so this is the program's own output.
            message, code = f"cannot write the output: {error.strerror}", OutputError.exit_code
        case MemoryError():
            message = "not enough memory"
        case _:
            message, code = _usage_or_unexpected(error)
    return message, code


def _drop_output() -> None:
    """Lead standard output nowhere, so that Python does not fail on the rest of it at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_or_unexpected(error: BaseException) -> tuple[str, int]:
    """What to tell of a usage error; an unexpected error is named by its type, without its data."""
    kind, format_message = type(error).__name__, getattr(error, "format_message", None)
    if kind == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined] # the whole help; Typer names this class nowhere in public
        return "", 2
    if kind == "Abort":  # what earlier versions of Typer make of Ctrl-C
        return "interrupted", _INTERRUPTED
    if callable(format_message):
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        return f"{format_message().rstrip('.')}{hint}", 2
    return f"unexpected {kind}; please report it (set AGEVEIL_TRACE=1 to see where)", 1
