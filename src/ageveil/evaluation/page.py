"""One page of a report: everything is inside the file, and nothing is fetched when it is opened."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image as PillowImage

from ageveil.evaluation import plots
from ageveil.types import Image

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1d21; --ground: #fff; --line: #c9ccd2; --quiet: #5b616b;
  --tint: 47 143 216; --bad: #b3261e; --good: #1d5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --ground: #16181c; --line: #3c414a;
  --quiet: #a2a9b4; --bad: #ff8a80; --good: #7ab8ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
  max-width: 72rem; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, dl { max-width: 48rem; } .quiet, caption, figcaption { color: var(--quiet); } .bad { color: var(--bad); }
.good { color: var(--good); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; } dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; padding-bottom: .25rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th[scope=row], thead th:first-child { text-align: left; } th { font-weight: 600; }
thead th { white-space: normal; vertical-align: bottom; }
td small { color: var(--quiet); }
.matrices, .faces { display: flex; flex-wrap: wrap; gap: 1.25rem; }
.matrices table { font-size: .75rem; } .matrices th, .matrices td { padding: .1rem .3rem; }
td[data-share] { background: rgb(var(--tint) / calc(var(--share) * .6)); }
figure { margin: 0; } figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: .8rem; padding-top: .2rem; } .faces figure { width: 168px; }
.plot svg { width: 100%; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } h2, h3 { break-after: avoid; }
  table, figure { break-inside: avoid; } .wide { overflow: visible; } }
"""

_NAMES = {"uniform": "random guess", "majority": "majority class"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture of the page.

    Attributes:
        pixels: Shape (H, W, 3), uint8 RGB.
        alt: What it shows, for those who do not see it.
        caption: Lines under it.
        marks: For some lines, "good" or "bad", as their colour.
    """

    pixels: Image
    alt: str
    caption: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures of a page; any part may be empty.

    Attributes:
        sheets: A portrait through every approach (Fig. 1).
        responses: Rows of response maps (Fig. 3).
        qualitative: Faces of the data set behind the mask (Fig. 4).
    """

    sheets: tuple[Picture, ...] = ()
    responses: tuple[tuple[Picture, ...], ...] = ()
    qualitative: tuple[Picture, ...] = ()


def render(report: dict[str, Any], pictures: Pictures) -> str:
    """Make the page.

    Args:
        report: From `ageveil.evaluation.report.build`, with `run` as `ageveil reproduce` adds it.
        pictures: What is shown beside the figures.

    Returns:
        HTML.

    Raises:
        OutputError: Matplotlib is missing.
    """
    plots.check_installed()
    parts = [
        _head(report),
        _table_1(report),
        _table_2(report),
        _all_records(report),
        _recalls(report),
        _confusions(report),
        _calibration(report),
        _operating(report),
        _minors(report),
        _figures(report, pictures),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Age estimation behind anonymization: {escape(report['dataset'])}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


# Parts ------------------------------------------------------------------------------------------------------


def _head(report: dict[str, Any]) -> str:
    run = report["run"]
    left_out = ", ".join(f"{count} {reason}" for reason, count in report["left_out"].items()) or "none"
    labels = ", ".join(f"{count} {reason}" for reason, count in run["labels_left_out"].items())
    facts = [
        ("command", run["command"]),
        ("commit", run["commit"]),
        ("version", run["version"]),
        ("date", run["date"]),
        ("data", run["data"]),
        ("validation", run["validation"] or "none"),
        (
            "faces",
            f"{report['faces']} with an age in a group, {report['faces_all']} in all, "
            f"of {report['faces_before']} pictures",
        ),
        ("left out", f"{left_out} ({100 * report['left_out_share']:.2f} %)"),
        *([("without a usable label", labels)] if labels else []),
        ("seed", str(report["seed"])),
        ("hardware", run["hardware"]),
        ("software", run["software"]),
        ("time", f"{run['seconds']} s"),
        *(
            (f"model {model['name']}", f"version {model['version']}, {model['licence']}, {model['source']}")
            for model in report["models"]
        ),
    ]
    warning = (
        ""
        if report["comparable"]
        else '<p class="bad"><strong>Not comparable:</strong> more than 1.5 % of the faces were left out.</p>'
    )
    return (
        "<h1>Age estimation behind anonymization</h1>\n"
        f'<p class="quiet">{escape(report["dataset"])}; accuracies in percent with 95 % intervals, '
        f"bootstrapped over faces ({report['resamples']} resamples) unless said otherwise.</p>\n{warning}"
        f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in facts)}</dl>"
    )


def _table_1(report: dict[str, Any]) -> str:
    rows = [_paper_row(row) for row in report["table_1"]]
    text = (
        "The baseline is trained on bare faces; test faces go through each approach. The guesses follow from "
        "the label mix; 1-off is below 3 in 8 because the first and the last group have one neighbour."
    )
    return _section("Table I: approaches", text) + _table(
        "Baseline behind each approach, beside the paper's figures on Adience",
        ("method", "exact, %", "1-off, %", "macro-averaged exact, %", "paper: exact", "paper: 1-off"),
        rows,
    )


