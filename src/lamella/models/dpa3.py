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
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lamella.geometry.parts import Part, parts_of
from lamella.geometry.segment import gather, gather_add, segment_sum, spread
from lamella.geometry.switch import SWITCHES
from lamella.models.dpa3_config import DPA3Config
from lamella.nn.activation import activation
from lamella.nn.dense import Dense, side_by_side
from lamella.nn.embedding import ChargeSpinEmbedding, TypeEmbedding
from lamella.nn.environment import Environment, SlotUse
from lamella.nn.recompute import Values, recomputed
from lamella.nn.residual import combine, learned_steps
from lamella.nn.symmetrise import symmetrise
from lamella.types import Graph

__all__ = ["DPA3", "DPA3Config"]


class _State(NamedTuple):
    """Edges and angles of some centres, and what every layer reads of their geometry, in the model's dtype."""

    edge_EC: Tensor
    angle_AC: Tensor
    w_E: Tensor
    h_NS3: Tensor  # h times its switch, at the slots of each centre
    w_A: Tensor


class _Nodes(NamedTuple):
    """Atoms as their edges see them: the centres, and all atoms, since any may be a neighbour."""

    own_NC: Tensor
    own_linear_NC: Tensor  # of the centres: what they add to the linear maps of an edge
    all_NC: Tensor
    all_linear_NC: Tensor  # the same of neighbours


class DPA3(nn.Module):
    """Backbone: graph -> node features (N, ``config.output_dim``), invariant to rotations, reflections and permutations.

    Attributes:
        part_rows: None computes every layer for all atoms at once and keeps what derivatives need. A number bounds memory:
            a layer then works on the edges and angles of some centres at a time, about so many rows together, and computes
            them again for its derivatives. A layer looks beyond its centres only at the nodes of their neighbours, so
            nothing changes but the order in which gradients are added.
    """

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
        self.part_rows: int | None = None
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
        parts = parts_of(graph, self.part_rows)
        vectors = _split(vec_E3, [part.graph.n_edges for part in parts])
        first = [self.edge_init, self.angle_init]
        states = [
            self._call(partial(self._initial, part, node_NC.dtype), [vec], first)
            for part, vec in zip(parts, vectors, strict=True)
        ]
        for layer in cast("Iterable[DPA3Layer]", self.layers):
            node_NC, states = self._updated(layer, node_NC, parts, states)
        return torch.cat([node_NC, embedding_NC], dim=1) if self.config.concat_embedding else node_NC

    def _call(self, run: Callable[..., Values], inputs: Sequence[Tensor], read: Sequence[nn.Module]) -> Values:
        """``run(*inputs)``, to be computed again where memory is bounded; ``read`` are the modules it takes weights from."""
        if self.part_rows is None:
            return run(*inputs)
        return recomputed(run, inputs, [weight for module in read for weight in module.parameters()])

    def _updated(
        self, layer: DPA3Layer, node_NC: Tensor, parts: Sequence[Part], states: Sequence[Values]
    ) -> tuple[Tensor, list[Values]]:
        """Nodes after a layer, and of each part its edges, angles and geometry."""
        own_linear_NC, linear_NC = layer.node_linear(node_NC)
        counts = [part.graph.src.size for part in parts]
        owned = zip(_split(node_NC, counts), _split(own_linear_NC, counts), strict=True)
        results = [
            self._call(partial(layer, part), [own, own_linear, node_NC, linear_NC, *state], [layer])
            for part, (own, own_linear), state in zip(parts, owned, states, strict=True)
        ]
        nodes = [node for node, _, _ in results]
        updated = [(edge, angle, *state[2:]) for (_, edge, angle), state in zip(results, states, strict=True)]
        return nodes[0] if len(nodes) == 1 else torch.cat(nodes), updated

    def _initial(self, part: Part, dtype: torch.dtype, vec_E3: Tensor) -> Values:
        """The first edge and angle features, switches and h (Eqs. 17-19): the fields of :class:`_State`."""
        config, graph = self.config, part.graph
        rows = self.environment(graph.species, part.centre, graph.dst.index, vec_E3)
        if config.edge_init == "distance":
            edge_EC = self.edge_init(rows.r_E[:, None].to(dtype))
        else:
            edge_EC = self._act(self.edge_init(rows.s_E[:, None].to(dtype)))
        h_NS3 = spread((rows.h_E3 * rows.w_E[:, None]).to(dtype), part.slots)
        w_E1 = rows.w_E[:, None].to(dtype)
        if not config.update_angle:
            empty = edge_EC.new_zeros(0)
            return _State(edge_EC, empty, w_E1, h_NS3, empty)
        r_Q = rows.r_E.index_select(0, graph.short)
        unit_Q3 = vec_E3.index_select(0, graph.short) / (r_Q + 1e-6)[:, None]
        cos_A = (gather(unit_Q3, graph.angle_j) * gather(unit_Q3, graph.angle_k)).sum(dim=1) * (1.0 - 1e-6)
        ws_Q = SWITCHES[config.switch](r_Q, config.angle_switch_start, config.angle_cutoff)
        if rows.keep_E is not None:
            ws_Q = ws_Q * rows.keep_E.index_select(0, graph.short)
        ws_Q1 = ws_Q[:, None].to(dtype)
        w_A = gather(ws_Q1, graph.angle_j) * gather(ws_Q1, graph.angle_k)
        angle_AC = self.angle_init((cos_A / math.sqrt(math.pi))[:, None].to(dtype))
        return _State(edge_EC, angle_AC, w_E1, h_NS3, w_A)


