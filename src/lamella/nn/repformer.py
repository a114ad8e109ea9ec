"""Repformer: layers that update atoms, and pairs of neighbours, from one another (DPA-2 paper, Sec. 4.2.3, Eqs. 21-36).

Shapes: N atoms, Q pairs (short edges i <- j), S slots of the rectangle that holds each centre's pairs side by side, C
channels of whatever is spoken of, H heads. A pair beyond the cutoff, or between elements that do not see each other, has
weight 0 and so counts like an empty slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lamella.geometry.segment import Slots, gather, segment_sum, spread
from lamella.nn.activation import activation
from lamella.nn.attention import LocalAttention, PairMap, PairValue, Places
from lamella.nn.dense import Dense
from lamella.nn.environment import Environment, EnvironmentRows
from lamella.nn.residual import UpdateStyle, combine, learned_steps
from lamella.nn.symmetrise import symmetrise
from lamella.types import Graph

__all__ = ["Repformer", "RepformerConfig", "Width"]

Width = Annotated[int, Field(ge=1, le=65536)]
"""Of a layer."""


class RepformerConfig(BaseModel):
    """Repformer layers (Eqs. 21-33). Table S5 calls the terms what the switches here are called."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cutoff: float = Field(4.0, gt=0, le=100)
    """Å; r_c¹."""
    switch_start: float = Field(3.5, ge=0)
    sel: int = Field(48, ge=1)
    layers: int = Field(6, ge=1, le=256)
    node_dim: Width = 128
    pair_dim: Width = 32
    axis: int = Field(4, ge=1)
    conv: bool = True
    """Σ_j w g ⊙ f_j in the update of atoms (Eq. 25)."""
    sym_f: bool = True
    """symm(f_j, h_ij) there."""
    sym_g: bool = True
    """symm(g_ij, h_ij) there."""
    local_attention: bool = False
    """loc_attn there (Eqs. 26-28)."""
    local_attention_dim: Width = 128
    local_attention_heads: int = Field(4, ge=1, le=256)
    prod_f: bool = False
    """f_i ⊙ f_j in the update of pairs (Eq. 29)."""
    attention: bool = True
    """gated_attn there (Eqs. 30-32)."""
    gate: bool = True
    """h_ij · h_ik inside its softmax (Eq. 32)."""
    attention_dim: Width = 32
    attention_heads: int = Field(4, ge=1, le=256)
    update_vectors: bool = False
    """Whether h is updated too (Eq. 33)."""
    direct_distance: bool = False
    """g² and h² start from r/r_c¹ and vec/r_c¹ instead of the environment matrix."""
    sqrt_norm: bool = True
    """symm divides by √N^m instead of N^m."""
    separate_conv: bool = True
    """conv is a term of its own with the atoms' width instead of a part of the concatenation."""
    separate_self: bool = True
    """So is MLP(f_i)."""
    activation: str = "tanh"
    update_style: UpdateStyle = "res_residual"
    """Learned steps, or the paper's average over √(number of terms), or old + sum/√n."""
    update_step: float = 0.01
    """Initial size of a learned step."""
    update_init: Literal["normal", "constant"] = "normal"
    """Whether learned steps start from N(0, update_step²) or at update_step."""
    norm_eps: float = Field(1e-5, gt=0)
    zero_mean: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> RepformerConfig:
        activation(self.activation)
        if (self.sym_f and self.axis > self.node_dim) or (self.sym_g and self.axis > self.pair_dim):
            raise ValueError(f"axis ({self.axis}) must not exceed node_dim and pair_dim")
        if self.separate_self and not (self.sym_f or self.sym_g or (self.conv and not self.separate_conv)):
            raise ValueError("separate_self: true leaves the concatenation of Eq. 25 empty without sym_f and sym_g")
        return self


@dataclass(frozen=True)
class _Geometry:
    """What every layer reads of the short edges, in the model's dtype."""

    places: Places
    weight_Q1: Tensor  # w of a pair, or 1 and 0 where nothing is smooth
    norm: Tensor | float  # N^m of Eq. 25, (N, 1) where it counts neighbours
    root_norm: Tensor | float  # what symm divides by, (N, 1, 1) then


