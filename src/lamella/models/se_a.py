"""DeepPot-SE, two-body smooth embedding (paper: arXiv 1805.09003; exact form: docs/papers/se_a.md).

Each neighbour j of an atom i is a row (s, h) of the environment matrix: a switched inverse distance and its vector. A
network for each pair of elements (two-sided) or for each element of the neighbour (one-sided) embeds s. The sum of row times
embedding over the neighbours, multiplied with itself, gives the invariants that the fitting network reads.

=====================  ==============================  =============================================================
paper                  code                            meaning
=====================  ==============================  =============================================================
s(r_ij)                ``rows.s_E``                    (w(r)/(r + p) - mean)/std: normalised switched inverse distance
s(r_ij) r_ij/r_ij      ``rows.h_E3``                   its vector, normalised
R̃ (N_c × 4)            ``row_NS4``                     environment matrix
G (N_c × M₁)           ``embedded_NSC``                embedding of s
N_c                    ``slots``                       configured number of neighbours, a plain constant: Σ ``sel``
1/N_c R̃ᵀ G (4 × M₁)    ``x_N4C``                       sum over neighbours
G_<, M₂                ``[:, :, :axis]``               the first ``axis`` channels
D = Gᵀ R̃ R̃ᵀ G_<        ``forward``                     invariants, (M₁, M₂) flattened, M₁ major
=====================  ==============================  =============================================================

Shapes: N atoms, E edges, S slots of the atom with most neighbours, n elements, C = M₁ channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lamella.errors import RecipeError
from lamella.geometry.segment import Slots, slots_of, spread
from lamella.geometry.switch import Shell
from lamella.nn.activation import activation
from lamella.nn.dense import EmbeddingNet
from lamella.nn.environment import Environment, SlotUse
from lamella.types import FrameInput, Graph

__all__ = ["SeA", "SeAConfig"]

Width = Annotated[int, Field(ge=1, le=65536)]
Count = Annotated[int, Field(ge=0)]


class SeAConfig(BaseModel):
    """Hyper-parameters of the DeepPot-SE backbone; the defaults are deepmd-kit's shipped water example."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["se_a"] = "se_a"
    cutoff: float = Field(6.0, gt=0, le=100)
    """Å; neighbours nearer than this are edges."""
    switch_start: float = Field(0.5, ge=0)
    """Å; the switch falls from here to the cutoff."""
    sel: dict[str, Count] | Literal["auto"] = "auto"
    """Neighbours of each element that sums are normalised for; ``auto`` counts them in the training data. None is lost."""
    neurons: tuple[Width, ...] = Field((25, 50, 100), min_length=1, max_length=32)
    """Widths of the embedding networks; the last is M₁."""
    axis: int = Field(16, ge=1)
    """M₂, channels of the second factor of the invariants."""
    one_sided: bool = True
    """One embedding network for each element of the neighbour; False: for each pair (centre, neighbour)."""
    timestep: bool = False
    """Learned step of each shortcut in the embedding networks."""
    activation: str = "tanh"
    zero_mean: bool = False
    """Keep the mean of the environment matrix at 0 instead of taking it from the training data."""
    protection: float = Field(0.0, ge=0)
    """Å, added to r in the environment matrix."""
    excluded_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of elements, either way round, that do not see each other."""

    @property
    def counts(self) -> dict[str, int]:
        """``sel`` by element.

        Raises:
            RecipeError: it is still ``auto``.
        """
        if self.sel == "auto":
            raise RecipeError(
                "model.backbone.sel is auto, and there is no training data to count neighbours in; "
                "give a number for each element."
            )
        return self.sel

    @property
    def short_cutoff(self) -> float:
        """No shorter list of edges."""
        return 0.0

    @property
    def angles(self) -> bool:
        """No angles."""
        return False

    @property
    def shells(self) -> tuple[Shell, ...]:
        """The one cutoff."""
        return (Shell("cutoff", self.switch_start, self.cutoff),)

    @property
    def rough(self) -> tuple[str, ...]:
        """Which options break smoothness, and where."""
        if self.zero_mean or not self.excluded_pairs:
            return ()
        return (
            "excluded_pairs with zero_mean: false: a neighbour that is not seen fills a slot, and an empty slot adds to the "
            f"features, so the energy jumps where such a neighbour crosses cutoff, {self.cutoff:g} Å",
        )

    @property
    def element_heads(self) -> bool:
        """One head network for each element of the centre."""
        return True

    @property
    def inputs(self) -> tuple[FrameInput, ...]:
        """Nothing is read of a frame beside its geometry."""
        return ()

    @property
    def output_dim(self) -> int:
        """Width of what the head reads."""
        return self.neurons[-1] * self.axis

    @model_validator(mode="after")
    def _consistent(self) -> SeAConfig:
        activation(self.activation)
        if not self.switch_start < self.cutoff:
            raise ValueError(f"switch_start ({self.switch_start}) must lie below cutoff ({self.cutoff})")
        if self.axis > self.neurons[-1]:
            raise ValueError(f"axis ({self.axis}) must not exceed the last of neurons ({self.neurons[-1]})")
        if self.sel != "auto" and sum(self.sel.values()) < 1:
            raise ValueError("sel must name at least one neighbour")
        return self


class SeA(nn.Module):
    """Backbone: graph -> node features (N, ``config.output_dim``), invariant to rotations, reflections and permutations."""

    def __init__(self, config: SeAConfig, elements: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.elements = tuple(elements)
        self.sel = _checked(config.counts, self.elements)
        self.slot_count = sum(self.sel)
        n_nets = len(self.elements) if config.one_sided else len(self.elements) ** 2
        # of the pair (centre a, neighbour b): net b, or a + n b
        self.nets = nn.ModuleList(EmbeddingNet(1, config.neurons, config.activation, config.timestep) for _ in range(n_nets))
        self.environment = Environment(
            len(self.elements),
            config.shells[0],
            self.slot_count,
            config.protection,
            tuple((self.elements.index(a), self.elements.index(b)) for a, b in config.excluded_pairs),
            zero_mean=config.zero_mean,
        )

    def environments(self) -> list[Environment]:
        """The one environment matrix."""
        return [self.environment]

    def slots(self, graph: Graph) -> list[SlotUse]:
        """Neighbours of each element."""
        most = self._neighbours(graph).amax(dim=0).tolist() if graph.n_atoms else [0] * len(self.elements)
        return [SlotUse(f"sel of {symbol}", n, sel) for symbol, n, sel in zip(self.elements, most, self.sel, strict=True)]

    def forward(self, graph: Graph, vec_E3: Tensor) -> Tensor:
        """Node features D = Xᵀ X[:, :axis].

        Args:
            graph: everything but geometry is read from here.
            vec_E3: edge vectors, Å, float64; the caller differentiates with respect to these.
        """
        dtype = next(self.parameters()).dtype
        rows = self.environment(graph.species, graph.src.index, graph.dst.index, vec_E3)
        row_E4 = torch.cat([rows.s_E[:, None], rows.h_E3], dim=1).to(dtype)
        slots = slots_of(graph.src)
        x_N4C = spread(row_E4, slots).transpose(1, 2) @ self._embed(row_E4[:, :1], graph, slots)
        if self.environment.mean.any():
            x_N4C = x_N4C + nn.functional.pad(self._empty_slots(graph)[:, None], (0, 0, 0, 3))
        x_N4C = x_N4C / self.slot_count
        return (x_N4C.transpose(1, 2) @ x_N4C[:, :, : self.config.axis]).flatten(1)

    def _embed(self, s_E1: Tensor, graph: Graph, slots: Slots) -> Tensor:
        """G(s) of every neighbour at its slot, (N, S, C): the rows of each network side by side, then put in place."""
        n = len(self.elements)
        net_E = graph.species.index_select(0, graph.dst.index)
        if not self.config.one_sided:
            net_E = net_E * n + graph.species.index_select(0, graph.src.index)
        order_E = torch.argsort(net_E, stable=True)
        counts = torch.bincount(net_E, minlength=len(self.nets)).tolist()
        parts = s_E1.index_select(0, order_E).split(counts)
        sorted_EC = torch.cat([net(part) for net, part in zip(self.nets, parts, strict=True)])
        return spread(sorted_EC, Slots(slots.place.index_select(0, order_E), slots.shape))

    def _empty_slots(self, graph: Graph) -> Tensor:
        """Σ_b (sel_b - n_ib) s° G_ib(s°), (N, C): an empty slot is a row (s°, 0, 0, 0) with s° = -mean/std.

        The number of empty slots of an atom with more than ``sel`` neighbours is negative, which keeps the sum smooth.
        """
        n = len(self.elements)
        s_n1 = self.environment.empty(torch.arange(n, device=graph.species.device))[:, None]
        if self.config.one_sided:
            terms = [s_n1 * net(s_n1) for net in self.nets]  # net b, every centre
            table_nnC = torch.stack(terms, dim=1)
        else:
            terms = [s_n1[k % n] * net(s_n1[k % n, None])[0] for k, net in enumerate(self.nets)]
            table_nnC = torch.stack(terms).view(n, n, -1).transpose(0, 1)
        sel_n = torch.tensor(self.sel, dtype=s_n1.dtype, device=s_n1.device)
        empty_Nn = sel_n - self._neighbours(graph)
        centre_Nn = nn.functional.one_hot(graph.species, n).to(s_n1.dtype)
        return (centre_Nn[:, :, None] * empty_Nn[:, None, :]).flatten(1) @ table_nnC.flatten(0, 1)

    def _neighbours(self, graph: Graph) -> Tensor:
        """Number of neighbours of each element, excluded ones too, (N, n)."""
        n = len(self.elements)
        kind_E = graph.src.index * n + graph.species.index_select(0, graph.dst.index)
        return torch.bincount(kind_E, minlength=graph.n_atoms * n).view(graph.n_atoms, n)


def _checked(counts: dict[str, int], elements: Sequence[str]) -> tuple[int, ...]:
    """``sel`` in the order of the elements."""
    for symbol in elements:
        if symbol not in counts:
            raise RecipeError(f"model.backbone.sel has no number for {symbol}; give one for each element of the model.")
    for symbol in counts:
        if symbol not in elements:
            raise RecipeError(
                f"model.backbone.sel names {symbol}, which is no element of the model ({' '.join(elements)}); take it out."
            )
    return tuple(counts[symbol] for symbol in elements)
