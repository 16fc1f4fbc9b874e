"""Options that several verbs take, so that they read alike everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

Photos = Annotated[list[Path], typer.Argument(help="One photograph or several.", show_default=False)]
Approach = Annotated[
    str,
    typer.Option(
        help="How the face is anonymized: mosaic, mask, blur, grid, dp-pix, veil, permutation (alias "
        "encryption), des-ecb, des-cbc, des-ctr."
    ),
]
EstimateApproach = Annotated[
    str,
    typer.Option(
        help="How the face is anonymized before its age is estimated: mosaic, mask, blur, grid, dp-pix, "
        "veil, permutation (alias encryption), des-ecb, des-cbc, des-ctr; or original, the bare face, in "
        "memory only."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Estimator, as `ageveil models` lists them; default: the best one installed."),
]
Licence = Annotated[
    Literal["any", "permissive"],
    typer.Option(help="permissive restricts the choice to weights that allow commercial use."),
]
Detector = Annotated[str, typer.Option(help="Face detector: centerface, dlib-hog or dlib-cnn.")]
Landmarks = Annotated[str, typer.Option(help="Landmark set: 5, or 68 with the extra dlib-models.")]
AllowOthers = Annotated[
    bool, typer.Option("--allow-others", help="Take the largest face even where another is of similar size.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only; with --json, no progress.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Photographs at a time; by default one for each core.")
]
ValidationShare = Annotated[
    float | None,
    typer.Option(help="Take the recipe's validation faces alone: the share that it kept out of training."),
]
SEED = 2018
"""Of recipes' splits, where they name no other."""

ValidationSeed = Annotated[int | None, typer.Option(min=0, help=f"Seed of that split; {SEED} by default.")]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(help="Larger share of that split for some ages, as 13-17:0.5. Repeatable."),
]

_HOLD_OUT = re.compile(r"([0-9]{1,3})-([0-9]{1,3}):([0-9]*\.?[0-9]+)")


def held_out(texts: Sequence[str], share: float | None) -> dict[tuple[int, int], float]:
    """The ages of which a larger share was kept out of training.

    >>> held_out(["13-17:0.5"], 0.1)
    {(13, 17): 0.5}

    Raises:
        ValueError: A text is of another form, or there is no share for the other ages.
    """
    if texts and share is None:
        raise ValueError("--hold-out goes with --validation-share")
    found = {}
    for text in texts:
        match = _HOLD_OUT.fullmatch(text)
        if match is None:
            raise ValueError(f"expected ages and a share as 13-17:0.5, got {text!r}")
        low, high = int(match[1]), int(match[2])
        if low > high:
            raise ValueError(f"ages run from a lower to a higher one, got {text!r}")
        found[low, high] = float(match[3])
    return found


def approaches(text: str, licence: Literal["any", "permissive"] = "any") -> list[str]:
    """Approaches from a text such as "mask,blur" or "all", by name and once each.

    "all" stands for those that all is installed for, under a licence that is allowed.

    >>> approaches("encryption,mask,permutation")
    ['permutation', 'mask']

    Raises:
        ValueError: One is unknown, or needs a network whose licence is not allowed.
    """
    from ageveil import anonymization

    if text == "all":
        return [name for name in anonymization.usable_approaches() if _is_allowed(name, licence)]
    return list(dict.fromkeys(permitted(name.strip(), licence) for name in text.split(",")))


def permitted(approach: str, licence: Literal["any", "permissive"]) -> str:
    """Name of an approach whose network, if it needs one, comes under a licence that is allowed.

    Raises:
        ValueError: Unknown approach, or its licence is not allowed.
    """
    from ageveil import anonymization

    entry = anonymization.get_approach(approach)
    if not _is_allowed(entry.name, licence):
        raise ValueError(f"the approach {entry.name} needs weights whose licence is not permissive")
    return entry.name


def _is_allowed(approach: str, licence: Literal["any", "permissive"]) -> bool:
    from ageveil import anonymization, estimation

    weights = anonymization.APPROACHES[approach].weights
    return licence == "any" or weights is None or weights.licence in estimation.PERMISSIVE


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from a text such as "1,5,30".

    >>> numbers("1, 5")
    (1, 5)

    Raises:
        ValueError: A part is no whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"expected whole numbers with commas between, got {text!r}") from error
