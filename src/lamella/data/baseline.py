"""Energy per element: by least squares, from isolated atoms, or as given numbers.

    minimise Σ_f ( E_f - Σ_Z n_fZ b_Z )²

Source: deepmd-kit's output statistics (minimum-norm least squares on total energies, frames weighted alike).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lamella.data.convert import has_volume
from lamella.errors import DataError, RecipeError, nearest
from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame

__all__ = ["BaselineFit", "fit_baseline", "given_baseline", "indistinct", "isolated_atom_baseline"]

_CHUNK = 4096
_RANK = 1e-9
"""Singular values below this fraction of the largest count as zero: counts are integers, so they are or they are not."""

_ALONE = 6.0
"""A single atom is isolated where no image of it is nearer than this, Å."""

_SAME = 1e-3
"""Two energies of one isolated atom may differ by this much, eV."""


@dataclass(frozen=True)
class BaselineFit:
    """Energies per element and how well the data determine them.

    Attributes:
        energies: eV by chemical symbol, one for every element asked for.
        rank: number of independent combinations that the data determine.
        condition: ratio of the largest to the smallest non-zero singular value of the composition matrix.
        rms: root mean square of (E - baseline)/N over frames, eV/atom; what is left to learn.
        frames: number of frames with an energy.
        message: empty where every energy is determined, else what is not, and what to do.
    """

    energies: dict[str, float]
    rank: int
    condition: float
    rms: float
    frames: int
    message: str


def fit_baseline(frames: Iterable[Frame], elements: Sequence[str]) -> BaselineFit:
    """Energy per element by least squares; where the data leave it open, the solution of least norm and a message.

    Args:
        frames: those without an energy are passed over; constant memory.
        elements: chemical symbols; all that occur must be among them.

    Raises:
        DataError: no frame has an energy, or one has an element that is not listed.
    """
    totals = _Squares(len(elements))
    per_atom = _Squares(len(elements))
    column = {atomic_numbers[symbol]: index for index, symbol in enumerate(elements)}
    count = 0
    for frame in frames:
        if "energy" not in frame.labels:
            continue
        row = _composition(frame, column, len(elements))
        energy = float(frame.labels["energy"])
        totals.add(row, energy)
        per_atom.add(row / len(frame), energy / len(frame))
        count += 1
    if count == 0:
        raise DataError("no frame has an energy, so no energy per element can be fitted; give the label key or the numbers.")
    counts, right = totals.reduced()
    u, s, vt = np.linalg.svd(counts, full_matrices=True)
    rank = int((s > _RANK * s[0]).sum())
    solution = vt[:rank].T @ ((u[:, :rank].T @ right) / s[:rank])
    residual = per_atom.residual(solution)
    return BaselineFit(
        energies={symbol: float(value) for symbol, value in zip(elements, solution, strict=True)},
        rank=rank,
        condition=float(s[0] / s[rank - 1]),
        rms=residual / math.sqrt(count),
        frames=count,
        message=_undetermined(vt[rank:], counts, elements),
    )


def isolated_atom_baseline(frames: Iterable[Frame], elements: Sequence[str]) -> dict[str, float]:
    """Energies of frames of one atom that has no image within 6 Å, eV by chemical symbol.

    Raises:
        DataError: an element without such a frame, or with several whose energies differ.
    """
    found: dict[str, tuple[float, str]] = {}
    for frame in frames:
        if len(frame) != 1 or "energy" not in frame.labels or not _is_alone(frame):
            continue
        symbol, energy = chemical_symbols[int(frame.numbers[0])], float(frame.labels["energy"])
        if symbol in found and abs(found[symbol][0] - energy) > _SAME:
            raise DataError(
                f"{found[symbol][1]} and {frame.source} are both an isolated {symbol} atom but have the energies "
                f"{found[symbol][0]:.6f} and {energy:.6f} eV; remove one (only the ground state is a baseline)."
            )
        found.setdefault(symbol, (energy, frame.source))
    missing = [symbol for symbol in elements if symbol not in found]
    if missing:
        raise DataError(
            f"no isolated-atom frame for {', '.join(missing)} (a single atom without images within {_ALONE:g} Å, "
            "with an energy); "
            "add one for each, or fit the baseline by least squares."
        )
    return {symbol: found[symbol][0] for symbol in elements}


def given_baseline(energies: Mapping[str, float], elements: Sequence[str]) -> dict[str, float]:
    """Given energies per element, checked: every element of the model has a finite one.

    Raises:
        RecipeError: an element is missing, is no element, or its number is not finite.
    """
    for symbol, value in energies.items():
        if symbol not in chemical_symbols[1:]:
            raise RecipeError(f"baseline: {symbol!r} is no chemical symbol{nearest(symbol, chemical_symbols)}; correct it.")
        if not math.isfinite(value):
            raise RecipeError(f"baseline: the energy of {symbol} is {value}; give a finite number in eV.")
    missing = [symbol for symbol in elements if symbol not in energies]
    if missing:
        raise RecipeError(f"baseline: no energy for {', '.join(missing)}; every element of the model needs one, in eV.")
    return {symbol: float(energies[symbol]) for symbol in elements}


class _Squares:
    """Least squares in constant memory: rows are folded into a triangular factor (QR), chunk by chunk."""

    def __init__(self, columns: int) -> None:
        self.factor = np.zeros((0, columns + 1))
        self.rows: list[np.ndarray] = []

    def add(self, row: np.ndarray, value: float) -> None:
        self.rows.append(np.append(row, value))
        if len(self.rows) == _CHUNK:
            self._fold()

    def reduced(self) -> tuple[np.ndarray, np.ndarray]:
        """A and y with the same AᵀA and Aᵀy as all rows."""
        self._fold()
        return self.factor[:, :-1], self.factor[:, -1]

    def residual(self, solution: np.ndarray) -> float:
        """sqrt(Σ (y - A x)²) over all rows, free of cancellation."""
        self._fold()
        return float(np.linalg.norm(self.factor @ np.append(solution, -1.0)))

    def _fold(self) -> None:
        if self.rows:
            self.factor = np.asarray(np.linalg.qr(np.vstack([self.factor, *self.rows]), mode="r"))
            self.rows = []


def _composition(frame: Frame, column: Mapping[int, int], width: int) -> np.ndarray:
    row = np.zeros(width)
    kinds, counts = np.unique(frame.numbers, return_counts=True)
    for number, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        if number not in column:
            raise DataError(
                f"{frame.source}: the element {chemical_symbols[number]} is not among the model's elements; "
                "add it to the list, or remove the frame."
            )
        row[column[number]] = count
    return row


def _is_alone(frame: Frame) -> bool:
    if not frame.pbc.any():
        return True
    if not has_volume(frame.cell):
        return False
    src, _, _ = neighbor_edges(frame.positions, frame.cell, frame.pbc, _ALONE, frame.source)
    return len(src) == 0


def _undetermined(null: np.ndarray, counts: np.ndarray, elements: Sequence[str]) -> str:
    """What the data leave open, in words; empty where nothing."""
    if not len(null):
        return ""
    absent = [k for k in range(len(elements)) if not np.abs(counts[:, k]).max() > _RANK]
    parts = []
    if absent:
        names = ", ".join(elements[k] for k in absent)
        parts.append(f"{names} {'does' if len(absent) == 1 else 'do'} not occur in frames with an energy (baseline 0)")
    parts += indistinct(null, counts, elements)
    return (
        "The energies per element are not determined by the data: " + "; ".join(parts) + ". The solution of least norm is "
        "used; add frames of other compositions or isolated atoms, or give the numbers, if energies of other "
        "compositions matter."
    )


def indistinct(null: np.ndarray, counts: np.ndarray, elements: Sequence[str]) -> list[str]:
    """A clause on each group of elements whose energies the data leave open together.

    Args:
        null: (d, n) orthonormal directions that the counts do not determine.
        counts: (m, n) atoms of each element; columns of zeros belong to elements that do not occur, and to no group.
        elements: n chemical symbols.
    """
    projector = null.T @ null
    open_set = {k for k in range(len(elements)) if projector[k, k] > 1e-6 and np.abs(counts[:, k]).max() > _RANK}
    clauses = []
    while open_set:
        group = _connected(open_set, projector)
        open_set -= set(group)
        clauses.append(_indistinct(group, counts, elements))
    return clauses


def _connected(candidates: set[int], projector: np.ndarray) -> list[int]:
    """Elements that a direction of the null space ties to the first of ``candidates``."""
    group = [min(candidates)]
    for member in group:
        group += [k for k in sorted(candidates) if k not in group and abs(projector[member, k]) > 1e-6]
    return sorted(group)


def _indistinct(group: Sequence[int], counts: np.ndarray, elements: Sequence[str]) -> str:
    """How the elements of a group go together in every frame."""
    names = [elements[k] for k in group]
    part = counts[:, group]
    _, s, vt = np.linalg.svd(part, full_matrices=False)
    if (s > _RANK * s[0]).sum() == 1:
        ratio = np.abs(vt[0]) / np.abs(vt[0]).min()
        for factor in range(1, 13):
            if np.allclose(ratio * factor, np.round(ratio * factor), atol=1e-6 * factor):
                ratio = np.round(ratio * factor)
                break
        amounts = ":".join(f"{value:g}" for value in ratio)
        return f"{' and '.join(names)} always occur in the ratio {amounts}, so only the sum over one such unit is known"
    free = len(group) - int((s > _RANK * s[0]).sum())
    return (
        f"{', '.join(names)} cannot be told apart ({free} of {len(group)} energies open: their counts are linearly "
        "dependent "
        "over all frames)"
    )
