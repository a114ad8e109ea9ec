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

Edges = np.ndarray | Tensor


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
    species: np.ndarray | Tensor,
    edges: tuple[Edges, Edges, Edges],
    spec: GraphSpec,
    inputs: Mapping[str, Tensor] | None = None,
    by_neighbor: Tensor | None = None,
) -> Graph:
    """The graph of one frame from its directed edges (src, dst, vec), sorted by ``src``, on the device they are on.

    Args:
        species: (N,) int64.
        edges: centre (E,), neighbour (E,), vector (E, 3) in Å; numpy arrays or tensors.
        spec: what the model reads.
        inputs: (1, width) by name.
        by_neighbor: (E,) the edges listed by neighbour, in order of edges within each, where it is known.
    """
    src, dst, vec = (torch.as_tensor(part) for part in edges)
    device, n_atoms = vec.device, len(species)
    species = torch.as_tensor(species).to(device)
    if spec.excluded_pairs:
        kept = _allowed(species[src], species[dst], spec.excluded_pairs).nonzero().view(-1)
        src, dst, vec = (part.index_select(0, kept) for part in (src, dst, vec))
        by_neighbor = None
    short = src[:0]
    if spec.short_cutoff:
        short = (torch.linalg.vecdot(vec, vec) < spec.short_cutoff * spec.short_cutoff).nonzero().view(-1)
    centre = src.index_select(0, short)
    angle_j, angle_k = _angles(centre, n_atoms) if spec.angles else _no_angles(centre)
    return Graph(
        species=species,
        frame=Incidence(
            torch.zeros_like(species), torch.arange(n_atoms, device=device), torch.tensor([0, n_atoms], device=device)
        ),
        src=_sorted_incidence(src, n_atoms),
        dst=_incidence(dst, n_atoms, by_neighbor),
        vec=vec,
        short=short,
        short_src=_sorted_incidence(centre, n_atoms),
        short_dst=_incidence(dst.index_select(0, short), n_atoms),
        angle_j=angle_j,
        angle_k=angle_k,
        inputs={name: value.to(device) for name, value in (inputs or {}).items()},
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


def _allowed(centre: Tensor, neighbor: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Whether the two species of each edge are no excluded pair, (E,) bool."""
    keep = torch.ones_like(centre, dtype=torch.bool)
    for a, b in pairs:
        keep &= ~(((centre == a) & (neighbor == b)) | ((centre == b) & (neighbor == a)))
    return keep


def _angles(centre: Tensor, n_atoms: int) -> tuple[Incidence, Incidence]:
    """Every ordered pair (j, k) of short edges that share their centre, j = k too, sorted by j: by j, and by k.

    A centre with q short edges owns one block of q × q angles. ``swap`` is the position of (k, j) for each (j, k): read
    as a list it enumerates the angles sorted by k, since the blocks are square.
    """
    count = torch.bincount(centre, minlength=n_atoms)
    degree = count.index_select(0, centre)
    first = (count.cumsum(0) - count).index_select(0, centre)
    ptr = _from_zero(degree.cumsum(0))  # angles of short edge j begin here
    rank = torch.arange(len(centre), device=centre.device) - first
    block = ptr.index_select(0, first)  # angles of its centre begin here
    angle_j = torch.repeat_interleave(degree)
    order = torch.arange(len(angle_j), device=centre.device)
    within = order - ptr.index_select(0, angle_j)
    angle_k = first.index_select(0, angle_j).add_(within)
    swap = (block + rank).index_select(0, angle_j).addcmul_(within, degree.index_select(0, angle_j))
    return Incidence(angle_j, order, ptr), Incidence(angle_k, swap, ptr)


def _no_angles(centre: Tensor) -> tuple[Incidence, Incidence]:
    none = Incidence(centre[:0], centre[:0], centre.new_zeros(len(centre) + 1))
    return none, none


def _ptr(owner: Tensor, size: int) -> Tensor:
    return _from_zero(torch.bincount(owner, minlength=size).cumsum(0))


def _from_zero(ends: Tensor) -> Tensor:
    return torch.nn.functional.pad(ends, (1, 0))


def _sorted_incidence(owner: Tensor, size: int) -> Incidence:
    return Incidence(owner, torch.arange(len(owner), device=owner.device), _ptr(owner, size))


def _incidence(owner: Tensor, size: int, order: Tensor | None = None) -> Incidence:
    return Incidence(owner, owner.argsort(stable=True) if order is None else order, _ptr(owner, size))


def _concatenate(parts: Sequence[Incidence]) -> Incidence:
    owners = np.cumsum([0] + [part.size for part in parts])
    rows = np.cumsum([0] + [part.index.shape[0] for part in parts])
    return Incidence(
        index=torch.cat([part.index + int(first) for part, first in zip(parts, owners, strict=False)]),
        order=torch.cat([part.order + int(first) for part, first in zip(parts, rows, strict=False)]),
        ptr=torch.cat([parts[0].ptr[:1]] + [part.ptr[1:] + int(first) for part, first in zip(parts, rows, strict=False)]),
    )
