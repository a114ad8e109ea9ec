"""``sel: auto`` in a recipe: numbers of neighbours that a model's constants stand for, counted in the training data.

``auto`` (or ``auto:RATIO``, with 1.1 where no ratio is given) becomes the largest number of neighbours that any atom of the
training data has within the cutoff, times the ratio, rounded up to a multiple of 4: deepmd-kit's rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from ase.data import atomic_numbers

from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame

__all__ = [
    "RATIO",
    "SEL_CUTOFFS",
    "auto_ratio",
    "auto_text",
    "lift_auto",
    "most_neighbors",
    "nested",
    "place_auto",
    "rounded_sel",
]

RATIO: Final = 1.1
"""Where ``auto`` names none."""

SEL_CUTOFFS: Final[dict[str, dict[str, str]]] = {
    "se_a": {"sel": "cutoff"},
    "dpa1": {"sel": "cutoff"},
    "dpa2": {"repinit.sel": "repinit.cutoff", "three_body.sel": "three_body.cutoff", "repformer.sel": "repformer.cutoff"},
    "dpa3": {"edge_sel": "cutoff", "angle_sel": "angle_cutoff"},
}
"""By kind of backbone: dotted field -> field of the cutoff within which neighbours are counted. For ``se_a`` by element."""

_AUTO: Final = re.compile(r"auto(?::([0-9.eE+-]+))?")

_STAND_IN: Final = 1
"""Put in place of ``auto`` until neighbours are counted."""


def auto_ratio(value: Any) -> float | None:
    """The ratio of ``auto`` or ``auto:RATIO``; None for anything else."""
    match = _AUTO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        ratio = float(match[1] or RATIO)
    except ValueError:
        return None
    return ratio if 0.0 < ratio < float("inf") else None


def auto_text(ratio: float) -> str:
    """``auto`` or ``auto:RATIO``."""
    return "auto" if ratio == RATIO else f"auto:{ratio:g}"


def lift_auto(backbone: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """A backbone's keys with stand-ins for every ``auto``, and the ratio by dotted field."""
    plain: dict[str, Any] = dict(backbone)
    ratios = {}
    for field in SEL_CUTOFFS.get(str(plain.get("kind", "dpa3")), {}):
        *above, name = field.split(".")
        holder = plain
        for part in above:
            inner = holder.get(part)
            if not isinstance(inner, Mapping):
                break
            holder[part] = dict(inner)
            holder = holder[part]
        else:
            ratio = auto_ratio(holder.get(name, "auto" if plain.get("kind") == "se_a" else None))
            if ratio is not None:
                ratios[field] = ratio
                holder[name] = "auto" if plain.get("kind") == "se_a" else _STAND_IN
    return plain, ratios


def place_auto(backbone: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's keys with the values of some dotted fields put in."""
    content: dict[str, Any] = dict(backbone)
    for field, value in values.items():
        *above, name = field.split(".")
        holder = content
        for part in above:
            holder[part] = dict(holder[part])
            holder = holder[part]
        holder[name] = value
    return content


def nested(content: Mapping[str, Any], field: str) -> Any:
    """The value of a dotted field; None where there is none."""
    value: Any = content
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def most_neighbors(frames: Iterable[Frame], cutoffs: Iterable[float], elements: Iterable[str]) -> dict[float, np.ndarray]:
    """The most neighbours an atom has within each cutoff: (n + 1,) by element of the neighbour, then of all together.

    Args:
        frames: to count in.
        cutoffs: Å.
        elements: chemical symbols.
    """
    numbers = np.array([atomic_numbers[symbol] for symbol in elements])
    most = {cutoff: np.zeros(len(numbers) + 1, dtype=np.int64) for cutoff in cutoffs}
    for frame in frames:
        src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, max(most), frame.source)
        distance = np.linalg.norm(vec, axis=1)
        for cutoff, counts in most.items():
            near = distance < cutoff
            of_atom = np.zeros((len(frame), len(numbers) + 1), dtype=np.int64)
            kind = (frame.numbers[dst[near], None] == numbers).argmax(axis=1)
            np.add.at(of_atom, (src[near], kind), 1)
            of_atom[:, -1] = of_atom[:, :-1].sum(axis=1)
            np.maximum(counts, of_atom.max(axis=0), out=counts)
    return most


def rounded_sel(most: int, ratio: float) -> int:
    """``most`` times ``ratio``, its fraction cut off, rounded up to a multiple of 4."""
    return 4 * ((int(most * ratio) + 3) // 4)
