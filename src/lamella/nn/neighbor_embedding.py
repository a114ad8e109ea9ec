"""Embedding of neighbours with their elements, and what a centre makes of it: DPA-1 without attention, DPA-2's repinit.

    concat   G_ij = N([s_ij | T_j | T_i])
    strip    G_ij = N(s_ij) ⊙ (1 + w_ij N_T([T_j | T_i]))         without w_ij where it is not smooth

    X_i = (1/sel) Σ_j [s_ij | h_ij] ⊗ G_ij            D_i = flatten(X_iᵀ X_i[:, :axis])

T is the type embedding; one-sided networks do not read T_i. The sum counts ``sel`` places for every centre. A place
without a neighbour has h = 0 and s = -mean/std, nonzero only where the environment's mean is; its term is then known
without looking at any neighbour, and enters once per centre, times the number of such places. Rows of higher degrees of the
direction may stand beside [s | h]; they are zero there.

DPA-2 paper Eqs. 16-20; DPA-1 paper, section "Methods". Shapes: E edges, N atoms, T elements, P pairs of elements (elements,
where one-sided), C channels of what enters of the types, M of the embedding, X rows of the moments: 4, or more with higher
degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lamella.geometry.segment import gather, incidence_of, slots_of, spread
from lamella.nn.activation import activation
from lamella.nn.dense import Dense, EmbeddingNet
from lamella.nn.environment import Environment, EnvironmentRows
from lamella.types import Graph, Incidence

__all__ = ["EmbeddingInput", "EmbeddingSpec", "NeighborEmbedding", "invariants", "moments"]

EmbeddingInput = Literal["concat", "strip"]


@dataclass(frozen=True)
class EmbeddingSpec:
    """Which embedding.

    Attributes:
        neurons: widths of the layers; the last is that of G.
        activation: of every layer.
        input: whether elements enter beside the distance ("concat") or by a network of their own ("strip").
        one_sided: the element of the centre does not enter.
        smooth: "strip" switches the elements' part off towards the cutoff.
        timestep: learned step of each shortcut.
    """

    neurons: Sequence[int]
    activation: str = "tanh"
    input: EmbeddingInput = "concat"
    one_sided: bool = False
    smooth: bool = True
    timestep: bool = False

    @property
    def counts_empty(self) -> bool:
        """Whether a place without a neighbour has a G of its own, independent of any neighbour's element."""
        return self.input == "strip" and self.smooth


