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

__all__ = ["FIT", "STD", "Line", "Panel", "draw"]

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
_CATEGORY: Final = 0.32  # inch, that a category wants at least
_HEIGHT: Final = 2.7
_LETTER: Final = 0.075  # inch, of the legend
_SHORT: Final = 6  # letters of a category that stands upright
_GREY: Final = "#6b7785"

STD: Final = "label std"
FIT: Final = "fit"
"""Names of what is no model: drawn in grey."""

_NEUTRAL: Final = {STD: "_", FIT: ""}


@dataclass(frozen=True)
class Line:
    """One line or group of points.

    Attributes:
        name: in the legend, and what gives it its colour: the same in every panel, and that of the name before a comma.
        x: numbers, or categories.
        y: numbers.
        error: half length of the error bars; none where None.
        style: ``"points"`` joined by a line, ``"line"`` alone, ``"level"`` across the panel, points ``"apart"``, or short
            ``"bars"`` below and above which the points of a category stand.
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

    @property
    def categories(self) -> list[str]:
        """Those of its lines, in their order; none where x are numbers."""
        return list(dict.fromkeys(value for line in self.lines for value in line.x if isinstance(value, str)))


def draw(panels: Sequence[Panel], png: Path, svg: Path) -> None:
    """Write the picture twice; the SVG's words are text, and its bytes are the same every time."""
    rows = sorted({panel.row for panel in panels})
    columns = max(sum(panel.row == row for panel in panels) for row in rows)
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    styles = _styles(names)
    with matplotlib.rc_context(_STYLE):
        wanted = 1.0 + _CATEGORY * max(len(panel.categories) for panel in panels)
        width = max(_WIDTH, wanted) * columns + 0.3
        ncols = _legend_columns(names, width)
        below = 0.22 * math.ceil(len(names) / ncols) + 0.1
        figure = Figure(figsize=(width, _HEIGHT * len(rows) + below), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for row, line_of_axes in zip(rows, axes, strict=True):
            here = [panel for panel in panels if panel.row == row]
            for index, each in enumerate(line_of_axes):
                if index < len(here):
                    _panel(each, here[index], styles)
                else:
                    each.set_axis_off()
        handles: dict[str, Any] = {}
        for each in axes.ravel():
            handles |= {label: handle for handle, label in zip(*each.get_legend_handles_labels(), strict=True)}
        shown = [handles[name] for name in names]
        figure.legend(shown, names, loc="outside lower center", ncols=ncols, handlelength=1.6, columnspacing=1.4)
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})


def _styles(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by name."""
    families = list(dict.fromkeys(name.partition(",")[0] for name in names if name not in _NEUTRAL))
    found = {name: (_GREY, marker) for name, marker in _NEUTRAL.items()}
    for name in names:
        if name not in _NEUTRAL:
            at = families.index(name.partition(",")[0])
            found[name] = (_COLORS[at % len(_COLORS)], _MARKERS[at % len(_MARKERS)])
    return found


def _legend_columns(names: Sequence[str], width: float) -> int:
    """As many as fit, in lines of about one length."""
    fit = max(1, min(len(names), int(width / (_LETTER * max(map(len, names)) + 0.5))))
    return math.ceil(len(names) / math.ceil(len(names) / fit))


def _panel(axes: Axes, panel: Panel, styles: dict[str, tuple[str, str]]) -> None:
    categories = panel.categories
    apart = [line.name for line in panel.lines if line.style == "apart"]
    for line in panel.lines:
        color, marker = styles[line.name]
        if line.style == "level":
            axes.axhline(line.y[0], color=color, linestyle=":" if line.name == STD else "--", linewidth=1.1, label=line.name)
            continue
        x = [float(categories.index(value)) if isinstance(value, str) else value for value in line.x]
        if line.style == "apart" and categories:
            step = min(0.16, 0.7 / len(apart))
            x = [value + step * (apart.index(line.name) - (len(apart) - 1) / 2) for value in x]
        size = {"line": 0.0, "bars": 14.0}.get(line.style, 4.5)
        axes.errorbar(
            x,
            line.y,
            yerr=line.error,
            color=color,
            linestyle="-" if line.style in ("points", "line") else "none",
            marker=marker,
            markersize=size,
            linewidth=1.3,
            capsize=2,
            label=line.name,
        )
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if categories:
        axes.set_xticks(range(len(categories)), categories)
        if max(map(len, categories)) > _SHORT:
            for label in axes.get_xticklabels():
                label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
        axes.set_xlim(-0.6, len(categories) - 0.4)
    elif panel.log_x:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis, axes.get_xlim())
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
