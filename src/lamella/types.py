"""The types everything speaks: Frame (a structure as read), Graph (tensors, one or many frames) and Prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch", "Frame", "Graph", "Incidence", "Prediction"]


@dataclass(frozen=True)
class Frame:
    """One structure as it was on disk, in lamella's units and signs.

    Attributes:
        numbers: (n,) int64, atomic numbers.
        positions: (n, 3) float64, Å.
        cell: (3, 3) float64, Å; rows are the lattice vectors; zero rows where there is none.
        pbc: (3,) bool, periodic along each lattice vector.
        labels: reference values by name, only names of :data:`lamella.fields.FIELDS`; absent means absent,
            never NaN or zero.
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

    N atoms, E directed edges, Q edges within the angle cutoff, A angles, F frames. Geometry enters a model through
    ``vec`` alone.

    Attributes:
        species: (N,) int64, index of the atom's element in the model's element list.
        frame: atoms by frame; ``frame.index`` is (N,).
        src: edges by centre i, sorted; ``src.index`` is (E,).
        dst: edges by neighbour j.
        vec: (E, 3) float64, Å: r_j + shift - r_i.
        short: (Q,) int64, the edges within the angle cutoff, in order of edges.
        angle_j: angles by their receiving edge j, a position in ``short``; sorted.
        angle_k: angles by their other edge k, a position in ``short``. Every ordered pair (j, k) of one centre occurs,
            j = k too.
    """

    species: Tensor
    frame: Incidence
    src: Incidence
    dst: Incidence
    vec: Tensor
    short: Tensor
    angle_j: Incidence
    angle_k: Incidence

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
