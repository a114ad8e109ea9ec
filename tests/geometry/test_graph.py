"""Graphs: angles equal loops, incidences are what their docstring says, a batch is its parts."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from geometry.structures import CASES, frame_arrays
from lamella.errors import StructureError
from lamella.geometry.graph import build_graph, collate, species_index
from lamella.geometry.parts import take_frames
from lamella.types import Frame, FrameInput, GraphSpec, Incidence

ELEMENTS = (8, 1, 29)
CUTOFF, ANGLE_CUTOFF = 4.7, 2.9


def frame_of(name):
    positions, cell, pbc = frame_arrays(name)
    return Frame(np.resize([1, 8, 29], len(positions)), positions, cell, pbc, source=name)


def graph_of(name, angle_cutoff=ANGLE_CUTOFF):
    return build_graph(frame_of(name), GraphSpec(ELEMENTS, CUTOFF, angle_cutoff, angle_cutoff > 0.0))


@pytest.mark.parametrize("name", CASES)
def test_angles_are_every_ordered_pair_of_short_edges_of_a_centre_once(name):
    graph = graph_of(name)
    length = graph.vec.norm(dim=1)
    short = [e for e in range(graph.n_edges) if length[e] < ANGLE_CUTOFF]
    assert graph.short.tolist() == short
    centre = graph.src.index[graph.short].tolist()
    pairs = [(j, k) for j, k in itertools.product(range(len(short)), repeat=2) if centre[j] == centre[k]]
    assert sorted(zip(graph.angle_j.index.tolist(), graph.angle_k.index.tolist(), strict=True)) == pairs
    assert (graph.angle_j.index.diff() >= 0).all()


@pytest.mark.parametrize("name", CASES)
def test_angle_order_lists_them_by_their_other_edge(name):
    """``angle_k.order`` takes angle (j, k) to the place of (k, j)."""
    graph = graph_of(name)
    swapped = graph.angle_k.order
    assert torch.equal(graph.angle_j.index[swapped], graph.angle_k.index)
    assert torch.equal(graph.angle_k.index[swapped], graph.angle_j.index)


def check_incidence(incidence, rows, owners):
    assert incidence.size == owners
    assert incidence.index.shape == incidence.order.shape == (rows,)
    assert sorted(incidence.order.tolist()) == list(range(rows))
    assert incidence.ptr[0] == 0
    assert incidence.ptr[-1] == rows
    for owner in range(owners):
        mine = incidence.order[incidence.ptr[owner] : incidence.ptr[owner + 1]]
        assert (incidence.index[mine] == owner).all()


def check_graph(graph):
    check_incidence(graph.frame, graph.n_atoms, graph.n_frames)
    check_incidence(graph.src, graph.n_edges, graph.n_atoms)
    check_incidence(graph.dst, graph.n_edges, graph.n_atoms)
    check_incidence(graph.short_src, len(graph.short), graph.n_atoms)
    check_incidence(graph.short_dst, len(graph.short), graph.n_atoms)
    assert torch.equal(graph.short_src.index, graph.src.index[graph.short])
    assert torch.equal(graph.short_dst.index, graph.dst.index[graph.short])
    check_incidence(graph.angle_j, graph.n_angles, len(graph.short))
    check_incidence(graph.angle_k, graph.n_angles, len(graph.short))
    for incidence in (graph.frame, graph.src, graph.short_src, graph.angle_j):
        assert torch.equal(incidence.order, torch.arange(len(incidence.order)))
    centre = graph.src.index[graph.short]
    assert torch.equal(centre[graph.angle_j.index], centre[graph.angle_k.index])
    assert torch.equal(graph.frame.index[graph.src.index], graph.frame.index[graph.dst.index])
    assert graph.vec.dtype == torch.float64


@pytest.mark.parametrize("name", CASES)
def test_incidences_list_every_row_of_every_owner(name):
    check_graph(graph_of(name))


def test_nothing_is_short_without_a_short_cutoff():
    graph = graph_of("crystal", angle_cutoff=0.0)
    assert graph.n_angles == len(graph.short) == graph.angle_j.size == len(graph.short_src.index) == 0
    check_graph(graph)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_collated_graph_is_its_parts_one_after_another(order):
    parts = [graph_of(name) for name in list(CASES)[order]]
    whole = collate(parts)
    check_graph(whole)
    assert whole.n_frames == len(parts)
    first = {"atom": 0, "edge": 0, "short": 0, "angle": 0}
    for n, part in enumerate(parts):
        atoms = slice(first["atom"], first["atom"] + part.n_atoms)
        edges = slice(first["edge"], first["edge"] + part.n_edges)
        short = slice(first["short"], first["short"] + len(part.short))
        angles = slice(first["angle"], first["angle"] + part.n_angles)
        assert torch.equal(whole.species[atoms], part.species)
        assert (whole.frame.index[atoms] == n).all()
        assert torch.equal(whole.vec[edges], part.vec)
        assert torch.equal(whole.src.index[edges] - atoms.start, part.src.index)
        assert torch.equal(whole.dst.index[edges] - atoms.start, part.dst.index)
        assert torch.equal(whole.dst.order[edges] - edges.start, part.dst.order)
        assert torch.equal(whole.short[short] - edges.start, part.short)
        assert torch.equal(whole.angle_j.index[angles] - short.start, part.angle_j.index)
        assert torch.equal(whole.angle_k.index[angles] - short.start, part.angle_k.index)
        assert torch.equal(whole.angle_k.order[angles] - angles.start, part.angle_k.order)
        first = {"atom": atoms.stop, "edge": edges.stop, "short": short.stop, "angle": angles.stop}
    assert first == {"atom": whole.n_atoms, "edge": whole.n_edges, "short": len(whole.short), "angle": whole.n_angles}


def test_collating_one_graph_gives_that_graph():
    graph = graph_of("crystal")
    assert collate([graph]) is graph


def test_species_are_positions_in_the_elements():
    assert species_index(np.array([29, 8, 1, 8]), ELEMENTS).tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("number", [6, 92, 118])
def test_unknown_element_is_refused_with_file_and_symbol(number):
    frame = Frame(np.array([1, number]), np.eye(3)[:2] * 2, np.zeros((3, 3)), np.zeros(3, bool), source="water.xyz#3")
    with pytest.raises(StructureError, match=r"water\.xyz#3: .*element (C|U|Og) \(it knows O H Cu\)"):
        build_graph(frame, GraphSpec(ELEMENTS, CUTOFF, ANGLE_CUTOFF, True))


def test_moving_a_graph_moves_every_tensor():
    graph = graph_of("crystal").to("meta")
    for item in dataclasses.fields(graph):
        value = getattr(graph, item.name)
        parts = value if isinstance(value, Incidence) else value.values() if isinstance(value, dict) else (value,)
        assert all(part.device.type == "meta" for part in parts), item.name


def test_short_edges_need_no_angles():
    frame = frame_of("crystal")
    with_angles, without = (
        build_graph(frame, GraphSpec(ELEMENTS, CUTOFF, ANGLE_CUTOFF, angles=angles)) for angles in (True, False)
    )
    assert without.n_angles == 0 < with_angles.n_angles
    assert torch.equal(without.short, with_angles.short)
    check_graph(without)


def test_excluded_pairs_are_no_edges_either_way_round():
    frame = frame_of("crystal")
    every = build_graph(frame, GraphSpec(ELEMENTS, CUTOFF))
    fewer = build_graph(frame, GraphSpec(ELEMENTS, CUTOFF, excluded_pairs=((0, 1),)))
    ends = (every.species[rows.index].tolist() for rows in (every.src, every.dst))
    kinds = [set(pair) for pair in zip(*ends, strict=True)]
    keep = torch.tensor([kind != {0, 1} for kind in kinds])
    assert 0 < int(keep.sum()) < every.n_edges
    assert torch.equal(fewer.vec, every.vec[keep])
    check_graph(fewer)


def test_inputs_come_from_the_frame_or_the_default():
    wanted = (FrameInput("frame_params", 2, (3.0, 4.0)), FrameInput("charge", 1))
    spec = GraphSpec(ELEMENTS, CUTOFF, inputs=wanted)

    def frame(**labels):
        values = {name: np.asarray(value, dtype=float) for name, value in labels.items()}
        return Frame(np.array([8]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool), values, "tired.xyz#3")

    graph = collate([build_graph(item, spec) for item in (frame(charge=1), frame(charge=-1, frame_params=[5.0, 6.0]))])
    assert graph.inputs["frame_params"].tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert graph.inputs["charge"].tolist() == [[1.0], [-1.0]]
    with pytest.raises(StructureError, match=r"tired.xyz#3: the model reads charge .* does not carry"):
        build_graph(frame(), spec)
    with pytest.raises(StructureError, match=r"tired.xyz#3: frame_params is \[1.\], the model reads 2 finite"):
        build_graph(frame(charge=0, frame_params=[1.0]), spec)


@pytest.mark.parametrize(("first", "end"), [(0, 1), (1, 4), (2, 15), (0, 15)])
def test_frames_taken_out_of_a_batch_are_the_batch_of_these_frames(first, end):
    parts = [graph_of(name) for name in CASES]
    taken, expected = take_frames(collate(parts), first, end), collate(parts[first:end])
    check_graph(taken)
    for item in dataclasses.fields(expected):
        left, right = getattr(taken, item.name), getattr(expected, item.name)
        pairs = zip(left, right, strict=True) if isinstance(right, Incidence) else ((left, right),)
        assert all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor)), item.name
