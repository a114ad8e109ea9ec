"""Structures that neighbour lists get wrong, and what a loop says of them."""

from __future__ import annotations

import itertools
import math

import numpy as np

ALL, NONE = (True, True, True), (False, False, False)


def _cell(seed, size):
    return size * (np.eye(3) + 0.2 * np.random.default_rng(seed).uniform(-1, 1, (3, 3)))


def _atoms(seed, n, cell):
    return np.random.default_rng(seed).random((n, 3)) @ cell


CASES = {
    "crystal": (_atoms(1, 6, _cell(1, 5.0)), _cell(1, 5.0), ALL),
    "slab": (_atoms(2, 5, _cell(2, 4.0)), _cell(2, 4.0), (True, True, False)),
    "slab across": (_atoms(2, 5, _cell(2, 4.0)), _cell(2, 4.0), (False, True, True)),
    "wire": (_atoms(3, 4, _cell(3, 3.0)), _cell(3, 3.0), (False, True, False)),
    "wire with no other vectors": (_atoms(3, 4, _cell(3, 3.0)), np.diag([0.0, 3.1, 0.0]), (False, True, False)),
    "slab with no third vector": (
        _atoms(4, 4, _cell(3, 3.0)),
        np.array([[3.0, 0, 0], [1, 3.2, 0], [0, 0, 0]]),
        (True, True, False),
    ),
    "molecule": (_atoms(4, 7, _cell(4, 5.0)), np.zeros((3, 3)), NONE),
    "molecule in an idle cell": (_atoms(4, 7, _cell(4, 5.0)), np.eye(3), NONE),
    "skewed": (_atoms(5, 3, _cell(5, 4.0)), np.array([[1, 3, 0], [0, 1, 0], [-2, 0, 1]]) @ _cell(5, 4.0), ALL),
    "left-handed": (_atoms(6, 4, _cell(6, 4.0)), _cell(6, 4.0)[[1, 0, 2]], ALL),
    "much smaller than the cutoff": (_atoms(7, 1, _cell(7, 2.0)), _cell(7, 2.0), ALL),
    "flat": (_atoms(8, 2, np.diag([2.5, 2.5, 9.0])), np.diag([2.5, 2.5, 9.0]), ALL),
    "outside the cell": (
        _atoms(9, 5, _cell(9, 4.0)) + np.array([[37.0, -21.0, 4.0]]) * np.arange(5)[:, None],
        _cell(9, 4.0),
        ALL,
    ),
    "outside a slab": (_atoms(9, 3, _cell(9, 4.0)) + 30.0 * np.eye(3), _cell(9, 4.0), (True, True, False)),
    "one atom": (np.zeros((1, 3)), np.zeros((3, 3)), NONE),
}


def frame_arrays(name):
    positions, cell, pbc = CASES[name]
    return positions.copy(), cell.astype(float), np.array(pbc)


def edges_by_loops(positions, cell, pbc, cutoff):
    """Every (i, j, vector) within the cutoff, from enough images for any skew."""
    vectors = [cell[axis] for axis in range(3) if pbc[axis]]
    dual = np.linalg.pinv(np.array(vectors).reshape(-1, 3)).T
    edges = []
    for i, j in itertools.product(range(len(positions)), repeat=2):
        gap = positions[j] - positions[i]
        # only images near the one that brings j closest to i along each dual vector
        nearest = [-round(float(row @ gap)) for row in dual]
        counts = [math.ceil(cutoff * np.linalg.norm(row)) + 1 for row in dual]
        for steps in itertools.product(*(range(n - m, n + m + 1) for n, m in zip(nearest, counts, strict=True))):
            vector = gap + sum((n * v for n, v in zip(steps, vectors, strict=True)), np.zeros(3))
            if (i != j or any(steps)) and np.linalg.norm(vector) <= cutoff:
                edges.append((i, j, vector))
    return edges


def sorted_rows(src, dst, vec):
    """Edges as rows in one order, so that two lists can be compared."""
    rows = np.column_stack([src, dst, np.asarray(vec).reshape(-1, 3)])
    return rows[np.lexsort(np.round(rows, 6).T[::-1])]
