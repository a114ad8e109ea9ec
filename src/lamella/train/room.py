"""Memory of a training step: predicted before the first, and a way on where it runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, TypeVar

import torch

from lamella.errors import ResourceError
from lamella.fields import FIELDS
from lamella.geometry.parts import take_frames
from lamella.models.dpa3 import DPA3
from lamella.models.memory import available_memory, footprint, is_out_of_memory, shrink_parts, sizes_of
from lamella.models.potential import Potential
from lamella.types import Batch, Graph

__all__ = ["Room", "cut"]

_SHARE: Final = 0.8
"""Of the memory that is free before the first step, this much may be used."""

_SMALL: Final = 20_000
"""Edges and angles of a batch that fits anywhere. Nothing is predicted for it."""

Result = TypeVar("Result")


class Room:
    """How training stays within memory; the gradient does not depend on it, but for round-off.

    Attributes:
        potential: the model.
        pieces: into how many runs of frames every batch is cut; their gradients are added.
    """

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self.pieces = 1
        self._budget = _SHARE * available_memory(potential.device)
        self._most_rows: int | None = None
        self._warned = False

    def plan(self, graph: Graph) -> str:
        """What a step on a graph will take, for people."""
        return footprint(self.potential, training=True).words(sizes_of(graph), self._budget)

    def _choose_parts(self, graph: Graph) -> None:
        """Work in parts where a step on this graph would take more than the budget."""
        backbone = self.potential.backbone
        if not isinstance(backbone, DPA3):
            return
        small = graph.n_edges + graph.n_angles <= _SMALL
        rows = None if small else footprint(self.potential, training=True).part_rows(sizes_of(graph), self._budget)
        known = [bound for bound in (rows, self._most_rows) if bound is not None]
        backbone.part_rows = min(known) if known else None

    def run(self, work: Callable[[], Result], undo: Callable[[], None], largest: Graph) -> Result:
        """``work()``, again in smaller pieces as often as memory runs out.

        Args:
            work: computes and adds gradients; reads ``pieces``.
            undo: takes back what a failed try has added.
            largest: of the graphs that it works on.

        Raises:
            ResourceError: single frames in the smallest parts are too much.
        """
        self._choose_parts(largest)
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error).splitlines()[0]
            # only here is the traceback gone, and with it the arrays of what failed
            undo()
            if self.potential.device.type == "cuda":
                torch.cuda.empty_cache()
            if self.pieces < largest.n_frames:
                self.pieces *= 2
                self._warn(f"batches are cut into {self.pieces} pieces whose gradients are added")
            elif (rows := shrink_parts(self.potential, largest)) is not None:
                self._most_rows = rows
                self._warn("the model goes on in smaller parts")
            else:
                raise ResourceError(
                    f"not enough memory for a training step of {largest.n_atoms} atoms ({said}); give smaller batches or "
                    "structures, a smaller model, or a machine with more."
                )

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"memory ran out: {what}; gradients do not change. Later cases are not told.", stacklevel=5)


def cut(batch: Batch, pieces: int) -> Iterator[Batch]:
    """A batch as runs of its frames, ``pieces`` of them or one a frame."""
    pieces = min(pieces, batch.graph.n_frames)
    if pieces == 1:
        yield batch
        return
    marks = [batch.graph.n_frames * k // pieces for k in range(pieces + 1)]
    for first, end in pairwise(marks):
        rows = {"atom": slice(*batch.graph.frame.ptr[[first, end]].tolist()), "frame": slice(first, end)}
        yield Batch(
            take_frames(batch.graph, first, end),
            {name: value[rows[FIELDS[name].owner]] for name, value in batch.labels.items()},
            {name: value[first:end] for name, value in batch.carries.items()},
            batch.sources[first:end],
        )
