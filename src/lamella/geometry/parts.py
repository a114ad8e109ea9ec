"""A graph in parts: ranges of centres, so that a layer can work on one part at a time; and ranges of frames.

Edges and angles are sorted by centre, so a part is a slice of every array and its sums run over the same rows in the same
order as those of the whole graph.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from lamella.geometry.segment import Slots, slots_of
from lamella.types import Graph, Incidence

__all__ = ["MOST_PARTS", "Part", "parts_of", "take_frames"]

MOST_PARTS: Final = 64
"""Parts are larger rather than more: each hands a gradient back to all atoms, which costs atoms times parts."""


class Part(NamedTuple):
    """Some centres of a graph, all of them or a range.

    Attributes:
        graph: the edges and angles of these centres. Owners of ``src`` and ``short_src`` are the centres of the part,
            counted from 0; ``species``, ``frame`` and the owners of ``dst`` are all atoms of the whole graph.
        centre: (E,) the centre of each edge as an atom of the whole graph.
        slots: places of the edges by centre.
    """

    graph: Graph
    centre: Tensor
    slots: Slots


def parts_of(graph: Graph, rows: int | None) -> list[Part]:
    """The graph as parts of about ``rows`` edges and angles together; one part, the graph itself, for ``None``.

    A part has at least one centre, however many rows that has, and there are at most :data:`MOST_PARTS`.
    """
    if rows is None or graph.n_atoms == 0:
        return [Part(graph, graph.src.index, slots_of(graph.src))]
    ends = _ends(graph, rows)
    firsts = [0, *ends[:-1]]
    marks = torch.tensor([0, *ends], device=graph.vec.device)
    # where the edges, short edges and angles of each range begin, in one transfer each
    edges = graph.src.ptr[marks]
    shorts = graph.short_src.ptr[marks]
    angles = graph.angle_j.ptr[shorts] if graph.n_angles else torch.zeros_like(shorts)
    table = torch.stack([edges, shorts, angles]).tolist()
    return [
        _part(graph, (first, end), *((column[k], column[k + 1]) for column in table))
        for k, (first, end) in enumerate(zip(firsts, ends, strict=True))
    ]


def _ends(graph: Graph, rows: int) -> list[int]:
    """Where each range of centres ends."""
    until = graph.src.ptr[1:].clone()  # rows of all centres up to each
    if graph.n_angles:
        until += graph.angle_j.ptr[graph.short_src.ptr[1:]]
    until = until.cpu()
    rows = max(rows, -(-int(until[-1]) // MOST_PARTS))
    ends: list[int] = []
    first, done = 0, 0
    while first < graph.n_atoms:
        end = max(first + 1, int(torch.searchsorted(until, done + rows, right=True)))
        ends.append(end)
        first, done = end, int(until[end - 1])
    return ends


def _part(
    graph: Graph, atoms: tuple[int, int], edges: tuple[int, int], short: tuple[int, int], angles: tuple[int, int]
) -> Part:
    e, q, a = slice(*edges), slice(*short), slice(*angles)
    owners_of_short = slice(short[0], short[1] + 1)
    centre = graph.src.index[e]
    src = _sorted(centre - atoms[0], graph.src.ptr[atoms[0] : atoms[1] + 1] - edges[0])
    angle_ptr = graph.angle_j.ptr[owners_of_short] - angles[0]
    part = Graph(
        species=graph.species,
        frame=graph.frame,
        src=src,
        dst=_by_neighbor(graph.dst.index[e], graph.n_atoms),
        vec=graph.vec[e],
        short=graph.short[q] - edges[0],
        short_src=_sorted(graph.short_src.index[q] - atoms[0], graph.short_src.ptr[atoms[0] : atoms[1] + 1] - short[0]),
        short_dst=_by_neighbor(graph.short_dst.index[q], graph.n_atoms),
        angle_j=_sorted(graph.angle_j.index[a] - short[0], angle_ptr),
        angle_k=Incidence(graph.angle_k.index[a] - short[0], graph.angle_k.order[a] - angles[0], angle_ptr),
        inputs=graph.inputs,
    )
    return Part(part, centre, slots_of(src))


def _sorted(owner: Tensor, ptr: Tensor) -> Incidence:
    return Incidence(owner, torch.arange(len(owner), device=owner.device), ptr)


def _by_neighbor(owner: Tensor, n_atoms: int) -> Incidence:
    count = torch.bincount(owner, minlength=n_atoms)
    return Incidence(owner, owner.argsort(stable=True), torch.cat([count.new_zeros(1), count.cumsum(0)]))


def take_frames(graph: Graph, first: int, end: int) -> Graph:
    """The frames ``first`` to ``end`` (exclusive) of a batch as a graph of their own."""
    mark = torch.tensor([first, end], device=graph.vec.device)
    atoms = graph.frame.ptr[mark]
    edges, shorts = graph.src.ptr[atoms], graph.short_src.ptr[atoms]
    angles = graph.angle_j.ptr[shorts]
    n, e, q, a = (tuple(pair) for pair in torch.stack([atoms, edges, shorts, angles]).tolist())
    return Graph(
        species=graph.species[slice(*n)],
        frame=_taken(graph.frame, n, (first, end)),
        src=_taken(graph.src, e, n),
        dst=_taken(graph.dst, e, n),
        vec=graph.vec[slice(*e)],
        short=graph.short[slice(*q)] - e[0],
        short_src=_taken(graph.short_src, q, n),
        short_dst=_taken(graph.short_dst, q, n),
        angle_j=_taken(graph.angle_j, a, q),
        angle_k=_taken(graph.angle_k, a, q),
        inputs={name: value[first:end] for name, value in graph.inputs.items()},
    )


def _taken(incidence: Incidence, rows: tuple[int, int], owners: tuple[int, int]) -> Incidence:
    """Rows and owners of whole frames: those of a frame follow each other in every array."""
    return Incidence(
        incidence.index[slice(*rows)] - owners[0],
        incidence.order[slice(*rows)] - rows[0],
        incidence.ptr[owners[0] : owners[1] + 1] - rows[0],
    )
