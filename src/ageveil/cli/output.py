"""What every verb shares: printing, progress, JSON, and several photographs in one call."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ageveil.errors import AgeveilError, OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from ageveil.pipeline import Estimate

T = TypeVar("T")

# Exit codes of usable photographs, the strictest last: done or allow, step up, deny.
_STRICTNESS = (0, 11, 10)


def console(*, stderr: bool = False) -> Console:
    """A console that colours only where a person reads."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def fail(message: str, code: int) -> int:
    """Tell an error in one line and return its exit code."""
    print(f"ageveil: {printable(message)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    r"""A text in one line, with escapes for control characters and bytes that are no text.

    File names come from strangers: a terminal must show them, not obey them.

    >>> print(printable("two\nlines"), printable("\x1b[2J.jpg"))
    two lines \x1b[2J.jpg
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(text.split())
    )


def shown(path: Path | str) -> str:
    """A file's name for a console, where brackets would otherwise be styles."""
    from rich.markup import escape

    return escape(printable(str(path)))


def refuse_own_source(target: Path, photo: Path) -> None:
    """Check that a result does not take the place of the picture it is made from.

    Raises:
        OutputError: It would.
    """
    if os.path.exists(target) and os.path.exists(photo) and os.path.samefile(target, photo):
        raise OutputError(f"the result would replace its own source {str(photo)!r}")


def refuse_existing(target: Path, *, force: bool) -> None:
    """Check that a result replaces nothing, unless that is asked for.

    Raises:
        OutputError: It would.
    """
    if os.path.exists(target) and not force:
        raise OutputError(f"{str(target)!r} exists; --force replaces it")


def print_json(value: Any) -> None:
    """Print a value as JSON with two spaces of indent."""
    print(json.dumps(value, indent=2, allow_nan=False))


@dataclass(slots=True)
class Progress:
    """A progress bar; `advance` is called once for each finished item, or `advance_by` with their number."""

    advance_by: Callable[[int], None]

    def advance(self) -> None:
        """One more item is finished."""
        self.advance_by(1)


@contextmanager
def progress(title: str, total: int | None, *, quiet: bool) -> Iterator[Progress]:
    """Show a bar on a terminal's standard error while more than one item is worked on."""
    screen = console(stderr=True)
    if quiet or not screen.is_terminal or total == 1:
        yield Progress(lambda _: None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield Progress(lambda count: bar.advance(task, count))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one photograph ended: a JSON record with its exit code, or an error."""

    photo: Path
    record: dict[str, Any]
    code: int = 0


def error_outcome(photo: Path, error: AgeveilError) -> Outcome:
    """The outcome of a photograph that could not be used."""
    record = {"photo": str(photo), "error": " ".join(str(error).split()), "exit_code": error.exit_code}
    return Outcome(photo, record, error.exit_code)


def finish(
    outcomes: Sequence[Outcome], show: Callable[[Outcome], None], *, as_json: bool, quiet: bool
) -> int:
    """Print the outcomes and return the exit code: the first error's, else the strictest answer's.

    One photograph gives one JSON object, several give a list.
    """
    if as_json:
        records = [outcome.record for outcome in outcomes]
        print_json(records[0] if len(records) == 1 else records)
    for outcome in outcomes:
        if "error" in outcome.record:
            prefix = f"{outcome.photo}: " if len(outcomes) > 1 else ""
            fail(prefix + outcome.record["error"], outcome.code)
        elif not (as_json or quiet):
            show(outcome)
    errors = [outcome.code for outcome in outcomes if "error" in outcome.record]
    return errors[0] if errors else max((o.code for o in outcomes), key=_STRICTNESS.index)


def estimate_record(photo: Path, estimate: Estimate) -> dict[str, Any]:
    """The JSON of `estimate`, which `rate` extends: plain numbers, no pixels."""
    distribution = estimate.distribution
    years = distribution.years
    return {
        "photo": str(photo),
        "approach": distribution.approach,
        "model": distribution.model.name,
        "model_version": distribution.model.version,
        "licence": distribution.model.licence,
        "resolution": distribution.model.resolution,
        "faces": [
            {
                "box": [round(value, 1) for value in estimate.box.as_tuple()],
                "age_group": group_name(distribution.group),
                "group_probabilities": [float(value) for value in distribution.groups],
                "between_groups": distribution.between_groups,
                "year_probabilities": None if years is None else [float(value) for value in years],
                "expected_age": distribution.expected,
                "interval_90": list(distribution.interval(0.9)),
                "receipt": estimate.face.receipt.to_json(),
            }
        ],
    }


def group_name(index: int) -> str:
    """Name of an age group."""
    from ageveil.types import AGE_GROUP_NAMES

    return AGE_GROUP_NAMES[index]


def each(
    photos: Sequence[Path],
    results: Generator[T | AgeveilError, None, None],
    make: Callable[[Path, T], Outcome],
    *,
    quiet: bool,
) -> list[Outcome]:
    """Turn results into outcomes as they come, with progress.

    However it ends, the results are closed: nothing more is on its way.
    """
    outcomes = []
    with closing(results), progress("photographs", len(photos), quiet=quiet) as bar:
        for photo, result in zip(photos, results, strict=True):
            if isinstance(result, AgeveilError):
                outcomes.append(error_outcome(photo, result))
            else:
                outcomes.append(make(photo, result))
            bar.advance()
    return outcomes
