"""Batches hold what the budget allows, every frame once an epoch, and depend on seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lamella.data.sample import BatchSpec, Sampler, check_has_edges, frame_costs
from lamella.data.source import FrameList
from lamella.errors import DataError, RecipeError, StructureError
from lamella.geometry.graph import build_graph
from lamella.types import Frame, GraphSpec


def frame(n: int, seed: int = 0, periodic: bool = False, spread: float = 2.0) -> Frame:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)[:n] * spread
    positions = grid + rng.uniform(-0.2, 0.2, (n, 3))
    return Frame(np.full(n, 6), positions, 8.0 * np.eye(3) * periodic, np.full(3, periodic), {}, f"f#{seed}")


COSTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(COSTS, st.integers(0, 5), st.sampled_from([(None, 40, None), (None, None, 90), (3, 60, 100), (4, None, None)]))
def test_every_frame_once_an_epoch_and_no_bound_exceeded(costs, seed, bounds):
    frames, edges, angles = bounds
    sampler = Sampler(np.array(costs), BatchSpec(frames=frames, edges=edges, angles=angles), seed)
    for epoch in (0, 3):
        packed = sampler.batches(epoch)
        assert sorted(np.concatenate(packed).tolist()) == list(range(len(costs)))
        for batch in packed:
            total = np.array(costs)[batch].sum(axis=0)
            assert len(batch) <= (frames or len(costs))
            assert total[0] <= (edges or 10**9)
            assert total[1] <= (angles or 10**9)


@pytest.mark.parametrize("spec", [BatchSpec(frames=3), BatchSpec(edges=25)])
def test_batch_of_a_step_is_the_same_wherever_one_starts(spec):
    costs = np.random.default_rng(0).integers(1, 20, (17, 2))
    forward = [Sampler(costs, spec, 7).batch(step).tolist() for step in range(40)]
    running = Sampler(costs, spec, 7)
    assert [running.batch(step).tolist() for step in range(40)] == forward
    back = Sampler(costs, spec, 7)
    assert [back.batch(step).tolist() for step in reversed(range(40))] == forward[::-1]
    epochs = [batch.tolist() for epoch in range(20) for batch in Sampler(costs, spec, 7).batches(epoch)]
    assert epochs[:40] == forward
    assert running.epoch(0) == 0
    assert running.epoch(39) > 0
    assert Sampler(costs, spec, 8).batch(0).tolist() != forward[0]


def test_frames_of_one_epoch_are_shuffled_differently_in_the_next():
    sampler = Sampler(20, BatchSpec(frames=20), 0)
    assert sampler.batch(0).tolist() != sampler.batch(1).tolist()


def test_packing_fills_batches_nearly_to_the_budget():
    costs = np.random.default_rng(1).integers(1, 30, (2000, 2))
    packed = Sampler(costs, BatchSpec(edges=100), 0).batches(0)
    assert costs[:, 0].sum() / (100 * len(packed)) > 0.95


def test_frame_that_alone_exceeds_the_budget_is_refused_by_name():
    costs = np.array([[10, 10], [500, 20], [900, 1]])
    with pytest.raises(
        DataError, match=r"f#1 alone has 500 edges, more than .* \(100\); raise the bound on edges to at least 900"
    ):
        Sampler(costs, BatchSpec(edges=100), 0, name=lambda index: f"f#{index}")
    with pytest.raises(DataError, match="the frame of index 1 alone has 20 angles"):
        Sampler(costs, BatchSpec(angles=15), 0)


def test_bounds_without_costs_and_specs_without_bounds_are_refused():
    with pytest.raises(RecipeError, match="needs the cost"):
        Sampler(10, BatchSpec(edges=5), 0)
    with pytest.raises(ValidationError, match="at least one"):
        BatchSpec()
    with pytest.raises(ValidationError):
        BatchSpec(frames=0)
    with pytest.raises(DataError, match="no frames"):
        Sampler(0, BatchSpec(frames=1), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_costs_are_the_sizes_of_the_graphs(workers):
    frames = FrameList([frame(n, n, periodic=n % 2 == 0) for n in range(1, 21)])
    costs = frame_costs(frames, 5.0, 3.0, workers)
    for index in range(len(frames)):
        graph = build_graph(frames[index], GraphSpec((6,), 5.0, 3.0, True))
        assert costs[index].tolist() == [graph.n_edges, graph.n_angles]
    assert costs[0].tolist() == [0, 0]
    assert costs[:, 1].max() > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_error_in_a_worker_names_the_frame(workers):
    bad = Frame(np.array([6, 6]), np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(3, bool), {}, "bad.xyz#4")
    with pytest.raises(StructureError, match=r"^bad\.xyz#4: atoms 0 and 1 are 0 Å apart"):
        frame_costs(FrameList([frame(3), bad]), 5.0, 3.0, workers)


def test_data_without_any_neighbour_suggest_wrong_units():
    frames = FrameList([frame(8, seed, spread=20.0) for seed in range(3)])
    costs = frame_costs(frames, 5.0, 3.0)
    with pytest.raises(DataError, match=r"no atom of any of the 3 frames has a neighbour within .* 5 Å; check the units"):
        check_has_edges(costs, 5.0)
    check_has_edges(np.array([[0, 0], [2, 0]]), 5.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 5))
def test_batches_bounded_by_atoms_hold_no_more(sizes, seed):
    sampler = Sampler(len(sizes), BatchSpec(atoms=50), seed, atoms=np.array(sizes))
    packed = sampler.batches(1)
    assert sorted(np.concatenate(packed).tolist()) == list(range(len(sizes)))
    assert all(np.array(sizes)[batch].sum() <= 50 for batch in packed)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 5))
def test_full_batches_take_no_further_frame(sizes, seed):
    """deepmd-kit's ``auto:N``: as few frames as have N atoms or more."""
    sampler = Sampler(len(sizes), BatchSpec(full_atoms=50), seed, atoms=np.array(sizes))
    packed = sampler.batches(1)
    assert sorted(np.concatenate(packed).tolist()) == list(range(len(sizes)))
    assert all(np.array(sizes)[batch[:-1]].sum() < 50 for batch in packed)
    assert sum(np.array(sizes)[batch].sum() < 50 for batch in packed) <= 1


@pytest.mark.parametrize(("spec", "frames"), [(BatchSpec(full_atoms=32), 4), (BatchSpec(atoms=32), 3)])
def test_frames_of_one_size_make_the_batches_of_deepmd_kit(spec, frames):
    """``auto:32`` takes ⌈32/9⌉ = 4 frames of 9 atoms, ``max:32`` ⌊32/9⌋ = 3."""
    packed = Sampler(24, spec, 0, atoms=np.full(24, 9)).batches(0)
    assert [len(batch) for batch in packed] == [frames] * (24 // frames)


def test_frame_with_more_atoms_than_a_batch_may_hold_is_refused():
    with pytest.raises(DataError, match=r"f#1 alone has 9 atoms.*\(8\)"):
        Sampler(2, BatchSpec(atoms=8), 0, lambda index: f"f#{index}", np.array([3, 9]))
    with pytest.raises(RecipeError, match="number of atoms"):
        Sampler(2, BatchSpec(atoms=8), 0)
