"""DPA-3: message passing on a line graph series (DPA3 paper, arXiv 2506.01686; exact form: docs/papers/dpa3.md).

Vertices of G¹ are atoms, its edges are neighbour pairs i <- j; the edges shorter than the angle cutoff are the vertices of
its line graph G², whose edges are angles: ordered pairs (ij, ik) of one centre, j = k included. Features of G²'s vertices
*are* the features of G¹'s edges.

======================  ==================================  =============================================================
paper                   code                                meaning
======================  ==================================  =============================================================
v⁽¹⁾ , v⁽²⁾ = e⁽¹⁾, e⁽²⁾    ``node_NC, edge_EC, angle_AC``      features of atoms, edges, angles
s⁽¹⁾, s⁽²⁾ (Eq. 9)        ``w_E``, ``ws_Q``                   switch of an edge at the edge and at the angle cutoff
s⁽²⁾(r_ij) s⁽²⁾(r_ik)     ``w_A``                             weight of an angle (Eq. 10)
h_ij                    ``h_E3``                            s(r) (x, y, z)/r², normalised: the one equivariant input
N_m                     ``edge_norm, angle_norm``           configured number of neighbours, a plain constant
δ (Eqs. 4, 5, 12)       ``step_*``                          learned step of each update
symm (Eqs. 13-16)       ``symmetrise``                      invariants of the sum of h ⊗ features
======================  ==================================  =============================================================

Shapes: N atoms, E edges, Q short edges (within the angle cutoff), A angles, C channels of whatever is spoken of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lamella.geometry.segment import Slots, gather, gather_add, segment_sum, slots_of, spread
from lamella.geometry.switch import SWITCHES, Shell, SwitchKind
from lamella.nn.activation import activation
from lamella.nn.dense import Dense, side_by_side
from lamella.nn.embedding import ChargeSpinEmbedding, TypeEmbedding
from lamella.nn.environment import Environment, SlotUse
from lamella.nn.residual import UpdateStyle, combine, learned_steps
from lamella.nn.symmetrise import symmetrise
from lamella.types import FrameInput, Graph

__all__ = ["DPA3", "DPA3Config"]


class DPA3Config(BaseModel):
    """Hyper-parameters of the DPA-3 backbone; the defaults are deepmd-kit's shipped example (L6, 128/64/32)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    element_heads: ClassVar[bool] = False  # one head network serves all elements

    kind: Literal["dpa3"] = "dpa3"
    layers: int = Field(6, ge=1, le=256)
    node_dim: int = Field(128, ge=1)
    edge_dim: int = Field(64, ge=1)
    angle_dim: int = Field(32, ge=1)
    cutoff: float = Field(6.0, gt=0, le=100)
    """Å; neighbours nearer than this are edges."""
    switch_start: float = Field(5.3, gt=0)
    angle_cutoff: float = Field(4.0, gt=0, le=100)
    """Å; edges shorter than this form angles."""
    angle_switch_start: float = Field(3.5, gt=0)
    switch: SwitchKind = "exponential"
    edge_sel: int = Field(120, ge=1)
    """Neighbours that the edge sums are normalised for. Nothing is cut away: see ``edge_norm``."""
    angle_sel: int = Field(30, ge=1)
    dynamic_sel: bool = False
    """Normalise by ``sel / sel_reduction`` (deepmd-kit's dynamic neighbour selection) instead of ``sel``."""
    sel_reduction: float = Field(10.0, gt=0)
    axis: int = Field(4, ge=1)
    update_angle: bool = True
    """False: line graph of order 1, no angles at all."""
    smooth_edge_update: bool = True
    """False: an edge outside the angle cutoff feeds itself to the angle update, so the energy is discontinuous there."""
    edge_init: Literal["distance", "switched_inverse"] = "distance"
    angle_compression: int = Field(1, ge=0)
    """Rate c by which node and edge features shrink before they enter an angle; 0 for none."""
    angle_compression_edge: int = Field(2, ge=1)
    angle_compression_kind: Literal["split", "linear"] = "split"
    messages: int = Field(1, ge=1, le=256)
    """Messages of node width per edge."""
    update_style: UpdateStyle = "res_residual"
    update_step: float = 0.1
    """Initial learned step of every update."""
    sequential: bool = False
    """Update edges, angles, edges again and nodes one after the other, each from what is newest, instead of all at once."""
    activation: str = "silut:10.0"
    env_std: float = Field(0.3, ge=0)
    """Constant scale of the environment matrix; 0 takes it from the training data."""
    concat_embedding: bool = False
    embedding_bias: bool = False
    electron_embedding: bool = False
    """Embed the electron configurations of the elements instead of the elements."""
    protection: float = Field(0.0, ge=0)
    """Å, added to r in the environment matrix."""
    excluded_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of elements, either way round, that do not see each other."""
    charge_spin: bool = False
    """Whether total charge and spin of a frame enter the initial node features."""
    default_charge_spin: tuple[float, float] | None = None
    """For frames that carry none; null where every frame must."""

    @property
    def edge_norm(self) -> float:
        """N_m of sums over edges."""
        return self.edge_sel / self.sel_reduction if self.dynamic_sel else float(self.edge_sel)

    @property
    def angle_norm(self) -> float:
        """N_m of sums over angles."""
        return self.angle_sel / self.sel_reduction if self.dynamic_sel else float(self.angle_sel)

    @property
    def angle_node_dim(self) -> int:
        """Width of a node inside an angle."""
        return self.angle_dim // self.angle_compression if self.angle_compression else self.node_dim

    @property
    def angle_edge_dim(self) -> int:
        """Width of an edge inside an angle."""
        if not self.angle_compression:
            return self.edge_dim
        return self.angle_dim * self.angle_compression_edge // (2 * self.angle_compression)

    @property
    def short_cutoff(self) -> float:
        """Longest edge of an angle, Å; 0 without angles."""
        return self.angle_cutoff if self.update_angle else 0.0

    @property
    def angles(self) -> bool:
        """Whether the graph lists angles."""
        return self.update_angle

    @property
    def shells(self) -> tuple[Shell, ...]:
        """Every cutoff, the longest first."""
        edge = Shell("cutoff", self.switch_start, self.cutoff, self.switch)
        angle = Shell("angle cutoff", self.angle_switch_start, self.angle_cutoff, self.switch)
        return (edge, angle) if self.update_angle else (edge,)

    @property
    def rough(self) -> tuple[str, ...]:
        """Which options break smoothness, and where."""
        read = self.layers > 1 or self.sequential  # else no node sees what angles did to edges
        if self.smooth_edge_update or not self.update_angle or not read:
            return ()
        jump = f"the energy jumps at {self.angle_cutoff:g} Å"
        return (f"smooth_edge_update: false feeds an edge longer than angle_cutoff to its own angle update: {jump}",)

    @property
    def inputs(self) -> tuple[FrameInput, ...]:
        """What is read of a frame beside its geometry."""
        if not self.charge_spin:
            return ()
        charge, spin = self.default_charge_spin or (None, None)
        return tuple(
            FrameInput(name, 1, None if value is None else (value,)) for name, value in (("charge", charge), ("spin", spin))
        )

    @property
    def output_dim(self) -> int:
        """Width of what the head reads."""
        return self.node_dim * (2 if self.concat_embedding else 1)

    @model_validator(mode="after")
    def _consistent(self) -> DPA3Config:
        activation(self.activation)
        if not self.switch_start < self.cutoff:
            raise ValueError(f"switch_start ({self.switch_start}) must lie below cutoff ({self.cutoff})")
        if not self.angle_switch_start < self.angle_cutoff:
            raise ValueError(
                f"angle_switch_start ({self.angle_switch_start}) must lie below angle_cutoff ({self.angle_cutoff})"
            )
        if self.sequential and not (self.update_angle and self.update_style == "res_residual"):
            raise ValueError("sequential needs update_angle: true and update_style: res_residual")
        if self.angle_cutoff > self.cutoff:
            raise ValueError(f"angle_cutoff ({self.angle_cutoff}) must not exceed cutoff ({self.cutoff})")
        if self.axis > min(self.node_dim, self.edge_dim):
            raise ValueError(f"axis ({self.axis}) must not exceed node_dim and edge_dim")
        if self.dynamic_sel and not self.smooth_edge_update:
            raise ValueError("dynamic_sel needs smooth_edge_update: true")
        if self.angle_compression:
            split = self.angle_compression_kind == "split"
            if (self.angle_dim * self.angle_compression_edge) % (2 * self.angle_compression):
                raise ValueError("angle_dim * angle_compression_edge must be divisible by 2 * angle_compression")
            if split and (self.angle_node_dim > self.node_dim or self.angle_edge_dim > self.edge_dim):
                raise ValueError("angle_compression_kind 'split' takes more channels than nodes or edges have")
        return self


@dataclass(frozen=True)
class _Geometry:
    """What every layer reads of a graph, in the model's dtype."""

    w_E: Tensor
    h_NS3: Tensor  # h times its switch, at the slots of each centre
    slots: Slots  # of edges, by centre
    w_A: Tensor


