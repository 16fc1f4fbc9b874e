"""What an audit found, as JSON values: figures with intervals, and a verdict on each approach in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np

from ageveil import anonymization
from ageveil.audit import cryptanalysis
from ageveil.audit.attack import Found, Plan
from ageveil.audit.people import People
from ageveil.audit.reconstruction import Naming, Reconstruction
from ageveil.audit.reidentification import FIGURES, Success
from ageveil.evaluation import accuracy
from ageveil.evaluation.accuracy import Estimates, as_json
from ageveil.evaluation.report import kept
from ageveil.types import Image

AUDIT_VERSION = 1
"""Of the layout of the JSON."""

# Percent of faces that are named beyond guessing: from the first on an approach hides from people alone,
# up to the second it hides from the software that was tried.
_NAMED_BY_SOFTWARE, _HARD_TO_NAME = 50.0, 10.0

_UNDOING = MappingProxyType(
    {
        "wiener": "Deblurring",
        "richardson-lucy": "Deblurring",
        "inpainter": "A network that paints back what is hidden",
    }
)


def build(
    found: Mapping[str, Found],
    people: People,
    plan: Plan,
    ages: Mapping[tuple[str, str], Estimates] | None = None,
    restored: Mapping[str, Mapping[str, Reconstruction]] = MappingProxyType({}),
    *,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Gather an audit.

    Args:
        found: From `ageveil.audit.attack.run`.
        people: Who was attacked.
        plan: What was run.
        ages: (approach, model) -> estimates of one model, from `ageveil.evaluation.accuracy.estimate_all`.
        restored: Approach -> way to undo it -> what it brought back.
        resamples: Of the bootstrap behind the shares of accuracy.

    Returns:
        JSON values; figures are in percent, with 95 % intervals over people or, for ages, over faces.
    """
    lower_bound = not any(recogniser.margin for recogniser in plan.recognisers)
    by_approach = {approach: estimates for (approach, _), estimates in (ages or {}).items()}
    return {
        "audit_version": AUDIT_VERSION,
        "people": people.count,
        "gallery": int(people.gallery.sum()),
        "probes": int((~people.gallery).sum()),
        "fused_probes": plan.fused_probes,
        "left_out": dict(people.left_out),
        "chance": 100 / people.count,
        "seed": plan.seed,
        "attackers": list(plan.attackers),
        "recognisers": [
            {
                "name": recogniser.name,
                "source": recogniser.source,
                "margin": recogniser.margin,
                "approaches": None if recogniser.approaches is None else list(recogniser.approaches),
            }
            for recogniser in plan.recognisers
        ],
        "lower_bound": lower_bound,
        "releases": list(plan.releases),
        "model": next((model for _, model in ages or {}), None),
        "approaches": {
            approach: {
                **_attacked(reached, plan),
                "age": _age(by_approach.get(approach), by_approach.get("original"), plan.seed, resamples),
                "reversible": anonymization.get_approach(approach).reversible,
                "verdict": verdict(
                    approach,
                    reached,
                    people.count,
                    plan.releases,
                    restored.get(approach, {}),
                    lower_bound=lower_bound,
                ),
            }
            for approach, reached in found.items()
        },
        "reconstruction": {
            approach: {way: _brought_back(reached) for way, reached in undone.items()}
            for approach, undone in restored.items()
        },
    }


def colourful(people: People, *, among: int = 20) -> Image:
    """The crop with most colour among the first faces: few colours slow an attack, or stop it."""
    crops = [people.crop(number).pixels for number in range(min(among, len(people)))]
    return max(crops, key=lambda crop: len(np.unique(crop.reshape(-1, 3), axis=0)))


