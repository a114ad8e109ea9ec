"""A list with a skin gives the graph of a fresh search, edge by edge, and searches only when it must."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry.structures import CASES, frame_arrays
from lamella.errors import StructureError
from lamella.geometry.graph import build_graph
from lamella.geometry.moving import MovingGraph
from lamella.types import Frame, GraphSpec, Incidence

ELEMENTS = (8, 1, 29)
SPEC = GraphSpec(ELEMENTS, 4.7, 2.9, True)


def frame_of(name):
    positions, cell, pbc = frame_arrays(name)
    return Frame(np.resize([1, 8, 29], len(positions)), positions, cell, pbc, source=name)


def moved(frame, by, strain=None):
    """Atoms displaced by ``by`` after the whole structure was strained."""
    deform = np.eye(3) if strain is None else np.eye(3) + strain
    return dataclasses.replace(frame, positions=frame.positions @ deform + by, cell=frame.cell @ deform)


def assert_same(graph, fresh):
    """Every index equal, vectors to round-off."""
    for item in dataclasses.fields(fresh):
        left, right = getattr(graph, item.name), getattr(fresh, item.name)
        if isinstance(right, Incidence):
            assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True)), item.name
        elif item.name == "vec":
            torch.testing.assert_close(left, right, rtol=0, atol=1e-12)
        elif item.name == "inputs":
            assert left.keys() == right.keys()
            assert all(torch.equal(left[name], right[name]) for name in right)
        else:
            assert torch.equal(left, right), item.name


def assert_follows(graphs, frame, spec=SPEC):
    """The graph of the frame is that of a fresh search, or both refuse it in the same words."""
    fresh, refusal = None, ""
    try:
        fresh = build_graph(frame, spec)
    except StructureError as error:
        refusal = str(error)
    if fresh is not None:
        assert_same(graphs(frame), fresh)
        return
    with pytest.raises(StructureError) as caught:
        graphs(frame)
    assert str(caught.value) == refusal


@pytest.mark.parametrize("name", CASES)
def test_a_walk_of_small_steps_gives_the_graphs_of_fresh_searches(name):
    rng, frame, graphs = np.random.default_rng(1), frame_of(name), MovingGraph(SPEC)
    for _ in range(12):
        assert_follows(graphs, frame)
        frame = moved(frame, rng.normal(0.0, 0.06, frame.positions.shape))
    assert graphs.searches < 8


@pytest.mark.parametrize("name", CASES)
def test_a_cell_that_breathes_and_shears_gives_the_graphs_of_fresh_searches(name):
    rng, frame, graphs = np.random.default_rng(2), frame_of(name), MovingGraph(SPEC)
    for _ in range(12):
        assert_follows(graphs, frame)
        frame = moved(frame, rng.normal(0.0, 0.03, frame.positions.shape), rng.normal(0.0, 0.006, (3, 3)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    step=st.floats(0.0, 0.8),
    strain=st.floats(0.0, 0.1),
    skin=st.sampled_from([0.0, 0.3, 0.75, 2.0]),
)
def test_any_move_of_any_structure_gives_the_graph_of_a_fresh_search(seed, pbc, step, strain, skin):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(-1.0, 1.0, (3, 3)) * 3.0 + np.diag(rng.choice([-4.0, 4.0], 3))
    frame = Frame(rng.choice(ELEMENTS, 4), rng.uniform(-6.0, 6.0, (4, 3)), cell, np.array(pbc))
    graphs = MovingGraph(SPEC, skin=skin)
    for _ in range(3):
        assert_follows(graphs, frame)
        deform = strain * rng.uniform(-1.0, 1.0, (3, 3))
        frame = moved(frame, step * rng.uniform(-1.0, 1.0, (4, 3)), deform)


def test_two_atoms_that_approach_from_beyond_the_skin_are_found():
    """Each moves less than half of the skin, then a little more."""
    cutoff, skin = SPEC.cutoff, 0.5
    graphs = MovingGraph(SPEC, skin=skin)
    gap = cutoff + skin + 1e-6

    def pair(shift):
        positions = np.array([[shift, 0.0, 0.0], [gap - shift, 0.0, 0.0]])
        return Frame(np.array([1, 8]), positions, np.zeros((3, 3)), np.zeros(3, bool))

    assert graphs(pair(0.0)).n_edges == 0
    assert graphs(pair(0.2499)).n_edges == 0
    assert graphs.searches == 1
    assert graphs(pair(0.2501)).n_edges == 2
    assert graphs.searches == 2


def test_a_cell_that_shrinks_alone_brings_images_within_reach():
    """No atom moves in fractional coordinates; only the strain tells that a search is due."""
    graphs = MovingGraph(SPEC, skin=0.5)

    def crystal(length):
        return Frame(np.array([29]), np.zeros((1, 3)), length * np.eye(3), np.ones(3, bool))

    assert graphs(crystal(5.21)).n_edges == 0
    assert graphs(crystal(5.0)).n_edges == 0
    assert graphs.searches == 1
    assert graphs(crystal(4.69)).n_edges == 6
    assert graphs.searches == 2


def test_atoms_wrapped_back_into_the_cell_are_searched_anew():
    frame, graphs = frame_of("crystal"), MovingGraph(SPEC)
    assert_follows(graphs, frame)
    assert_follows(graphs, moved(frame, np.eye(1, 6).T @ frame.cell[:1]))
    assert graphs.searches == 2


def test_other_elements_atoms_and_directions_are_noticed():
    spec = dataclasses.replace(SPEC, excluded_pairs=((0, 1),))
    frame, graphs = frame_of("slab"), MovingGraph(spec)
    assert_follows(graphs, frame, spec)
    swapped = dataclasses.replace(frame, numbers=frame.numbers[::-1].copy())
    assert_follows(graphs, swapped, spec)
    assert graphs.searches == 1, "elements alone need no search"
    more = dataclasses.replace(
        frame, numbers=np.append(frame.numbers, 8), positions=np.vstack([frame.positions, frame.positions[0] + 1.1])
    )
    assert_follows(graphs, more, spec)
    assert_follows(graphs, dataclasses.replace(more, pbc=np.ones(3, bool), cell=more.cell + 5.0 * np.eye(3)), spec)
    assert graphs.searches == 3


def test_the_frame_may_change_under_the_list():
    """ASE moves positions in place: the list must keep its own copy."""
    frame, graphs = frame_of("crystal"), MovingGraph(SPEC)
    graphs(frame)
    frame.positions[0] += 2.0
    assert_follows(graphs, frame)
    assert graphs.searches == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": np.full((6, 3), np.nan)}, "NaN"),
        ({"cell": np.zeros((3, 3))}, "no volume"),
        ({"numbers": np.full(6, 3)}, "element Li"),
    ],
)
def test_what_has_no_energy_is_refused_at_any_step(change, words):
    frame, graphs = frame_of("crystal"), MovingGraph(SPEC)
    graphs(frame)
    with pytest.raises(StructureError, match=words):
        graphs(dataclasses.replace(frame, **change))
    assert_follows(graphs, frame)


def test_atoms_that_come_onto_each_other_are_refused_without_a_search():
    frame = Frame(np.array([1, 8]), np.array([[0.0, 0, 0], [0.2, 0, 0]]), np.zeros((3, 3)), np.zeros(3, bool), source="md")
    graphs = MovingGraph(SPEC)
    graphs(frame)
    with pytest.raises(StructureError, match=r"md: atoms 0 and 1 are 0\.04 Å apart"):
        graphs(moved(frame, np.array([[0.08, 0, 0], [-0.08, 0, 0]])))
    assert graphs.searches == 1
