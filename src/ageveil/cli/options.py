"""Options that several verbs take, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Photos = Annotated[list[Path], typer.Argument(help="One photograph or several.", show_default=False)]
Approach = Annotated[
    str,
    typer.Option(
        help="How the face is anonymized: mosaic, mask, blur, permutation (alias encryption), des-ecb, "
        "des-cbc, des-ctr."
    ),
]
EstimateApproach = Annotated[
    str,
    typer.Option(
        help="How the face is anonymized before its age is estimated: mosaic, mask, blur, permutation (alias "
        "encryption), des-ecb, des-cbc, des-ctr; or original, the bare face, in memory only."
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


def approaches(text: str) -> list[str]:
    """Approaches from a text such as "mask,blur" or "all", by name and once each.

    >>> approaches("encryption,mask,permutation")
    ['permutation', 'mask']

    Raises:
        ValueError: One is unknown.
    """
    from ageveil import anonymization

    names = list(anonymization.APPROACHES) if text == "all" else text.split(",")
    return list(dict.fromkeys(anonymization.get_approach(name.strip()).name for name in names))
