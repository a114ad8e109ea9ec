"""DPA-3 in parts with recomputation equals DPA-3 at once: energies, forces, and the gradient of a loss of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.geometry import parts as geometry_parts
from lamella.geometry.graph import build_graph, collate
from lamella.geometry.parts import parts_of
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.types import Frame

SIZES = {
    "node_dim": 10, "edge_dim": 8, "angle_dim": 6, "cutoff": 4.0, "switch_start": 3.2, "angle_cutoff": 2.8,
    "angle_switch_start": 2.2, "edge_sel": 20, "angle_sel": 10, "layers": 3,
}  # fmt: skip
VARIANTS = {
    "defaults": {},
    "one layer": {"layers": 1},
    "in sequence": {"sequential": True},
    "no angles": {"update_angle": False},
    "linear compression": {"angle_compression": 2, "angle_compression_kind": "linear"},
    "no compression": {"angle_compression": 0},
    "averages": {"update_style": "res_avg"},
    "rough edges": {"smooth_edge_update": False},
    "excluded pairs": {"excluded_pairs": (("H", "O"),)},
    "two messages, inverse distances": {"messages": 2, "edge_init": "switched_inverse"},
    "embedding beside": {"concat_embedding": True},
}


def model_of(**options) -> Potential:
    torch.manual_seed(0)
    backbone = DPA3Config(**(SIZES | options))
    return Potential(ModelConfig(backbone=backbone, head=HeadConfig(hidden=(9,))), ("H", "O", "Cu")).cast(torch.float64)


def frames():
    """A crystal, a molecule, one atom alone, and an atom far from the others."""
    rng = np.random.default_rng(3)
    crystal = Frame(
        rng.choice([1, 8, 29], 9),
        rng.random((9, 3)) * 5.0,
        5.0 * np.eye(3) + 0.3 * rng.normal(size=(3, 3)),
        np.ones(3, bool),
    )
    loose = Frame(
        np.array([1, 8, 1, 29]),
        np.array([[0, 0, 0], [1, 0, 0], [0, 1.5, 0], [30.0, 0, 0]]),
        np.zeros((3, 3)),
        np.zeros(3, bool),
    )
    single = Frame(np.array([8]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool))
    return [crystal, loose, single]


def graph_of(model):
    return collate([build_graph(frame, model.graph_spec) for frame in frames()])


def everything(model, graph):
    """Predictions, and the gradient of a loss of energies, forces and virials with respect to every parameter."""
    prediction = model(graph, create_graph=True)
    weights = torch.randn(graph.n_atoms, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = ((prediction.forces - weights) ** 2).sum() + (prediction.energy**2).sum() + (prediction.virial**2).sum()
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [part.detach() for part in prediction], gradients


@pytest.mark.parametrize("name", VARIANTS)
def test_parts_equal_the_whole(name):
    model = model_of(**VARIANTS[name])
    graph = graph_of(model)
    whole, gradients = everything(model, graph)
    model.backbone.part_rows = 120
    parts, again = everything(model, graph)
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-11, atol=1e-11)
    assert {name for name in again if again[name].any()} == {name for name in gradients if gradients[name].any()}
    for key, value in gradients.items():
        torch.testing.assert_close(again[key], value, rtol=1e-9, atol=1e-10, msg=key)
    plain = model(graph)
    for one, two in zip(whole, plain, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model.describe(graph), model_at_once(model, graph), rtol=1e-11, atol=1e-11)


def model_at_once(model, graph):
    model.backbone.part_rows = None
    return model.describe(graph)


@pytest.mark.parametrize("rows", [1, 40, 300, 10**6])
def test_parts_are_the_graph_cut_between_centres(rows):
    model = model_of()
    graph = graph_of(model)
    parts = parts_of(graph, rows)
    assert len(parts) == 1 if rows == 10**6 else len(parts) > 1
    assert torch.equal(torch.cat([part.centre for part in parts]), graph.src.index)
    assert torch.equal(torch.cat([part.graph.vec for part in parts]), graph.vec)
    assert sum(part.graph.src.size for part in parts) == graph.n_atoms
    atom = edge = short = angle = 0
    for part in parts:
        piece = part.graph
        assert torch.equal(piece.src.index + atom, part.centre)
        assert torch.equal(piece.short + edge, graph.short[short : short + len(piece.short)])
        for name, offset in (("angle_j", short), ("angle_k", short)):
            mine, whole = getattr(piece, name), getattr(graph, name)
            assert torch.equal(mine.index + offset, whole.index[angle : angle + piece.n_angles])
            assert torch.equal(mine.order + angle, whole.order[angle : angle + piece.n_angles])
        for incidence in (piece.src, piece.dst, piece.short_src, piece.short_dst, piece.angle_j, piece.angle_k):
            for owner in range(incidence.size):
                mine = incidence.order[incidence.ptr[owner] : incidence.ptr[owner + 1]]
                assert (incidence.index[mine] == owner).all()
            assert int(incidence.ptr[-1]) == len(incidence.index)
        most = max(rows, -(-(graph.n_edges + graph.n_angles) // geometry_parts.MOST_PARTS))
        assert piece.n_edges + piece.n_angles <= most or piece.src.size == 1
        atom, edge = atom + piece.src.size, edge + piece.n_edges
        short, angle = short + len(piece.short), angle + piece.n_angles
    assert (atom, edge, short, angle) == (graph.n_atoms, graph.n_edges, len(graph.short), graph.n_angles)


def test_parts_grow_rather_than_become_too_many(monkeypatch):
    monkeypatch.setattr(geometry_parts, "MOST_PARTS", 3)
    assert len(parts_of(graph_of(model_of()), 1)) <= 2 * 3


def test_no_gradient_is_kept_for_frozen_weights():
    model = model_of().eval().requires_grad_(False)
    model.backbone.part_rows = 50
    assert model(graph_of(model)).forces.abs().max() > 1e-3