def _table_2(report: dict[str, Any]) -> str:
    parts = [
        _section("Table II: attention", "The same faces in both models, so differences are paired."),
        _table(
            "Baseline and attention, beside the paper's figures on Adience",
            ("method", "exact, %", "1-off, %", "macro-averaged exact, %", "paper: exact", "paper: 1-off"),
            [_paper_row(row) for row in report["table_2"]],
        ),
    ]
    if report["differences"]:
        rows = [
            (
                f"{escape(row['model'])} less {escape(row['minus'])}, {escape(row['approach'])}",
                _interval(row["exact"], sign="+"),
                _interval(row["one_off"], sign="+"),
            )
            for row in report["differences"]
        ]
        parts.append(_table("Difference in points", ("pair", "exact", "1-off"), rows))
    else:
        parts.append('<p class="quiet">One model only: nothing to compare.</p>')
    return "\n".join(parts)


def _paper_row(row: dict[str, Any]) -> tuple[str, ...]:
    name = _NAMES.get(row["kind"], f"{row['model']}, {row['approach']}")
    paper = row["paper"] or {}
    return (
        escape(name),
        _interval(row["exact"]),
        _interval(row["one_off"]),
        _interval(row.get("macro_exact")),
        f"{paper['exact']:.2f}" if paper else "",
        f"{paper['one_off']:.2f}" if paper else "",
    )


def _all_records(report: dict[str, Any]) -> str:
    rows = []
    for record in report["records"]:
        share = record["kept"] or {"exact": None, "one_off": None}
        tails = [error["misjudged"] for error in record["tail_error"].values()]
        rows.append(
            (
                _name(record),
                *(_interval(record[key]) for key in ("exact", "one_off", "macro_exact", "mae_years")),
                *(_interval(share[key]) for key in ("exact", "one_off")),
                *map(_interval, tails),
            )
        )
    ages = report["records"][0]["tail_error"]
    columns = (
        "model, approach", "exact, %", "1-off, %", "macro-averaged exact, %", "mean error, years",
        "kept of bare exact, %", "kept of bare 1-off, %", *(f"wrong side of {age}, %" for age in ages),
    )  # fmt: skip
    text = "The mean error is over all faces of exact age, those between the groups included."
    return _section("Every model and approach", text) + _table("Accuracy and error", columns, rows)


def _recalls(report: dict[str, Any]) -> str:
    rows = [
        (_name(record), *(_interval(record["recall"][name], digits=0) for name in report["bins"]))
        for record in report["records"]
    ]
    counts = [f"{name} ({report['label_mix'][name]})" for name in report["bins"]]
    text = "Share of each true group that is judged exactly; Clopper-Pearson intervals; faces in brackets."
    return _section("Recall by group", text) + _table("Recall, %", ("model, approach", *counts), rows)


def _confusions(report: dict[str, Any]) -> str:
    tables = [_confusion(record, report["bins"]) for record in _without_des(report["records"])]
    text = "A row for each true group, a column for each judged one; percent of the row."
    return _section("Confusion matrices", text) + f'<div class="matrices">{"".join(tables)}</div>'


