"""The paper's tables and what else tells how good an estimator is, as one JSON record.

Only numbers stand here; `ageveil.evaluation.page` makes a page of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization, estimation
from ageveil.evaluation import accuracy, metrics
from ageveil.evaluation.accuracy import Estimates, Report, as_json
from ageveil.evaluation.calibration import ADULT
from ageveil.evaluation.intervals import Estimate, widened_difference
from ageveil.training.labels import LabelledImage

REPORT_VERSION = 1

TAILS = (13, 16, 18)
"""Minimum ages whose P(age >= T) is followed."""

PAPER_APPROACHES = ("permutation", "blur", "mask", "mosaic", "original")
"""Rows of the paper's Table I, in its order."""

ATTENTION_APPROACHES = ("mask", "mosaic", "original")
"""Approaches of the paper's Table II, in its order."""

PAPER: Mapping[tuple[str, str], tuple[float, float]] = {
    ("guess", "uniform"): (12.50, 37.50),
    ("baseline", "permutation"): (36.79, 53.20),
    ("baseline", "blur"): (41.42, 61.85),
    ("baseline", "mask"): (54.60, 83.77),
    ("attention", "mask"): (58.78, 88.66),
    ("baseline", "mosaic"): (56.96, 85.34),
    ("attention", "mosaic"): (59.79, 88.17),
    ("baseline", "original"): (66.50, 94.98),
}
"""Exact and 1-off accuracy in percent on Adience (Ye et al. 2018, Tables I and II)."""

MINORS = ((13, 17), (15, 17))
"""Ages of the minors that are counted when they pass for 18."""

_FALSE_ACCEPTS = (0.01, 0.02, 0.05, 0.1)
_CURVE_POINTS = 100
# A resample in which none of so many hits is drawn has a chance of e^-20.
_HITS_FOR_RATIO = 20

Found = Mapping[tuple[str, str], Estimates]
"""(approach, model) -> estimates, as `ageveil.evaluation.accuracy.estimate_all` gives them."""


@dataclass(frozen=True, slots=True)
class LineUp:
    """Which models a report is of, and what part each has in it.

    Attributes:
        baseline: The paper's baseline: the model of Table I; None where there is none.
        attention: The paper's attention model, beside the baseline in Table II; None where there is none.
        others: Any others; they are asked about every approach.

    Raises:
        ValueError: A model is unknown, there is none, or one has two parts.
    """

    baseline: str | None = None
    attention: str | None = None
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError("expected one model or more, each once")
        for model in self.names:
            if accuracy.FOLD not in model:
                estimation.get_model(model)

    @property
    def names(self) -> tuple[str, ...]:
        """All models, in order."""
        return tuple(name for name in (self.baseline, self.attention, *self.others) if name is not None)

    @property
    def paper(self) -> tuple[tuple[str, str], ...]:
        """The part and the name of the paper's models that there are."""
        parts = (("baseline", self.baseline), ("attention", self.attention))
        return tuple((part, name) for part, name in parts if name is not None)


def questions(models: LineUp) -> list[tuple[str, str]]:
    """Which approaches each model is asked about: pairs of approach and model."""
    asked = {"baseline": PAPER_APPROACHES, "attention": ATTENTION_APPROACHES}
    pairs = [(name, model) for part, model in models.paper for name in asked[part]]
    return pairs + [(name, model) for model in models.others for name in anonymization.usable_approaches()]


