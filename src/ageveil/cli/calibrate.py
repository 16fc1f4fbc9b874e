"""`ageveil calibrate`: how many years must be added to a minimum age, so that few too young pass?"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, progress, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ageveil.calibration import Buffer
    from ageveil.estimation import Split
    from ageveil.evaluation.accuracy import Faces
    from ageveil.evaluation.calibration import Reading


def calibrate(
    data: Annotated[
        str,
        typer.Option(
            help="The model's training data, of which the faces that it kept out are taken, or with "
            "--all-faces another data set: as utkface:DIR, or prepared:DIR."
        ),
    ],
    board: Annotated[str, typer.Option(help="Classification body, as `ageveil boards` lists them.")],
    rating: Annotated[str, typer.Option(help="One of its marks, as R, 16 or M.")],
    max_false_accept: Annotated[
        float,
        typer.Option(help="Largest share of those up to five years too young that may pass, as 0.01."),
    ],
    confidence: Annotated[float, typer.Option(help="Probability that the rule asks for.")] = 0.99,
    tries: Annotated[int, typer.Option(min=1, help="Tries with one photograph.")] = 1,
    approach: options.EstimateApproach = "mosaic",
    model: options.Model = None,
    licence: options.Licence = "any",
    validation_share: options.ValidationShare = None,
    validation_seed: options.ValidationSeed = None,
    hold_out: options.HoldOut = None,
    all_faces: Annotated[
        bool,
        typer.Option("--all-faces", help="Take all faces: they are of another data set than the training."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Add the buffer to this file, as buffers.json.")] = None,
    check: Annotated[
        str | None, typer.Option(help="Then measure the buffer on these faces, named as with --data.")
    ] = None,
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    seed: Annotated[int, typer.Option(min=0, help="Of the mosaic's draws.")] = 0,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Solve the buffer of the decision rule: years added to a minimum age so that few too young pass.

    It is the smallest one for which a one-sided 95 % limit of the share of faces up to five years too young
    that are allowed is at most --max-false-accept. docs/calibration.md tells what that means and what not.
    """
    import numpy as np

    from ageveil import anonymization, boards, estimation, pipeline
    from ageveil.calibration import Use, check_no_looser
    from ageveil.evaluation import accuracy, calibration

    question = calibration.Question(boards.get_rating(board, rating), confidence, max_false_accept, tries)
    chosen = estimation.choose_model(model, licence)
    way = pipeline.Pipeline(
        options.permitted(approach, licence), chosen, detector, landmarks, allow_others=True
    )
    split = _split(chosen, validation_share, validation_seed, hold_out or [], all_faces=all_faces)
    if out is not None:  # a file that cannot take the result is told before the work
        use = Use(
            estimation.get_model(chosen).info.sha256, question.minimum_age,
            anonymization.get_approach(approach).name, confidence, detector, landmarks,
        )  # fmt: skip
        check_no_looser(_existing(out), use, max_false_accept, tries)

    def young(ages: Mapping[int, int]) -> int:
        return int(sum(calibration.in_window(np.array(list(ages.values())), question.minimum_age)))

    def read(faces: Faces, indices: Sequence[int]) -> Reading:
        with progress(f"{approach}, {faces.dataset}", len(indices), quiet=quiet) as bar:
            return calibration.read_faces(
                faces, indices, way, tries=tries, seed=seed, workers=workers, advance=bar.advance
            )

    faces = accuracy.open_faces(data, way)
    others = None if check is None else accuracy.open_faces(check, way)  # an error shows before the work
    indices, validation = _validating(faces, split)
    if split is not None and validation_share is None and not quiet:
        console(stderr=True).print(
            f"{len(indices)} of {len(faces.images)} faces: what {chosen} says that it was not trained on; "
            "--all-faces takes all"
        )
    ages, aside = calibration.countable(faces.images, indices, question.minimum_age)
    ages = {index: age for index, age in ages.items() if question.matters(age)}
    calibration.check_enough(young(ages), question.minimum_age, max_false_accept)  # before the work
    trained = sorted(set(range(len(faces.images))) - set(indices))
    with progress("copies", len(ages) + len(trained), quiet=quiet) as bar:
        solving = calibration.distinct(faces, ages, trained, workers=workers, advance=bar.advance)
    calibration.check_enough(young(solving.ages), question.minimum_age, max_false_accept)
    counted: list[int] = []
    if others is not None:  # before the work: faces that cannot check are an error
        known, _ = calibration.countable(others.images, range(len(others.images)), question.minimum_age)
        with progress("copies", len(known), quiet=quiet) as bar:
            counted, passed_over = calibration.checking(
                others, known, solving.seen, question.minimum_age, workers=workers, advance=bar.advance
            )
    reading = read(faces, list(solving.ages))
    named = f"{faces.dataset}:{Path(data.partition(':')[2]).name}"
    buffer = calibration.calibrate(reading, question, way, data=named, validation=validation, seed=seed)
    if out is not None:
        _store(out, buffer)
    record: dict[str, Any] = {**buffer.to_json(), "statement": buffer.statement()}
    record["licence"] = estimation.get_model(chosen).info.licence
    record["left_out"] = dict(Counter(aside) + Counter(solving.left_out) + Counter(reading.left_out))
    if others is not None:
        checked = calibration.check_buffer(read(others, counted), question, buffer.buffer)
        record["check"] = {"data": check, **checked.to_json()}
        record["check"]["left_out"] |= passed_over
    if as_json:
        print_json(record)
    elif not quiet:
        _show(buffer, record, out)
    return 0


