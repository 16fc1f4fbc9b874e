"""`ageveil estimate`: how old is the viewer, as far as an anonymized face tells?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ageveil.cli import options
from ageveil.cli.output import Outcome, console, each, estimate_record, finish, shown

if TYPE_CHECKING:
    from ageveil.pipeline import Estimate

_BAR = 30


def estimate(
    photos: options.Photos,
    approach: options.EstimateApproach = "mosaic",
    model: options.Model = None,
    licence: options.Licence = "any",
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    allow_others: options.AllowOthers = False,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Estimate the viewer's age from an anonymized face, as a distribution.

    The viewer is the largest face; a second one of similar size is an error unless --allow-others is given.
    """
    from ageveil import estimation, pipeline

    way = pipeline.Pipeline(
        options.permitted(approach, licence),
        estimation.choose_model(model, licence),
        detector,
        landmarks,
        allow_others,
    )
    results = way.estimate_many(photos, workers=workers)
    outcomes = each(photos, results, _outcome, quiet=quiet)
    return finish(outcomes, _show, as_json=as_json, quiet=quiet)


def _outcome(photo: Path, result: Estimate) -> Outcome:
    return Outcome(photo, estimate_record(photo, result))


def _show(outcome: Outcome) -> None:
    from ageveil.types import AGE_GROUP_NAMES

    record, out = outcome.record, console()
    face = record["faces"][0]
    low, high = face["interval_90"]
    out.print(
        f"[bold]{shown(record['photo'])}[/]  about {face['expected_age']:.0f} years, "
        f"90 % between {low} and {high}, group {face['age_group']}"
    )
    for name, probability in zip(AGE_GROUP_NAMES, face["group_probabilities"], strict=True):
        out.print(f"  {name:>6}  {probability:6.1%}  {'█' * round(_BAR * probability)}")
    out.print(f" between  {face['between_groups']:6.1%}")
    out.print(f"  [dim]approach {record['approach']} · model {record['model']} ({record['licence']})[/]")