def _split(x: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    return (x,) if len(counts) == 1 else x.split(list(counts))


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

    @property
    def _edge_layers(self) -> list[Dense]:
        return [self.node_edge, self.edge_self] if self.updates_edges else [self.node_edge]

    def node_linear(self, node_NC: Tensor) -> tuple[Tensor, Tensor]:
        """What an atom adds to the linear maps of an edge as its centre, and as its neighbour, (N, out)."""
        weight, bias = side_by_side(self._edge_layers)
        n = node_NC.shape[1]
        return torch.addmm(bias, node_NC, weight[:n]), node_NC @ weight[n : 2 * n]

    def forward(self, part: Part, *values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Updated (node, edge, angle) of a part; edges and angles that nobody above reads stay as they are.

        Args:
            part: the whole graph, or some of its centres with their edges and angles.
            values: the fields of ``_Nodes``, then those of ``_State``.
        """
        graph, nodes, state = part.graph, _Nodes(*values[:4]), _State(*values[4:])
        if self.config.sequential:
            return self._in_sequence(nodes, state, part)
        edge_EC, angle_AC = state.edge_EC, state.angle_AC
        message_EC, *edge_updates = self._edge_linear(self._edge_layers, nodes, edge_EC, graph)
        node_out = self._update_node(nodes, edge_EC, message_EC, state, part)
        if not self.updates_edges:
            return node_out, edge_EC, angle_AC
        if self.config.update_angle:
            angle_layers = [self.edge_angle_1, self.angle_self] if self.updates_angles else [self.edge_angle_1]
            u_AC, *angle_updates = self._angle_linear(angle_layers, nodes.own_NC, edge_EC, angle_AC, graph)
            edge_updates.append(self._edge_from_angles(u_AC, edge_EC, graph, state.w_A))
            if self.updates_angles:
                angle_AC = combine(angle_AC, angle_updates, self.step_angle, self.config.update_style)
        return node_out, combine(edge_EC, edge_updates, self.step_edge, self.config.update_style), angle_AC

    def _in_sequence(self, nodes: _Nodes, state: _State, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Edges by themselves, angles, edges by angles, nodes: each from what is newest."""
        graph, own_NC, edge_EC, angle_AC = part.graph, nodes.own_NC, state.edge_EC, state.angle_AC
        (self_EC,) = self._edge_linear([self.edge_self], nodes, edge_EC, graph)
        edge_EC = torch.addcmul(edge_EC, self_EC, self.step_edge[0])
        (turn_AC,) = self._angle_linear([self.angle_self], own_NC, edge_EC, angle_AC, graph)
        angle_AC = torch.addcmul(angle_AC, turn_AC, self.step_angle[0])
        (u_AC,) = self._angle_linear([self.edge_angle_1], own_NC, edge_EC, angle_AC, graph)
        edge_EC = torch.addcmul(edge_EC, self._edge_from_angles(u_AC, edge_EC, graph, state.w_A), self.step_edge[1])
        (message_EC,) = self._edge_linear([self.node_edge], nodes, edge_EC, graph)
        return self._update_node(nodes, edge_EC, message_EC, state, part), edge_EC, angle_AC

    def _update_node(self, nodes: _Nodes, edge_EC: Tensor, message_EC: Tensor, state: _State, part: Part) -> Tensor:
        """Self, symmetrised and message terms (Eqs. 4, 6, 7, 12)."""
        config, graph = self.config, part.graph
        sym_edge, sym_node = (
            symmetrise(state.h_NS3, spread(x_EC, part.slots), config.axis, math.sqrt(config.edge_norm))
            for x_EC in (edge_EC, gather(nodes.all_NC, graph.dst))
        )
        message_NC = segment_sum(message_EC * state.w_E, graph.src) / config.edge_norm
        updates = [
            self._act(self.node_self(nodes.own_NC)),
            self._act(self.node_sym(torch.cat([sym_edge, sym_node], dim=1))),
            *message_NC.split(config.node_dim, dim=1),
        ]
        return combine(nodes.own_NC, updates, self.step_node, self.config.update_style)

    def _edge_linear(self, layers: list[Dense], nodes: _Nodes, edge_EC: Tensor, graph: Graph) -> tuple[Tensor, ...]:
        """act(layer([centre | neighbour | edge])) per edge, (E, out) for each of ``layers``, all or one of the edge's."""
        widths = [layer.weight.shape[1] for layer in layers]
        start = self.node_edge.weight.shape[1] if layers[0] is self.edge_self else 0
        own_NC, all_NC = (x.narrow(1, start, sum(widths)) for x in (nodes.own_linear_NC, nodes.all_linear_NC))
        w_e = side_by_side(layers)[0][-edge_EC.shape[1] :]
        rows_EC = gather_add(own_NC, graph.src, all_NC, graph.dst)
        return self._act(torch.addmm(rows_EC, edge_EC, w_e)).split(widths, dim=1)

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

    def _edge_from_angles(self, u_AC: Tensor, edge_EC: Tensor, graph: Graph, w_A: Tensor) -> Tensor:
        """Message of all angles to their receiving edge j (Eqs. 6, 7, 10 on G²)."""
        sum_QC = segment_sum(u_AC * w_A, graph.angle_j) / math.sqrt(self.config.angle_norm)
        outside = torch.zeros_like(edge_EC) if self.config.smooth_edge_update else edge_EC
        return self._act(self.edge_angle_2(outside.index_copy(0, graph.short, sum_QC)))
