"""Plots of a report as SVG that stands in a page: its text is text, and its ink is the page's own colour.

The only module that imports Matplotlib, which the extra `report` installs.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ageveil.errors import OutputError
from ageveil.evaluation.report import TAILS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A colour that nothing else has; the page's own takes its place.
_INK = "#010203"
# A bin with fewer faces would be drawn where chance has it.
_FEWEST = 10
_INKED = (
    "text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color",
)  # fmt: skip
# Told apart by colour, by marker and by dashes, on a light and on a dark ground.
_STYLES: dict[str, dict[str, Any]] = {
    "original": {"color": _INK, "marker": "o", "linestyle": "-"},
    "mosaic": {"color": "#2f8fd8", "marker": "s", "linestyle": "--"},
    "mask": {"color": "#e0662b", "marker": "^", "linestyle": "-."},
    "blur": {"color": "#2fa37c", "marker": "D", "linestyle": ":"},
    "permutation": {"color": "#b862a6", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
}
"""Approaches that are drawn, in the order of the legend; DES leaves noise, as the permutation does."""


def check_installed() -> None:
    """Check that plots can be drawn, before the work on what they show.

    Raises:
        OutputError: Matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise OutputError("plots need Matplotlib: run `pip install 'ageveil[report]'`")


def reliability_plot(records: Sequence[dict[str, Any]]) -> str:
    """How often came true what one model said, for P(group) and each P(age >= T).

    Args:
        records: Of one model, as `ageveil.evaluation.report.record` gives them.

    Returns:
        SVG.
    """
    names = ["group", *map(str, TAILS)]

    def draw(axes: Sequence[Axes]) -> None:
        for axis, name in zip(axes, names, strict=True):
            axis.plot([0, 1], [0, 1], color=_INK, alpha=0.4, linewidth=0.8)
            for record, style in _styled(records):
                found = record["calibration"][name]
                if found is None:
                    continue
                drawn = [index for index, count in enumerate(found["counts"]) if count >= _FEWEST]
                said, happened = ([found[key][index] for index in drawn] for key in ("said", "happened"))
                axis.plot(said, happened, markersize=4, linewidth=1.2, **style)
            axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="said", aspect="equal")
            axis.set_title("P(group)" if name == "group" else f"P(age \u2265 {name})")
        axes[0].set_ylabel("came true")

    title = f"Reliability of {records[0]['model']}: probability said against share that came true"
    return _svg(title, 1, len(names), (11, 3.3), draw)


def operating_plot(records: Sequence[dict[str, Any]]) -> str:
    """What thresholds on P(age >= T) let through: one model, T = 13, 16 and 18.

    Args:
        records: Of one model, as `ageveil.evaluation.report.record` gives them.

    Returns:
        SVG. The upper row counts those of 25 and over, the lower one everybody of T and over.
    """

    def draw(axes: Sequence[Axes]) -> None:
        for index, axis in enumerate(axes):
            age = TAILS[index % len(TAILS)]
            name = ("25_and_over", "of_age")[index // len(TAILS)]
            for record, style in _styled(records):
                found = record["operating"][str(age)]
                if found is None:
                    continue
                curve = found[f"curve_{name}"]
                line = {key: style[key] for key in ("color", "linestyle", "label")}
                accepts = [100 * share for share in curve["false_accept"]]
                passed = [100 * share for share in curve["passed"]]
                axis.plot(accepts, passed, linewidth=1.4, drawstyle="steps-post", **line)
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xticks(
                [0, 1, 2, 5, 10, 20, 50, 100], labels=["0", "1", "2", "5", "10", "20", "50", "100"]
            )
            axis.set_title(f"T = {age}")
            axis.set_xlabel(f"% of those under {age} that pass")
        axes[0].set_ylabel("% of 25 and over that pass")
        axes[len(TAILS)].set_ylabel("% of T and over that pass")

    title = f"Operating curves of {records[0]['model']}: who passes at thresholds on P(age \u2265 T)"
    return _svg(title, 2, len(TAILS), (11, 6.4), draw)


def frontier_plot(points: Sequence[tuple[str, dict[str, float], dict[str, float]]]) -> str:
    """Age accuracy kept against faces named, an approach each.

    Args:
        points: Name, faces named and accuracy kept, both in percent with `value`, `low` and `high`.

    Returns:
        SVG.
    """

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        for index, (name, named, share) in enumerate(points):
            style = _STYLES.get(name, {"color": f"C{index % 10}", "marker": "P"})
            spread = [
                [[abs(figure["value"] - figure[end])] for end in ("low", "high")] for figure in (named, share)
            ]
            axis.errorbar(
                named["value"], share["value"], xerr=spread[0], yerr=spread[1],
                color=style["color"], marker=style["marker"], markersize=6, linewidth=1, label=name,
            )  # fmt: skip
        axis.set_xlim(-2, 102)
        _name_points(axis, [(name, named["value"], share["value"]) for name, named, share in points])
        axis.set_xlabel("faces that the strongest attacker names, %")
        axis.set_ylabel("age accuracy kept, % of the bare face's")

    return _svg("Frontier of privacy and accuracy, by approach", 1, 1, (8, 5), draw)


def _name_points(axis: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write a name beside each point, where it touches no point and no name that stands already."""
    figure = axis.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes stand in no figure")
    scale = figure.dpi / 72  # pixels for each typographic point
    figure.draw_without_rendering()  # places are known only once the axes have their size
    places = [axis.transData.transform((x, y)) for _, x, y in points]
    taken: list[tuple[float, ...]] = [
        (x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in places
    ]
    frame = axis.bbox
    for (name, x, y), (at_x, at_y) in zip(points, places, strict=True):
        width, height = 5.5 * len(name) * scale, 11 * scale
        tries: list[tuple[int, int, int, bool, tuple[float, ...]]] = []
        for up in (6, -15, 18, -27, 30, -39, 42):
            for left in (False, True):
                edge = at_x - 7 * scale - width if left else at_x + 7 * scale
                box = (edge, at_y + up * scale, edge + width, at_y + up * scale + height)
                outside = box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1
                touched = sum(_touch(box, other) for other in taken)
                tries.append((touched + 2 * outside, len(tries), up, left, box))
        _, _, up, left, chosen = min(tries)
        taken.append(chosen)
        axis.annotate(
            name, (x, y), (-7 if left else 7, up), textcoords="offset points", color=_INK,
            ha="right" if left else "left", va="bottom",
        )  # fmt: skip


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _styled(records: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    by_name = {record["approach"]: record for record in records}
    return [(by_name[name], {**style, "label": name}) for name, style in _STYLES.items() if name in by_name]


def _svg(title: str, rows: int, columns: int, size: tuple[float, float], draw: Any) -> str:  # noqa: ANN401
    """Draw on a grid of axes and return SVG for a page, with the title as its accessible name."""
    import matplotlib  # noqa: PLC0415 - an extra, and only wanted once a plot is
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        # Names inside the file: the same each time, and others in each plot of a page.
        "svg.hashsalt": title,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.18,
        **dict.fromkeys(_INKED, _INK),
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        draw(axes)
        _legend(figure, axes[0])
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), title)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) or 1, frameon=False)


def _for_page(svg: str, title: str) -> str:
    """Take out what a page does not need: declarations, name spaces and metadata, which hold addresses."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    # Its size follows the page's width.
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    head, rest = svg.split(">", 1)
    return f'{head} role="img"><title>{escape(title)}</title>{rest}'.replace(_INK, "currentColor")
