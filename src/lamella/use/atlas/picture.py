"""The atlas as a picture: a row per map, a column per colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamella.use.atlas.atlas import Atlas, Sheet
from lamella.use.atlas.maps import Map
from lamella.use.atlas.traits import Trait

__all__ = ["draw", "palette"]

_SIDE: Final = 3.3  # inch, of a panel
_WIDE: Final = 4.6  # of one on which elements are named
_FEW = ("#2b6cb1", "#e07b24", "#2f9e7f", "#8a5cb8", "#c23b55", "#8c6d3f", "#d47fb4", "#6b7785")
_NONE = "#b9bec6"
_NO_DISTANCE = "#d62728"  # Fig. 5 c and d of the DPA-2 paper: what has no such neighbour is red
_LABELLED: Final = 12
"""Of more classes than this, elements are named on the map instead of in a legend."""
_LEGEND: Final = 19
"""No legend has more entries."""
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": "#8b929c",
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "lamella atlas",
}


def draw(atlas: Atlas, png: Path, svg: Path) -> None:
    """Write the picture, twice the same; points of the SVG are pixels, its words are text."""
    rows = [(sheet, each) for sheet in atlas.sheets for each in sheet.maps.values()]
    colors = atlas.colors
    with matplotlib.rc_context(_STYLE):
        named = "element" in colors and len(atlas.sample.available) > _LABELLED
        side = _WIDE if named else _SIDE
        size = (side * len(colors) + 0.3, side * len(rows) + 0.9)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(rows), len(colors), squeeze=False)
        order = np.random.default_rng(atlas.config.seed).permutation(len(atlas.sample))  # so that no class hides another
        for column, color in enumerate(colors):
            drawn = [_panel(panels[row, column], sheet, each, color, order) for row, (sheet, each) in enumerate(rows)]
            _explain(figure, panels[:, column], atlas, color, drawn)
            panels[0, column].set_title(_title(rows[0][0].traits[color]))
        several = len(atlas.sheets) > 1
        for row, (sheet, each) in enumerate(rows):
            panels[row, 0].set_ylabel(f"{sheet.model}\n{each.title}" if several else each.title, fontsize=10)
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, dpi=200, metadata={"Date": None, "Creator": None})


def palette(count: int) -> list[str]:
    """Colours for so many classes: easily told apart while there are few, else along the rainbow."""
    if count <= len(_FEW):
        return list(_FEW[:count])
    if count <= 20:
        return [matplotlib.colors.to_hex(matplotlib.colormaps["tab20"](k)) for k in range(count)]
    return [matplotlib.colors.to_hex(matplotlib.colormaps["turbo"](x)) for x in np.linspace(0.02, 0.98, count)]


def _title(trait: Trait) -> str:
    return f"by {trait.title}"


def _class_colors(color: str, classes: tuple[str, ...]) -> dict[str, str]:
    """Groups go from red to blue across the periodic table, as in Fig. 5a; others are told apart."""
    if color == "group":
        scale = matplotlib.colormaps["turbo_r"]
        known = {str(k): matplotlib.colors.to_hex(scale(0.06 + 0.88 * (k - 1) / 17)) for k in range(1, 19)}
        return {name: known.get(name, _NONE) for name in classes}
    return dict(zip(classes, palette(len(classes)), strict=True))


def _panel(axes: Axes, sheet: Sheet, shown: Map, color: str, order: np.ndarray) -> PathCollection:
    """One map in one colouring; gives the points, which know the scale of numbers."""
    trait = sheet.traits[color]
    points, values = shown.points[order], trait.values[order]
    size = float(np.clip(12_000 / len(order), 4.0, 26))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": True, "alpha": 0.85}
    axes.set(xticks=[], yticks=[])
    axes.margins(0.05)
    if shown.title == "PCA":
        axes.set_xlabel("  ·  ".join(shown.axes), fontsize=7.5, color="#5d6570")
    if trait.classes is not None:
        colors = _class_colors(color, trait.classes)
        drawn = axes.scatter(points[:, 0], points[:, 1], c=[colors[name] for name in values.tolist()], **style)
        if color == "element" and len(trait.classes) > _LABELLED:
            _name_classes(axes, points, values, colors)
        return drawn
    known = np.isfinite(values)
    lost = _NO_DISTANCE if color == "distance" else _NONE
    axes.scatter(points[~known, 0], points[~known, 1], c=lost, **style)
    low, high = np.percentile(values[known], [2, 98]) if known.any() else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1.0)
    return axes.scatter(points[known, 0], points[known, 1], c=values[known], cmap="viridis", norm=scale, **style)


def _explain(figure: Figure, column: np.ndarray, atlas: Atlas, color: str, drawn: list[PathCollection]) -> None:
    """Below a column: what its colours mean."""
    trait = atlas.sheets[0].traits[color]
    last: Axes = column[-1]
    below = -0.2 / _SIDE if last.get_xlabel() else 0.0
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, below), "handletextpad": 0.1, "columnspacing": 0.9}
    if trait.classes is not None:
        if color == "element" and len(trait.classes) > _LABELLED:
            return
        colors = _class_colors(color, trait.classes)
        dots = [_dot(colors[name], name) for name in trait.classes[:_LEGEND]]
        if len(trait.classes) > _LEGEND:
            dots.append(_dot("none", f"and {len(trait.classes) - _LEGEND} more"))
        last.legend(handles=dots, ncols=_columns(trait.classes), **place)
        return
    limits = [points.get_clim() for points in drawn]
    low, high = min(pair[0] for pair in limits), max(pair[1] for pair in limits)
    for points in drawn:  # one scale for all rows
        points.set_clim(low, high)
    bar = figure.colorbar(
        ScalarMappable(drawn[0].norm, "viridis"), ax=list(column), location="bottom", fraction=0.04, pad=0.02, aspect=28
    )
    bar.outline.set_visible(False)
    bar.set_label(trait.label)
    if not np.isfinite(trait.values).all():
        lost = _NO_DISTANCE if color == "distance" else _NONE
        last.legend(handles=[_dot(lost, trait.without)], **place)


def _dot(color: str, name: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker="o", markersize=5.5, markeredgewidth=0, color=color, label=name)


def _columns(names: tuple[str, ...]) -> int:
    """As many as fit below a panel."""
    return int(np.clip(44 // (max(map(len, names)) + 5), 1, 8))


def _name_classes(axes: Axes, points: np.ndarray, values: np.ndarray, colors: dict[str, str]) -> None:
    """Each class's name just above where its points are densest."""
    halo = [patheffects.withStroke(linewidth=1.6, foreground="white")]
    for name in colors:
        own = points[values == name]
        if len(own) == 0:
            continue
        apart = np.sort(np.linalg.norm(own[:, None] - own[None, :], axis=2), axis=1)
        place = own[apart[:, : max(2, len(own) // 5)].mean(axis=1).argmin()]
        axes.annotate(
            name, place, (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=7, path_effects=halo
        )