class DPA3(nn.Module):
    """Backbone: graph -> node features (N, ``config.output_dim``), invariant to rotations, reflections and permutations."""

    def __init__(self, config: DPA3Config, elements: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.embedding = TypeEmbedding(elements, config.node_dim, config.embedding_bias, config.electron_embedding)
        self.charge_spin = ChargeSpinEmbedding(config.node_dim, config.activation) if config.charge_spin else None
        self.edge_init = Dense(1, config.edge_dim)
        self.angle_init = Dense(1, config.angle_dim, bias=False)
        self.layers = nn.ModuleList(DPA3Layer(config, config.layers - 1 - depth) for depth in range(config.layers))
        self.environment = Environment(
            len(elements),
            config.shells[0],
            config.edge_sel,
            config.protection,
            tuple((elements.index(a), elements.index(b)) for a, b in config.excluded_pairs),
            std=config.env_std or 1.0,
            from_data=config.env_std == 0.0,
        )
        self._act = activation(config.activation)

    def environments(self) -> list[Environment]:
        """The one environment matrix."""
        return [self.environment]

    def slots(self, graph: Graph) -> list[SlotUse]:
        """Neighbours of an atom, and of those within the angle cutoff."""
        pairs = [("e_sel", graph.src, self.config.edge_sel)]
        if self.config.angles:
            pairs.append(("a_sel", graph.short_src, self.config.angle_sel))
        return [SlotUse(name, int(rows.ptr.diff().max()) if rows.size else 0, sel) for name, rows, sel in pairs]

    def forward(self, graph: Graph, vec_E3: Tensor) -> Tensor:
        """Node features after the last layer.

        Args:
            graph: everything but geometry is read from here.
            vec_E3: edge vectors, Å, float64; the caller differentiates with respect to these.
        """
        embedding_NC = self.embedding(graph.species)
        if self.charge_spin is not None:
            embedding_NC = embedding_NC + gather(self.charge_spin(graph.inputs), graph.frame)
        node_NC = self._act(embedding_NC)
        geometry, edge_EC, angle_AC = self._initial(graph, vec_E3, node_NC.dtype)
        for layer in self.layers:
            node_NC, edge_EC, angle_AC = layer(node_NC, edge_EC, angle_AC, graph, geometry)
        return torch.cat([node_NC, embedding_NC], dim=1) if self.config.concat_embedding else node_NC

    def _initial(self, graph: Graph, vec_E3: Tensor, dtype: torch.dtype) -> tuple[_Geometry, Tensor, Tensor]:
        """Switches, h, and the first edge and angle features (Eqs. 17-19)."""
        config = self.config
        rows = self.environment(graph.species, graph.src.index, graph.dst.index, vec_E3)
        if config.edge_init == "distance":
            edge_EC = self.edge_init(rows.r_E[:, None].to(dtype))
        else:
            edge_EC = self._act(self.edge_init(rows.s_E[:, None].to(dtype)))
        slots = slots_of(graph.src)
        h_NS3 = spread((rows.h_E3 * rows.w_E[:, None]).to(dtype), slots)
        w_E1 = rows.w_E[:, None].to(dtype)
        if not config.update_angle:
            empty = edge_EC.new_zeros(0)
            return _Geometry(w_E1, h_NS3, slots, empty), edge_EC, empty
        r_Q = rows.r_E.index_select(0, graph.short)
        unit_Q3 = vec_E3.index_select(0, graph.short) / (r_Q + 1e-6)[:, None]
        cos_A = (gather(unit_Q3, graph.angle_j) * gather(unit_Q3, graph.angle_k)).sum(dim=1) * (1.0 - 1e-6)
        ws_Q = SWITCHES[config.switch](r_Q, config.angle_switch_start, config.angle_cutoff)
        if rows.keep_E is not None:
            ws_Q = ws_Q * rows.keep_E.index_select(0, graph.short)
        ws_Q1 = ws_Q[:, None].to(dtype)
        w_A = gather(ws_Q1, graph.angle_j) * gather(ws_Q1, graph.angle_k)
        angle_AC = self.angle_init((cos_A / math.sqrt(math.pi))[:, None].to(dtype))
        return _Geometry(w_E1, h_NS3, slots, w_A), edge_EC, angle_AC


class DPA3Layer(nn.Module):
    """One update of nodes, edges and angles from this layer's input (parallel updates; Eqs. 4-8, 12).

    Every linear map of a concatenation [a | b | c] is applied as a W_a + b W_b + c W_c: the rows of a node are multiplied
    once per atom, then gathered, so nothing as wide as the concatenation exists per edge or per angle.
    """

    def __init__(self, config: DPA3Config, layers_above: int) -> None:
        super().__init__()
        self.config = config
        # An edge is read by the next layer's nodes, an angle by the next layer's edges, so an angle two layers below the end
        # reaches nobody. What nobody reads is not computed, and its weights have no gradient rather than a zero one:
        # weight decay must not shrink them (deepmd-kit's does not).
        self.updates_edges, self.updates_angles = (layers_above >= n or config.sequential for n in (1, 2))
        n, e, a = config.node_dim, config.edge_dim, config.angle_dim
        self.node_self = Dense(n, n)
        self.node_sym = Dense(config.axis * (n + e), n)  # rows: symm(edge), symm(neighbour)
        self.node_edge = Dense(2 * n + e, config.messages * n)  # rows: centre, neighbour, edge
        self.edge_self = Dense(2 * n + e, e)  # rows: centre, neighbour, edge
        self.step_node = learned_steps(config.update_style, config.update_step, 2 + config.messages, n)
        self.step_edge = learned_steps(config.update_style, config.update_step, 2 if config.update_angle else 1, e)
        if config.update_angle:
            width = a + config.angle_node_dim + 2 * config.angle_edge_dim  # rows: angle, centre, edge k, edge j
            self.edge_angle_1 = Dense(width, e)
            self.edge_angle_2 = Dense(e, e)
            self.angle_self = Dense(width, a)
            self.step_angle = learned_steps(config.update_style, config.update_step, 1, a)
            if config.angle_compression and config.angle_compression_kind == "linear":
                self.shrink_node = Dense(n, config.angle_node_dim, bias=False)
                self.shrink_edge = Dense(e, config.angle_edge_dim, bias=False)
        self._act = activation(config.activation)

    def forward(
        self, node_NC: Tensor, edge_EC: Tensor, angle_AC: Tensor, graph: Graph, geometry: _Geometry
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updated (node, edge, angle); edges and angles that nobody above reads stay as they are."""
        if self.config.sequential:
            return self._in_sequence(node_NC, edge_EC, angle_AC, graph, geometry)
        layers = [self.node_edge, self.edge_self] if self.updates_edges else [self.node_edge]
        message_EC, *edge_updates = self._edge_linear(layers, node_NC, edge_EC, graph)
        node_out = self._update_node(node_NC, edge_EC, message_EC, graph, geometry)
        if not self.updates_edges:
            return node_out, edge_EC, angle_AC
        if self.config.update_angle:
            angle_layers = [self.edge_angle_1, self.angle_self] if self.updates_angles else [self.edge_angle_1]
            u_AC, *angle_updates = self._angle_linear(angle_layers, node_NC, edge_EC, angle_AC, graph)
            edge_updates.append(self._edge_from_angles(u_AC, edge_EC, graph, geometry))
            if self.updates_angles:
                angle_AC = combine(angle_AC, angle_updates, self.step_angle, self.config.update_style)
        return node_out, combine(edge_EC, edge_updates, self.step_edge, self.config.update_style), angle_AC

    def _in_sequence(
        self, node_NC: Tensor, edge_EC: Tensor, angle_AC: Tensor, graph: Graph, geometry: _Geometry
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Edges by themselves, angles, edges by angles, nodes: each from what is newest."""
        (self_EC,) = self._edge_linear([self.edge_self], node_NC, edge_EC, graph)
        edge_EC = torch.addcmul(edge_EC, self_EC, self.step_edge[0])
        (turn_AC,) = self._angle_linear([self.angle_self], node_NC, edge_EC, angle_AC, graph)
        angle_AC = torch.addcmul(angle_AC, turn_AC, self.step_angle[0])
        (u_AC,) = self._angle_linear([self.edge_angle_1], node_NC, edge_EC, angle_AC, graph)
        edge_EC = torch.addcmul(edge_EC, self._edge_from_angles(u_AC, edge_EC, graph, geometry), self.step_edge[1])
        (message_EC,) = self._edge_linear([self.node_edge], node_NC, edge_EC, graph)
        return self._update_node(node_NC, edge_EC, message_EC, graph, geometry), edge_EC, angle_AC

    def _update_node(
        self, node_NC: Tensor, edge_EC: Tensor, message_EC: Tensor, graph: Graph, geometry: _Geometry
    ) -> Tensor:
        """Self, symmetrised and message terms (Eqs. 4, 6, 7, 12)."""
        config = self.config
        sym_edge, sym_node = (
            symmetrise(geometry.h_NS3, spread(x_EC, geometry.slots), config.axis, math.sqrt(config.edge_norm))
            for x_EC in (edge_EC, gather(node_NC, graph.dst))
        )
        message_NC = segment_sum(message_EC * geometry.w_E, graph.src) / config.edge_norm
        updates = [
            self._act(self.node_self(node_NC)),
            self._act(self.node_sym(torch.cat([sym_edge, sym_node], dim=1))),
            *message_NC.split(config.node_dim, dim=1),
        ]
        return combine(node_NC, updates, self.step_node, self.config.update_style)

    def _edge_linear(self, layers: list[Dense], node_NC: Tensor, edge_EC: Tensor, graph: Graph) -> tuple[Tensor, ...]:
        """act(layer([centre | neighbour | edge])) per edge, (E, out) for each of ``layers``."""
        n, e = node_NC.shape[1], edge_EC.shape[1]
        weight, bias = side_by_side(layers)
        w_i, w_j, w_e = weight.split([n, n, e])
        rows_EC = gather_add(torch.addmm(bias, node_NC, w_i), graph.src, node_NC @ w_j, graph.dst)
        return self._act(torch.addmm(rows_EC, edge_EC, w_e)).split([layer.weight.shape[1] for layer in layers], dim=1)

    def _angle_linear(
        self,
        layers: list[Dense],
        node_NC: Tensor,
        edge_EC: Tensor,
        angle_AC: Tensor,
        graph: Graph,
    ) -> tuple[Tensor, ...]:
        """act(layer([angle | centre | edge k | edge j])) per angle, (A, out) for each of ``layers``.

        The centre and edge j are added once per short edge, since both belong to j.
        """
        node, edge = self._angle_inputs(node_NC, edge_EC, graph)
        weight, bias = side_by_side(layers)
        w_a, w_n, w_k, w_j = weight.split([angle_AC.shape[1], node.shape[1], edge.shape[1], edge.shape[1]])
        receiving_QC = torch.addmm(gather(torch.addmm(bias, node, w_n), graph.short_src), edge, w_j)
        rows_AC = gather_add(receiving_QC, graph.angle_j, edge @ w_k, graph.angle_k)
        return self._act(torch.addmm(rows_AC, angle_AC, w_a)).split([layer.weight.shape[1] for layer in layers], dim=1)

    def _angle_inputs(self, node_NC: Tensor, edge_EC: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """What of nodes (N, d_n) and short edges (Q, d_e) enters an angle."""
        config = self.config
        edge_QC = edge_EC.index_select(0, graph.short)
        if not config.angle_compression:
            return node_NC, edge_QC
        if config.angle_compression_kind == "linear":
            return self.shrink_node(node_NC), self.shrink_edge(edge_QC)
        return node_NC[:, : config.angle_node_dim], edge_QC[:, : config.angle_edge_dim]

    def _edge_from_angles(self, u_AC: Tensor, edge_EC: Tensor, graph: Graph, geometry: _Geometry) -> Tensor:
        """Message of all angles to their receiving edge j (Eqs. 6, 7, 10 on G²)."""
        sum_QC = segment_sum(u_AC * geometry.w_A, graph.angle_j) / math.sqrt(self.config.angle_norm)
        outside = torch.zeros_like(edge_EC) if self.config.smooth_edge_update else edge_EC
        return self._act(self.edge_angle_2(outside.index_copy(0, graph.short, sum_QC)))
