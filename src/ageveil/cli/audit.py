"""`ageveil audit`: whom does software still recognise behind an approach, and what does hiding cost?"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ageveil.cli import options
from ageveil.cli.circumstances import circumstances, commit, without_folder
from ageveil.cli.output import console, print_json, progress, shown

if TYPE_CHECKING:
    from ageveil.audit.attack import Found, Plan
    from ageveil.audit.people import People
    from ageveil.evaluation.accuracy import Estimates, Faces

_QUICK_PEOPLE = 40
_ATTRIBUTE_FACES = 1000
# Side in pixels of the encrypted face whose key is searched, and of the one of a quick audit.
_SEARCHED = {False: 32, True: 16}


def audit(
    faces: Annotated[
        Path, typer.Option(help="A folder of pictures for each person, as LFW's; or its prepared crops.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for index.html and audit.json; made if missing.")],
    ages: Annotated[
        str | None,
        typer.Option(help="Faces with ages, as utkface:DIR or prepared:DIR, for what hiding costs."),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(help="The estimator's training data, named as --ages: can it be told who was in it?"),
    ] = None,
    approach: Annotated[str, typer.Option(help="One approach, several with commas between, or all.")] = "all",
    recogniser: Annotated[
        str, typer.Option(help="Names, or ONNX files, with commas between; the strongest counts.")
    ] = "dlib-resnet,dlib-resnet-adapted,pixels,levels",
    releases: Annotated[
        str, typer.Option(help="Numbers of frames of a face that the attacker fuses, from 1 upwards.")
    ] = "1,5,30",
    people: Annotated[int | None, typer.Option(min=5, help="Only so many people, drawn with --seed.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="40 people, one frame, the naive and the aware attacker.")
    ] = False,
    model: options.Model = None,
    licence: options.Licence = "any",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of --ages.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep bare crops and embeddings here, so that a stopped audit goes on. Private."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of draws, keys, frames, samples and the bootstrap.")] = 0,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Attack anonymized faces: how many does software still name, and how much age accuracy is left?

    Three attackers, each with the alignment given: naive knows clear photographs, aware passes them through
    the approach first, adapted has learned from other people's faces. The strongest counts. The page shows no
    photograph. Needs the extras "train" and "report".
    """
    start, began_at = time.monotonic(), commit()
    from ageveil.anonymization import get_approach
    from ageveil.audit import page, report
    from ageveil.audit.fairness import fairness
    from ageveil.evaluation import plots
    from ageveil.files import make_directory, write_text

    plots.check_installed()
    if cache is not None and (cache.resolve() == out.resolve() or out.resolve() in cache.resolve().parents):
        raise ValueError("the cache holds bare faces: keep it outside --out, which is for others to see")
    plan = _plan(approach, recogniser, releases, seed, quick=quick)
    # What is wrong with the ages shows before the long work.
    aged = None if ages is None else _open_ages(ages, model, licence, limit, seed)
    trained = None if members is None else _open_ages(members, model, licence, None, seed)
    make_directory(out)
    number = people or (_QUICK_PEOPLE if quick else None)
    with contextlib.nullcontext(cache) if cache else tempfile.TemporaryDirectory() as place:
        chosen = _choose(faces, Path(place), number, seed, workers, quiet=quiet)
        found = _attack(chosen, plan, cache, quiet=quiet)
        estimates = None if aged is None else _estimate(aged, plan, workers, quiet=quiet)
        record = report.build(found, chosen, plan, estimates)
        record["reconstruction"] = _undo_blurs(chosen, plan, quiet=quiet)
        if estimates is not None:
            record["fairness"] = fairness(estimates, seed=seed)
        if aged is not None:
            record["attributes"] = _read_attributes(aged, plan, quiet=quiet)
        if trained is not None:
            record["membership"] = _tell_members(trained, plan, workers, quiet=quiet)
        if any(get_approach(name).cipher for name in plan.approaches):
            record["ciphers"] = _attack_ciphers(chosen, seed, _SEARCHED[quick], quiet=quiet)
    record["run"] = circumstances(began_at, time.monotonic() - start) | {
        "faces": without_folder(str(faces)),
        "ages": None if ages is None else without_folder(ages),
    }
    write_text(out / "index.html", page.render(record))
    write_text(out / "audit.json", report.as_text(record))
    if as_json:
        print_json({"page": str(out / "index.html"), "report": str(out / "audit.json")})
    elif not quiet:
        _show(record, out)
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class _Aged:
    """Faces with known ages, and the estimator that is asked."""

    faces: Faces
    model: str


