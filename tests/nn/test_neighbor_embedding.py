"""Embedding of neighbours: the split first layer, the table of pairs, empty places, moments and invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.geometry.graph import build_graph
from lamella.geometry.switch import Shell
from lamella.nn.embedding import TypeEmbedding
from lamella.nn.environment import Environment
from lamella.nn.neighbor_embedding import EmbeddingSpec, NeighborEmbedding, invariants, moments
from lamella.types import Frame, GraphSpec

NUMBERS = (8, 1, 29)
WIDTH = 4


def water_like():
    rng = np.random.default_rng(5)
    positions = rng.uniform(0.0, 5.0, (9, 3))
    frame = Frame(np.array([8, 1, 1, 29, 8, 1, 29, 1, 8]), positions, np.eye(3) * 6.0, np.ones(3, bool))
    return build_graph(frame, GraphSpec(NUMBERS, 4.0))


def parts(spec, mean=0.0):
    torch.manual_seed(3)
    embedding = TypeEmbedding(("O", "H", "Cu"), WIDTH).double()
    neighbors = NeighborEmbedding(spec, WIDTH).double()
    environment = Environment(3, Shell("cutoff", 1.0, 4.0), 30).double()
    environment.std.uniform_(0.2, 0.5)
    environment.mean.fill_(mean)
    graph = water_like()
    rows = environment(graph.species, graph.src.index, graph.dst.index, graph.vec)
    return neighbors, environment, graph, rows, embedding.table()


def plainly(neighbors, graph, rows, table):
    """Every edge's input put together, no table of pairs."""
    spec = neighbors.spec
    sides = [table[graph.species[graph.dst.index]]] + ([] if spec.one_sided else [table[graph.species[graph.src.index]]])
    types, s = torch.cat(sides, dim=1), rows.s_E[:, None]
    if spec.input == "concat":
        return neighbors.net(torch.cat([s, types], dim=1))
    return neighbors.net(s) * (1.0 + neighbors.type_net(types) * (rows.w_E[:, None] if spec.smooth else 1.0))


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("neurons", [(5, 10), (1 + 2 * WIDTH, 7), (1 + WIDTH, 7), (2 + 4 * WIDTH, 3), (2 + 2 * WIDTH, 3)])
@pytest.mark.parametrize("timestep", [False, True])
def test_split_first_layer_equals_the_concatenated_one(one_sided, neurons, timestep):
    """Also where it has a shortcut, its width being that of the input or twice that."""
    neighbors, _, graph, rows, table = parts(EmbeddingSpec(neurons, one_sided=one_sided, timestep=timestep))
    want = plainly(neighbors, graph, rows, table)
    assert torch.allclose(neighbors(rows, graph, table), want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_factor_of_the_elements_is_looked_up_by_pair(one_sided, smooth):
    neighbors, _, graph, rows, table = parts(EmbeddingSpec((5, 10), "silu", "strip", one_sided, smooth))
    want = plainly(neighbors, graph, rows, table)
    assert torch.allclose(neighbors(rows, graph, table), want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("spec", [EmbeddingSpec((5, 10)), EmbeddingSpec((5, 10), input="strip")])
def test_weights_receive_the_gradient_of_every_edge(spec):
    neighbors, _, graph, rows, table = parts(spec)
    weights = list(neighbors.parameters())
    found = torch.autograd.grad(neighbors(rows, graph, table).square().sum(), weights)
    want = torch.autograd.grad(plainly(neighbors, graph, rows, table).square().sum(), weights)
    for a, b in zip(found, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sel", [100, 5])
def test_empty_places_enter_moments_one_by_one(sel):
    """Fewer neighbours than places, and more, where empty places are taken away."""
    neighbors, environment, graph, rows, table = parts(EmbeddingSpec((5, 10), input="strip"), mean=0.2)
    g_EM = neighbors(rows, graph, table)
    empty = s_S, _ = neighbors.empty(environment, table)
    found = moments(g_EM, rows, graph, sel, empty)
    for centre in range(graph.n_atoms):
        mine = (graph.src.index == centre).nonzero()[:, 0]
        want = torch.zeros(4, 10, dtype=torch.float64)
        for edge in mine.tolist():
            want += torch.outer(torch.cat([rows.s_E[edge : edge + 1], rows.h_E3[edge]]), g_EM[edge])
        species = int(graph.species[centre])
        nothing = torch.tensor([float(s_S[species]), 0.0, 0.0, 0.0], dtype=torch.float64)
        for _ in range(abs(sel - len(mine))):
            want += np.sign(sel - len(mine)) * torch.outer(nothing, empty[1][species])
        assert torch.allclose(found[centre], want / sel, rtol=0, atol=1e-13)


def test_rows_of_higher_degrees_stand_below_and_are_zero_in_empty_places():
    neighbors, environment, graph, rows, table = parts(EmbeddingSpec((5, 10), input="strip"), mean=0.2)
    g_EM, empty = neighbors(rows, graph, table), neighbors.empty(environment, table)
    higher = environment.higher(rows, graph.species, graph.src.index, graph.vec, 3)
    found = moments(g_EM, rows, graph, 30, empty, higher)
    assert found.shape == (graph.n_atoms, 16, 10)
    assert torch.allclose(found[:, :4], moments(g_EM, rows, graph, 30, empty), rtol=0, atol=1e-14)
    mine = graph.src.index == 2
    assert torch.allclose(found[2, 4:], higher[mine].T @ g_EM[mine] / 30, rtol=0, atol=1e-14)


def test_a_neighbour_at_the_cutoff_is_an_empty_place():
    """What lets the number of empty places change without a jump."""
    neighbors, environment, graph, rows, table = parts(EmbeddingSpec((5, 10), input="strip"), mean=0.2)
    gone = rows._replace(w_E=torch.zeros_like(rows.w_E), s_E=environment.empty(graph.species[graph.src.index]))
    want = neighbors.empty(environment, table)[1][graph.species[graph.src.index]]
    assert torch.allclose(neighbors(gone, graph, table), want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("spec", [EmbeddingSpec((5, 10)), EmbeddingSpec((5, 10), input="strip", smooth=False)])
def test_an_empty_place_has_no_value_where_it_would_depend_on_an_element(spec):
    neighbors, environment, _, _, table = parts(spec)
    assert neighbors.empty(environment, table) is None
    alone = neighbors.empty(Environment(1, environment.shell, 30).double(), table[:1])
    assert alone is not None
    assert alone[1].shape == (1, 10)


def test_invariants_run_over_channels_first_and_are_those_of_a_rotated_matrix():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    found = invariants(x, 3)
    assert found.shape == (2, 18)
    assert torch.allclose(found[1, 4 * 3 + 2], x[1, :, 4] @ x[1, :, 2], rtol=0, atol=1e-14)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = torch.cat([x[:, :1], turn @ x[:, 1:]], dim=1)
    assert torch.allclose(invariants(turned, 3), found, rtol=0, atol=1e-13)
