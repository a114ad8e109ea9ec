"""How well representations tell atoms apart, in numbers: on the representations themselves, not only on a map of them.

    purity = ⟨ share of an atom's k nearest candidates that have its label ⟩
    chance = ⟨ share of all its candidates that have its label ⟩
    R²     = 1 - Σ (y - ȳ_k)² / Σ (y - ȳ)²,   ȳ_k, ȳ: means over the k nearest, and over all candidates

Candidates are all other atoms, those of the same element, or those of other elements. Distances are Euclidean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from lamella.use.atlas.traits import Trait

__all__ = ["Candidates", "Separation", "nearest", "purity", "r_squared", "separations"]

Candidates = Literal["all", "same element", "other elements"]

_BLOCK: Final = 4_000_000
"""Distances held at a time."""


class _Question(NamedTuple):
    trait: str
    candidates: Candidates


_QUESTIONS: Final = (
    _Question("element", "all"),
    _Question("group", "other elements"),
    _Question("period", "other elements"),
    _Question("task", "same element"),
    _Question("coordination", "same element"),
    _Question("distance", "same element"),
    _Question("energy", "same element"),
    _Question("force", "same element"),
    _Question("force-error", "same element"),
)
"""What is asked of a model. Groups among other elements: all atoms of one element are of one group anyhow."""


@dataclass(frozen=True)
class Separation:
    """One question's answer.

    Attributes:
        trait: which property.
        candidates: among which atoms neighbours are looked for.
        classes: how many classes; None for a number.
        atoms: how many atoms were asked.
        score: purity, or R² for a number.
        chance: the purity of neighbours drawn blindly; 0 for a number.
        silhouette: mean silhouette coefficient of the classes, -1 to 1; None where candidates are not all atoms.
        maps: the score on each map, by method.
    """

    trait: str
    candidates: Candidates
    classes: int | None
    atoms: int
    score: float
    chance: float
    silhouette: float | None
    maps: Mapping[str, float]


class _Asked(NamedTuple):
    """Atoms as a question sees them: in a space, with their elements and k."""

    x_NC: np.ndarray
    element: np.ndarray
    neighbors: int


def separations(
    x_NC: np.ndarray, maps: Mapping[str, np.ndarray], traits: Mapping[str, Trait], neighbors: int
) -> list[Separation]:
    """Every question that the atoms can answer: one whose property differs among candidates.

    Args:
        x_NC: representations.
        maps: points (N, 2) by method.
        traits: by name, ``element`` among them.
        neighbors: k.
    """
    element = _codes(traits["element"])
    spaces = {"": x_NC, **maps}
    known_near: dict[tuple[str, Candidates], np.ndarray] = {}
    found = []
    for name, candidates in _QUESTIONS:
        if name not in traits:
            continue
        trait = traits[name]
        values = trait.values if trait.classes is None else _codes(trait)
        known = np.isfinite(values)
        scores: dict[str, tuple[int, float, float]] = {}
        for space, points in spaces.items():
            if (space, candidates) not in known_near and known.all():
                known_near[space, candidates] = nearest(points, element, candidates, neighbors)
            near = (
                known_near[space, candidates]
                if known.all()
                else nearest(points[known], element[known], candidates, neighbors)
            )
            judge = r_squared if trait.classes is None else purity
            scores[space] = judge(near, values[known], element[known], candidates)
        atoms, score, chance = scores[""]
        if atoms == 0:
            continue
        classes = None if trait.classes is None else len(np.unique(values))
        silhouette = _silhouette(x_NC, values) if classes is not None and candidates == "all" else None
        on_maps = {space: row[1] for space, row in scores.items() if space}
        found.append(Separation(name, candidates, classes, atoms, score, chance, silhouette, on_maps))
    return found


def nearest(x_NC: np.ndarray, element: np.ndarray, candidates: Candidates, neighbors: int) -> np.ndarray:
    """(N, k) int64, each atom's k nearest candidates; -1 for an atom that has fewer.

    Args:
        x_NC: representations, or points of a map.
        element: (N,) int64.
        candidates: among which atoms neighbours are looked for.
        neighbors: k.
    """
    from sklearn.metrics import pairwise_distances

    n = len(x_NC)
    near = np.full((n, neighbors), -1, dtype=np.int64)
    if n <= neighbors:
        return near
    centred = x_NC - x_NC.mean(axis=0)
    step = max(1, _BLOCK // n)
    for start in range(0, n, step):
        rows = np.arange(start, min(n, start + step))
        apart = pairwise_distances(centred[rows], centred)
        if candidates != "all":
            apart[(element[rows][:, None] == element[None, :]) != (candidates == "same element")] = np.inf
        apart[np.arange(len(rows)), rows] = np.inf
        found = np.argpartition(apart, neighbors - 1, axis=1)[:, :neighbors]
        enough = np.isfinite(np.take_along_axis(apart, found, axis=1)).all(axis=1)
        near[rows[enough]] = found[enough]
    return near


def purity(near: np.ndarray, labels: np.ndarray, element: np.ndarray, candidates: Candidates) -> tuple[int, float, float]:
    """How many atoms have k candidates of which some have their label and some have not; their mean purity and chance.

    Args:
        near: (N, k) of :func:`nearest`.
        labels: (N,) int64.
        element: (N,) int64.
        candidates: those that ``near`` was made with.
    """
    ones = np.ones(len(labels))
    same = _among(ones, labels, element, candidates) - (candidates != "other elements")
    every = _among(ones, np.zeros_like(labels), element, candidates) - (candidates != "other elements")
    asked = (near[:, 0] >= 0) & (same > 0) & (same < every)
    if not asked.any():
        return 0, 0.0, 0.0
    share = (labels[near[asked]] == labels[asked][:, None]).mean(axis=1)
    return int(asked.sum()), float(share.mean()), float((same[asked] / every[asked]).mean())


def r_squared(near: np.ndarray, values: np.ndarray, element: np.ndarray, candidates: Candidates) -> tuple[int, float, float]:
    """How many atoms have k candidates, R² of the mean over the nearest against the mean over all, and 0; 0 where none vary.

    Args:
        near: (N, k) of :func:`nearest`.
        values: (N,) finite numbers.
        element: (N,) int64.
        candidates: those that ``near`` was made with.
    """
    asked = near[:, 0] >= 0
    if not asked.any():
        return 0, 0.0, 0.0
    none = np.zeros(len(values), dtype=np.int64)
    own = float(candidates != "other elements")
    count = _among(np.ones(len(values)), none, element, candidates)[asked] - own
    mean = (_among(values, none, element, candidates)[asked] - own * values[asked]) / count
    spread = float(((values[asked] - mean) ** 2).sum())
    if spread <= 1e-12 * max(1.0, float(np.abs(values).max())) ** 2 * asked.sum():
        return 0, 0.0, 0.0
    off = float(((values[asked] - values[near[asked]].mean(axis=1)) ** 2).sum())
    return int(asked.sum()), 1.0 - off / spread, 0.0


def _among(weights: np.ndarray, labels: np.ndarray, element: np.ndarray, candidates: Candidates) -> np.ndarray:
    """(N,) for each atom the sum of weights over the candidates that have its label, itself included."""
    table = np.zeros((element.max() + 1, labels.max() + 1))
    np.add.at(table, (element, labels), weights)
    if candidates == "same element":
        return table[element, labels]
    everywhere = table.sum(axis=0)[labels]
    return everywhere if candidates == "all" else everywhere - table[element, labels]


def _silhouette(x_NC: np.ndarray, labels: np.ndarray) -> float | None:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(x_NC, labels)) if 2 <= len(np.unique(labels)) < len(labels) else None


def _codes(trait: Trait) -> np.ndarray:
    place = {name: index for index, name in enumerate(trait.classes or ())}
    return np.array([place[name] for name in trait.values.tolist()], dtype=np.int64)
