"""The graph of a structure that moves, from a neighbour list with a skin: the search is done again only when it must be.

Candidates are all pairs within r_c + skin at some reference geometry (x, h). Let F take the reference cell to the present
one, h' = h F, and let u_i = x'_i - x_i F be what the atoms have moved beside it. A pair that is no candidate was farther
apart than r_c + skin, and so is now farther than

    σ_min(F) (r_c + skin) - |u_i| - |u_j|

with σ_min the smallest singular value (L. Verlet, Phys. Rev. 159, 98 (1967), with a cell that may change). While this stays
above r_c with the two largest |u|, no neighbour can be missing. Each time the candidates within r_c are picked by their
present vectors: the graph is that of a fresh search, edge by edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lamella.geometry.graph import frame_input, graph_from_edges, species_index
from lamella.geometry.neighbors import CLOSEST, check_structure, complete_cell, neighbor_images, on_top
from lamella.types import Frame, Graph, GraphSpec

__all__ = ["SKIN", "MovingGraph"]

SKIN: Final = 0.75
"""Å. Water at 300 K moves so far in some 20 steps of 0.5 fs; a third more pairs are looked at in each of them."""


@dataclass(frozen=True)
class _Candidates:
    """Pairs within the cutoff and the skin, and where the atoms were then; what has one row per pair is on the device."""

    positions: np.ndarray
    box: np.ndarray
    pbc: np.ndarray
    src: Tensor
    dst: Tensor
    shift: Tensor  # (P, 3) float64, whole numbers of cell vectors
    offset: Tensor  # (P, 3) Å, shift @ box
    by_neighbor: Tensor  # (P,) the pairs listed by neighbour


class MovingGraph:
    """Graphs of one structure after another, equal to :func:`lamella.geometry.graph.build_graph` of each.

    Any structure may follow any other: a search is due when atoms were added or have moved too far, when the periodicity is
    another, or the cell has changed too much. Everything with a row per edge is made on the device and stays there.

    Attributes:
        searches: how many neighbour searches were done.
    """

    def __init__(self, spec: GraphSpec, device: torch.device | str = "cpu", skin: float = SKIN) -> None:
        """A list without candidates.

        Args:
            spec: what the model reads.
            device: where graphs are wanted.
            skin: Å, how much farther than the cutoff candidates are looked for.
        """
        self.spec, self.device, self.skin = spec, torch.device(device), skin
        self.searches = 0
        self._candidates: _Candidates | None = None

    def __call__(self, frame: Frame) -> Graph:
        """The graph of ``frame``, on the device.

        Raises:
            StructureError: no energy can be given to the structure; the message says why.
        """
        species = species_index(frame.numbers, self.spec.numbers, frame.source)
        check_structure(frame.positions, frame.cell, frame.pbc, frame.source)
        box = complete_cell(frame.cell, frame.pbc)
        known = self._candidates
        if known is None or not self._covers(known, frame, box):
            known = self._candidates = self._search(frame, box)
        src, dst, vec, by_neighbor = self._edges(known, frame, box)
        inputs = {wanted.name: frame_input(frame, wanted) for wanted in self.spec.inputs}
        return graph_from_edges(species, (src, dst, vec), self.spec, inputs, by_neighbor)

    def _covers(self, known: _Candidates, frame: Frame, box: np.ndarray) -> bool:
        """Whether no pair within the cutoff can be missing among the candidates."""
        if len(known.positions) != len(frame) or not np.array_equal(known.pbc, frame.pbc):
            return False
        shrink, moved = 1.0, frame.positions - known.positions
        if not np.array_equal(known.box, box):
            strain = np.linalg.solve(known.box, box)
            shrink = float(np.linalg.svd(strain, compute_uv=False)[-1])
            moved = frame.positions - known.positions @ strain
        lengths2 = np.einsum("ij,ij->i", moved, moved)
        both = np.sqrt(np.partition(lengths2, -2)[-2:]).sum() if len(lengths2) > 1 else 2.0 * np.sqrt(lengths2[0])
        cutoff = self.spec.cutoff
        return bool(shrink * (cutoff + self.skin) - both > cutoff * (1.0 + 1e-9))

    def _search(self, frame: Frame, box: np.ndarray) -> _Candidates:
        self.searches += 1
        reach = self.spec.cutoff + self.skin
        src, dst, shift, _ = neighbor_images(frame.positions, frame.cell, frame.pbc, reach, frame.source)
        src_P, dst_P, shift_P3 = (torch.from_numpy(part).to(self.device) for part in (src, dst, shift.astype(np.float64)))
        offset = _offset(shift_P3, box)
        by_neighbor = dst_P.argsort(stable=True)
        return _Candidates(frame.positions.copy(), box.copy(), frame.pbc.copy(), src_P, dst_P, shift_P3, offset, by_neighbor)

    def _edges(self, known: _Candidates, frame: Frame, box: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centre, neighbour and vector of the candidates within the cutoff, and these listed by neighbour."""
        points = torch.from_numpy(np.ascontiguousarray(frame.positions, dtype=np.float64)).to(self.device)
        offset = known.offset if np.array_equal(known.box, box) else _offset(known.shift, box)
        vec = points.index_select(0, known.dst).sub_(points.index_select(0, known.src)).add_(offset)
        distance2 = torch.linalg.vecdot(vec, vec)
        near = distance2 <= self.spec.cutoff * self.spec.cutoff
        kept = near.nonzero().view(-1)
        if len(kept) and float(distance2.amin()) < CLOSEST**2:
            worst = distance2.argmin()
            raise on_top(frame.source, int(known.src[worst]), int(known.dst[worst]), float(distance2[worst]))
        place = near.cumsum(0).sub_(1)
        listed = known.by_neighbor.masked_select(near.index_select(0, known.by_neighbor))
        src, dst, vec = (part.index_select(0, kept) for part in (known.src, known.dst, vec))
        return src, dst, vec, place.index_select(0, listed)


def _offset(shift_P3: Tensor, box: np.ndarray) -> Tensor:
    return shift_P3 @ torch.from_numpy(box).to(shift_P3.device)
