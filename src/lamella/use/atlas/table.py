"""The atlas in words: what was shown, and the small table of separations."""

from __future__ import annotations

import math
from typing import Final

from lamella.use.atlas.atlas import Atlas, Sheet
from lamella.use.atlas.separation import Candidates, Separation

__all__ = ["NOTE", "heading", "lines", "summary"]

NOTE: Final = (
    "Score: of an atom's nearest neighbours among the representations, how many share its class, beside the same for "
    "neighbours drawn blindly; for numbers R², how much of their variance the neighbours' mean tells. Then the same for "
    "neighbours on each map: what a map loses."
)
"""What the table says."""

_AMONG: Final[dict[Candidates, str]] = {
    "all": "",
    "same element": ", within an element",
    "other elements": ", across elements",
}
_NAMES: Final = {"task": "data set", "force-error": "force error"}


def summary(atlas: Atlas) -> list[str]:
    """Sentences: which atoms, of how many, represented by what."""
    sample = atlas.sample
    have = sum(sample.available.values())
    elements = len(sample.available)
    sets = len(set(sample.tasks))
    kind = {"features": "features that the head reads", "update": "last layer's update of the features"}
    channels = " and ".join(dict.fromkeys(str(sheet.channels) for sheet in atlas.sheets))
    said = [
        f"{_count(len(sample), 'atom')} of {_count(elements, 'element')} in {_count(len(sample.frames), 'structure')} of "
        f"{_count(sets, 'data set')} ({', '.join(dict.fromkeys(sample.tasks))}), drawn from {have:,}; "
        f"each is represented by the {kind[atlas.config.representation]}, {channels} numbers."
    ]
    if sample.scanned < sample.total:
        said.append(f"Of {sample.total:,} structures a random {sample.scanned:,} were looked at.")
    if elements == 1:
        said.append("All atoms are of one element, so how elements separate cannot be said; colour by another property.")
    return said


def heading(sheet: Sheet) -> list[str]:
    """Titles of the columns."""
    return ["property", "classes", "atoms", "score", "by chance", "silhouette"] + [
        f"on {each.title}" for each in sheet.maps.values()
    ]


def lines(sheet: Sheet) -> list[list[str]]:
    """A row per question: purities in per cent, R² and silhouettes as numbers."""
    return [_line(each, sheet) for each in sheet.separations]


def _line(each: Separation, sheet: Sheet) -> list[str]:
    name = _NAMES.get(each.trait, each.trait) + _AMONG[each.candidates]
    classes = "" if each.classes is None else str(each.classes)
    silhouette = "" if each.silhouette is None else f"{each.silhouette:.2f}"
    chance = "" if each.classes is None else _score(each.chance, each)
    scores = [_score(each.maps[method], each) for method in sheet.maps]
    return [name, classes, str(each.atoms), _score(each.score, each), chance, silhouette, *scores]


def _score(value: float, each: Separation) -> str:
    if not math.isfinite(value):
        return "–"
    return f"R² {value:.2f}" if each.classes is None else f"{100 * value:.1f} %"


def _count(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