def ciphers(
    crop: Image, seed: int, *, search_side: int = 32, advance: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Attack the ciphers on one face, and say what they leave.

    Args:
        crop: Canonical crop, shape (S, S, 3).
        seed: Of the keys that are looked for.
        search_side: As for `ageveil.audit.cryptanalysis.attack_ciphers`.
        advance: Called with the number of keys that were tried since the last call, `search_side` ** 4 in
            all.
    """
    attacks = cryptanalysis.attack_ciphers(crop, seed, search_side=search_side, advance=advance)
    side = 6
    return {
        "attacks": [asdict(attack) for attack in attacks],
        "residues": [asdict(residue) for residue in cryptanalysis.residues(crop, seed)],
        "permutation_keys": (crop.shape[0] * crop.shape[1]) ** 2,
        "distinct": {
            "side": side, "keys": side**4, "orders": cryptanalysis.distinct_orders(side, side),
        },
        "des_days": cryptanalysis.des_search_days(cryptanalysis.DEEP_CRACK),
    }  # fmt: skip


def _figures(success: Success) -> dict[str, Any]:
    return {figure: as_json(getattr(success, figure)) for figure in FIGURES}


def _brought_back(reached: Reconstruction) -> dict[str, Any]:
    def naming(who: Naming | None) -> dict[str, Any] | None:
        if who is None:
            return None
        return {"before": _figures(who.before), "after": _figures(who.after), "gain": as_json(who.gain)}

    return {
        **{name: [as_json(figure) for figure in getattr(reached, name)] for name in ("psnr", "ssim")},
        **{name: naming(getattr(reached, name)) for name in ("naive", "aware")},
        "faces": reached.faces,
    }


def _attacked(found: Found, plan: Plan) -> dict[str, Any]:
    def highest(frames: int | None) -> dict[str, Any]:
        return {figure: as_json(found.strongest(figure, frames)) for figure in FIGURES}

    return {
        "reidentification": {
            attacker: {**_figures(success), "recogniser": found.by[attacker]}
            for attacker, success in found.once.items()
        },
        "strongest": highest(None),
        "releases": {
            str(frames): {
                **{attacker: _figures(found.fused[attacker, frames]) for attacker in plan.attackers},
                "strongest": highest(frames),
            }
            for frames in sorted({frames for _, frames in found.fused})
        },
        "roc": {attacker: [list(point) for point in success.roc] for attacker, success in found.once.items()},
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


def verdict(
    approach: str,
    found: Found,
    people: int,
    releases: Sequence[int],
    restored: Mapping[str, Reconstruction] = MappingProxyType({}),
    *,
    lower_bound: bool,
) -> str:
    """What a privacy officer needs to know of an approach, in a sentence or two.

    >>> from ageveil.evaluation.intervals import Estimate
    >>> figure = Estimate(88.0, 84.0, 92.0)
    >>> found = Found({"naive": Success(figure, figure, figure, figure, ())}, {}, {"naive": "x"}, 1.0)
    >>> verdict("mosaic", found, 100, (1,), lower_bound=False)
    'Hides from people, not from software: it named 88 of 100 faces among 100 people.'
    """
    entry = anonymization.get_approach(approach)
    named = _rank1(found, None)
    share = f"named {named:.0f} of 100 faces among {people} people"
    worst = named
    if found.fused:
        several = _rank1(found, releases[-1])
        share += f", {several:.0f} of 100 from {releases[-1]} frames"
        worst = max(worst, several)
    risen = _risen(restored)
    if risen is not None:
        worst = max(worst, risen[1].after.rank1.value)
    beyond = 100 * (worst - found.chance) / (100 - found.chance)
    if entry.hides == "nothing":
        text = f"The bare face, which hides nothing from software: it {share}"
    elif entry.reversible:
        text = (
            f"A cipher: {entry.summary}. Whoever has or finds the key sees the bare face. Without it, "
            f"software {share} (guessing: {found.chance:.1f})"
        )
    elif beyond >= _NAMED_BY_SOFTWARE:
        text = f"Hides from people, not from software: it {share}"
    elif beyond >= _HARD_TO_NAME:
        text = f"Hides from people, and in part from software: it {share} (guessing: {found.chance:.1f})"
    else:
        text = f"Software hardly names anybody: it {share} (guessing: {found.chance:.1f})"
    text += "."
    if risen is not None:
        text += " {} raises what {} names from {:.0f} to {:.0f} of 100.".format(
            *risen[0], risen[1].before.rank1.value, risen[1].after.rank1.value
        )
    return text + (" A lower bound: stronger recognisers exist." if lower_bound else "")


def _risen(restored: Mapping[str, Reconstruction]) -> tuple[tuple[str, str], Naming] | None:
    """How an approach is undone and by whom so that most faces are named, if more are than before."""
    found = [
        ((_UNDOING[way], who), naming)
        for way, reached in restored.items()
        for who, naming in (("a naive attacker", reached.naive), ("an aware attacker", reached.aware))
        if naming is not None and naming.rises
    ]
    return max(found, key=lambda each: each[1].after.rank1.value, default=None)


def _rank1(found: Found, frames: int | None) -> float:
    reached = found.strongest("rank1", frames)
    return reached.value if reached is not None else 0.0


def as_text(report: Mapping[str, Any]) -> str:
    """The report as JSON, with a line end."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"