class Repformer(nn.Module):
    """All layers (Eq. 10): (N, ``node_dim``) -> the same.

    Args:
        config: hyper-parameters.
        environment: of pairs.
        smooth: whether sums and softmaxes know the switch.
    """

    def __init__(self, config: RepformerConfig, environment: Environment, smooth: bool) -> None:
        super().__init__()
        self.config, self._smooth = config, smooth
        self.environment = environment
        self.pair_init = Dense(1, config.pair_dim)
        self.layers = nn.ModuleList(RepformerLayer(config, depth == config.layers - 1) for depth in range(config.layers))
        self._act = activation(config.activation)

    def forward(self, node_NC: Tensor, graph: Graph, vec_Q3: Tensor, slots: Slots) -> Tensor:
        """Atoms after the last layer.

        Args:
            node_NC: f¹, projected (Eq. 21).
            graph: species and short edges.
            vec_Q3: short edge vectors, Å, float64.
            slots: where short edges lie.
        """
        config, dtype = self.config, node_NC.dtype
        rows = self.environment(graph.species, graph.short_src.index, graph.short_dst.index, vec_Q3)
        first_Q = rows.r_E / config.cutoff if config.direct_distance else rows.s_E
        pair_QC = self._act(self.pair_init(first_Q[:, None].to(dtype)))
        h_Q3 = vec_Q3 / config.cutoff if config.direct_distance else rows.h_E3
        h_NS3 = spread(h_Q3.to(dtype), slots)
        geometry = self._geometry(rows, graph, slots, dtype)
        node_NC = self._act(node_NC)
        for layer in self.layers:
            node_NC, pair_QC, h_NS3 = layer(node_NC, pair_QC, h_NS3, graph, geometry)
        return node_NC

    def _geometry(self, rows: EnvironmentRows, graph: Graph, slots: Slots, dtype: torch.dtype) -> _Geometry:
        sel, weight_Q = self.config.sel, rows.w_E
        norm: Tensor | float = float(sel)
        root: Tensor | float = math.sqrt(sel) if self.config.sqrt_norm else norm
        if not self._smooth:
            weight_Q = (rows.r_E <= self.config.cutoff).to(rows.r_E.dtype)
            if rows.keep_E is not None:
                weight_Q = weight_Q * rows.keep_E
            count_N1 = segment_sum(weight_Q[:, None], graph.short_src).to(dtype)
            norm = count_N1 + 1e-4
            root = (count_N1.sqrt() + 1e-4 if self.config.sqrt_norm else norm)[:, :, None]
        weight_Q1 = weight_Q[:, None].to(dtype)
        places = Places(slots, spread(weight_Q1, slots).squeeze(2), sel, self._smooth)
        return _Geometry(places, weight_Q1, norm, root)


class _Input(NamedTuple):
    """A layer's input, in every form its terms read."""

    node_NC: Tensor
    neighbour_QC: Tensor
    pair_QC: Tensor
    pair_NSC: Tensor
    h_NS3: Tensor


