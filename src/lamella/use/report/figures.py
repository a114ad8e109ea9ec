"""The report's drawings: matplotlib, written as inline SVG whose colours follow the page (light, dark, print).

A drawing is made with four marker colours and an ink; in the SVG each is replaced by a CSS variable of the page, so that one
file serves every background. Clouds of points become small pictures inside the SVG, so that a page stays small.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lamella.use.report.page import Html

__all__ = ["Curve", "bars", "curves", "parity"]

_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = ("#2b6cb1", "#c2641d", "#2a8a79", "#7d59b6")
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", **{c: f"--c{i + 1}" for i, c in enumerate(_SERIES)}}
_CLOUD = ("#3f86cf", "#d97a33", "#37a08d", "#9471cc")  # legible on light and dark: a picture cannot follow the page
_WIDTH = 4.6  # inch
_STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "path.simplify": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": True,
}


class Curve(NamedTuple):
    """One line: its name in the legend, where it runs, its colour (0-3) and stroke (``"-"``, ``"--"``, ``":"``)."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    stroke: str = "-"


def curves(key: str, lines: Sequence[Curve], x_label: str, y_label: str, log: bool = False) -> Html:
    """Lines over a common axis; not-finite points are left out."""
    with matplotlib.rc_context(_STYLE):
        named = [line.name for line in lines if line.name]
        rows = -(-len(named) // 2) if len(named) > 4 else 0  # of a legend that would cover the curves
        figure = Figure(figsize=(_WIDTH, 2.9 + 0.19 * rows), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            keep = np.isfinite(line.x) & np.isfinite(line.y) & ((line.y > 0) if log else True)
            muted = line.stroke == ":"
            axes.plot(
                line.x[keep],
                line.y[keep],
                line.stroke,
                color=_MUTED if muted else _SERIES[line.colour % 4],
                label=line.name,
                linewidth=1.1 if muted or line.stroke == "--" else 1.6,
                alpha=0.7 if line.stroke == "--" else 1.0,
                marker="o" if keep.sum() == 1 else None,
                markersize=4,
            )
        if log:
            axes.set_yscale("log")
            _readable_decades(axes)
        axes.set(xlabel=x_label, ylabel=y_label)
        if rows:
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2, columnspacing=1.2)
        elif 0 < len(named) <= 3 and sum(map(len, named)) < 45:  # a line of it fits above the drawing
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2, columnspacing=1.2)
        elif named:
            axes.legend(loc="best")
        return _svg(figure, key, f"{y_label} against {x_label}")


def _readable_decades(axes: Axes) -> None:
    """Plain numbers (0.05, 20) on a logarithmic axis; with less than a decade in view the steps between are labelled too."""
    low, high = axes.get_ylim()
    few = high / low < 30
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def parity(key: str, groups: Sequence[tuple[str, np.ndarray, np.ndarray]], quantity: str, unit: str, fine: str) -> Html:
    """Predicted against reference values, and below it their difference a thousand times finer.

    Args:
        key: unique on the page.
        groups: name, reference (n,), predicted (n,) of each colour.
        quantity: what is compared, ``"force component"``.
        unit: of both axes, ``"eV/Å"``.
        fine: unit of the difference, a thousandth of ``unit``.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 4.5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        for colour, (name, reference, predicted) in enumerate(groups):
            style = {
                "linestyle": "none",
                "marker": "o",
                "markeredgewidth": 0,
                "color": _CLOUD[colour % 4],
                "rasterized": True,
            }
            style |= {"markersize": 3.2 if len(reference) > 400 else 5, "alpha": 0.35 if len(reference) > 400 else 0.75}
            above.plot(reference, predicted, **style)
            below.plot(reference, 1000 * (predicted - reference), **style)
            if len(groups) > 1:
                above.plot([], [], "o", color=_SERIES[colour % 4], markersize=5, label=name)
        low = min(min(a.min(), b.min()) for _, a, b in groups)
        high = max(max(a.max(), b.max()) for _, a, b in groups)
        margin = 0.04 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        above.plot(limits, limits, color=_MUTED, linewidth=0.8, zorder=1)
        above.set(xlim=limits, ylim=limits)
        below.axhline(0, color=_MUTED, linewidth=0.8)
        above.set_ylabel(f"model, {unit}")
        below.set(xlabel=f"reference {quantity}, {unit}", ylabel=f"difference, {fine}")
        if len(groups) > 1:
            above.legend(loc="upper left")
        return _svg(figure, key, f"predicted against reference {quantity}")


def bars(key: str, names: Sequence[str], values: Sequence[float], x_label: str) -> Html:
    """Horizontal bars, one a name, with the figure written at the end."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.75 + 0.3 * len(names)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))[::-1]
        axes.barh(places, values, height=0.6, color=_SERIES[0])
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.3g}", (value, place), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, list(names))
        axes.set_xlabel(x_label)
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        return _svg(figure, key, x_label)


def _svg(figure: Figure, key: str, label: str) -> Html:
    """The drawing as markup for the inside of a page: own ids, page colours, no metadata, the same bytes every time."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", dpi=220, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return Html(svg.replace("<svg", f'<svg role="img" aria-label="{_attribute(label)}"', 1).strip())


def _attribute(value: str) -> str:
    return value.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
