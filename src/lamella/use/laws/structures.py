"""Structures that laws are measured on: small, seeded, made of the model's own elements at distances that atoms have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike

from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame

__all__ = ["cluster", "crystal", "frame_of", "line", "merged", "moved", "rotation", "supercell"]

_FREE = np.zeros((3, 3))
_ALL, _NONE = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)

_ATTEMPTS = 1000
_PATIENCE = 500
_MARGIN = 1e-3
"""Å; no edge is this near to a cutoff, so that a finite step moves none across it."""


def frame_of(
    numbers: Sequence[int], positions: ArrayLike, cell: np.ndarray | None = None, pbc: ArrayLike | None = None
) -> Frame:
    """A frame without labels; without a cell it is a molecule."""
    periodic = _NONE if cell is None else _ALL
    return Frame(
        numbers=np.asarray(numbers, dtype=np.int64),
        positions=np.array(positions, dtype=np.float64),
        cell=np.array(_FREE if cell is None else cell, dtype=np.float64),
        pbc=np.array(periodic if pbc is None else pbc, dtype=bool),
        source="lamella.check",
    )


def crystal(rng: np.random.Generator, numbers: Sequence[int], breaks: Sequence[float], pbc: ArrayLike = _ALL) -> Frame:
    """Atoms at random in a skewed cell, no two too close, periodic along ``pbc``, no edge near one of ``breaks`` (Å).

    Atoms are as dense as their radii say, or denser where the model would see no neighbours otherwise.
    """
    reach = max(breaks)
    volume = sum(min(max(16.0, (2.0 * covalent_radii[z]) ** 3), (0.75 * reach) ** 3) for z in numbers)
    for attempt in range(_ATTEMPTS):
        volume *= 1.0 if attempt < _PATIENCE else 1.01  # many cutoffs, or atoms that need more room than their radii say
        cell = np.eye(3) + 0.25 * rng.uniform(-1.0, 1.0, (3, 3))
        cell *= (volume / np.linalg.det(cell)) ** (1.0 / 3.0)
        frame = frame_of(numbers, rng.random((len(numbers), 3)) @ cell, cell, pbc)
        if _apart(frame, reach) and _clear(frame, breaks):
            return frame
    raise RuntimeError("no random crystal found; widen the volume per atom")


def cluster(rng: np.random.Generator, numbers: Sequence[int], breaks: Sequence[float]) -> Frame:
    """A molecule-like cluster: every atom within reach of another, no edge near one of ``breaks`` (Å)."""
    reach = max(breaks)
    for _ in range(_ATTEMPTS):
        positions = np.zeros((1, 3))
        for z in numbers[1:]:
            anchor = int(rng.integers(len(positions)))
            step = rng.normal(size=3)
            bond = max(1.1, 1.1 * (covalent_radii[z] + covalent_radii[numbers[anchor]]))
            step *= min(bond, 0.55 * reach) * rng.uniform(1.0, 1.6) / np.linalg.norm(step)
            positions = np.vstack([positions, positions[anchor] + step])
        frame = frame_of(numbers, positions)
        if _apart(frame, reach) and _clear(frame, breaks):
            return frame
    raise RuntimeError("no random cluster found; widen the reach")


def line(numbers: Sequence[int], spacing: float) -> Frame:
    """Atoms on a straight line along (1, 2, 2)/3: every angle is 0° or 180°."""
    return frame_of(numbers, spacing * np.arange(len(numbers))[:, None] * np.array([1.0, 2.0, 2.0]) / 3.0)


def moved(frame: Frame, positions: np.ndarray) -> Frame:
    """The same atoms at other places."""
    return replace(frame, positions=np.ascontiguousarray(positions, dtype=np.float64))


def merged(first: Frame, second: Frame) -> Frame:
    """The atoms of both, in the cell of the first."""
    return replace(
        first,
        numbers=np.concatenate([first.numbers, second.numbers]),
        positions=np.concatenate([first.positions, second.positions]),
    )


def supercell(frame: Frame, repeat: tuple[int, int, int]) -> Frame:
    """The crystal repeated along its cell vectors; copy by copy, atoms in their order."""
    shifts = np.array([[a, b, c] for a in range(repeat[0]) for b in range(repeat[1]) for c in range(repeat[2])])
    return replace(
        frame,
        numbers=np.tile(frame.numbers, len(shifts)),
        positions=(frame.positions[None] + (shifts @ frame.cell)[:, None]).reshape(-1, 3),
        cell=np.array(repeat, dtype=np.float64)[:, None] * frame.cell,
    )


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A proper rotation, uniformly at random."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def _apart(frame: Frame, reach: float) -> bool:
    """No pair nearer than 0.9 Å or 3/4 of the sum of covalent radii; also refuses atoms on their own periodic image.

    Where atoms are large for a model of short ``reach`` (Å), 0.45 of that is far enough.
    """
    radii = covalent_radii[frame.numbers]
    src, dst, vec = _edges(frame, 1.5 * radii.max() + 0.9)
    closest = np.minimum(np.maximum(0.9, 0.75 * (radii[src] + radii[dst])), 0.45 * reach)
    return bool((np.linalg.norm(vec, axis=1) > closest).all())


def _clear(frame: Frame, breaks: Sequence[float]) -> bool:
    _, _, vec = _edges(frame, max(breaks) + 2 * _MARGIN)
    length = np.linalg.norm(vec, axis=1)
    return bool(all((np.abs(length - r) > _MARGIN).all() for r in breaks))


def _edges(frame: Frame, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return neighbor_edges(frame.positions, frame.cell, frame.pbc, cutoff, frame.source)
