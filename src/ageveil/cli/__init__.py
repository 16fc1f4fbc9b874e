"""The command line: one file a verb, all thin, with heavy imports inside the verb.

Exit codes stand in `ageveil.errors`; 10 and 11 mean deny and step up where `--exit-code` asks for it.
"""

from __future__ import annotations

import sys

from ageveil.errors import AgeveilError


def main() -> None:
    """Run the command line. Every error that a user can meet ends in one line and a documented exit code."""
    from ageveil.cli.app import app
    from ageveil.cli.output import fail

    try:
        code = app(standalone_mode=False)
    except AgeveilError as error:
        code = fail(str(error), error.exit_code)
    except ValueError as error:
        code = fail(str(error), 2)
    except (KeyboardInterrupt, EOFError):
        code = fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read the output has gone: nothing more can be told.
        sys.stderr.close()
        code = 1
    except Exception as error:
        code = _usage_or_unexpected(error)
    sys.exit(code if isinstance(code, int) else 0)


def _usage_or_unexpected(error: Exception) -> int:
    """Show click's usage errors as click does; name an unexpected error by its type, without its data."""
    from ageveil.cli.output import fail

    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if isinstance(error, MemoryError):
        return fail("not enough memory", 1)
    return fail(f"unexpected {type(error).__name__}; please report it (set AGEVEIL_TRACE=1 to see where)", 1)
