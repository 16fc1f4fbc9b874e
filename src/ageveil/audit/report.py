"""What an audit found, as JSON values: figures with intervals, and a verdict on each approach in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ageveil import anonymization
from ageveil.audit import cryptanalysis
from ageveil.audit.attack import FIGURES, Found, Plan
from ageveil.audit.people import People
from ageveil.evaluation import accuracy
from ageveil.evaluation.accuracy import Estimates, as_json
from ageveil.evaluation.report import kept
from ageveil.types import Image

AUDIT_VERSION = 1
"""Of the layout of the JSON."""

# Percent of faces that are named: from here on an approach hides nothing from software, or hardly anything.
_NAMED_BY_SOFTWARE, _HARD_TO_NAME = 50.0, 10.0


def build(
    found: Mapping[str, Found],
    people: People,
    plan: Plan,
    ages: Mapping[tuple[str, str], Estimates] | None = None,
    *,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Gather an audit.

    Args:
        found: From `ageveil.audit.attack.run`.
        people: Who was attacked.
        plan: What was run.
        ages: (approach, model) -> estimates of one model, from `ageveil.evaluation.accuracy.estimate_all`.
        resamples: Of the bootstrap behind the shares of accuracy.

    Returns:
        JSON values; figures are in percent, with 95 % intervals over people or, for ages, over faces.
    """
    margin = any(recogniser.margin for recogniser in plan.recognisers)
    by_approach = {approach: estimates for (approach, _), estimates in (ages or {}).items()}
    return {
        "audit_version": AUDIT_VERSION,
        "people": people.count,
        "gallery": int(people.gallery.sum()),
        "probes": int((~people.gallery).sum()),
        "left_out": dict(people.left_out),
        "chance": 100 / people.count,
        "seed": plan.seed,
        "attackers": list(plan.attackers),
        "recognisers": [
            {"name": recogniser.name, "source": recogniser.source, "margin": recogniser.margin}
            for recogniser in plan.recognisers
        ],
        "lower_bound": not margin,
        "releases": list(plan.releases),
        "model": next((model for _, model in ages or {}), None),
        "approaches": {
            approach: {
                **_attacked(reached, plan),
                "age": _age(by_approach.get(approach), by_approach.get("original"), plan.seed, resamples),
                "verdict": verdict(
                    approach, reached, people.count, plan.releases[-1], lower_bound=not margin
                ),
            }
            for approach, reached in found.items()
        },
    }


def ciphers(crop: Image, seed: int) -> dict[str, Any]:
    """Attack the ciphers on one face, and say what they leave.

    Args:
        crop: Canonical crop, shape (S, S, 3).
        seed: Of the keys that are looked for.
    """
    return {
        "attacks": [asdict(attack) for attack in cryptanalysis.attack_ciphers(crop, seed)],
        "residues": [asdict(residue) for residue in cryptanalysis.residues(crop, seed)],
        "permutation_keys": (crop.shape[0] * crop.shape[1]) ** 2,
        "des_days": cryptanalysis.des_search_days(cryptanalysis.DEEP_CRACK),
    }


def _attacked(found: Found, plan: Plan) -> dict[str, Any]:
    def at(count: int) -> dict[str, Any]:
        return {
            attacker: {
                **{name: as_json(getattr(found.success[attacker, count], name)) for name in FIGURES},
                "recogniser": found.by[attacker, count],
            }
            for attacker in plan.attackers
        }

    return {
        "reidentification": at(1),
        "releases": {str(count): at(count) for count in plan.releases[1:]},
        "strongest": {
            str(count): {name: as_json(found.strongest(name, count)) for name in FIGURES}
            for count in plan.releases
        },
        "roc": {
            attacker: [list(point) for point in found.success[attacker, 1].roc] for attacker in plan.attackers
        },
    }


def _age(
    estimates: Estimates | None, bare: Estimates | None, seed: int, resamples: int
) -> dict[str, Any] | None:
    if estimates is None:
        return None
    score = accuracy.score(estimates, seed=seed, resamples=resamples)
    return {
        "exact": as_json(score.exact),
        "one_off": as_json(score.one_off),
        "kept": kept(estimates, bare, seed, resamples),
        "faces": score.faces,
    }


def verdict(approach: str, found: Found, people: int, releases: int, *, lower_bound: bool) -> str:
    """What a privacy officer needs to know of an approach, in a sentence or two.

    >>> from ageveil.evaluation.intervals import Estimate
    >>> figure = Estimate(88.0, 84.0, 92.0)
    >>> success = Success(figure, figure, figure, figure, ())
    >>> found = Found({("naive", 1): success}, {("naive", 1): "x"}, 1.0)
    >>> verdict("mosaic", found, 100, 1, lower_bound=False)
    'Hides from people, not from software: named 88 of 100 faces among 100 people.'
    """
    named = found.strongest("rank1", 1).value
    more = found.strongest("rank1", releases).value
    share = f"named {named:.0f} of 100 faces among {people} people"
    if releases > 1:
        share += f", {more:.0f} of 100 from {releases} frames"
    worst = max(named, more)
    if anonymization.get_approach(approach).hides == "nothing":
        text = f"The bare face: software {share}"
    elif worst >= _NAMED_BY_SOFTWARE:
        text = f"Hides from people, not from software: {share}"
    elif worst >= _HARD_TO_NAME:
        text = f"Hides from people, and in part from software: {share} (guessing: {found.chance:.1f})"
    else:
        text = f"Software hardly names anybody: {share} (guessing: {found.chance:.1f})"
    if anonymization.get_approach(approach).reversible:
        text += ". Whoever has or finds the key sees the bare face"
    return f"{text}." + (" A lower bound: stronger recognisers exist." if lower_bound else "")


def as_text(report: Mapping[str, Any]) -> str:
    """The report as JSON, with a line end."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"
