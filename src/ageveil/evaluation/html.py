"""What pages of reports are made of: all is inside the file, nothing is fetched when it is opened."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image as PillowImage

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


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: Text.
        parts: HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names with what is said of each; both are text."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in pairs)}</dl>"


def run_facts(run: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What a report says of how it came about: what was run, and on what."""
    first = [(name, str(run[name])) for name in ("command", "commit", "version", "date")]
    return first, [
        ("hardware", run["hardware"]),
        ("software", run["software"]),
        ("time", f"{run['seconds']} s"),
    ]


def section(title: str, text: str) -> str:
    """A heading and a paragraph; both are text."""
    return f"<h2>{escape(title)}</h2>\n<p>{escape(text)}</p>\n"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
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


def faces(row: Sequence[Picture]) -> str:
    """Pictures side by side."""
    return f'<div class="faces">{"".join(f"<figure>{image(picture)}</figure>" for picture in row)}</div>'


def image(picture: Picture) -> str:
    """A picture inside the page, with its caption."""
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


def interval(figure: dict[str, Any] | None, *, digits: int = 1, sign: str = "") -> str:
    """A figure with its interval, as HTML; empty where there is none."""
    if figure is None:
        return ""
    value = f"{figure['value']:{sign}.{digits}f}"
    if "low" not in figure:
        return value
    return f"{value} <small>({figure['low']:{sign}.{digits}f} to {figure['high']:{sign}.{digits}f})</small>"
