"""`ageveil audit`: whom does software still recognise behind an approach, and what does hiding cost?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ageveil.cli import options
from ageveil.cli.circumstances import circumstances, commit, without_folder
from ageveil.cli.output import console, print_json, progress, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ageveil.evaluation.accuracy import Estimates

_QUICK_PEOPLE = 40


def audit(
    faces: Annotated[
        Path, typer.Option(help="A folder of pictures for each person, as LFW's; or its prepared crops.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for index.html and audit.json; made if missing.")],
    ages: Annotated[
        str | None,
        typer.Option(help="Faces with ages, as utkface:DIR or prepared:DIR, for what hiding costs."),
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
    from ageveil.audit.people import choose, find_people
    from ageveil.audit.recognition import get_recogniser
    from ageveil.evaluation import plots
    from ageveil.files import make_directory, write_text

    plots.check_installed()
    make_directory(out)
    plan = attack.Plan(
        options.approaches(approach),
        [get_recogniser(name.strip()) for name in recogniser.split(",")],
        attackers=attack.ATTACKERS[:2] if quick else attack.ATTACKERS,
        releases=(1,) if quick else options.numbers(releases),
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as temporary:  # unless there is a cache
        place = cache or Path(temporary)
        with progress("faces of people", None, quiet=quiet) as bar:
            crops = find_people(faces, place / "faces", workers=workers, advance=bar.advance)
        chosen = choose(crops, people=people or (_QUICK_PEOPLE if quick else None), seed=seed)
        with progress("attacks", plan.steps(chosen), quiet=quiet) as bar:
            found = attack.run(chosen, plan, cache=place / "embeddings", advance=bar.advance)
        face = chosen.crop(0).pixels
    estimates = _ages(ages, plan.approaches, model, licence, limit, seed, workers, quiet=quiet)
    record = report.build(found, chosen, plan, estimates)
    if any(get_approach(name).cipher for name in plan.approaches):
        record["ciphers"] = report.ciphers(face, seed)
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


def _ages(
    data: str | None,
    approaches: Sequence[str],
    model: str | None,
    licence: options.Licence,
    limit: int | None,
    seed: int,
    workers: int | None,
    *,
    quiet: bool,
) -> dict[tuple[str, str], Estimates] | None:
    """What an estimator says of faces with known ages, behind each approach and bare."""
    if data is None:
        return None
    from ageveil import estimation, pipeline
    from ageveil.evaluation import accuracy

    faces = accuracy.open_faces(data, pipeline.Pipeline(allow_others=True), limit=limit, seed=seed)
    chosen = accuracy.choose_model(estimation.choose_model(model, licence), faces, licence)
    names = dict.fromkeys(["original", *approaches])
    with progress("ages", len(faces.images), quiet=quiet) as bar:
        return accuracy.estimate_all(
            faces, [(name, chosen) for name in names], seed=seed, workers=workers, advance=bar.advance
        )


def _show(record: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table("approach", "verdict", show_lines=True)
    for name, entry in record["approaches"].items():
        table.add_row(name, entry["verdict"])
    screen = console()
    screen.print(table)
    screen.print(f"{shown(out / 'index.html')}  [bold]{shown(out / 'audit.json')}[/]")
