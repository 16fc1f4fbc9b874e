"""The page of an audit: the frontier, the figures behind it, and what they mean; no photograph."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ageveil.evaluation import html, plots

_ATTACKERS = {
    "naive": "knows clear photographs of everybody",
    "aware": "knows the approach, and passes its photographs through it first",
    "adapted": "has learned, from other people's faces, what survives the approach",
}


def render(report: Mapping[str, Any]) -> str:
    """Make the page.

    Args:
        report: From `ageveil.audit.report.build`, with `run` as `ageveil audit` adds it.

    Returns:
        HTML.

    Raises:
        OutputError: Matplotlib is missing.
    """
    plots.check_installed()
    parts = [
        _head(report),
        _frontier(report),
        _verdicts(report),
        _attacks(report),
        _releases(report),
        _reconstruction(report),
        _fairness(report),
        _inference(report),
        _ciphers(report),
    ]
    return html.document("Privacy audit of face anonymization", [part for part in parts if part])


def _head(report: Mapping[str, Any]) -> str:
    what, where = html.run_facts(report["run"])
    left_out = ", ".join(f"{count} {reason}" for reason, count in report["left_out"].items()) or "none"
    names = ", ".join(f"{entry['name']} ({entry['source']})" for entry in report["recognisers"])
    facts = [
        *what,
        ("people", f"{report['people']}: {report['gallery']} known faces, {report['probes']} to be named"),
        ("left out", left_out),
        ("recognisers", names),
        ("age estimator", report["model"] or "none"),
        ("seed", str(report["seed"])),
        *where,
    ]
    bound = (
        '<p class="bad"><strong>Lower bounds:</strong> no recogniser here is known to have been trained with '
        "a margin loss, as today's strongest are. Those would name more faces.</p>\n"
        if report["lower_bound"]
        else ""
    )
    return (
        "<h1>How anonymous is an anonymized face?</h1>\n"
        '<p class="quiet">Percentages with 95 % intervals, bootstrapped over people. The attacker is given '
        f"the alignment of every face. Guessing names {report['chance']:.2f} %.</p>\n{bound}"
        + html.facts(facts)
    )


def _frontier(report: Mapping[str, Any]) -> str:
    points = [
        (name, entry["strongest"]["rank1"], share)
        for name, entry in report["approaches"].items()
        # What a key undoes is no trade of accuracy for privacy.
        if not entry["reversible"] and (share := _accuracy_share(name, entry)) is not None
    ]
    if len(points) < 2:
        return ""
    return (
        html.section(
            "What privacy costs",
            "Age accuracy that is left, against faces that the best attacker names; up and left is best.",
        )
        + f'<figure class="plot">{plots.frontier_plot(points)}</figure>'
    )


def _accuracy_share(name: str, entry: Mapping[str, Any]) -> dict[str, float] | None:
    """Share of the bare face's exact accuracy that is left, in percent."""
    if entry["age"] is None:
        return None
    if name == "original":
        return {"value": 100.0, "low": 100.0, "high": 100.0}
    share = entry["age"]["kept"]
    return None if share is None else share["exact"]


def _verdicts(report: Mapping[str, Any]) -> str:
    rows = [(escape(name), escape(entry["verdict"])) for name, entry in report["approaches"].items()]
    text = "What an approach keeps from software, in a sentence."
    return html.section("Verdicts", text) + html.facts(rows)


def _attacks(report: Mapping[str, Any]) -> str:
    text = "; ".join(f"{name}: {_ATTACKERS[name]}" for name in report["attackers"])
    rows = [
        (
            escape(f"{name}, {attacker}"),
            *(html.interval(figures[key]) for key in ("rank1", "rank5", "tar_far_1e2", "tar_far_1e3")),
            escape(figures["recogniser"]),
        )
        for name, entry in report["approaches"].items()
        for attacker, figures in entry["reidentification"].items()
    ]
    columns = (
        "approach, attacker", "rank-1", "rank-5", "accepted, FAR 1e-2", "accepted, FAR 1e-3", "recogniser",
    )  # fmt: skip
    caption = "One picture of a face: named first, named among five, accepted as oneself"
    return html.section("Re-identification", f"Attackers: {text}.") + html.table(caption, columns, rows)


