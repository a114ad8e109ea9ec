"""DPA-1: an embedding of neighbours and their elements, refined by attention among them (arXiv 2208.08236).

Equation by equation: docs/papers/dpa1.md.

======================  ==================================  =============================================================
paper                   code                                meaning
======================  ==================================  =============================================================
A_i                     ``embedding``                       learned vector of an element (type embedding)
R̃_i = [s | h]           ``EnvironmentRows.s_E, h_E3``       environment matrix, one row per neighbour
G_i⁰                    ``NeighborEmbedding``               embedding of every neighbour and its element
Q, K, V                 ``q_NSH, k_NSH, v_NSH``             queries, keys, values of one centre's neighbours
R̂ R̂ᵀ                    ``gate_NSS``                        cosine between two neighbours, seen from the centre
Ĝ_i = G_i^{L_a}         ``g_EM``                            embedding after the attention layers
N_c                     ``sel``                             configured number of neighbours, a plain constant
D_i                     ``invariants``                      descriptor, (M, M_<) flattened
γ_l (deepmd-kit)        ``degree_gain``                     weights of rows of the degrees above 1
======================  ==================================  =============================================================

Shapes: N atoms, E edges, S places of the rectangle that holds every centre's neighbours side by side, M channels of the
embedding, H of the attention, T elements. A place of the rectangle without a neighbour changes nothing, whatever S is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lamella.errors import RecipeError
from lamella.geometry.segment import Slots, collect, slots_of, spread
from lamella.geometry.switch import Shell
from lamella.nn.activation import activation
from lamella.nn.dense import Dense
from lamella.nn.embedding import TypeEmbedding
from lamella.nn.environment import Environment, EnvironmentRows, SlotUse
from lamella.nn.neighbor_embedding import EmbeddingInput, EmbeddingSpec, NeighborEmbedding, invariants, moments
from lamella.nn.softmax import masked_softmax, smooth_softmax
from lamella.types import FrameInput, Graph

__all__ = ["DPA1", "DPA1Config"]

_GAIN_STD: Final = 0.1
"""Spread of γ_l at the start, deepmd-kit's."""

Width = Annotated[int, Field(ge=1, le=65536)]


class DPA1Config(BaseModel):
    """Hyper-parameters of the DPA-1 backbone; the defaults are deepmd-kit's shipped example, but for ``smooth``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["dpa1"] = "dpa1"
    cutoff: float = Field(6.0, gt=0, le=100)
    """Å; neighbours nearer than this are seen."""
    switch_start: float = Field(0.5, ge=0)
    sel: int = Field(120, ge=1)
    """N_c: sums over neighbours are divided by it, softmaxes run over as many slots. Nothing is cut away."""
    neurons: tuple[Width, ...] = Field((25, 50, 100), min_length=1, max_length=32)
    """Widths of the embedding network; the last is M."""
    axis: int = Field(16, ge=1)
    """M_<: channels of the smaller factor of the descriptor."""
    max_degree: int = Field(1, ge=1, le=4)
    """L: neighbours' directions enter sums by their solid harmonics up to this degree; 1 has s and h alone."""
    embedding_dim: Width = 8
    """Width of the type embedding."""
    embedding_input: EmbeddingInput = "concat"
    """How elements enter the embedding network: beside the distance, or as a factor of their own."""
    one_sided: bool = True
    """Whether the embedding network reads the neighbour's element alone."""
    timestep: bool = False
    """Learned steps of the embedding network's shortcuts."""
    activation: str = "tanh"
    attention_layers: int = Field(2, ge=0, le=256)
    attention_dim: Width = 128
    """H."""
    attention_dot: bool = True
    """Weight attention by the cosine between the two neighbours."""
    normalize: bool = True
    """Queries, keys and values of length 1."""
    temperature: float | None = 1.0
    """Multiplies q·k; null for 1/√(H · scaling_factor)."""
    scaling_factor: float = Field(1.0, gt=0)
    smooth: bool = True
    """Switch attention, and the elements' factor of "strip", off towards the cutoff."""
    norm_eps: float = Field(1e-5, gt=0)
    zero_mean: bool = True
    """False: statistics set the mean of the environment matrix too, and empty slots count. Needs "strip" and ``smooth``, or
    a single element."""
    protection: float = Field(0.0, ge=0)
    """Å, added to r in the environment matrix."""
    excluded_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of elements, either way round, that do not see each other."""
    concat_embedding: bool = True
    """Append the centre's type embedding to the descriptor."""
    embedding_bias: bool = False
    electron_embedding: bool = False
    """Type embedding from electronic configurations instead of one-hot vectors."""

    @property
    def short_cutoff(self) -> float:
        """No shorter edges are listed."""
        return 0.0

    @property
    def angles(self) -> bool:
        """No angles are listed."""
        return False

    @property
    def output_dim(self) -> int:
        """Width of what the head reads."""
        return self.neurons[-1] * self.axis + (self.embedding_dim if self.concat_embedding else 0)

    @property
    def shells(self) -> tuple[Shell, ...]:
        """The one cutoff."""
        return (Shell("cutoff", self.switch_start, self.cutoff),)

    @property
    def rough(self) -> tuple[str, ...]:
        """Which options break smoothness, and where."""
        at = f"cutoff, {self.cutoff:g} Å"
        found = []
        if not self.smooth and self.attention_layers:
            found.append(
                f"smooth: false lets a neighbour enter the attention of all others at full weight: the energy jumps at {at}"
            )
        if not self.zero_mean and self.excluded_pairs:
            found.append(
                "excluded_pairs with zero_mean: false: a neighbour that is not seen fills a slot, and an empty slot adds to "
                f"the features, so the energy jumps where such a neighbour crosses {at}"
            )
        return tuple(found)

    @property
    def element_heads(self) -> bool:
        """One head network serves all elements."""
        return False

    @property
    def inputs(self) -> tuple[FrameInput, ...]:
        """Nothing is read of a frame beside its geometry."""
        return ()

    @property
    def spec(self) -> EmbeddingSpec:
        """The embedding of neighbours."""
        return EmbeddingSpec(self.neurons, self.activation, self.embedding_input, self.one_sided, self.smooth, self.timestep)

    @model_validator(mode="after")
    def _consistent(self) -> DPA1Config:
        activation(self.activation)
        if not self.switch_start < self.cutoff:
            raise ValueError(f"switch_start ({self.switch_start}) must lie below cutoff ({self.cutoff})")
        if self.axis > self.neurons[-1]:
            raise ValueError(f"axis ({self.axis}) must not exceed the last of neurons ({self.neurons[-1]})")
        return self


