"""For whom an estimator behind an approach errs: by gender, race and age group, and the widest gaps.

The scores of each part are those of `ageveil.evaluation.accuracy.score_by`; beside them stands who is taken
for older than an age that they have not reached.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ageveil.evaluation.accuracy import FEW, TRAITS, Estimates, Trait, as_json, score_by
from ageveil.evaluation.intervals import Estimate

OVER = (13, 18)
"""Ages that those who are younger may be taken to have reached."""

_FEWEST = 10  # faces of a part that tell of a gap at all: there are many pairs to choose the widest from

_GAPS = ("exact", "mae_years", *(f"over_{age}" for age in OVER))


@dataclass(frozen=True, slots=True)
class Gap:
    """The widest difference between two parts of the faces that chance alone would hardly make.

    Attributes:
        trait: By what they are parted.
        figure: Which differs.
        highest: The part with the highest value.
        lowest: The part with the lowest.
        points: The difference, in percent points or years.
        apart: Whether the intervals of the two do not touch.
    """

    trait: str
    figure: str
    highest: str
    lowest: str
    points: float
    apart: bool


def taken_for_older(
    estimates: Estimates, trait: Trait, value: str | None, age: int, *, seed: int = 0, resamples: int = 500
) -> tuple[Estimate, int] | None:
    """Share of those under an age whose P(age >= it) is one half or more, and of how many; None of nobody.

    Args:
        estimates: From `ageveil.evaluation.accuracy.estimate_all`.
        trait: What the faces are parted by.
        value: Of the part; None for those of whom nothing is said.
        age: In years.
        seed: Of the bootstrap, where the data set names people.
        resamples: Of the bootstrap.

    Returns:
        The share in percent with its interval, as `Estimates.share` gives it, and the faces that are
        certainly under the age.
    """
    under, _ = estimates.sides(age)
    chosen = under & np.array([label == value for label in _labels(estimates, trait)])
    if not chosen.any():
        return None
    older = estimates.at_least(age)[chosen] >= 0.5
    return estimates.share(older, chosen, seed=seed, resamples=resamples), int(chosen.sum())


def _labels(estimates: Estimates, trait: Trait) -> list[str | None]:
    if trait == "group":
        return [None if index < 0 else estimates.bin_names[index] for index in estimates.true_bins.tolist()]
    return [getattr(image, trait) for image in estimates.images]


def by_trait(
    estimates: Estimates, trait: Trait, *, seed: int = 0, resamples: int = 500
) -> list[dict[str, Any]]:
    """Scores of each part of the faces, as JSON values; nothing where the data set does not tell of it."""
    rows = score_by(estimates, trait, seed=seed, resamples=resamples)
    if all(row.value is None for row in rows):
        return []
    parts = []
    for row in rows:
        part = row.to_json()
        for age in OVER:
            found = taken_for_older(estimates, trait, row.value, age, seed=seed, resamples=resamples)
            part[f"over_{age}"] = None if found is None else {**(as_json(found[0]) or {}), "faces": found[1]}
        parts.append(part)
    return parts


def widest(
    parts: Mapping[str, Sequence[Mapping[str, Any]]], figure: str, *, exact: bool = False
) -> Gap | None:
    """The widest gap in a figure, by gender or race; ages differ by nature, and are left out.

    A part with few faces, but ten, counts where its interval and the other's are exact and do not touch.

    Args:
        parts: Trait -> from `by_trait`.
        figure: "exact", "mae_years", "over_13" or "over_18".
        exact: Whether the intervals of shares are: nobody is named.

    Returns:
        None where no trait has two such parts.
    """
    gaps = []
    for trait, rows in parts.items():
        known = [row for row in rows if row["value"] is not None and row[figure] is not None]
        for high, low in itertools.permutations(known if trait != "group" else [], 2):
            points = high[figure]["value"] - low[figure]["value"]
            apart = high[figure]["low"] > low[figure]["high"]
            fewest = min(_faces(row, figure) for row in (high, low))
            # One that was bootstrapped, as of a mean error or over people, is too narrow for few.
            telling = exact and figure != "mae_years" and apart and fewest >= _FEWEST
            if points >= 0 and (fewest >= FEW or telling):
                gaps.append(Gap(trait, figure, str(high["value"]), str(low["value"]), points, apart))
    return max(gaps, key=lambda gap: gap.points, default=None)


def _faces(row: Mapping[str, Any], figure: str) -> int:
    """How many faces a figure rests on: not every face of a part has an exact age."""
    if figure == "mae_years":
        return int(row["mae_faces"])
    return int(row[figure].get("faces", row["faces"]))


def fairness(
    found: Mapping[tuple[str, str], Estimates], *, seed: int = 0, resamples: int = 500
) -> dict[str, Any]:
    """For whom one estimator errs behind each approach.

    Args:
        found: (approach, model) -> estimates of one model.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        Approach -> "parts" (trait -> scores of each part) and "widest" (figure -> the widest gap, or None),
        as JSON values.
    """
    result = {}
    for (approach, _), estimates in found.items():
        parts: dict[str, list[dict[str, Any]]] = {
            trait: by_trait(estimates, trait, seed=seed, resamples=resamples) for trait in TRAITS
        }
        exact = estimates.people is None
        gaps = {figure: widest(parts, figure, exact=exact) for figure in _GAPS}
        result[approach] = {
            "parts": {trait: rows for trait, rows in parts.items() if rows},
            "widest": {figure: None if gap is None else _gap(gap) for figure, gap in gaps.items()},
        }
    return result


def _gap(gap: Gap) -> dict[str, Any]:
    return {name: getattr(gap, name) for name in ("trait", "highest", "lowest", "points", "apart")}