class NeighborEmbedding(nn.Module):
    """Rows of the environment matrix, and elements, -> G (E, M).

    Args:
        spec: which embedding.
        type_width: width of the type embedding.
    """

    def __init__(self, spec: EmbeddingSpec, type_width: int) -> None:
        super().__init__()
        self.spec = spec
        types = type_width if spec.one_sided else 2 * type_width
        stripped = spec.input == "strip"
        n_in = 1 if stripped else 1 + types
        self.net = EmbeddingNet(n_in, spec.neurons, spec.activation, spec.timestep)
        self.type_net = EmbeddingNet(types, spec.neurons, spec.activation, spec.timestep) if stripped else None
        self._act = activation(spec.activation)
        self._splits = spec.neurons[0] not in (n_in, 2 * n_in)  # no shortcut around the first layer

    def forward(self, rows: EnvironmentRows, graph: Graph, table_TC: Tensor) -> Tensor:
        """G (E, M) in the dtype of the weights.

        Args:
            rows: environment rows of the graph's edges.
            graph: species and edges.
            table_TC: type embedding of all elements.
        """
        pairs_PC = self._pairs(table_TC)
        by_pair = self._by_pair(graph, table_TC.shape[0])
        s_E1 = rows.s_E[:, None].to(table_TC.dtype)
        if self.type_net is None:
            return self._concatenated(s_E1, pairs_PC, by_pair)
        factor_EM = gather(self.type_net(pairs_PC), by_pair)
        if self.spec.smooth:
            factor_EM = factor_EM * rows.w_E[:, None].to(table_TC.dtype)
        g_EM = self.net(s_E1)
        return torch.addcmul(g_EM, g_EM, factor_EM)

    def empty(self, environment: Environment, table_TC: Tensor) -> tuple[Tensor, Tensor] | None:
        """What a place without a neighbour holds, by the element of the centre: s (T,) and G (T, M).

        None where G would be another for every element that the place could take: deepmd-kit takes that of the first atom,
        and only an environment whose mean is 0 makes it count for nothing.
        """
        n_species = table_TC.shape[0]
        s_T = environment.empty(torch.arange(n_species, device=table_TC.device)).to(table_TC.dtype)
        if self.type_net is not None:
            g_TM = self.net(s_T[:, None])
            if self.spec.smooth:
                return s_T, g_TM
            return (s_T, g_TM * (1.0 + self.type_net(self._pairs(table_TC)))) if n_species == 1 else None
        if n_species > 1:
            return None
        return s_T, self.net(torch.cat([s_T[:, None], self._pairs(table_TC)], dim=1))

    def _concatenated(self, s_E1: Tensor, pairs_PC: Tensor, by_pair: Incidence) -> Tensor:
        """N([s | T_j | T_i]), its first product taken per edge for s and per pair of elements for the rest."""
        if not self._splits:
            return self.net(torch.cat([s_E1, gather(pairs_PC, by_pair)], dim=1))
        first, *others = cast(list[Dense], list(self.net.layers))
        weight_1M, weight_CM = first.weight.split([1, pairs_PC.shape[1]])
        pairs_PM = pairs_PC @ weight_CM if first.bias is None else torch.addmm(first.bias, pairs_PC, weight_CM)
        x_EM = self._act(torch.addcmul(gather(pairs_PM, by_pair), s_E1, weight_1M))
        for layer in others:
            x_EM = layer(x_EM)
        return x_EM

    def _pairs(self, table_TC: Tensor) -> Tensor:
        """[T_j | T_i] of every pair, centre-major, or T_j alone: what edges look their elements up in."""
        if self.spec.one_sided:
            return table_TC
        n_species, width = table_TC.shape
        neighbour = table_TC[None].expand(n_species, n_species, width)
        centre = table_TC[:, None].expand(n_species, n_species, width)
        return torch.cat([neighbour, centre], dim=2).flatten(0, 1)

    def _by_pair(self, graph: Graph, n_species: int) -> Incidence:
        """Edges by their row of ``_pairs``."""
        index_E = graph.species.index_select(0, graph.dst.index)
        if not self.spec.one_sided:
            index_E = graph.species.index_select(0, graph.src.index) * n_species + index_E
        n_pairs = n_species if self.spec.one_sided else n_species * n_species
        return incidence_of(index_E, n_pairs)


def moments(
    g_EM: Tensor,
    rows: EnvironmentRows,
    graph: Graph,
    sel: int,
    empty: tuple[Tensor, Tensor] | None,
    higher_EK: Tensor | None = None,
) -> Tensor:
    """X_i = (1/sel) Σ_j [s_ij | h_ij] ⊗ G_ij, (N, 4, M); with rows of higher degrees (N, 4 + K, M).

    Args:
        g_EM: embedding of every edge.
        rows: environment rows of the same edges.
        graph: centres.
        sel: places of a centre; a centre with more neighbours has a negative number of empty ones.
        empty: of :meth:`NeighborEmbedding.empty`; None where an empty place counts for nothing.
        higher_EK: of :meth:`Environment.higher`, to stand below [s | h].
    """
    columns = [rows.s_E[:, None], rows.h_E3] if higher_EK is None else [rows.s_E[:, None], rows.h_E3, higher_EK]
    env_EX = torch.cat(columns, dim=1).to(g_EM.dtype)
    slots = slots_of(graph.src)
    x_NXM = spread(env_EX, slots).transpose(1, 2) @ spread(g_EM, slots)
    if empty is not None:
        s_T, g_TM = empty
        places_N = (sel - graph.src.ptr.diff()).to(g_EM.dtype)
        term_NM = places_N[:, None] * (s_T[:, None] * g_TM).index_select(0, graph.species)
        x_NXM = x_NXM + torch.nn.functional.pad(term_NM[:, None], (0, 0, 0, env_EX.shape[1] - 1))
    return x_NXM / sel


def invariants(x_NXM: Tensor, axis: int) -> Tensor:
    """D = flatten(Xᵀ X[:, :axis]), (N, M · axis), M-major: invariant to rotations and reflections."""
    return (x_NXM.transpose(1, 2) @ x_NXM[:, :, :axis]).flatten(1)
