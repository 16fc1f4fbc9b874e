"""`ageveil audit`: whom does software still recognise behind an approach, and what does hiding cost?"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ageveil.cli import options
from ageveil.cli.circumstances import circumstances, commit, without_folder
from ageveil.cli.output import Progress, console, print_json, progress, shown

if TYPE_CHECKING:
    from ageveil.evaluation.accuracy import Faces

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
        str, typer.Option(help="dlib-resnet, or ONNX files, with commas between; the strongest counts.")
    ] = "dlib-resnet",
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
    from ageveil.audit import attack, page, report
    from ageveil.audit.attributes import attributes
    from ageveil.audit.membership import memberships
    from ageveil.audit.people import choose, find_people
    from ageveil.audit.recognition import check, get_recogniser
    from ageveil.evaluation import accuracy, plots
    from ageveil.files import make_directory, write_text

    plots.check_installed()
    if cache is not None and (cache.resolve() == out.resolve() or out.resolve() in cache.resolve().parents):
        raise ValueError("the cache holds bare faces: keep it outside --out, which is for others to see")
    plan = attack.Plan(
        options.approaches(approach),
        [get_recogniser(name.strip()) for name in recogniser.split(",")],
        attackers=attack.ATTACKERS[:2] if quick else attack.ATTACKERS,
        releases=(1,) if quick else options.numbers(releases),
        seed=seed,
    )
    for entry in plan.recognisers:
        check(entry)
    # What is wrong with the ages shows before the long work.
    aged = None if ages is None else _open_ages(ages, model, licence, limit, seed)
    trained = None if members is None else _open_ages(members, model, licence, None, seed)
    make_directory(out)
    number = people or (_QUICK_PEOPLE if quick else None)
    with contextlib.ExitStack() as kept:

        def bar(title: str, total: int) -> Progress:
            return kept.enter_context(progress(title, total, quiet=quiet))

        place = cache or Path(kept.enter_context(tempfile.TemporaryDirectory()))
        crops = find_people(
            faces, place / "faces", people=number, seed=seed, workers=workers,
            announce=lambda total: bar("faces of people", total).advance,
        )  # fmt: skip
        chosen = choose(crops, people=number, seed=seed)
        found = attack.run(
            chosen, plan, cache=cache and cache / "embeddings",
            advance=bar("attacks", plan.steps(chosen)).advance,
        )  # fmt: skip
        estimates = None
        if aged is not None:
            names = dict.fromkeys(["original", *plan.approaches])
            estimates = accuracy.estimate_all(
                aged[0], [(name, aged[1]) for name in names], seed=seed, workers=workers,
                advance=bar("ages", len(aged[0].images)).advance,
            )  # fmt: skip
        record = report.build(found, chosen, plan, estimates)
        if aged is not None:
            count = min(_ATTRIBUTE_FACES, len(aged[0].images))
            told = attributes(
                aged[0], plan.approaches, plan.recognisers[0], limit=count, seed=seed,
                advance=bar("attributes", count * len(plan.approaches)).advance,
            )  # fmt: skip
            record["attributes"] = {
                name: {trait: asdict(found) for trait, found in traits.items()}
                for name, traits in told.items()
            }
        if trained is not None:
            seen = memberships(
                trained[0], plan.approaches, trained[1], seed=seed, workers=workers,
                advance=bar("membership", len(trained[0].images)).advance,
            )  # fmt: skip
            record["membership"] = {name: asdict(found) for name, found in seen.items()}
        if any(get_approach(name).cipher for name in plan.approaches):
            side = _SEARCHED[quick]
            tried = bar("keys", side**4)
            record["ciphers"] = report.ciphers(
                report.colourful(chosen), seed, search_side=side, advance=tried.advance_by
            )
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


def _open_ages(
    data: str, model: str | None, licence: Literal["any", "permissive"], limit: int | None, seed: int
) -> tuple[Faces, str]:
    """Faces with known ages, and the estimator that is asked."""
    from ageveil import estimation, pipeline
    from ageveil.evaluation import accuracy

    faces = accuracy.open_faces(data, pipeline.Pipeline(allow_others=True), limit=limit, seed=seed)
    return faces, accuracy.choose_model(estimation.choose_model(model, licence), faces, licence)


def _show(record: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table("approach", "verdict", show_lines=True)
    for name, entry in record["approaches"].items():
        table.add_row(name, entry["verdict"])
    screen = console()
    screen.print(table)
    screen.print(f"{shown(out / 'index.html')}  [bold]{shown(out / 'audit.json')}[/]")
