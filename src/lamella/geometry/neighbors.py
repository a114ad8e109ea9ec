"""Neighbours within a cutoff, by vesin, in O(n): every periodic image counts, also in cells smaller than the cutoff."""

from __future__ import annotations

import numpy as np
from vesin import NeighborList

from lamella.errors import StructureError

__all__ = ["CLOSEST", "check_structure", "complete_cell", "neighbor_edges", "neighbor_images", "on_top"]

CLOSEST = 0.05
"""Atoms closer than this (Å) are on top of each other: no model was trained there and 1/r blows up."""

_THINNEST = 1e-3
"""A periodic cell thinner than this (Å) between two of its faces has no volume."""


def check_structure(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, source: str) -> None:
    """Refuse a structure that has no energy: no atoms, non-finite numbers, a periodic cell without volume.

    Args:
        positions: (n, 3) Å.
        cell: (3, 3) Å.
        pbc: (3,) bool.
        source: names the structure in messages.

    Raises:
        StructureError: with the reason and what to do.
    """
    if len(positions) == 0:
        raise StructureError(f"{source}: the structure has no atoms; remove the frame.")
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise StructureError(f"{source}: positions or cell contain NaN or infinity; remove or repair the frame.")
    if pbc.any() and _thickness(cell, pbc) < _THINNEST:
        raise StructureError(
            f"{source}: periodic, but the cell has no volume ({_one_line(cell)}); "
            "give the cell vectors, or set pbc to F F F for a molecule."
        )


def neighbor_edges(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, source: str = "structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All directed edges i -> j with 0 < |r_j + shift - r_i| <= cutoff, sorted by i, then j, then periodic image.

    A distance that equals the cutoff counts, as in deepmd-kit: crystals have such distances.

    Args:
        positions: (n, 3) float64, Å; need not lie inside the cell.
        cell: (3, 3) float64, Å, rows are vectors, of either handedness.
        pbc: (3,) bool.
        cutoff: Å.
        source: names the structure in messages.

    Returns:
        src (E,) int64, dst (E,) int64, vec (E, 3) float64, Å.

    Raises:
        StructureError: see :func:`check_structure`; also two atoms closer than :data:`CLOSEST`.
    """
    src, dst, _, vec = neighbor_images(positions, cell, pbc, cutoff, source)
    return src, dst, vec


def neighbor_images(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, source: str = "structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same edges with the image of each neighbour: src, dst, shift (E, 3) in cell vectors, vec."""
    check_structure(positions, cell, pbc, source)
    box = complete_cell(cell, pbc)
    # vesin leaves out what lies at the cutoff itself
    search = NeighborList(cutoff=cutoff * (1.0 + 1e-12), full_list=True, sorted=True, n_threads=1)
    points = np.ascontiguousarray(positions, dtype=np.float64)
    src, dst, shift = search.compute(points, box, np.ascontiguousarray(pbc, dtype=bool), quantities="ijS")
    src, dst = src.astype(np.int64), dst.astype(np.int64)
    vec = points[dst] - points[src] + shift.astype(np.float64) @ box
    distance2 = np.einsum("ij,ij->i", vec, vec)
    order = np.argsort(_edge_key(src, dst, shift, len(points)), kind="stable")
    order = order[distance2[order] <= cutoff * cutoff]
    if len(order) and distance2[order].min() < CLOSEST**2:
        worst = order[np.argmin(distance2[order])]
        raise on_top(source, int(src[worst]), int(dst[worst]), float(distance2[worst]))
    return src[order], dst[order], shift[order], vec[order]


def on_top(source: str, i: int, j: int, distance2: float) -> StructureError:
    """What is raised for atoms i and j closer than :data:`CLOSEST`, given their squared distance in Å²."""
    return StructureError(
        f"{source}: atoms {i} and {j} are {np.sqrt(distance2):.3g} Å apart, on top of each other; remove one, or check the "
        "units (positions are in Å)."
    )


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with vectors along non-periodic directions replaced by unit normals: their length cannot matter.

    (3, 3) float64, contiguous; zeros where nothing is periodic.
    """
    box = np.ascontiguousarray(cell, dtype=np.float64) if pbc.any() else np.zeros((3, 3))
    if pbc.all() or not pbc.any():
        return box
    full = box.copy()
    if pbc.sum() == 2:
        (free,) = np.flatnonzero(~pbc)
        a, b = (box[axis] for axis in np.flatnonzero(pbc))
        normal = np.cross(a, b)
        full[free] = normal / np.linalg.norm(normal)
        return full
    (axis,) = np.flatnonzero(pbc)
    _, _, basis = np.linalg.svd(box[axis][None])
    full[np.flatnonzero(~pbc)] = basis[1:]
    return full


def _one_line(cell: np.ndarray) -> str:
    return "; ".join(" ".join(f"{value:.4g}" for value in row) for row in np.asarray(cell))


def _edge_key(src: np.ndarray, dst: np.ndarray, shift: np.ndarray, n_atoms: int) -> np.ndarray:
    """One integer that orders edges by centre, neighbour and image: ten times faster to sort by than five keys."""
    key = src * n_atoms + dst
    if len(shift):
        low = shift.min(axis=0).astype(np.int64)
        span = shift.max(axis=0).astype(np.int64) - low + 1
        for axis in range(3):
            key = key * span[axis] + (shift[:, axis] - low[axis])
    return key


def _thickness(cell: np.ndarray, pbc: np.ndarray) -> float:
    """Smallest distance between opposite faces over the periodic directions, Å."""
    vectors = np.asarray(cell, dtype=np.float64)[np.asarray(pbc, dtype=bool)]
    lengths = np.linalg.norm(vectors, axis=1)
    if lengths.min() == 0.0:
        return 0.0
    # det of the Gram matrix of unit vectors is the squared volume they span
    unit = vectors / lengths[:, None]
    return float(lengths.min() * np.sqrt(max(np.linalg.det(unit @ unit.T), 0.0)))
