"""Graphs from structures: edges, the line graph's angles, and batches by concatenation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from lamella.errors import StructureError
from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame, FrameInput, Graph, GraphSpec, Incidence

__all__ = ["build_graph", "collate", "frame_input", "graph_from_edges", "species_index"]


def species_index(numbers: np.ndarray, elements: Sequence[int], source: str = "structure") -> np.ndarray:
    """Position of each atomic number in ``elements``, (n,) int64.

    Raises:
        StructureError: an element that the model does not know.
    """
    from_number = np.full(max([*elements, int(numbers.max(initial=0))]) + 1, -1, dtype=np.int64)
    from_number[list(elements)] = np.arange(len(elements))
    species = from_number[numbers]
    if (species < 0).any():
        missing = ", ".join(chemical_symbols[z] for z in sorted(set(numbers[species < 0].tolist())))
        known = " ".join(chemical_symbols[z] for z in elements)
        raise StructureError(
            f"{source}: the model does not know the element {missing} (it knows {known}); "
            "use a model that covers it, or train one with these elements."
        )
    return species


def build_graph(frame: Frame, spec: GraphSpec) -> Graph:
    """The graph of one frame, on the CPU.

    Args:
        frame: structure.
        spec: what the model reads of it.

    Raises:
        StructureError: no energy can be given to the structure; the message says why.
    """
    species = species_index(frame.numbers, spec.numbers, frame.source)
    src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, spec.cutoff, frame.source)
    inputs = {wanted.name: frame_input(frame, wanted) for wanted in spec.inputs}
    return graph_from_edges(species, (src, dst, vec), spec, inputs)


def graph_from_edges(
    species: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    spec: GraphSpec,
    inputs: Mapping[str, Tensor] | None = None,
) -> Graph:
    """The graph of one frame from its directed edges (src, dst, vec), sorted by ``src``.

    Args:
        species: (N,) int64.
        edges: centre (E,), neighbour (E,), vector (E, 3) in Å.
        spec: what the model reads.
        inputs: (1, width) by name.
    """
    src, dst, vec = edges if not spec.excluded_pairs else _without(species, edges, spec.excluded_pairs)
    n_atoms = len(species)
    short = np.flatnonzero(np.einsum("ij,ij->i", vec, vec) < spec.short_cutoff * spec.short_cutoff)
    centre = src[short]
    angle_j, angle_k, swap = _angles(centre if spec.angles else centre[:0], n_atoms)
    return Graph(
        species=torch.from_numpy(species),
        frame=_sorted_incidence(np.zeros(n_atoms, dtype=np.int64), 1),
        src=_sorted_incidence(src, n_atoms),
        dst=_incidence(dst, n_atoms),
        vec=torch.from_numpy(vec),
        short=torch.from_numpy(short),
        short_src=_sorted_incidence(centre, n_atoms),
        short_dst=_incidence(dst[short], n_atoms),
        angle_j=_sorted_incidence(angle_j, len(short)),
        angle_k=Incidence(torch.from_numpy(angle_k), torch.from_numpy(swap), _ptr(angle_j, len(short))),
        inputs=dict(inputs or {}),
    )


def collate(graphs: Sequence[Graph]) -> Graph:
    """Many graphs as one; atoms, edges and angles keep their order."""
    if len(graphs) == 1:
        return graphs[0]
    edges = np.cumsum([0] + [graph.n_edges for graph in graphs])
    return Graph(
        species=torch.cat([graph.species for graph in graphs]),
        frame=_concatenate([graph.frame for graph in graphs]),
        src=_concatenate([graph.src for graph in graphs]),
        dst=_concatenate([graph.dst for graph in graphs]),
        vec=torch.cat([graph.vec for graph in graphs]),
        short=torch.cat([graph.short + int(first) for graph, first in zip(graphs, edges, strict=False)]),
        short_src=_concatenate([graph.short_src for graph in graphs]),
        short_dst=_concatenate([graph.short_dst for graph in graphs]),
        angle_j=_concatenate([graph.angle_j for graph in graphs]),
        angle_k=_concatenate([graph.angle_k for graph in graphs]),
        inputs={name: torch.cat([graph.inputs[name] for graph in graphs]) for name in graphs[0].inputs},
    )


def frame_input(frame: Frame, wanted: FrameInput) -> Tensor:
    """One property of the frame as a row (1, width): what the frame carries, else the model's default.

    Raises:
        StructureError: neither is there; another number of numbers; a charge or spin that is no whole number.
    """
    given = frame.labels.get(wanted.name)
    value = wanted.default if given is None else given
    if value is None:
        width = "one number" if wanted.width == 1 else f"{wanted.width} numbers"
        raise StructureError(
            f"{frame.source}: the model reads {wanted.name} ({width} a frame), which this frame does not "
            f"carry; set it, in ASE as atoms.info[{wanted.name!r}]."
        )
    row = np.asarray(value, dtype=np.float64).reshape(1, -1)
    if row.shape[1] != wanted.width or not np.isfinite(row).all():
        raise StructureError(
            f"{frame.source}: {wanted.name} is {np.array2string(row[0], threshold=4)}, the model reads {wanted.width} "
            "finite numbers; correct it in the structure."
        )
    if wanted.name in ("charge", "spin") and row[0, 0] != np.round(row[0, 0]):
        raise StructureError(f"{frame.source}: the {wanted.name} is {row[0, 0]:g}, which is no whole number; correct it.")
    return torch.from_numpy(row)


def _without(
    species: np.ndarray, edges: tuple[np.ndarray, np.ndarray, np.ndarray], pairs: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges whose two species are not an excluded pair."""
    src, dst, vec = edges
    keep = np.ones(len(src), dtype=bool)
    for a, b in pairs:
        keep &= ~(((species[src] == a) & (species[dst] == b)) | ((species[src] == b) & (species[dst] == a)))
    return src[keep], dst[keep], vec[keep]