def _split(
    model: str, share: float | None, seed: int | None, hold_out: Sequence[str], *, all_faces: bool
) -> Split | None:
    """Which faces of the data may serve: those that the model's own recipe kept out of training.

    None stands for all of them.

    Raises:
        ValueError: A split is asked for that is not the model's, or two things at once.
    """
    from ageveil import estimation

    held = options.held_out(hold_out, share)
    if seed is not None and share is None:
        raise ValueError("--validation-seed goes with --validation-share")
    if all_faces:
        if share is not None:
            raise ValueError("--all-faces and --validation-share do not go together")
        return None
    own = estimation.split_of(model)
    if share is None:
        return own
    asked = estimation.Split(
        share, options.SEED if seed is None else seed, held, own.test_fold if own else None
    )
    if own is not None and asked != own:
        raise ValueError(
            f"{model} was trained on some of these faces: it kept out {_words(own)}. Leave the split away to "
            "take just these, or give --all-faces for faces of another data set"
        )
    return asked


def _words(split: Split) -> str:
    more = "".join(f", ages {low}-{high} share {part:g}" for (low, high), part in split.hold_out.items())
    fold = "" if split.test_fold is None else f", fold {split.test_fold}"
    return f"share {split.share:g}, seed {split.seed}{more}{fold}"


def _validating(faces: Faces, split: Split | None) -> tuple[Sequence[int], str | None]:
    """Which faces are used, and how they were split off from those that trained the model."""
    from ageveil.training import splits

    if split is None:
        return range(len(faces.images)), None
    return splits.left_out(faces.images, **asdict(split)).tolist(), _words(split)


def _existing(path: Path) -> tuple[Buffer, ...]:
    from ageveil import calibration
    from ageveil.errors import OutputError

    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {str(path.parent)!r}")
    return calibration.read_buffers(path) if path.exists() else ()


def _store(path: Path, buffer: Buffer) -> None:
    from ageveil import calibration, files

    # Read again: another run may have added its buffer meanwhile.
    files.write_text(path, calibration.format_buffers(calibration.merge_buffer(_existing(path), buffer)))


def _show(buffer: Buffer, record: dict[str, Any], out: Path | None) -> None:
    from rich.table import Table

    from ageveil.calibration import percent

    screen = console()
    table = Table("", "", show_header=False, title=f"{buffer.board.upper()} {shown(buffer.rating)}")
    table.add_row("minimum age", f"{buffer.minimum_age} years")
    table.add_row("approach, model", f"{buffer.approach}, {buffer.model}")
    table.add_row("buffer", f"[bold]{buffer.buffer} years[/]")
    young = f"{max(0, buffer.minimum_age - buffer.window)} to {buffer.minimum_age - 1}"
    table.add_row(f"allowed of those aged {young}", f"{buffer.accepted} of {buffer.faces}")
    table.add_row(
        "at most, one-sided 95 %", f"{percent(buffer.bound)} (asked: {percent(buffer.max_false_accept)})"
    )
    table.add_row("allowed of those aged 25 and over", _share(buffer.adults_allowed, buffer.adults))
    table.add_row("tries with one photograph", str(buffer.tries))
    screen.print(table)
    left_out = ", ".join(f"{count} {reason}" for reason, count in record["left_out"].items()) or "none"
    screen.print(f"{shown(buffer.statement())}; left out: {left_out}")
    if out is not None:
        screen.print(f"added to {shown(out)}")
    if "check" in record:
        _show_check(record["check"], buffer)


def _show_check(check: dict[str, Any], buffer: Buffer) -> None:
    from rich.table import Table

    from ageveil.calibration import percent

    screen = console()
    table = Table("age", "faces", "allow", "deny", "step up", title=f"checked on {shown(check['data'])}")
    for band in check["bands"]:
        name = f"{band['low']}+" if band["high"] is None else f"{band['low']} to {band['high']}"
        shares = (_share(band[key], band["faces"]) for key in ("allow", "deny", "step_up"))
        table.add_row(name, str(band["faces"]), *shares)
    screen.print(table)
    found = check["false_accept"]
    if found is None:
        screen.print("no face a little too young to check on")
        return
    interval = f"95 % interval {percent(found['low'])} to {percent(found['high'])}"
    screen.print(
        f"up to {buffer.window} years too young and allowed (tries: {buffer.tries}): "
        f"{_share(check['accepted'], check['faces'])}, {interval}"
    )


def _share(count: int, faces: int) -> str:
    return f"{count} of {faces}" + (f" ({100 * count / faces:.1f} %)" if faces else "")
