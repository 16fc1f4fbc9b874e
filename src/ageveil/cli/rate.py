"""`ageveil rate`: may this viewer see a title of this rating?"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ageveil.cli import options
from ageveil.cli.output import (
    Outcome,
    console,
    each,
    estimate_record,
    finish,
    progress,
    refuse_existing,
    refuse_own_source,
    shown,
)
from ageveil.errors import AgeveilError

if TYPE_CHECKING:
    from ageveil.pipeline import Estimate, Pipeline, Terms
    from ageveil.types import Decision

EXIT_CODES = {"allow": 0, "deny": 10, "step_up": 11}
_COLOURS = {"allow": "green", "deny": "red", "step_up": "yellow"}


def rate(
    photos: options.Photos,
    board: Annotated[str, typer.Option(help="Classification body, as `ageveil boards` lists them.")],
    rating: Annotated[str, typer.Option(help="One of its marks, as R, 16 or M.")],
    accompanied: Annotated[
        bool, typer.Option("--accompanied", help="An adult is at the viewer's side.")
    ] = False,
    waive_voluntary: Annotated[
        bool, typer.Option("--waive-voluntary", help="Treat voluntary ratings as advice.")
    ] = False,
    confidence: Annotated[float, typer.Option(help="Probability that allow and deny need.")] = 0.99,
    buffer: Annotated[
        int | None,
        typer.Option(
            help="Years added to the minimum age before allowing; by default those stored with the model."
        ),
    ] = None,
    buffers: Annotated[
        Path | None,
        typer.Option(
            help="Take the buffer from this file of `ageveil calibrate`, not from beside the model."
        ),
    ] = None,
    approach: options.EstimateApproach = "mosaic",
    model: options.Model = None,
    licence: options.Licence = "any",
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    allow_others: options.AllowOthers = False,
    same_viewer: Annotated[
        bool,
        typer.Option("--same-viewer", help="All photographs show one viewer: fuse them to one decision."),
    ] = False,
    save_anonymized: Annotated[
        Path | None, typer.Option(help="Write the anonymized face that the estimator saw (one photograph).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a saved face that exists.")] = False,
    as_json: options.Json = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 0 for allow, 10 for deny, 11 for step up.")
    ] = False,
    quiet: options.Quiet = False,
) -> int:
    """Decide whether a viewer may see a title of a rating: allow, deny or step up (ask for other proof).

    The face is anonymized before its age is estimated. Where the answer depends on no age, the photograph is
    not opened.
    """
    from ageveil import boards, estimation, pipeline
    from ageveil.types import Policy

    mark = boards.get_rating(board, rating)
    policy = Policy(confidence, buffer, accompanied, waive_voluntary)
    if buffer is not None and buffers is not None:
        raise ValueError("give --buffer or --buffers, not both")
    chosen = estimation.choose_model(model, licence)
    way = pipeline.Pipeline(
        options.permitted(approach, licence), chosen, detector, landmarks, allow_others, buffers=buffers
    )
    _check_saving(save_anonymized, photos, approach, force=force)
    terms = way.terms(mark, policy)
    settled = terms.settle()

    def outcome(photo: Path, found: Estimate) -> Outcome:
        if save_anonymized is not None:
            pipeline.save_anonymized(save_anonymized, found.face)
        return _decided(photo, found, terms)

    if settled is not None:
        outcomes = _settled(photos, settled, terms, same_viewer=same_viewer)
    elif same_viewer and len(photos) > 1:
        outcomes = [_fused(photos, _estimates(way, photos, quiet=quiet), terms)]
    else:
        outcomes = each(photos, way.estimate_many(photos), outcome, quiet=quiet)
    code = finish(outcomes, _show, as_json=as_json, quiet=quiet)
    failed = any("error" in outcome.record for outcome in outcomes)
    return code if exit_code or failed else 0


def _estimates(way: Pipeline, photos: list[Path], *, quiet: bool) -> list[Estimate | AgeveilError]:
    found = []
    with (
        closing(way.estimate_many(photos)) as results,
        progress("photographs", len(photos), quiet=quiet) as bar,
    ):
        for result in results:
            found.append(result)
            bar.advance()
    return found


def _check_saving(path: Path | None, photos: list[Path], approach: str, *, force: bool) -> None:
    """Refuse before any face is read what could not be written after.

    Raises:
        ValueError: Several photographs, or an approach that leaves the face bare.
        OutputError: The path cannot be written, is the photograph's own, or holds something already.
    """
    if path is None:
        return
    from ageveil import anonymization, image

    if len(photos) != 1:
        raise ValueError("--save-anonymized takes one photograph")
    target = image.check_output(path, lossless=anonymization.protective_approach(approach).reversible)
    refuse_own_source(target, photos[0])
    refuse_existing(target, force=force)


def _settled(photos: list[Path], settled: Decision, terms: Terms, *, same_viewer: bool) -> list[Outcome]:
    """The same answer for every photograph, or one for a viewer that several show."""
    code = EXIT_CODES[settled.outcome]
    outcomes = [Outcome(photo, _record(photo, None, settled, terms), code) for photo in photos]
    if not same_viewer or len(photos) == 1:
        return outcomes
    return [Outcome(photos[0], {**outcomes[0].record, "photo": [str(photo) for photo in photos]}, code)]


def _decided(photo: Path, estimate: Estimate, terms: Terms) -> Outcome:
    decided = terms.decide(estimate.distribution)
    return Outcome(photo, _record(photo, estimate, decided, terms), EXIT_CODES[decided.outcome])


def _fused(photos: list[Path], estimates: list[Estimate | AgeveilError], terms: Terms) -> Outcome:
    """One decision from all photographs of one viewer; a photograph that cannot be used fails the whole."""
    from ageveil import decision

    usable: list[Estimate] = []
    for photo, estimate in zip(photos, estimates, strict=True):
        if isinstance(estimate, AgeveilError):
            raise type(estimate)(f"{photo}: {estimate}")
        usable.append(estimate)
    fused = decision.fuse([estimate.distribution for estimate in usable])
    decided = terms.decide(fused)
    record = _record(photos[0], usable[0], decided, terms)
    record["faces"] = [
        face for p, e in zip(photos, usable, strict=True) for face in estimate_record(p, e)["faces"]
    ]
    record["photo"] = [str(photo) for photo in photos]
    return Outcome(photos[0], record, EXIT_CODES[decided.outcome])


def _record(photo: Path, estimate: Estimate | None, decided: Decision, terms: Terms) -> dict[str, Any]:
    unread: dict[str, Any] = {
        "photo": str(photo), "approach": None, "model": None, "model_version": None, "licence": None,
        "resolution": None, "faces": [],
    }  # fmt: skip
    return {
        **(unread if estimate is None else estimate_record(photo, estimate)),
        "decision": decided.outcome,
        "board": decided.rating.board,
        "rating": decided.rating.mark,
        "kind": decided.rating.kind,
        "minimum_age": decided.minimum_age,
        "buffer": decided.policy.buffer,
        "buffer_source": decided.buffer_source,
        "buffer_statement": decided.buffer_statement,
        "buffer_record": None if terms.stored is None else terms.stored.to_json(),
        "confidence": decided.policy.confidence,
        "probability_at_least": decided.probability_at_least,
        "probability_below": decided.probability_below,
        "calibrated": decided.calibrated,
        "reason": decided.reason,
    }


def _show(outcome: Outcome) -> None:
    record, out = outcome.record, console()
    word = record["decision"].replace("_", " ").upper()
    photos = record["photo"] if isinstance(record["photo"], list) else [record["photo"]]
    out.print(f"[bold {_COLOURS[record['decision']]}]{word}[/]  {', '.join(map(shown, photos))}")
    out.print(f"  {record['reason']}")
    if record["faces"]:
        out.print(f"  [dim]approach {record['approach']} · model {record['model']} ({record['licence']})[/]")
        out.print(f"  {_buffer_line(record, len(photos))}")
        if not record["calibrated"]:
            out.print(f"  [yellow]not calibrated behind {record['approach']}: too sure, do not rely on it[/]")
    else:
        out.print("  [dim]no face was read[/]")


def _buffer_line(record: dict[str, Any], photos: int) -> str:
    """What is known of the error of an allow, in a line with styles."""
    if record["buffer_source"] == "stored":
        single = "; measured on single photographs, not on fused ones" if photos > 1 else ""
        return f"[dim]{shown(record['buffer_statement'])}{single}[/]"
    if record["buffer_source"] == "hand":
        return f"[dim]buffer {record['buffer']} (years), chosen by hand: no error is stated[/]"
    return (
        f"[yellow]no buffer is stored for {record['minimum_age']} years behind {record['approach']} at "
        f"confidence {record['confidence']}: no error is stated[/]"
    )
