"""Energies off the per-element fit: a robust fit, and who is far from it on the scale of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["energy_outliers"]

_FAR_ALIKE = 12.0
"""Robust deviations from frames of the same composition, where there are enough of them."""

_FAR = 20.0
"""Robust deviations from the per-element fit over all frames, which differ in more than noise."""

_SMALLEST = 0.02
"""Nothing nearer than this is reported, eV/atom."""

_HEAVY = 0.05
"""Where more than this fraction lies far off, the data have a heavy tail rather than outliers ..."""

_ABSURD = 20.0
"""... unless they are off by this much, eV/atom: no strained crystal is."""

_STRAINED = 3.0
"""Forces or virial this many times the median of the file belong to a strained structure."""

_FEWEST = 6
_FEWEST_ALIKE = 20


def energy_outliers(
    compositions: Sequence[tuple[tuple[int, int], ...]], energies: np.ndarray, strains: np.ndarray
) -> Iterator[tuple[int, str, bool]]:
    """Frames whose energy is far from the per-element fit.

    Args:
        compositions: (atomic number, count) pairs of each frame.
        energies: (n,) eV.
        strains: (n, 2), sizes of the forces and of the virial of each frame, NaN where it has none. A frame above the fit
            whose forces or virial are far larger than usual is a strained structure, a note: wrong labels do not conspire.

    Yields:
        position in the input, message, and whether it is a problem rather than a note.
    """
    n = len(energies)
    if n < _FEWEST:
        return
    numbers = sorted({number for composition in compositions for number, _ in composition})
    column = {number: index for index, number in enumerate(numbers)}
    counts = np.zeros((n, len(numbers)))
    for row, composition in enumerate(compositions):
        for number, count in composition:
            counts[row, column[number]] = count
    size = counts.sum(axis=1)
    residual = _robust_residual(counts / size[:, None], energies / size)
    far, score = _far(residual, compositions)
    strained = _strained(strains) & (residual > 0.0)
    heavy = far.sum() > max(_HEAVY * n, 2)
    for row in np.flatnonzero(far).tolist():
        text = (
            f"its energy is {residual[row]:+.3f} eV/atom off the per-element fit, {score[row]:.0f} times the typical "
            "deviation; "
            "check its convergence, charge and units"
        )
        absurd = bool(abs(residual[row]) > _ABSURD)
        if strained[row]:
            text = f"{text.partition('; check')[0]}; so are its forces or virial: a strained structure"
        yield row, text, absurd or not (heavy or strained[row])


def _strained(strains: np.ndarray) -> np.ndarray:
    strained = np.zeros(len(strains), dtype=bool)
    for sizes in strains.T:
        known = np.isfinite(sizes)
        if known.any():
            strained |= known & (np.nan_to_num(sizes) > _STRAINED * np.median(sizes[known]))
    return strained


def _robust_residual(fractions: np.ndarray, per_atom: np.ndarray) -> np.ndarray:
    """Residual per atom of a least-squares fit from which far-off frames are left out in turn, its median subtracted.

    The start is a fit of least absolute deviations (by reweighting): half the data may be wrong by any amount.
    """
    weight = np.ones(len(per_atom))
    residual = per_atom
    for _ in range(30):
        root = np.sqrt(weight)
        solution = np.linalg.lstsq(fractions * root[:, None], per_atom * root, rcond=1e-9)[0]
        residual = per_atom - fractions @ solution
        weight = 1.0 / np.maximum(np.abs(residual), 1e-4)
        weight /= weight.max()
    keep = np.abs(residual) < 6.0 * _spread(residual)
    if keep.sum() > fractions.shape[1]:
        solution = np.linalg.lstsq(fractions[keep], per_atom[keep], rcond=1e-9)[0]
        residual = per_atom - fractions @ solution
    return residual - np.median(residual)


def _spread(residual: np.ndarray) -> float:
    """1.4826 × the median absolute deviation: the standard deviation where the data are normal; at least 1 meV."""
    return float(max(1.4826 * np.median(np.abs(residual - np.median(residual))), 1e-3))


def _far(residual: np.ndarray, compositions: Sequence[tuple[tuple[int, int], ...]]) -> tuple[np.ndarray, np.ndarray]:
    score = np.abs(residual) / _spread(residual)
    far = (score > _FAR) & (np.abs(residual) > _SMALLEST)
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for row, composition in enumerate(compositions):
        groups[composition].append(row)
    for rows in groups.values():
        if len(rows) < _FEWEST_ALIKE:
            continue
        offset = residual[rows] - np.median(residual[rows])
        alike = np.abs(offset) / _spread(offset)
        hit = (alike > _FAR_ALIKE) & (np.abs(offset) > _SMALLEST)
        far[np.array(rows)[hit]] = True
        score[np.array(rows)[hit]] = alike[hit]
    return far, score
