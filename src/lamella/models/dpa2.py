"""DPA-2: repinit, then repformer layers that update atoms and neighbour pairs (arXiv 2312.15492; docs/papers/dpa2.md).

====================  ==============================  =================================================================
paper                 code                            meaning
====================  ==============================  =================================================================
f⁰ (Eq. 8)            ``embedding``                   learned vector of an element
g⁰, h⁰ (Eqs. 14, 15)  ``EnvironmentRows.s_E, h_E3``   s(r) and s(r) r̂ of every neighbour within r_c⁰
f¹ (Eqs. 16, 17)      ``Repinit``                     one vector per atom, made of them
f² (Eqs. 24-28)       ``AtomUpdate``, ``node_NC``     features of atoms
g² (Eqs. 29-32)       ``PairUpdate``, ``pair_QC``     features of pairs within r_c¹
h² (Eqs. 23, 33)      ``h_NS3``                       their equivariant vectors
w (Eq. 13)            ``w_E``, ``weight_Q1``          switch of a pair
N^m                   ``sel``                         configured number of neighbours, a plain constant
symm (Eqs. 18-20)     ``invariants``, ``symmetrise``  invariants of the sum of h ⊗ features
====================  ==============================  =================================================================

Repformer and its layers are in ``nn/repformer.py``, attention in ``nn/attention.py``, repinit's embedding, which is DPA-1's,
in ``nn/neighbor_embedding.py``. Shapes: N atoms, E edges, Q short edges (within the longer of the two inner cutoffs), T
elements, C channels of whatever is spoken of. A short edge beyond an inner cutoff has w = 0 there and counts like an empty
slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lamella.errors import RecipeError
from lamella.geometry.segment import Slots, slots_of
from lamella.geometry.switch import Shell
from lamella.nn.activation import activation
from lamella.nn.dense import Dense
from lamella.nn.embedding import TypeEmbedding
from lamella.nn.environment import Environment, SlotUse
from lamella.nn.neighbor_embedding import EmbeddingInput, EmbeddingSpec, NeighborEmbedding, invariants, moments
from lamella.nn.repformer import Repformer, RepformerConfig, Width
from lamella.nn.three_body import ThreeBodyEmbedding
from lamella.types import FrameInput, Graph

__all__ = ["DPA2", "DPA2Config", "RepformerConfig", "RepinitConfig", "ThreeBodyConfig"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RepinitConfig(_Part):
    """Repinit (Eqs. 16, 17): an attention-free DPA-1."""

    cutoff: float = Field(6.0, gt=0, le=100)
    """Å; r_c⁰, the longest edge of the model."""
    switch_start: float = Field(0.5, ge=0)
    sel: int = Field(120, ge=1)
    """N^m: sums are divided by it. Nothing is cut away."""
    neurons: tuple[Width, ...] = Field((25, 50, 100), min_length=1, max_length=16)
    axis: int = Field(12, ge=1)
    """Channels kept by the split of Eq. 20."""
    embedding_dim: Width = 8
    """Width of f⁰."""
    embedding_input: EmbeddingInput = "concat"
    """How elements enter g^rt: beside s(r), or as a factor of their own."""
    one_sided: bool = False
    """Whether g^rt knows the neighbour's element alone."""
    activation: str = "tanh"
    timestep: bool = False
    zero_mean: bool = True
    """False: statistics set the mean of the environment matrix too, and empty slots count. Needs "strip" and ``smooth``, or
    a single element."""


class ThreeBodyConfig(_Part):
    """Three-body embedding beside repinit (not in the paper): a sum over pairs of neighbours of one centre."""

    cutoff: float = Field(4.0, gt=0, le=100)
    switch_start: float = Field(3.5, ge=0)
    sel: int = Field(48, ge=1)
    neurons: tuple[Width, ...] = Field((2, 4, 8), min_length=1, max_length=16)


_Shelled = RepinitConfig | ThreeBodyConfig | RepformerConfig


def _shell(name: str, part: _Shelled) -> Shell:
    return Shell(name, part.switch_start, part.cutoff)


