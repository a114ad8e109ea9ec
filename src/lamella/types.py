"""The types everything speaks: Frame (a structure as read), Graph (tensors, one or many frames) and Prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch", "Frame", "FrameInput", "Graph", "GraphSpec", "Incidence", "Prediction"]


@dataclass(frozen=True)
class Frame:
    """One structure as it was on disk, in lamella's units and signs.

    Attributes:
        numbers: (n,) int64, atomic numbers.
        positions: (n, 3) float64, Å.
        cell: (3, 3) float64, Å; rows are the lattice vectors; zero rows where there is none.
        pbc: (3,) bool, periodic along each lattice vector.
        labels: reference values, and what a model may read beside the atoms, by name, only names of
            :data:`lamella.fields.QUANTITIES`; absent means absent, never NaN or zero.
        source: where it came from, for messages: ``"water.xyz#12"`` is the frame of index 12 (from 0) of ``water.xyz``.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = "frame"

    def __len__(self) -> int:
        return len(self.numbers)


class FrameInput(NamedTuple):
    """A property of a whole frame that a model reads beside its geometry.

    Attributes:
        name: one of :data:`lamella.fields.INPUTS`.
        width: how many numbers.
        default: used for a frame that does not carry it; None where every frame must.
    """

    name: str
    width: int
    default: tuple[float, ...] | None = None


@dataclass(frozen=True)
class GraphSpec:
    """Which graph a model reads.

    Attributes:
        numbers: atomic numbers the model knows, in its order.
        cutoff: edges are shorter than this, Å.
        short_cutoff: ``Graph.short`` lists the edges shorter than this, Å; 0 for none.
        angles: whether pairs of short edges are listed too.
        excluded_pairs: pairs of species indices that are never neighbours, either way round.
        inputs: properties of the frame that go along.
    """

    numbers: tuple[int, ...]
    cutoff: float
    short_cutoff: float = 0.0
    angles: bool = False
    excluded_pairs: tuple[tuple[int, int], ...] = ()
    inputs: tuple[FrameInput, ...] = ()


class Incidence(NamedTuple):
    """Which of ``len(ptr) - 1`` owners each of M rows belongs to, with what is needed to sum rows by owner.

    Attributes:
        index: (M,) int64, owner of each row.
        order: (M,) int64, rows listed owner by owner (a permutation; the identity where rows are already sorted by owner).
        ptr: (n + 1,) int64, owner o's rows are ``order[ptr[o]:ptr[o + 1]]``.
    """

    index: Tensor  # type: ignore[assignment]  # the field's word wins over tuple.index, which nobody needs here
    order: Tensor
    ptr: Tensor

    @property
    def size(self) -> int:
        """Number of owners n."""
        return self.ptr.shape[0] - 1


@dataclass(frozen=True)
class Graph:
    """One or many frames of any size, periodic or not, concatenated: no padding, no truncation.

    N atoms, E directed edges, Q short edges, A angles, F frames. Geometry enters a model through ``vec`` alone.

    Attributes:
        species: (N,) int64, index of the atom's element in the model's element list.
        frame: atoms by frame; ``frame.index`` is (N,).
        src: edges by centre i, sorted; ``src.index`` is (E,).
        dst: edges by neighbour j.
        vec: (E, 3) float64, Å: r_j + shift - r_i.
        short: (Q,) int64, the edges within the short cutoff, in order of edges.
        short_src: short edges by centre i, sorted.
        short_dst: short edges by neighbour j.
        angle_j: angles by their receiving edge j, a position in ``short``; sorted.
        angle_k: angles by their other edge k, a position in ``short``. Every ordered pair (j, k) of one centre occurs,
            j = k too; none at all where the model has no angles.
        inputs: (F, width) float64 by name, properties of the frames that the model reads.
    """

    species: Tensor
    frame: Incidence
    src: Incidence
    dst: Incidence
    vec: Tensor
    short: Tensor
    short_src: Incidence
    short_dst: Incidence
    angle_j: Incidence
    angle_k: Incidence
    inputs: Mapping[str, Tensor]

    @property
    def n_atoms(self) -> int:
        """Number of atoms N over all frames."""
        return self.species.shape[0]

    @property
    def n_frames(self) -> int:
        """Number of frames F."""
        return self.frame.size

    @property
    def n_edges(self) -> int:
        """Number of directed edges E."""
        return self.vec.shape[0]

    @property
    def n_angles(self) -> int:
        """Number of angles A."""
        return self.angle_j.index.shape[0]

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on ``device``."""

        def move(value: Any) -> Any:
            if isinstance(value, Incidence):
                return Incidence(*(part.to(device) for part in value))
            if isinstance(value, Mapping):
                return {name: part.to(device) for name, part in value.items()}
            return value.to(device)

        return replace(self, **{item.name: move(getattr(self, item.name)) for item in fields(self)})


class Prediction(NamedTuple):
    """What a model says of a graph (tensors, over all frames) or of one structure (numpy arrays).

    Attributes:
        energy: (F,) eV; one number for one structure.
        atom_energy: (N,) eV.
        forces: (N, 3) eV/Å.
        virial: (F, 3, 3) eV, -∂E/∂ε; (3, 3) for one structure.
    """

    energy: Any
    atom_energy: Any
    forces: Any
    virial: Any


@dataclass(frozen=True)
class Batch:
    """Frames of one task, ready for a training step or an evaluation.

    Attributes:
        graph: all frames, concatenated.
        labels: reference values by name, float64: (F, ...) for a quantity of the frame, (N, ...) for one of the atom; zero
            where a frame does not carry the label.
        carries: for each name in ``labels``, (F,) bool: which frames carry it.
        sources: where each frame came from, for messages.
    """

    graph: Graph
    labels: Mapping[str, Tensor]
    carries: Mapping[str, Tensor]
    sources: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        return Batch(
            self.graph.to(device),
            {name: value.to(device) for name, value in self.labels.items()},
            {name: value.to(device) for name, value in self.carries.items()},
            self.sources,
        )
