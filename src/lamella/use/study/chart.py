"""Pictures of studies: curves over a logarithmic axis, or points beside each other by category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

__all__ = ["Line", "Panel", "draw"]

_COLORS: Final = ("#2b6cb1", "#e07b24", "#2f9e7f", "#8a5cb8", "#c23b55", "#8c6d3f", "#d47fb4", "#6b7785")
_MARKERS: Final = "osD^vP*X"
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8b929c",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "lamella study",
}
_WIDTH: Final = 3.4  # inch, of a panel
_HEIGHT: Final = 2.7


@dataclass(frozen=True)
class Line:
    """One line or group of points.

    Attributes:
        name: in the legend, and what gives it its colour: the same in every panel. Empty for none.
        x: numbers, or categories.
        y: numbers.
        error: half length of the error bars; none where None.
        style: ``"points"`` joined by a line, ``"line"`` alone, ``"level"`` across the panel, or points ``"apart"``.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    error: Sequence[float] | None = None
    style: str = "points"


@dataclass(frozen=True)
class Panel:
    """One drawing: lines over one pair of axes. Panels of one ``row`` stand side by side."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    row: int = 0
    log_x: bool = True
    log_y: bool = True


def draw(panels: Sequence[Panel], png: Path, svg: Path) -> None:
    """Write the picture twice; the SVG's words are text, and its bytes are the same every time."""
    rows = sorted({panel.row for panel in panels})
    columns = max(sum(panel.row == row for panel in panels) for row in rows)
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines if line.name))
    colors = {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(names)}
    with matplotlib.rc_context(_STYLE):
        width = _WIDTH * columns + 0.3
        ncols = max(1, min(len(names), int(width / (0.075 * max(map(len, names), default=1) + 0.5))))
        below = 0.22 * math.ceil(len(names) / ncols) + 0.1 if names else 0.0
        figure = Figure(figsize=(width, _HEIGHT * len(rows) + below), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for row, line_of_axes in zip(rows, axes, strict=True):
            here = [panel for panel in panels if panel.row == row]
            for index, each in enumerate(line_of_axes):
                if index < len(here):
                    _panel(each, here[index], colors)
                else:
                    each.set_axis_off()
        handles: dict[str, Any] = {}
        for each in axes.ravel():
            handles |= {label: handle for handle, label in zip(*each.get_legend_handles_labels(), strict=True)}
        if names:
            shown = [handles[name] for name in names]
            figure.legend(shown, names, loc="outside lower center", ncols=ncols, handlelength=1.6, columnspacing=1.4)
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})


def _panel(axes: Axes, panel: Panel, colors: dict[str, str]) -> None:
    for line in panel.lines:
        color = colors.get(line.name, "#6b7785")
        marker = _MARKERS[list(colors).index(line.name) % len(_MARKERS)] if line.name in colors else "o"
        if line.style == "level":
            axes.axhline(line.y[0], color=color, linestyle="--", linewidth=1.1, label=line.name or None)
            continue
        stroke = {"points": "-", "line": "-", "apart": "none"}[line.style]
        axes.errorbar(
            line.x,
            line.y,
            yerr=line.error,
            color=color,
            linestyle=stroke,
            marker="none" if line.style == "line" else marker,
            markersize=4.5,
            linewidth=1.3,
            capsize=2,
            label=line.name or None,
        )
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    categories = any(isinstance(value, str) for line in panel.lines for value in line.x)
    if panel.log_x and not categories:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis, axes.get_xlim())
    if categories:
        axes.tick_params(axis="x", rotation=30)
        axes.margins(x=0.15)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    if panel.log_y and any(value > 0 for line in panel.lines for value in line.y):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis, axes.get_ylim())


def _plain_numbers(axis: Axis, limits: tuple[float, float]) -> None:
    """20 rather than 2 × 10¹ where that is short; with few decades in view the steps between are labelled too."""
    low, high = limits
    if high > 1e5 or low < 1e-4:
        return
    if high / low < 4:
        axis.set_major_locator(MaxNLocator(5))
    else:
        subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_formatter(NullFormatter())