class DPA2Config(_Part):
    """Hyper-parameters of the DPA-2 backbone; the defaults are deepmd-kit's released medium example."""

    kind: Literal["dpa2"] = "dpa2"
    repinit: RepinitConfig = RepinitConfig()
    three_body: ThreeBodyConfig | None = ThreeBodyConfig()
    repformer: RepformerConfig = RepformerConfig()
    smooth: bool = True
    """False: repformer's softmaxes and sums know no switch, nor do stripped embeddings; the energy is discontinuous."""
    add_embedding: bool = False
    """linear(f⁰) in Eq. 17."""
    concat_embedding: bool = True
    """f⁰ in Eq. 7."""
    embedding_bias: bool = False
    electron_embedding: bool = False
    """f⁰ from the element's electronic configuration instead of a one-hot vector."""
    protection: float = Field(0.0, ge=0)
    """Å, added to r in the environment matrices."""
    excluded_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of elements, either way round, that do not see each other."""

    @property
    def cutoff(self) -> float:
        """Longest edge, Å."""
        return self.repinit.cutoff

    @property
    def short_cutoff(self) -> float:
        """Just above the longest edge that repformer or the three-body embedding sees, Å: their own cutoffs count."""
        return math.nextafter(self._inner_cutoff, math.inf)

    @property
    def _inner_cutoff(self) -> float:
        return max(self.repformer.cutoff, self.three_body.cutoff if self.three_body else 0.0)

    @property
    def angles(self) -> bool:
        """Pairs of short edges are taken from rectangles, never listed."""
        return False

    @property
    def shells(self) -> tuple[Shell, ...]:
        """Every cutoff, the longest first."""
        parts: list[tuple[str, _Shelled]] = [("cutoff", self.repinit), ("repformer cutoff", self.repformer)]
        if self.three_body is not None:
            parts.append(("three-body cutoff", self.three_body))
        return tuple(sorted((_shell(name, part) for name, part in parts), key=lambda shell: -shell.end))

    @property
    def rough(self) -> tuple[str, ...]:
        """Which options break smoothness, and where."""
        found = []
        if not self.smooth:
            found.append(
                f"smooth: false counts a neighbour at full weight up to the repformer cutoff: the energy jumps at "
                f"{self.repformer.cutoff:g} Å"
            )
        if not self.repinit.zero_mean and self.excluded_pairs:
            found.append(
                "excluded_pairs with repinit.zero_mean: false: a neighbour that is not seen fills a slot, and an empty slot "
                f"adds to the features, so the energy jumps where such a neighbour crosses {self.repinit.cutoff:g} Å"
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
    def repinit_dim(self) -> int:
        """Width of what repinit and the three-body embedding give."""
        repinit = self.repinit.neurons[-1] * self.repinit.axis
        return repinit + (self.three_body.neurons[-1] if self.three_body else 0)

    @property
    def output_dim(self) -> int:
        """Width of what the head reads."""
        return self.repformer.node_dim + (self.repinit.embedding_dim if self.concat_embedding else 0)

    @model_validator(mode="after")
    def _consistent(self) -> DPA2Config:
        activation(self.repinit.activation)
        for shell in self.shells:
            if not shell.start < shell.end:
                raise ValueError(f"{shell.name}: switch_start ({shell.start}) must lie below it ({shell.end})")
        if self._inner_cutoff > self.cutoff:
            raise ValueError(f"repinit.cutoff ({self.cutoff}) must not lie below the other cutoffs ({self._inner_cutoff})")
        if self.repinit.axis > self.repinit.neurons[-1]:
            raise ValueError(f"repinit.axis ({self.repinit.axis}) must not exceed the last of repinit.neurons")
        return self

    def spec(self, neurons: tuple[int, ...], one_sided: bool) -> EmbeddingSpec:
        """Embedding of repinit, or of the three-body term, which is like it but for these two."""
        part = self.repinit
        return EmbeddingSpec(neurons, part.activation, part.embedding_input, one_sided, self.smooth, part.timestep)


class DPA2(nn.Module):
    """Backbone: graph -> node features (N, ``config.output_dim``), invariant to rotations, reflections and permutations."""

    def __init__(self, config: DPA2Config, elements: Sequence[str]) -> None:
        super().__init__()
        part = config.repinit
        if not part.zero_mean and not config.spec(part.neurons, part.one_sided).counts_empty and len(elements) > 1:
            raise RecipeError(
                "model.backbone: repinit.zero_mean: false with several elements needs repinit.embedding_input: strip and "
                "smooth: true; otherwise empty neighbour slots take the element of some atom, and energies depend on the "
                "order of atoms."
            )
        self.config = config
        width = part.embedding_dim
        self.embedding = TypeEmbedding(elements, width, config.embedding_bias, config.electron_embedding)
        excluded = tuple((elements.index(a), elements.index(b)) for a, b in config.excluded_pairs)
        self.repinit = Repinit(config, len(elements), excluded)
        self.three_body = ThreeBody(config, len(elements), excluded) if config.three_body else None
        self.project = None
        if config.repinit_dim != config.repformer.node_dim:
            self.project = Dense(config.repinit_dim, config.repformer.node_dim, bias=False)
            nn.init.xavier_uniform_(self.project.weight)
        self.project_embedding = Dense(width, config.repformer.node_dim, bias=False) if config.add_embedding else None
        environment = Environment(
            len(elements),
            _shell("repformer cutoff", config.repformer),
            config.repformer.sel,
            config.protection,
            excluded,
            zero_mean=config.repformer.zero_mean,
        )
        self.repformer = Repformer(config.repformer, environment, config.smooth)

    def environments(self) -> list[Environment]:
        """Of repinit, of the three-body term where there is one, of the repformer."""
        three_body = [] if self.three_body is None else [self.three_body.environment]
        return [self.repinit.environment, *three_body, self.repformer.environment]

    def slots(self, graph: Graph) -> list[SlotUse]:
        """Neighbours of an atom within each cutoff."""
        config = self.config
        uses = [SlotUse("repinit.nsel", _most(graph, config.cutoff), config.repinit.sel)]
        if config.three_body is not None:
            uses.append(SlotUse("repinit.three_body_sel", _most(graph, config.three_body.cutoff), config.three_body.sel))
        uses.append(SlotUse("repformer.nsel", _most(graph, config.repformer.cutoff), config.repformer.sel))
        return uses

    def forward(self, graph: Graph, vec_E3: Tensor) -> Tensor:
        """Node features [f² | f⁰] (Eqs. 7-10, 17, 21).

        Args:
            graph: everything but geometry is read from here.
            vec_E3: edge vectors, Å, float64; the caller differentiates with respect to these.
        """
        table_TC = self.embedding.table()
        node_NC = self.repinit(graph, vec_E3, table_TC)
        vec_Q3, slots = vec_E3.index_select(0, graph.short), slots_of(graph.short_src)
        if self.three_body is not None:
            node_NC = torch.cat([node_NC, self.three_body(graph, vec_Q3, table_TC, slots)], dim=1)
        if self.project is not None:
            node_NC = self.project(node_NC)
        embedding_NC = table_TC.index_select(0, graph.species)
        if self.project_embedding is not None:
            node_NC = node_NC + self.project_embedding(embedding_NC)
        node_NC = self.repformer(node_NC, graph, vec_Q3, slots)
        return torch.cat([node_NC, embedding_NC], dim=1) if self.config.concat_embedding else node_NC


class Repinit(nn.Module):
    """symm(g^rt, r̃), flattened (Eqs. 11-20): (N, M · axis). The switch in r̃ is the w of Eq. 19."""

    def __init__(self, config: DPA2Config, n_species: int, excluded: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        part = config.repinit
        spec = config.spec(part.neurons, part.one_sided)
        shell = _shell("cutoff", part)
        self.neighbors = NeighborEmbedding(spec, part.embedding_dim)
        self.environment = Environment(n_species, shell, part.sel, config.protection, excluded, zero_mean=part.zero_mean)
        self._axis = part.axis

    def forward(self, graph: Graph, vec_E3: Tensor, table_TC: Tensor) -> Tensor:
        """(N, M · axis)."""
        environment = self.environment
        rows = environment(graph.species, graph.src.index, graph.dst.index, vec_E3)
        empty = self.neighbors.empty(environment, table_TC)
        g_EM = self.neighbors(rows, graph, table_TC)
        return invariants(moments(g_EM, rows, graph, environment.slots, empty), self._axis)


class ThreeBody(nn.Module):
    """The three-body embedding in its own shell: (N, M₃)."""

    def __init__(self, config: DPA2Config, n_species: int, excluded: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        part = config.three_body or ThreeBodyConfig()
        shell = _shell("three-body cutoff", part)
        self.environment = Environment(n_species, shell, part.sel, config.protection, excluded)
        self.pairs = ThreeBodyEmbedding(config.spec(part.neurons, False), config.repinit.embedding_dim, part.sel)

    def forward(self, graph: Graph, vec_Q3: Tensor, table_TC: Tensor, slots: Slots) -> Tensor:
        """(N, M₃)."""
        rows = self.environment(graph.species, graph.short_src.index, graph.short_dst.index, vec_Q3)
        species_Q = graph.species.index_select(0, graph.short_dst.index)
        h_Q3, w_Q = rows.h_E3.to(table_TC.dtype), rows.w_E.to(table_TC.dtype)
        return self.pairs(h_Q3, w_Q, species_Q, table_TC, slots)


def _most(graph: Graph, cutoff: float) -> int:
    """Largest number of neighbours of an atom within ``cutoff``."""
    near_E = torch.linalg.vector_norm(graph.vec, dim=1) <= cutoff
    count_N = torch.bincount(graph.src.index[near_E], minlength=1)
    return int(count_N.max())