def _releases(report: Mapping[str, Any]) -> str:
    if len(report["releases"]) < 2:
        return ""
    rows = [
        (
            escape(name),
            *(
                html.interval(entry["releases"][str(count)]["strongest"]["rank1"])
                for count in report["releases"]
            ),
        )
        for name, entry in report["approaches"].items()
    ]
    columns = ("approach", *(f"{count} frames" if count > 1 else "1 frame" for count in report["releases"]))
    return html.section(
        "Several pictures of one face",
        "Rank-1 of the strongest attacker, who fuses the frames: the mean of the pictures, or of what is "
        f"seen in each. Of each person {report['fused_probes']} probes, the same in every column.",
    ) + html.table("Rank-1 by number of frames", columns, rows)


def _reconstruction(report: Mapping[str, Any]) -> str:
    if not report.get("reconstruction"):
        return ""
    undone = [
        (f"{approach}, {way}", reached)
        for approach, ways in report["reconstruction"].items()
        for way, reached in ways.items()
    ]
    likeness = [
        (
            escape(name),
            *(html.interval(figure, digits=1) for figure in reached["psnr"]),
            *(html.interval(figure, digits=3) for figure in reached["ssim"]),
        )
        for name, reached in undone
    ]
    named = [
        (
            escape(f"{name}, {attacker}"),
            html.interval(reached[attacker]["before"]["rank1"]),
            html.interval(reached[attacker]["after"]["rank1"]),
            html.interval(reached[attacker]["gain"]),
        )
        for name, reached in undone
        for attacker in ("naive", "aware")
        if reached[attacker] is not None
    ]
    text = (
        "A blur averages in a known way, so that it can be undone but for rounding. Where cells or a mask "
        "took the pixels, a network that learned from other people's faces paints what it expects. Likeness "
        "to the bare face is measured over the hidden region. The naive attacker compares with clear "
        "photographs, the aware one with photographs that were hidden and restored alike; one recogniser "
        "looks."
    )
    columns = "approach, way", "PSNR before, dB", "after", "SSIM before", "after"
    who = "approach, way, attacker", "rank-1 before, %", "after, %", "gain, points"
    return (
        html.section("What can be brought back", text)
        + html.table("Likeness to the bare face", columns, likeness)
        + html.table("Who is named", who, named)
    )


_FAIR = {
    "exact": "exact, %",
    "mae_years": "mean error, years",
    "over_13": "under 13 taken for 13, %",
    "over_18": "under 18 taken for 18, %",
}


def _fairness(report: Mapping[str, Any]) -> str:
    found = report.get("fairness") or {}
    if not any(entry["parts"] for entry in found.values()):
        return ""
    gaps = [
        (escape(approach), *(_gap(entry["widest"][figure]) for figure in _FAIR))
        for approach, entry in found.items()
    ]
    parts = [
        (
            escape(f"{approach}, {trait}: {row['value'] or 'not told'}"),
            str(row["faces"]),
            *(html.interval(row[figure]) for figure in _FAIR),
        )
        for approach, entry in found.items()
        for trait, rows in entry["parts"].items()
        for row in rows
    ]
    text = (
        "The widest gap between genders or races in each figure, the higher value first; bold where the two "
        "intervals do not touch. Of parts of 10 to 99 faces only such gaps in shares count, where nobody is "
        "named."
    )
    return (
        html.section("For whom the estimator errs", text)
        + html.table("Widest gaps", ("approach", *_FAIR.values()), gaps)
        + "<details><summary>All parts</summary>"
        + html.table("By gender, race and age group", ("approach, part", "faces", *_FAIR.values()), parts)
        + "</details>\n"
    )


