"""The page of a report on estimators: tables, plots, and the pictures that may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ageveil.evaluation import html, plots
from ageveil.evaluation.calibration import ADULT
from ageveil.evaluation.html import Picture
from ageveil.evaluation.report import TAILS

_NAMES = {"uniform": "random guess", "majority": "majority class"}


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
    return html.document(f"Age estimation behind anonymization: {report['dataset']}", parts)


# Parts ------------------------------------------------------------------------------------------------------


def _head(report: dict[str, Any]) -> str:
    run = report["run"]
    left_out = ", ".join(f"{count} {reason}" for reason, count in report["left_out"].items()) or "none"
    labels = ", ".join(f"{count} {reason}" for reason, count in run["labels_left_out"].items())
    what, where = html.run_facts(run)
    facts = [
        *what,
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
        *where,
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
        f"bootstrapped over {report['drawn']} ({report['resamples']} resamples) unless said "
        f"otherwise.</p>\n{warning}"
        f"{html.facts(facts)}"
    )


def _table_1(report: dict[str, Any]) -> str:
    rows = [_paper_row(row) for row in report["table_1"]]
    text = (
        "The guesses follow from the label mix; 1-off is below 3 in 8 because the first and the last group "
        "have one neighbour."
    )
    caption = "Guesses that look at no face, beside the paper's figures on Adience"
    if any(row["kind"] == "model" for row in report["table_1"]):
        text = f"The baseline is trained on bare faces; test faces go through each approach. {text}"
        caption = "Baseline behind each approach, beside the paper's figures on Adience"
    return html.section("Table I: approaches", text) + html.table(
        caption,
        ("method", "exact, %", "1-off, %", "macro-averaged exact, %", "paper: exact", "paper: 1-off"),
        rows,
    )


def _table_2(report: dict[str, Any]) -> str:
    title = "Table II: attention"
    if not report["table_2"]:
        return html.section(
            title, "Neither the baseline nor the attention model is here: nothing to compare."
        )
    if report["differences"]:
        text = (
            "The same faces in both models, so differences are paired. Where no face differs, the interval "
            "of the difference is what Clopper and Pearson say of none of so many, either way."
        )
    else:
        text = "Only one of the two models is here: nothing to compare."
    parts = [
        html.section(title, text),
        html.table(
            "Baseline and attention, beside the paper's figures on Adience",
            ("method", "exact, %", "1-off, %", "macro-averaged exact, %", "paper: exact", "paper: 1-off"),
            [_paper_row(row) for row in report["table_2"]],
        ),
    ]
    if report["differences"]:
        rows = [
            (
                f"{escape(row['model'])} less {escape(row['minus'])}, {escape(row['approach'])}",
                html.interval(row["exact"], sign="+"),
                html.interval(row["one_off"], sign="+"),
            )
            for row in report["differences"]
        ]
        parts.append(html.table("Difference in points", ("pair", "exact", "1-off"), rows))
    return "\n".join(parts)


def _paper_row(row: dict[str, Any]) -> tuple[str, ...]:
    name = _NAMES.get(row["kind"], f"{row['model']}, {row['approach']}")
    paper = row["paper"] or {}
    return (
        escape(name),
        html.interval(row["exact"]),
        html.interval(row["one_off"]),
        html.interval(row.get("macro_exact")),
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
                *(html.interval(record[key]) for key in ("exact", "one_off", "macro_exact", "mae_years")),
                *(html.interval(share[key]) for key in ("exact", "one_off")),
                *map(html.interval, tails),
            )
        )
    ages = report["records"][0]["tail_error"]
    columns = (
        "model, approach", "exact, %", "1-off, %", "macro-averaged exact, %", "mean error, years",
        "kept of bare exact, %", "kept of bare 1-off, %", *(f"wrong side of {age}, %" for age in ages),
    )  # fmt: skip
    text = _error_faces(report["records"][0])
    return html.section("Every model and approach", text) + html.table("Accuracy and error", columns, rows)


def _error_faces(record: dict[str, Any]) -> str:
    """A sentence on the faces behind the mean error; all records have the same.

    Reports of before this was counted do not say how many.
    """
    count = record.get("mae_faces")
    if count == 0:
        return "No face is of exact age, so there is no mean error."
    many = "" if count is None else f", {count} of {record['faces_all']}"
    return f"The mean error is over all faces of exact age{many}, those between the groups included."


def _exact_intervals(report: dict[str, Any]) -> str:
    """What kind of interval a share of few faces has."""
    return "Clopper-Pearson intervals" if report["drawn"] == "faces" else "intervals bootstrapped over people"


def _recalls(report: dict[str, Any]) -> str:
    rows = [
        (_name(record), *(html.interval(record["recall"][name], digits=0) for name in report["bins"]))
        for record in report["records"]
    ]
    counts = [f"{name} ({report['label_mix'][name]})" for name in report["bins"]]
    text = f"Share of each true group that is judged exactly; {_exact_intervals(report)}; faces in brackets."
    return html.section("Recall by group", text) + html.table("Recall, %", ("model, approach", *counts), rows)


def _confusions(report: dict[str, Any]) -> str:
    tables = [_confusion(record, report["bins"]) for record in _without_des(report["records"])]
    text = "A row for each true group, a column for each judged one; percent of the row."
    return html.section("Confusion matrices", text) + f'<div class="matrices">{"".join(tables)}</div>'


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
        f"{_straddling(report)}"
    )
    return (
        html.section("Calibration", text)
        + html.table("Expected calibration error, points", ("model, approach", *columns), rows)
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
        f"{_straddling(report)}{_perhaps_adult(report)}"
    )
    columns = ("model, approach, T", "under T", "at 1 %", "at 2 %", "at 5 %", "at 10 %")
    caption = "Share of those aged 25 and over that pass where so many of those under T do, %"
    return (
        html.section("Operating curves", text)
        + _plots(report, plots.operating_plot)
        + html.table(caption, columns, rows)
    )


def _straddling(report: dict[str, Any]) -> str:
    """A sentence on the labels that do not tell who is under T; empty where there are none.

    Reports of before this was counted do not say.
    """
    counts = {age: report.get("straddling", {}).get(str(age)) for age in TAILS}
    found = [f"{count} at T = {age}" for age, count in counts.items() if count]
    if not found:
        return ""
    return (
        f" Left out are labels that reach over T on both sides, {' and '.join(found)}: this says nothing of "
        "them."
    )


def _perhaps_adult(report: dict[str, Any]) -> str:
    """The same on the labels that do not tell who is an adult beyond doubt."""
    count = report.get("straddling", {}).get(str(ADULT))
    if not count:
        return ""
    return (
        f" Labels that reach over {ADULT} on both sides, {count}, are not among those aged {ADULT} and over."
    )


def _minors(report: dict[str, Any]) -> str:
    found = [(record, record["minors"]) for record in report["records"] if record["minors"] is not None]
    if not found:
        return ""
    rows = [
        (
            _name(record),
            html.interval(minors["13-17"]),
            html.interval(minors["15-17"]),
            "" if minors["passed_25_and_over"] is None else f"{minors['passed_25_and_over']:.1f}",
            f"{minors['threshold']:.4f}",
        )
        for record, minors in found
    ]
    first = found[0][1]
    text = (
        f"Judged 18 or over at the threshold on P(age \u2265 18) where 90 % of those aged 25 and over pass, "
        f"fixed on {first['threshold_from']} ({first['threshold_faces']} of them); "
        f"{_exact_intervals(report)} over {first['13-17']['faces']} faces of 13-17 and "
        f"{first['15-17']['faces']} of 15-17."
    )
    columns = ("model, approach", "13-17, %", "15-17, %", "25 and over that pass here, %", "threshold")
    return html.section("Minors judged 18 or over", text) + html.table("Minors", columns, rows)


def _figures(report: dict[str, Any], pictures: Pictures) -> str:
    parts = []
    if pictures.sheets:
        parts.append(html.section("Approaches (Fig. 1)", "A portrait through every approach."))
        parts += [f"<figure>{html.image(picture)}</figure>" for picture in pictures.sheets]
    if pictures.responses:
        text = (
            "Response of the last layer to the most probable group: blue where it is lowest, red where it is "
            "highest, each map by itself."
        )
        parts.append(html.section("Response maps (Fig. 3)", text))
        parts += [html.faces(row) for row in pictures.responses]
    parts.append(
        html.section("Qualitative rows (Fig. 4)", "One face of each group, drawn at random, behind the mask.")
    )
    if pictures.qualitative:
        parts.append(html.faces(pictures.qualitative))
    models = list(report["qualitative"][0]["said"])
    rows = [
        (escape(row["true"]), *(_judged(row["said"][model], row["true"]) for model in models))
        for row in report["qualitative"]
    ]
    parts.append(html.table("Groups that were judged", ("true group", *map(escape, models)), rows))
    return "\n".join(parts)


def _judged(said: str, true: str) -> str:
    kind, word = ("good", "right") if said == true else ("bad", "wrong")
    return f'<span class="{kind}">{escape(said)} ({word})</span>'


# Elements ---------------------------------------------------------------------------------------------------


def _plots(report: dict[str, Any], plot: Any) -> str:  # noqa: ANN401 - one of two functions
    parts = []
    for model in report["models"]:
        records = [record for record in report["records"] if record["model"] == model["name"]]
        parts.append(f'<h3>{escape(model["name"])}</h3><figure class="plot">{plot(records)}</figure>')
    return "\n".join(parts)


def _without_des(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """DES leaves noise, as the permutation does, which stands for it where room is scarce."""
    return [record for record in records if not record["approach"].startswith("des-")]


def _name(record: dict[str, Any]) -> str:
    return f"{escape(record['model'])}, {escape(record['approach'])}"