class DPA1(nn.Module):
    """Backbone: graph -> node features (N, ``config.output_dim``), invariant to rotations, reflections and permutations."""

    def __init__(self, config: DPA1Config, elements: Sequence[str]) -> None:
        super().__init__()
        if not config.zero_mean and not config.spec.counts_empty and len(elements) > 1:
            raise RecipeError(
                "model.backbone: zero_mean: false with several elements needs embedding_input: strip and smooth: true; "
                "otherwise empty neighbour slots take the element of some atom, and energies depend on the order of atoms."
            )
        self.config = config
        self.embedding = TypeEmbedding(elements, config.embedding_dim, config.embedding_bias, config.electron_embedding)
        self.neighbors = NeighborEmbedding(config.spec, config.embedding_dim)
        self.attention = nn.ModuleList(GatedAttention(config) for _ in range(config.attention_layers))
        higher = config.max_degree - 1
        self.degree_gain = nn.Parameter(torch.empty(higher).normal_(0.0, _GAIN_STD)) if higher else None
        self.environment = Environment(
            len(elements),
            config.shells[0],
            config.sel,
            config.protection,
            tuple((elements.index(a), elements.index(b)) for a, b in config.excluded_pairs),
            zero_mean=config.zero_mean,
        )

    def environments(self) -> list[Environment]:
        """The one environment matrix."""
        return [self.environment]

    def slots(self, graph: Graph) -> list[SlotUse]:
        """Neighbours of an atom."""
        return [SlotUse("sel", int(graph.src.ptr.diff().max()) if graph.n_atoms else 0, self.config.sel)]

    def forward(self, graph: Graph, vec_E3: Tensor) -> Tensor:
        """Node features [D | A_i].

        Args:
            graph: everything but geometry is read from here.
            vec_E3: edge vectors, Å, float64; the caller differentiates with respect to these.
        """
        table_TC = self.embedding.table()
        rows = self.environment(graph.species, graph.src.index, graph.dst.index, vec_E3)
        g_EM = self.neighbors(rows, graph, table_TC)
        empty = self.neighbors.empty(self.environment, table_TC)
        if self.attention:
            places = _places(rows, graph, self.config, g_EM.dtype)
            for layer in self.attention:
                g_EM = layer(g_EM, places)
                if empty is not None:  # an empty slot attends to nothing
                    empty = empty[0], layer(empty[1], None)
        x_NXM = self._moments(g_EM, rows, graph, vec_E3, empty)
        node_NC = invariants(x_NXM, self.config.axis)
        if not self.config.concat_embedding:
            return node_NC
        return torch.cat([node_NC, table_TC.index_select(0, graph.species)], dim=1)

    def _moments(
        self, g_EM: Tensor, rows: EnvironmentRows, graph: Graph, vec_E3: Tensor, empty: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """X (N, 4, M), or ((L + 1)², M) each with rows of degree l times γ_l."""
        if self.degree_gain is None:
            return moments(g_EM, rows, graph, self.config.sel, empty)
        highest = self.config.max_degree
        higher_EK = self.environment.higher(rows, graph.species, graph.src.index, vec_E3, highest)
        x_NXM = moments(g_EM, rows, graph, self.config.sel, empty, higher_EK)
        # γ_l in both factors of XᵀX: deepmd-kit's γ_l² in one of them
        gains = [self.degree_gain.new_ones(4), *(gain.expand(5 + 2 * n) for n, gain in enumerate(self.degree_gain))]
        return x_NXM * torch.cat(gains)[:, None]


class _Places(NamedTuple):
    """What attention reads of the geometry, in the rectangle of every centre's neighbours."""

    slots: Slots
    weight: Tensor  # w_j w_k (N, S, S); without smoothness (N, 1, S), 1 for a neighbour and 0 for none
    gate_NSS: Tensor | None  # R̂ R̂ᵀ, with smoothness times the weight; None where nothing multiplies


def _places(rows: EnvironmentRows, graph: Graph, config: DPA1Config, dtype: torch.dtype) -> _Places:
    slots = slots_of(graph.src)
    squared_E1 = (rows.h_E3 * rows.h_E3).sum(dim=1, keepdim=True)
    # h/|h| as deepmd-kit forms it: shorter than 1 where |h| < 10⁻¹²
    unit_E3 = rows.h_E3 * squared_E1.clamp_min(1e-24).rsqrt()
    if not config.smooth:
        present_E = torch.ones_like(rows.w_E) if rows.keep_E is None else rows.keep_E
        present_N1S = spread(present_E[:, None].to(dtype), slots).transpose(1, 2)
        return _Places(slots, present_N1S, _products(unit_E3, slots, dtype) if config.attention_dot else None)
    weight_NSS = _products(rows.w_E[:, None], slots, dtype)
    gate_NSS = _products(unit_E3 * rows.w_E[:, None], slots, dtype) if config.attention_dot else weight_NSS
    return _Places(slots, weight_NSS, gate_NSS)


def _products(x_EC: Tensor, slots: Slots, dtype: torch.dtype) -> Tensor:
    """Products x_j · x_k of every two neighbours of a centre, (N, S, S)."""
    x_NSC = spread(x_EC.to(dtype), slots)
    return x_NSC @ x_NSC.transpose(1, 2)


class GatedAttention(nn.Module):
    """One attention layer: G ← LayerNorm(G + A V W_o + b_o), [Q | K | V] = G W_i + b_i.

        A = softmax(τ Q Kᵀ) ⊙ R̂ R̂ᵀ                                               not smooth
        A = softmax((τ Q Kᵀ + 20) ⊙ w wᵀ - 20) ⊙ w wᵀ ⊙ R̂ R̂ᵀ                     smooth (DPA-2 paper Eq. 36)

    Sums run over the neighbours of one centre; the smooth softmax's also over empty slots, e^-20 each.
    """

    def __init__(self, config: DPA1Config) -> None:
        super().__init__()
        width, hidden = config.neurons[-1], config.attention_dim
        self.in_proj = Dense(width, 3 * hidden)
        self.out_proj = Dense(hidden, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self._normalize, self._smooth, self._sel = config.normalize, config.smooth, config.sel
        default = 1.0 / math.sqrt(hidden * config.scaling_factor)
        self._scale = default if config.temperature is None else config.temperature

    def forward(self, g_EM: Tensor, places: _Places | None) -> Tensor:
        """(E, M) -> (E, M), or the same of rows that attend to nothing, where there are no places."""
        qkv = self.in_proj(g_EM).chunk(3, dim=1)
        if places is None:
            return self.norm(g_EM + self.out_proj(torch.zeros_like(qkv[0])))
        if self._normalize:
            qkv = tuple(nn.functional.normalize(x_EH, dim=1) for x_EH in qkv)
        q_NSH, k_NSH, v_NSH = (spread(x_EH, places.slots) for x_EH in qkv)
        logit_NSS = self._scale * (q_NSH @ k_NSH.transpose(1, 2))
        if self._smooth:
            weights_NSS = smooth_softmax(logit_NSS, places.weight, self._sel)
        else:
            weights_NSS = masked_softmax(logit_NSS, places.weight == 0.0)
        if places.gate_NSS is not None:
            weights_NSS = weights_NSS * places.gate_NSS
        return self.norm(g_EM + self.out_proj(collect(weights_NSS @ v_NSH, places.slots)))