def _plan(approach: str, recogniser: str, releases: str, seed: int, *, quick: bool) -> Plan:
    """What the options ask for, with recognisers that were tried."""
    from ageveil.audit import attack
    from ageveil.audit.recognition import check, get_recogniser
    from ageveil.audit.releases import behaviour

    recognisers = [get_recogniser(name.strip()) for name in recogniser.split(",")]
    if quick:  # without the attacker who may use those that have learned
        recognisers = [entry for entry in recognisers if entry.approaches is None]
    plan = attack.Plan(
        options.approaches(approach),
        recognisers,
        attackers=attack.ATTACKERS[:2] if quick else attack.ATTACKERS,
        releases=(1,) if quick else options.numbers(releases),
        seed=seed,
    )
    for entry in plan.recognisers:
        check(entry)
    for name in plan.approaches:
        behaviour(name)  # which needs its weights
    return plan


def _open_ages(
    data: str, model: str | None, licence: Literal["any", "permissive"], limit: int | None, seed: int
) -> _Aged:
    from ageveil import estimation, pipeline
    from ageveil.evaluation import accuracy

    faces = accuracy.open_faces(data, pipeline.Pipeline(allow_others=True), limit=limit, seed=seed)
    return _Aged(faces, accuracy.choose_model(estimation.choose_model(model, licence), faces, licence))


def _choose(
    faces: Path, place: Path, number: int | None, seed: int, workers: int | None, *, quiet: bool
) -> People:
    """Gallery and probes; the faces of a folder are cropped first."""
    from ageveil.audit.people import choose, find_people

    with contextlib.ExitStack() as bar:  # opened once the pictures are counted, if there are any to crop
        crops = find_people(
            faces, place / "faces", people=number, seed=seed, workers=workers,
            announce=lambda total: bar.enter_context(
                progress("faces of people", total, quiet=quiet)
            ).advance,
        )  # fmt: skip
    return choose(crops, people=number, seed=seed)


def _attack(chosen: People, plan: Plan, cache: Path | None, *, quiet: bool) -> dict[str, Found]:
    from ageveil.audit import attack

    with progress("attacks", plan.steps(chosen), quiet=quiet) as bar:
        return attack.run(chosen, plan, cache=cache and cache / "embeddings", advance=bar.advance)


def _undo_blurs(chosen: People, plan: Plan, *, quiet: bool) -> dict[str, Any]:
    from ageveil.audit.reconstruction import reconstruct, undoable

    blurs = [name for name in plan.approaches if undoable(name) is not None]
    if not blurs:
        return {}
    sharp = next(entry for entry in plan.recognisers if entry.approaches is None)  # it expects no blur
    with progress("deblurring", len(blurs) * len(chosen), quiet=quiet) as bar:
        restored = {
            name: reconstruct(chosen, name, sharp, seed=plan.seed, advance=bar.advance) for name in blurs
        }
    return {
        name: {method: asdict(found) for method, found in methods.items()}
        for name, methods in restored.items()
    }


def _estimate(
    aged: _Aged, plan: Plan, workers: int | None, *, quiet: bool
) -> dict[tuple[str, str], Estimates]:
    """Ages of bare faces, and behind every approach."""
    from ageveil.evaluation import accuracy

    questions = [(name, aged.model) for name in dict.fromkeys(["original", *plan.approaches])]
    with progress("ages", len(aged.faces.images), quiet=quiet) as bar:
        return accuracy.estimate_all(
            aged.faces, questions, seed=plan.seed, workers=workers, advance=bar.advance
        )


def _read_attributes(aged: _Aged, plan: Plan, *, quiet: bool) -> dict[str, Any]:
    from ageveil.audit.attributes import attributes

    count = min(_ATTRIBUTE_FACES, len(aged.faces.images))
    with progress("attributes", count * len(plan.approaches), quiet=quiet) as bar:
        told = attributes(
            aged.faces, plan.approaches, plan.recognisers, limit=count, seed=plan.seed, advance=bar.advance
        )
    return {name: {trait: asdict(found) for trait, found in traits.items()} for name, traits in told.items()}


def _tell_members(trained: _Aged, plan: Plan, workers: int | None, *, quiet: bool) -> dict[str, Any]:
    from ageveil.audit.membership import memberships

    with progress("membership", None, quiet=quiet) as bar:  # how many take part shows in the course of it
        seen = memberships(
            trained.faces, plan.approaches, trained.model, seed=plan.seed, workers=workers,
            advance=bar.advance,
        )  # fmt: skip
    return {name: asdict(found) for name, found in seen.items()}


def _attack_ciphers(chosen: People, seed: int, side: int, *, quiet: bool) -> dict[str, Any]:
    from ageveil.audit import report

    with progress("keys", side**4, quiet=quiet) as bar:
        return report.ciphers(report.colourful(chosen), seed, search_side=side, advance=bar.advance_by)


def _show(record: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table("approach", "verdict", show_lines=True)
    for name, entry in record["approaches"].items():
        table.add_row(name, entry["verdict"])
    screen = console()
    screen.print(table)
    screen.print(f"{shown(out / 'index.html')}  [bold]{shown(out / 'audit.json')}[/]")