def _gap(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return ""
    points = f"{gap['points']:.1f}"
    who = f"{gap['highest']} over {gap['lowest']}"
    return f"{f'<strong>{points}</strong>' if gap['apart'] else points} <small>{escape(who)}</small>"


def _inference(report: Mapping[str, Any]) -> str:
    parts = []
    if report.get("attributes"):
        told = [
            (
                escape(f"{approach}, {trait}"),
                html.interval(found["recall"]),
                f"{found['guessing']:.1f}",
                escape(", ".join(found["values"])),
                str(found["faces"]),
            )
            for approach, traits in report["attributes"].items()
            for trait, found in traits.items()
        ]
        text = "A linear classifier on what a recogniser sees, learned on four fifths of the faces in turn."
        named = ("approach, attribute", "mean recall, %", "guessing, %", "values", "faces")
        parts += [html.section("What else a face tells", text), html.table("Attributes", named, told)]
    if report.get("membership"):
        rows = [
            (
                escape(approach),
                html.interval(found["auc"]),
                html.interval(found["advantage"]),
                f"{found['trained']} / {found['others']}",
            )
            for approach, found in report["membership"].items()
        ]
        text = (
            "Can the estimator's error tell whom it was trained on? AUC 50 and advantage 0 are guessing; the "
            "threshold is the best in hindsight, so that a few faces show some advantage by chance."
        )
        columns = ("approach", "AUC, %", "advantage, points", "trained / others")
        parts += [html.section("Whom the estimator has seen", text), html.table("Membership", columns, rows)]
    if report.get("inversion"):
        parts.append(_inversion(report["inversion"]))
    return "".join(parts)


def _inversion(found: Mapping[str, Any]) -> str:
    names = {"trained": "trained the estimator", "others": "did not"}
    rows = [
        (
            names[kind],
            html.interval(reached["rank1"]),
            html.interval(reached["advantage"]),
            html.interval(reached["likeness"]),
            *(html.interval(figure) for figure in reached["confidence"]),
            f"{reached['targets']} / {reached['people']}",
            escape(reached["recogniser"]),
        )
        for kind, reached in found.items()
    ]
    text = (
        "Can a face be rebuilt from what the estimator says of it? A black box is asked about faces that are "
        "put together from other people's, until it says of one what it said of the target. Then the target "
        "is looked for with the rebuilt face; the recogniser that tells most counts, so that a hit or two "
        "among few targets can be chance. An answer tells an age, hence somewhat more than guessing of any "
        "face; only what trained faces show beyond others was kept by the training."
    )
    columns = (
        "faces that", "rank-1, %", "beyond guessing, points", "likeness, % (guessing: 50)",
        "confidence of the mean face, %", "of the rebuilt", "of the target", "targets / people", "recogniser",
    )  # fmt: skip
    return html.section("Faces rebuilt from answers", text) + html.table("Model inversion", columns, rows)


def _ciphers(report: Mapping[str, Any]) -> str:
    found = report.get("ciphers")
    if found is None:
        return ""
    small = found["distinct"]
    text = (
        "Keys of the permutation count modulo the number of pixels: at most "
        f"{found['permutation_keys']:.2g} of them, however long they are written. At {small['side']} × "
        f"{small['side']} pixels {small['keys']:,} pairs of keys make {small['orders']:,} permutations. DES "
        "has 2^56 keys: a machine of 1998 (EFF, 90 billion keys a second) would try half of them in "
        f"{found['des_days']:.1f} days."
    )
    attacks = [
        (
            escape(f"{row['cipher']}: {row['attack']}"),
            f"{row['side']} × {row['side']}",
            "gave up: too few colours" if row["recovered"] is None else f"{row['recovered']:.1f}",
            f"{row['tried']:,}" if row["tried"] else "",
            f"{row['seconds']:.2f}",
        )
        for row in found["attacks"]
    ]
    left = [
        (
            escape(row["cipher"]),
            f"{row['correlation']:.3f}",
            f"{row['repeated']:.2f}",
            f"{row['lost']:.2f}",
        )
        for row in found["residues"]
    ]
    return (
        html.section("Ciphers", text)
        + html.table(
            "Attacks that were run, on a face",
            ("cipher and what the attacker has", "picture", "pixels recovered, %", "keys tried", "seconds"),
            attacks,
        )
        + html.table(
            "What a cipher leaves without an attack",
            ("cipher", "correlation of neighbours", "repeated blocks, %", "loss, grey levels"),
            left,
        )
    )