class RepformerLayer(nn.Module):
    """One update of atoms, pairs and pair vectors, each from this layer's input (Eqs. 24-33).

    The last layer updates atoms alone: nobody reads its pairs.
    """

    def __init__(self, config: RepformerConfig, last: bool) -> None:
        super().__init__()
        self.atoms = AtomUpdate(config)
        self.pairs = None if last else PairUpdate(config)

    def forward(
        self, node_NC: Tensor, pair_QC: Tensor, h_NS3: Tensor, graph: Graph, geometry: _Geometry
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updated atoms, pairs and pair vectors."""
        pair_NSC = spread(pair_QC, geometry.places.slots)
        given = _Input(node_NC, gather(node_NC, graph.short_dst), pair_QC, pair_NSC, h_NS3)
        node_out = self.atoms(given, graph, geometry)
        if self.pairs is None:
            return node_out, pair_QC, h_NS3
        return (node_out, *self.pairs(given, graph, geometry))


class AtomUpdate(nn.Module):
    """Eqs. 24 and 25; the released models take MLP(f) and conv out of the concatenation."""

    def __init__(self, config: RepformerConfig) -> None:
        super().__init__()
        self.config = config
        n, p, axis = config.node_dim, config.pair_dim, config.axis
        inner, outer = config.conv and not config.separate_conv, config.conv and config.separate_conv
        # rows of mix: atom, conv, symm(pairs), symm(neighbours), each where it is part of the concatenation
        width = n * (not config.separate_self) + p * inner + axis * (p * config.sym_g + n * config.sym_f)
        self.own = Dense(n, n) if config.separate_self else None
        self.conv = Dense(p, n, bias=False) if outer else Dense(n, p, bias=False) if inner else None
        self.mix = Dense(width, n)
        self.local = None
        if config.local_attention:
            self.local = LocalAttention(n, config.local_attention_dim, config.local_attention_heads)
        self.steps = _steps(config, 1 + config.separate_self + outer + config.local_attention, n)
        self._act = activation(config.activation)

    def forward(self, given: _Input, graph: Graph, geometry: _Geometry) -> Tensor:
        """Updated atoms (N, C)."""
        config = self.config
        updates: list[Tensor] = []
        parts: list[Tensor] = []
        if self.own is None:
            parts.append(given.node_NC)
        else:
            updates.append(self._act(self.own(given.node_NC)))
        if self.conv is not None:
            (updates if config.separate_conv else parts).append(self._convolve(given, graph, geometry))
        if config.sym_g or config.sym_f:
            parts += self._symmetrised(given, geometry)
        updates.append(self._act(self.mix(torch.cat(parts, dim=1))))
        if self.local is not None:
            updates.append(self.local(given.node_NC, spread(given.neighbour_QC, geometry.places.slots), geometry.places))
        return combine(given.node_NC, updates, self.steps, config.update_style)

    def _convolve(self, given: _Input, graph: Graph, geometry: _Geometry) -> Tensor:
        """(1/N^m) Σ_j w g ⊙ f_j, one of the two mapped to the other's width."""
        assert self.conv is not None
        if self.config.separate_conv:
            product_QC = self.conv(given.pair_QC) * given.neighbour_QC
        else:
            product_QC = gather(self.conv(given.node_NC), graph.short_dst) * given.pair_QC
        return segment_sum(product_QC * geometry.weight_Q1, graph.short_src) / geometry.norm

    def _symmetrised(self, given: _Input, geometry: _Geometry) -> list[Tensor]:
        """symm(g_ij, h_ij) and symm(f_j, h_ij)."""
        config, places = self.config, geometry.places
        h_NS3 = given.h_NS3 * places.weight_NS[:, :, None]
        features = [given.pair_NSC] if config.sym_g else []
        if config.sym_f:
            features.append(spread(given.neighbour_QC, places.slots))
        return [symmetrise(h_NS3, x_NSC, config.axis, geometry.root_norm) for x_NSC in features]


class PairUpdate(nn.Module):
    """Eqs. 29-33; a LayerNorm stands behind the attention, as in the released models."""

    def __init__(self, config: RepformerConfig) -> None:
        super().__init__()
        self.config = config
        n, p, heads = config.node_dim, config.pair_dim, config.attention_heads
        self.own = Dense(p, p)
        self.product = Dense(n, p, bias=False) if config.prod_f else None
        self.map = None
        if config.attention or config.update_vectors:
            self.map = PairMap(p, config.attention_dim, heads, config.gate)
        self.value = PairValue(p, heads) if config.attention else None
        self.norm = nn.LayerNorm(p, eps=config.norm_eps) if config.attention else None
        self.vector = Dense(heads, 1, bias=False) if config.update_vectors else None
        self.steps = _steps(config, 1 + config.prod_f + config.attention, p)
        self.vector_steps = _steps(config, int(config.update_vectors), 1)
        self._act = activation(config.activation)

    def forward(self, given: _Input, graph: Graph, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        """Updated pairs (Q, C) and their vectors (N, S, 3)."""
        style, h_NS3, places = self.config.update_style, given.h_NS3, geometry.places
        updates = [self._act(self.own(given.pair_QC))]
        if self.product is not None:
            product_QC = gather(given.node_NC, graph.short_src) * given.neighbour_QC
            updates.append(self.product(product_QC * geometry.weight_Q1))
        if self.map is not None:
            map_NHSS = self.map(given.pair_QC, given.pair_NSC, h_NS3, places)
            if self.value is not None and self.norm is not None:
                updates.append(self.norm(self.value(map_NHSS, given.pair_NSC, places.slots)))
            if self.vector is not None:
                mixed_NSS = (map_NHSS * self.vector.weight[:, :, None]).sum(dim=1)
                h_NS3 = combine(h_NS3, [mixed_NSS @ h_NS3], self.vector_steps, style)
        return combine(given.pair_QC, updates, self.steps, style), h_NS3


def _steps(config: RepformerConfig, count: int, width: int) -> nn.ParameterList:
    return learned_steps(config.update_style, config.update_step, count, width, config.update_init == "normal")