def build(
    found: Found,
    models: LineUp,
    *,
    validation: Found | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Score estimates and lay out the paper's tables.

    Args:
        found: Answers to `questions(models)`, all on the same faces.
        models: As `questions` took them.
        validation: The same on faces that serve to fix the threshold of the minors' share; without, it is
            fixed on the reported faces, and the record says so.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        JSON values: `bins`, `label_mix`, `straddling` (T, or `ADULT` -> labels that do not tell the side),
        `models`, `records`, `table_1`, `table_2`, `differences`, `qualitative` and counts of faces.
        Accuracies are in percent.

    Raises:
        DataError: No face has an age in a group.
    """
    first = next(iter(found.values()))
    scores = {key: accuracy.score(item, seed=seed, resamples=resamples) for key, item in found.items()}
    true, _ = accuracy.grouped(first)
    report = next(iter(scores.values()))
    pairs: list[tuple[tuple[str, str], Report]] = list(scores.items())
    return {
        "report_version": REPORT_VERSION,
        "dataset": first.dataset,
        "seed": seed,
        "resamples": resamples,
        "drawn": "faces" if first.people is None else "people",
        "faces": report.faces,
        "faces_all": report.faces_all,
        "faces_before": report.total,
        "left_out": dict(report.left_out),
        "left_out_share": report.left_out_share,
        "comparable": report.comparable,
        "bins": list(first.bin_names),
        "label_mix": dict(
            zip(first.bin_names, np.bincount(true, minlength=len(first.bins)).tolist(), strict=True)
        ),
        # Where T is asked about, these faces are left out, and they may be most of those near T.
        "straddling": {str(age): first.straddling(age) for age in (*TAILS, ADULT)},
        "models": [model_record(model, first.images) for model in models.names],
        "records": [
            record(
                found[key],
                item,
                found.get(("original", key[1])),
                (validation or {}).get(key),
                seed,
                resamples,
            )
            for key, item in pairs
        ],
        "table_1": table_1(scores, true, models.baseline, first),
        "table_2": table_2(scores, models, first),
        "differences": differences(found, models, seed, resamples),
        "qualitative": qualitative(found, models, seed),
    }


def model_record(name: str, images: Sequence[LabelledImage]) -> dict[str, Any]:
    """What is known of a model, as JSON values; of models for folds, the first's, and every checksum."""
    infos = [estimation.get_model(member).info for member in accuracy.members(name, images)]
    return {
        "name": name,
        "version": infos[0].version,
        "licence": infos[0].licence,
        "resolution": infos[0].resolution,
        "sha256": ", ".join(info.sha256 for info in infos),
        "source": infos[0].source if len(infos) == 1 else f"{len(infos)} models, one for each fold",
        "calibrated": list(infos[0].calibrated),
    }


# One model behind one approach ------------------------------------------------------------------------------


def record(
    estimates: Estimates,
    report: Report,
    bare: Estimates | None,
    validation: Estimates | None,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Everything that is measured of one model behind one approach, as JSON values."""
    true, predicted = accuracy.grouped(estimates)
    matrix = metrics.confusion_matrix(predicted, true, classes=len(estimates.bins))
    return {
        **report.to_json(),
        "kept": kept(estimates, bare, seed, resamples),
        "confusion": matrix.astype(int).tolist(),
        "calibration": {
            "group": _group_reliability(estimates),
            **{str(age): _tail_reliability(estimates, age) for age in TAILS},
        },
        "operating": {str(age): operating(estimates, age) for age in TAILS},
        "minors": minors(estimates, validation, seed, resamples),
    }


def kept(estimates: Estimates, bare: Estimates | None, seed: int, resamples: int) -> dict[str, Any] | None:
    """Share in percent of the bare faces' accuracy that is left behind the approach, face by face.

    None for bare faces themselves, and where too few of them are judged rightly for a share to mean anything.
    """
    if bare is None or estimates.approach == bare.approach:
        return None
    true, predicted = accuracy.grouped(estimates)
    _, before = accuracy.grouped(bare)
    inside = estimates.true_bins != metrics.BETWEEN_GROUPS
    people = estimates.people
    # People are drawn where they are known, and a draw without any hit has no ratio.
    drawn = np.arange(len(true)) if people is None else people[inside]
    if len(np.unique(drawn[before == true])) < _HITS_FOR_RATIO:
        return None

    def ratio(reach: int) -> Estimate:
        now = np.abs(predicted - true) <= reach
        then = np.abs(before - true) <= reach
        return estimates.resampled(
            lambda weights: 100 * float(weights @ now) / float(weights @ then),
            inside,
            resamples=resamples,
            seed=seed,
        )

    return {"exact": as_json(ratio(0)), "one_off": as_json(ratio(1))}


def _group_reliability(estimates: Estimates) -> dict[str, Any]:
    """Of the probability of the most probable group, given that the age lies in one: all scored ages do."""
    true = estimates.true_bins
    inside = true != metrics.BETWEEN_GROUPS
    probabilities = estimates.bin_probabilities[inside]
    totals = probabilities.sum(axis=1)
    # A face whose ages all lie between the groups has no such probability.
    known = totals > 0
    shares = probabilities[known].max(axis=1) / totals[known]
    return _reliability(np.minimum(shares, 1), probabilities[known].argmax(axis=1) == true[inside][known])


def _tail_reliability(estimates: Estimates, age: int) -> dict[str, Any] | None:
    under, over = estimates.sides(age)
    told = under | over
    return _reliability(estimates.at_least(age)[told], over[told]) if told.any() else None


def _reliability(said: NDArray[np.float64], happened: NDArray[np.bool_]) -> dict[str, Any]:
    found = metrics.reliability(said, happened)
    return {
        "ece": found.error,
        "brier": metrics.brier_score(said, happened),
        "faces": len(said),
        "edges": found.edges.tolist(),
        "counts": found.counts.tolist(),
        "said": _numbers(found.said),
        "happened": _numbers(found.happened),
    }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if math.isnan(value) else value for value in values.round(6).tolist()]


def as_text(report: dict[str, Any]) -> str:
    """A report as JSON text, each list of plain values on one line."""
    text = json.dumps(report, indent=1, allow_nan=False)
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def operating(estimates: Estimates, age: int) -> dict[str, Any] | None:
    """What thresholds on P(age >= T) let through; None where there are not both kinds of faces.

    Those who should pass are taken twice: everybody of 25 and over, since borderline ages are asked for
    another proof, and everybody of T and over.
    """
    under, over = estimates.sides(age)
    adult = estimates.sides(ADULT)[1]
    if not under.any() or not adult.any():
        return None
    said = estimates.at_least(age)
    result: dict[str, Any] = {
        "under": int(under.sum()), "25_and_over": int(adult.sum()), "of_age": int(over.sum()),
    }  # fmt: skip
    for name, entitled in (("25_and_over", adult), ("of_age", over)):
        curve = metrics.operating_curve(said, under=under, entitled=entitled)
        steps = np.linspace(0, len(curve.thresholds) - 1, _CURVE_POINTS).round().astype(int)
        chosen = np.unique(steps)
        result[f"curve_{name}"] = {
            # Infinity, which passes nobody, is no JSON number.
            "threshold": [None, *curve.thresholds[chosen][1:].round(6).tolist()],
            "false_accept": curve.false_accepts[chosen].round(6).tolist(),
            "passed": curve.passed[chosen].round(6).tolist(),
        }
        result[f"passed_{name}"] = {
            str(share): float(curve.passed[curve.false_accepts <= share].max()) for share in _FALSE_ACCEPTS
        }
    return result


def minors(
    estimates: Estimates, validation: Estimates | None, seed: int, resamples: int
) -> dict[str, Any] | None:
    """Minors judged 18 or over at the threshold where 90 % of those aged 25 and over pass.

    None where no label is the exact age of a minor or of an adult.
    """
    told = _exact(validation or estimates)
    said, ages = _exact(estimates)
    known, _ = estimates.exact_ages
    adults = told[1] >= ADULT
    if not adults.any():
        return None
    threshold = metrics.pass_threshold(told[0][adults], 0.9)
    result: dict[str, Any] = {
        "threshold": threshold,
        "threshold_from": "validation faces" if validation else "the reported faces",
        "threshold_faces": int(adults.sum()),
    }
    for low, high in MINORS:
        chosen = (ages >= low) & (ages <= high)
        if not chosen.any():
            return None
        there = known.copy()
        there[known] = chosen
        found = metrics.minors_judged_over(said, ages, minors=(low, high), threshold=threshold)
        result[f"{low}-{high}"] = {
            **asdict(estimates.share(said[chosen] >= threshold, there, seed=seed, resamples=resamples)),
            "judged_over": found.judged_over,
            "faces": found.minors,
        }
        result["passed_25_and_over"] = None if math.isnan(found.passed) else 100 * found.passed
    return result


def _exact(estimates: Estimates) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """P(age >= 18) and age of those whose age is exact."""
    known, ages = estimates.exact_ages
    return estimates.at_least(18)[known], ages


# The paper's tables -----------------------------------------------------------------------------------------


def table_1(
    scores: Mapping[tuple[str, str], Report], true: NDArray[np.int64], baseline: str | None, first: Estimates
) -> list[dict[str, Any]]:
    """Table I: guesses that look at no face, and the baseline behind each approach, where there is one."""
    classes = len(first.bins)
    rows = [
        _row(name, None, None, _guess(make(true, classes=classes)), _paper(first, "guess", name))
        for name, make in (("uniform", metrics.uniform_row), ("majority", metrics.majority_row))
    ]
    if baseline is None:
        return rows
    for name in PAPER_APPROACHES:
        report = scores[name, baseline]
        rows.append(_row("model", baseline, name, _figures(report), _paper(first, "baseline", name)))
    return rows


def table_2(
    scores: Mapping[tuple[str, str], Report], models: LineUp, first: Estimates
) -> list[dict[str, Any]]:
    """Table II: the baseline and the attention model behind mask and mosaic, and on bare faces."""
    rows = []
    for name in ATTENTION_APPROACHES:
        for part, model in models.paper:
            rows.append(_row("model", model, name, _figures(scores[name, model]), _paper(first, part, name)))
    return rows


def _row(
    kind: str, model: str | None, approach: str | None, figures: dict[str, Any], paper: dict[str, Any] | None
) -> dict[str, Any]:
    return {"kind": kind, "model": model, "approach": approach, **figures, "paper": paper}


def _figures(report: Report) -> dict[str, Any]:
    return {
        "exact": as_json(report.exact),
        "one_off": as_json(report.one_off),
        "macro_exact": as_json(report.macro_exact),
        "faces": report.faces,
    }


def _guess(row: metrics.GuessRow) -> dict[str, Any]:
    """A guess follows from the label mix alone, so there is nothing to bootstrap."""
    return {"exact": {"value": 100 * row.exact}, "one_off": {"value": 100 * row.one_off}}


def _paper(first: Estimates, part: str, approach: str) -> dict[str, Any] | None:
    """The paper's figures; it knows its eight groups only."""
    figures = PAPER.get((part, approach))
    if figures is None or len(first.bins) != 8:
        return None
    return {"exact": figures[0], "one_off": figures[1]}


def differences(found: Found, models: LineUp, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Attention model less baseline, in points, with paired bootstrap intervals: the same faces in both.

    Where the bootstrap has no width, as where the models agree on every face, the interval is that of
    `ageveil.evaluation.intervals.widened_difference`.
    """
    baseline, attention = models.baseline, models.attention
    if baseline is None or attention is None:
        return []
    rows = []
    for name in ATTENTION_APPROACHES:
        true, base = accuracy.grouped(found[name, baseline])
        _, other = accuracy.grouped(found[name, attention])
        classes = len(found[name, baseline].bins)
        people = found[name, baseline].people
        inside = found[name, baseline].true_bins != metrics.BETWEEN_GROUPS
        drawn = len(true) if people is None else len(np.unique(people[inside]))

        def points(
            metric: Callable[..., float],
            true: NDArray[np.int64] = true,
            base: NDArray[np.int64] = base,
            other: NDArray[np.int64] = other,
            classes: int = classes,
            first: Estimates = found[name, baseline],
            inside: NDArray[np.bool_] = inside,
        ) -> Estimate:
            return first.resampled(
                lambda weights: (
                    100
                    * (
                        metric(other, true, weights=weights, classes=classes)
                        - metric(base, true, weights=weights, classes=classes)
                    )
                ),
                inside,
                resamples=resamples,
                seed=seed,
            )

        rows.append(
            {
                "approach": name,
                "model": attention,
                "minus": baseline,
                "exact": as_json(widened_difference(points(metrics.exact_accuracy), drawn)),
                "one_off": as_json(widened_difference(points(metrics.one_off_accuracy), drawn)),
            }
        )
    return rows


def qualitative(found: Found, models: LineUp, seed: int) -> list[dict[str, Any]]:
    """One face of each group, drawn at random, and what the first two models said of it behind the mask.

    `face` is its index among the usable faces.

    Source:
        Ye et al. 2018, figure 4.
    """
    shown = [found["mask", model] for model in models.names[:2]]
    true = shown[0].true_bins
    predicted = {item.model: item.bin_probabilities.argmax(axis=1) for item in shown}
    rng = np.random.default_rng(seed)
    rows = []
    for index, name in enumerate(shown[0].bin_names):
        candidates = np.flatnonzero(true == index)
        if candidates.size:
            face = int(rng.choice(candidates))
            said = {model: shown[0].bin_names[groups[face]] for model, groups in predicted.items()}
            rows.append({"face": face, "true": name, "said": said})
    return rows
