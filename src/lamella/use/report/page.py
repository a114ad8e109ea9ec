"""The page's building blocks: every one takes plain text, escapes it, and returns markup."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import NewType

__all__ = [
    "Cell",
    "Html",
    "Table",
    "details",
    "figure",
    "figures",
    "join",
    "number",
    "page",
    "paragraph",
    "preformatted",
    "section",
]
__all__ += ["percent", "subsection", "table", "text", "tile", "tiles", "words"]

Html = NewType("Html", str)
"""Markup that is safe to place in the page: all text from outside has been escaped."""

Cell = str | float | int | bool | None
Table = Sequence[Sequence[Cell]]
"""Rows of cells; ``None`` is shown as a dash, ``True`` as "holds", ``False`` as "broken"."""


def text(value: object) -> Html:
    """Escaped text."""
    return Html(html.escape(str(value), quote=True))


def join(parts: Sequence[Html]) -> Html:
    """Markup after markup."""
    return Html("\n".join(parts))


def number(value: float | None, digits: int = 3) -> str:
    """A figure with ``digits`` significant digits, as a chemist would write it: ``45.2``, ``0.81``, ``3.1e-06``."""
    if value is None or not math.isfinite(value):
        return "–" if value is None else str(value)
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")  # rounded, so that 9.999 counts as 10
    magnitude = int(exponent)
    if magnitude < -3 or magnitude > 6:
        return f"{mantissa}e{magnitude}".replace("-", "\u2212")
    return f"{float(f'{mantissa}e{exponent}'):,.{max(0, digits - 1 - magnitude)}f}".replace("-", "\u2212")


def percent(part: float, whole: float) -> str:
    """``part`` of ``whole`` in per cent; a dash where there is no whole."""
    return f"{number(100 * part / whole, 2)} %" if whole > 0 else "–"


def paragraph(words: str, kind: str = "") -> Html:
    """A paragraph of plain text, of class ``kind``."""
    return Html(f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>")


def section(key: str, title: str, parts: Sequence[Html]) -> Html:
    """A section with a heading one can link to."""
    return Html(f'<section id="{text(key)}">\n<h2>{text(title)}</h2>\n{join(parts)}\n</section>')


def subsection(title: str) -> Html:
    """A smaller heading."""
    return Html(f"<h3>{text(title)}</h3>")


def table(header: Sequence[str], rows: Table) -> Html:
    """A table; a column whose first known cell is a number is set flush right."""
    numeric = [_is_number(column) for column in zip(*rows, strict=True)] if rows else [False] * len(header)
    kinds = [' class="n"' if flag else "" for flag in numeric]
    head = "".join(f"<th{kind}>{text(name)}</th>" for kind, name in zip(kinds, header, strict=True))
    body = [
        "<tr>" + "".join(f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    ]
    return Html(
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{join([Html(b) for b in body])}\n'
        "</tbody></table></div>"
    )


def _is_number(column: Sequence[object]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)


def _cell(value: Cell) -> Html:
    if value is None:
        return Html("–")
    if isinstance(value, bool):
        return Html('<span class="yes">holds</span>' if value else '<span class="no">broken</span>')
    if isinstance(value, int):
        return text(f"{value:,}")
    if isinstance(value, float):
        return text(number(value))
    return text(value)


def tile(name: str, value: str, unit: str, more: str) -> Html:
    """One headline figure."""
    unit_html = f" <small>{text(unit)}</small>" if unit else ""
    return Html(
        f'<div class="tile"><div class="name">{text(name)}</div><div class="value">{text(value)}{unit_html}</div>'
        f'<div class="more">{text(more)}</div></div>'
    )


def tiles(parts: Sequence[Html]) -> Html:
    """Headline figures side by side."""
    return Html(f'<div class="tiles">\n{join(parts)}\n</div>')


def figure(svg: Html, caption: str) -> Html:
    """A drawing with its caption."""
    return Html(f"<figure>\n{svg}\n<figcaption>{text(caption)}</figcaption>\n</figure>")


def figures(parts: Sequence[Html]) -> Html:
    """Drawings side by side where the window is wide enough."""
    return Html(f'<div class="figures">\n{join(parts)}\n</div>')


def preformatted(words: str) -> Html:
    """Text as it stands, in a fixed-width font."""
    return Html(f"<pre>{text(words)}</pre>")


def details(summary: str, body: Html) -> Html:
    """A part that opens on a click."""
    return Html(f"<details>\n<summary>{text(summary)}</summary>\n{body}\n</details>")


def words(pairs: Sequence[tuple[str, str]]) -> Html:
    """A list of words and what they mean."""
    items = [Html(f"<dt>{text(word)}</dt><dd>{text(meaning)}</dd>") for word, meaning in pairs]
    return Html(f'<dl class="words">\n{join(items)}\n</dl>')


def page(title: str, parts: Sequence[Html]) -> str:
    """The whole document."""
    template = resources.files("lamella.use.report").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=text(title), body=join(parts))