def _confusion(record: dict[str, Any], names: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = ""
    for name, counts in zip(names, record["confusion"], strict=True):
        total = sum(counts)
        cells = "".join(
            f'<td data-share style="--share:{count / total:.3f}">{100 * count / total:.0f}</td>'
            if total
            else "<td></td>"
            for count in counts
        )
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return (
        f'<table><caption>{_name(record)}</caption><thead><tr><th scope="col">true</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _calibration(report: dict[str, Any]) -> str:
    names = list(report["records"][0]["calibration"])
    rows = [
        (
            _name(record),
            *(
                "" if found is None else f"{100 * found['ece']:.1f}"
                for found in (record["calibration"][name] for name in names)
            ),
        )
        for record in report["records"]
    ]
    columns = ["P(group)" if name == "group" else f"P(age \u2265 {name})" for name in names]
    text = (
        "Expected calibration error: mean gap between what was said and how often it came true, in 15 bins "
        "of equal width, drawn where they hold 10 faces or more. P(group) is that of the most probable "
        "group, given that the age lies in one."
    )
    return (
        _section("Calibration", text)
        + _table("Expected calibration error, points", ("model, approach", *columns), rows)
        + _plots(report, plots.reliability_plot)
    )


def _operating(report: dict[str, Any]) -> str:
    rows = []
    for record in _without_des(report["records"]):
        for age, found in record["operating"].items():
            if found is not None:
                shares = (f"{100 * share:.1f}" for share in found["passed_25_and_over"].values())
                rows.append((f"{_name(record)}, T = {age}", str(found["under"]), *shares))
    if not rows:
        return ""
    text = (
        "Whoever reaches a threshold on P(age \u2265 T) passes. A group that lies on both sides of T counts "
        "for neither where a model knows groups only."
    )
    columns = ("model, approach, T", "under T", "at 1 %", "at 2 %", "at 5 %", "at 10 %")
    caption = "Share of those aged 25 and over that pass where so many of those under T do, %"
    return (
        _section("Operating curves", text)
        + _plots(report, plots.operating_plot)
        + _table(caption, columns, rows)
    )


def _minors(report: dict[str, Any]) -> str:
    found = [(record, record["minors"]) for record in report["records"] if record["minors"] is not None]
    if not found:
        return ""
    rows = [
        (
            _name(record),
            _interval(minors["13-17"]),
            _interval(minors["15-17"]),
            "" if minors["passed_25_and_over"] is None else f"{minors['passed_25_and_over']:.1f}",
            f"{minors['threshold']:.4f}",
        )
        for record, minors in found
    ]
    first = found[0][1]
    text = (
        f"Judged 18 or over at the threshold on P(age \u2265 18) where 90 % of those aged 25 and over pass, "
        f"fixed on {first['threshold_from']} ({first['threshold_faces']} of them); Clopper-Pearson intervals "
        f"over {first['13-17']['faces']} faces of 13-17 and {first['15-17']['faces']} of 15-17."
    )
    columns = ("model, approach", "13-17, %", "15-17, %", "25 and over that pass here, %", "threshold")
    return _section("Minors judged 18 or over", text) + _table("Minors", columns, rows)


def _figures(report: dict[str, Any], pictures: Pictures) -> str:
    parts = []
    if pictures.sheets:
        parts.append(_section("Approaches (Fig. 1)", "A portrait through every approach."))
        parts += [f"<figure>{_image(picture)}</figure>" for picture in pictures.sheets]
    if pictures.responses:
        text = (
            "Response of the last layer to the most probable group: blue where it is lowest, red where it is "
            "highest, each map by itself."
        )
        parts.append(_section("Response maps (Fig. 3)", text))
        parts += [_faces(row) for row in pictures.responses]
    parts.append(
        _section("Qualitative rows (Fig. 4)", "One face of each group, drawn at random, behind the mask.")
    )
    if pictures.qualitative:
        parts.append(_faces(pictures.qualitative))
    models = list(report["qualitative"][0]["said"])
    rows = [
        (escape(row["true"]), *(_judged(row["said"][model], row["true"]) for model in models))
        for row in report["qualitative"]
    ]
    parts.append(_table("Groups that were judged", ("true group", *map(escape, models)), rows))
    return "\n".join(parts)


def _judged(said: str, true: str) -> str:
    kind, word = ("good", "right") if said == true else ("bad", "wrong")
    return f'<span class="{kind}">{escape(said)} ({word})</span>'


# Elements ---------------------------------------------------------------------------------------------------


def _section(title: str, text: str) -> str:
    return f"<h2>{escape(title)}</h2>\n<p>{escape(text)}</p>\n"


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already, the first of a row is its head."""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _plots(report: dict[str, Any], plot: Any) -> str:  # noqa: ANN401 - one of two functions
    parts = []
    for model in report["models"]:
        records = [record for record in report["records"] if record["model"] == model["name"]]
        parts.append(f'<h3>{escape(model["name"])}</h3><figure class="plot">{plot(records)}</figure>')
    return "\n".join(parts)


def _faces(row: Sequence[Picture]) -> str:
    return f'<div class="faces">{"".join(f"<figure>{_image(picture)}</figure>" for picture in row)}</div>'


def _image(picture: Picture) -> str:
    file = io.BytesIO()
    PillowImage.fromarray(picture.pixels).save(file, "JPEG", quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = picture.pixels.shape[:2]
    marks = [*picture.marks, *[""] * len(picture.caption)]
    lines = "<br>".join(
        f'<span class="{mark}">{escape(line)}</span>' if mark else escape(line)
        for line, mark in zip(picture.caption, marks, strict=False)
    )
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(picture.alt)}">'
        f"<figcaption>{lines}</figcaption>"
    )


def _without_des(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """DES leaves noise, as the permutation does, which stands for it where room is scarce."""
    return [record for record in records if not record["approach"].startswith("des-")]


def _name(record: dict[str, Any]) -> str:
    return f"{escape(record['model'])}, {escape(record['approach'])}"


def _interval(figure: dict[str, Any] | None, *, digits: int = 1, sign: str = "") -> str:
    if figure is None:
        return ""
    value = f"{figure['value']:{sign}.{digits}f}"
    if "low" not in figure:
        return value
    return f"{value} <small>({figure['low']:{sign}.{digits}f} to {figure['high']:{sign}.{digits}f})</small>"