def _angles(centre: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every ordered pair (j, k) of short edges that share their centre, j = k too, sorted by j.

    A centre with q short edges owns one block of q × q angles. ``swap`` is the position of (k, j) for each (j, k): read
    as a list it enumerates the angles sorted by k, since the blocks are square.
    """
    count = np.bincount(centre, minlength=n_atoms)
    degree = count[centre]
    first = (np.cumsum(count) - count)[centre]
    block = (np.cumsum(count**2) - count**2)[centre]
    angle_j = np.repeat(np.arange(len(centre)), degree)
    within = np.arange(len(angle_j)) - np.repeat(np.cumsum(degree) - degree, degree)
    angle_k = first[angle_j] + within
    swap = block[angle_j] + within * degree[angle_j] + (angle_j - first[angle_j])
    return angle_j, angle_k, swap


def _ptr(owner: np.ndarray, size: int) -> Tensor:
    ptr = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, minlength=size), out=ptr[1:])
    return torch.from_numpy(ptr)


def _sorted_incidence(owner: np.ndarray, size: int) -> Incidence:
    return Incidence(torch.from_numpy(owner), torch.arange(len(owner)), _ptr(owner, size))


def _incidence(owner: np.ndarray, size: int) -> Incidence:
    order = np.argsort(owner, kind="stable")
    return Incidence(torch.from_numpy(owner), torch.from_numpy(order), _ptr(owner, size))


def _concatenate(parts: Sequence[Incidence]) -> Incidence:
    owners = np.cumsum([0] + [part.size for part in parts])
    rows = np.cumsum([0] + [part.index.shape[0] for part in parts])
    return Incidence(
        index=torch.cat([part.index + int(first) for part, first in zip(parts, owners, strict=False)]),
        order=torch.cat([part.order + int(first) for part, first in zip(parts, rows, strict=False)]),
        ptr=torch.cat([parts[0].ptr[:1]] + [part.ptr[1:] + int(first) for part, first in zip(parts, rows, strict=False)]),
    )
