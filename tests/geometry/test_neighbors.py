"""Neighbour lists equal loops over images, and ASE's, for every kind of cell."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry.structures import CASES, edges_by_loops, frame_arrays, sorted_rows
from lamella.errors import StructureError
from lamella.geometry.neighbors import CLOSEST, neighbor_edges

CUTOFF = 4.7


@pytest.mark.parametrize("name", CASES)
def test_edges_equal_loops(name):
    positions, cell, pbc = frame_arrays(name)
    src, dst, vec = neighbor_edges(positions, cell, pbc, CUTOFF)
    expected = edges_by_loops(positions, cell, pbc, CUTOFF)
    assert len(src) == len(expected)
    if expected:
        rows = sorted_rows(*(np.array(part) for part in zip(*expected, strict=True)))
        np.testing.assert_allclose(sorted_rows(src, dst, vec), rows, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_edges_equal_those_of_ase(name):
    positions, cell, pbc = frame_arrays(name)
    src, dst, vec = neighbor_edges(positions, cell, pbc, CUTOFF)
    i, j, d = neighbor_list("ijD", Atoms("H" * len(positions), positions=positions, cell=cell, pbc=pbc), CUTOFF)
    assert len(src) == len(i)
    np.testing.assert_allclose(sorted_rows(src, dst, vec), sorted_rows(i, j, d), atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_edges_are_sorted_by_centre_and_come_in_opposite_pairs(name):
    src, dst, vec = neighbor_edges(*frame_arrays(name), CUTOFF)
    assert (np.diff(src) >= 0).all()
    assert (src.dtype, dst.dtype, vec.dtype) == (np.int64, np.int64, np.float64)
    np.testing.assert_allclose(sorted_rows(src, dst, vec), sorted_rows(dst, src, -vec), atol=1e-12)


def test_edge_order_does_not_depend_on_the_order_of_search():
    """Edges are listed by centre, neighbour, image: a function of the structure, whichever image of an atom is given."""
    positions, cell, pbc = frame_arrays("crystal")
    src, dst, vec = neighbor_edges(positions, cell, pbc, CUTOFF)
    assert (np.lexsort((dst, src)) == np.arange(len(src))).all()
    images = np.random.default_rng(0).integers(-2, 3, positions.shape) * pbc
    other_src, other_dst, other_vec = neighbor_edges(positions + images @ cell, cell, pbc, CUTOFF)
    assert (other_src == src).all() and (other_dst == dst).all()
    np.testing.assert_allclose(other_vec, vec, atol=1e-12)


def test_inputs_are_not_changed():
    arrays = frame_arrays("outside the cell")
    before = [array.copy() for array in arrays]
    neighbor_edges(*arrays, CUTOFF)
    assert all((a == b).all() for a, b in zip(arrays, before, strict=True))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_any_cell_and_periodicity_equals_loops(seed, pbc):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(-1.0, 1.0, (3, 3)) * 3.0 + np.diag(rng.choice([-4.0, 4.0], 3))
    positions = rng.uniform(-6.0, 6.0, (3, 3))
    expected = edges_by_loops(positions, cell, pbc, 4.0)
    if any(np.linalg.norm(vector) < 2 * CLOSEST for _, _, vector in expected):
        return
    src, dst, vec = neighbor_edges(positions, cell, np.array(pbc), 4.0)
    assert len(src) == len(expected)
    if expected:
        rows = sorted_rows(*(np.array(part) for part in zip(*expected, strict=True)))
        np.testing.assert_allclose(sorted_rows(src, dst, vec), rows, atol=1e-12)


GOOD = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])
CUBE, FREE = 5.0 * np.eye(3), np.zeros((3, 3))
PERIODIC, OPEN = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
REFUSED = {
    "no atoms": (np.zeros((0, 3)), CUBE, PERIODIC, "no atoms"),
    "NaN position": (GOOD * np.nan, CUBE, PERIODIC, "NaN"),
    "infinite position": (GOOD + np.inf, FREE, OPEN, "infinity"),
    "NaN cell": (GOOD, CUBE * np.nan, PERIODIC, "NaN"),
    "zero cell": (GOOD, FREE, PERIODIC, "no volume"),
    "flat cell": (GOOD, np.array([[5.0, 0, 0], [0, 5, 0], [5, 5, 0]]), PERIODIC, "no volume"),
    "parallel vectors of a slab": (
        GOOD,
        np.array([[5.0, 0, 0], [10, 0, 0], [0, 0, 5]]),
        np.array([True, True, False]),
        "no volume",
    ),
    "zero vector of a wire": (GOOD, np.diag([0.0, 5, 5]), np.array([True, False, False]), "no volume"),
    "atoms on top of each other": (GOOD * 0.01, FREE, OPEN, "atoms 0 and 1 are 0.015 Å apart"),
    "atoms in the same place": (GOOD * 0.0, FREE, OPEN, "atoms 0 and 1 are 0 Å apart"),
    "on top of a periodic image": (np.array([[0.0, 0, 0], [4.99, 0, 0]]), CUBE, PERIODIC, "on top of each other"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_structures_without_an_energy_are_refused_by_name(name):
    positions, cell, pbc, words = REFUSED[name]
    with pytest.raises(StructureError, match=r"water\.xyz#3") as caught:
        neighbor_edges(positions, cell, pbc, CUTOFF, "water.xyz#3")
    assert words in str(caught.value)


def test_a_neighbour_at_the_cutoff_itself_counts():
    """As in deepmd-kit; a cubic crystal with a lattice constant of 6 Å has six of them."""
    src, _, vec = neighbor_edges(np.zeros((1, 3)), 6.0 * np.eye(3), np.ones(3, bool), 6.0)
    assert len(src) == 6
    np.testing.assert_array_equal(np.linalg.norm(vec, axis=1), 6.0)
    assert len(neighbor_edges(np.zeros((1, 3)), 6.0 * np.eye(3), np.ones(3, bool), np.nextafter(6.0, 0.0))[0]) == 0
