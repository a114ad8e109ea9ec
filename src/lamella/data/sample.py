"""Which frames make a batch: packed by frames, atoms, edges and angles, shuffled, a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lamella.data.source import Frames
from lamella.data.workers import run_in_order
from lamella.errors import DataError, RecipeError
from lamella.geometry.neighbors import neighbor_edges

__all__ = ["BatchSpec", "Sampler", "check_has_edges", "frame_costs"]

_OPEN = 32
"""Batches that a frame may still join: first-fit over all of them would take n² steps."""

_UNBOUNDED = int(np.iinfo(np.int64).max)

_CHUNK = 16
"""Frames per work item when costs are counted."""


class BatchSpec(BaseModel):
    """What a batch may hold at most; every bound that is given holds, at least one is.

    ``edges`` and ``angles`` bound memory and time whatever the sizes of the frames; ``frames`` is the batch size of papers.
    ``atoms`` and ``full_atoms`` are deepmd-kit's ``max:N`` and ``auto:N``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    frames: int | None = Field(None, ge=1)
    atoms: int | None = Field(None, ge=1)
    full_atoms: int | None = Field(None, ge=1)
    """A batch with so many atoms or more takes no further frame."""
    edges: int | None = Field(None, ge=1)
    angles: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _bounded(self) -> BatchSpec:
        if all(bound is None for bound in (self.frames, self.atoms, self.full_atoms, self.edges, self.angles)):
            raise ValueError("give at least one of frames, atoms, full_atoms, edges, angles")
        return self

    @property
    def counts_atoms(self) -> bool:
        """Whether the atoms of each frame must be known."""
        return self.atoms is not None or self.full_atoms is not None

    @property
    def counts_edges(self) -> bool:
        """Whether the edges and angles of each frame must be known."""
        return self.edges is not None or self.angles is not None


def frame_costs(frames: Frames, cutoff: float, angle_cutoff: float, workers: int = 0) -> np.ndarray:
    """Directed edges and angles (ordered pairs of short edges of one centre) of each frame, (n, 2) int64.

    Raises:
        StructureError: a frame no graph can be built of.
    """
    n = len(frames)
    starts = range(0, n, _CHUNK)
    parts = list(run_in_order(_Costs(frames, cutoff, angle_cutoff), starts, workers))
    return np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.int64)


def check_has_edges(costs: np.ndarray, cutoff: float) -> None:
    """Refuse data in which no atom of any frame has a neighbour: there is nothing to learn but the baseline.

    Raises:
        DataError: suggesting wrong units.
    """
    if not costs[:, 0].any():
        raise DataError(
            f"no atom of any of the {len(costs)} frames has a neighbour within the cutoff of {cutoff:g} Å; "
            "check the units (positions and cells are in Å), or raise the cutoff."
        )


class _Epoch(NamedTuple):
    """Batch k of an epoch is ``order[start[k]:start[k + 1]]``: two arrays, whatever the number of batches."""

    order: np.ndarray
    start: np.ndarray


class Sampler:
    """Batches of frame indices.

    Every frame occurs once an epoch. Frames are shuffled, then each joins the first open batch it fits in (of the last 32);
    batches come in the order in which they were opened. A frame that alone exceeds a bound is refused: a batch of its own
    would break the promise that a budget makes, and leaving it out would lose it silently. It keeps some 30 bytes a frame.
    """

    def __init__(
        self,
        costs: np.ndarray | int,
        spec: BatchSpec,
        seed: int,
        name: Callable[[int], str] | None = None,
        atoms: np.ndarray | None = None,
    ) -> None:
        """Plan the batches.

        Args:
            costs: (n, 2) edges and angles, see :func:`frame_costs`; the number of frames where neither is bounded.
            spec: bounds.
            seed: of all shuffles.
            name: names a frame in messages, e.g. ``lambda i: frames[i].source``.
            atoms: (n,) atoms of each frame, needed where they are bounded.

        Raises:
            DataError: no frames, or a frame that alone exceeds a bound.
            RecipeError: a bound on edges or angles without costs, or on atoms without their numbers.
        """
        if isinstance(costs, int) and spec.counts_edges:
            raise RecipeError(
                "a batch bounded by edges or angles needs the cost of each frame; count them first (frame_costs)."
            )
        if atoms is None and spec.counts_atoms:
            raise RecipeError("a batch bounded by atoms needs the number of atoms of each frame; count them first.")
        edges = np.zeros((costs, 2), dtype=np.int64) if isinstance(costs, int) else np.asarray(costs, dtype=np.int64)
        if len(edges) == 0:
            raise DataError("there are no frames to draw batches from; give a file that holds some.")
        counts = np.column_stack([np.zeros(len(edges), dtype=np.int64) if atoms is None else atoms, edges]).astype(np.int64)
        self.n = len(counts)
        self.spec = spec
        self.seed = seed
        self._limits = np.array([bound or _UNBOUNDED for bound in (spec.atoms, spec.edges, spec.angles)])
        self._refuse_oversized(counts, name)
        self._counts = counts
        self._plain = not (spec.counts_atoms or spec.counts_edges)
        self._ends: list[int] = []
        self._cached: tuple[int, _Epoch] = (-1, _Epoch(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)))

    def costs(self, indices: np.ndarray) -> np.ndarray:
        """Edges and angles of frames, added; 0 where they were not counted."""
        return np.asarray(self._counts[indices, 1:].sum(axis=1))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """All batches of an epoch (from 0), each an int64 array of frame indices."""
        order, start = self._epoch(epoch)
        return np.split(order, start[1:-1])

    def batch(self, step: int) -> np.ndarray:
        """The batch of a step (from 0): a function of seed and step, so that training resumes where it stopped.

        Where more than frames is bounded, epochs differ in their number of batches, and the first call packs all epochs up
        to that step (about 1 µs a frame and epoch).
        """
        epoch, first = self._locate(step)
        order, start = self._epoch(epoch)
        return order[start[step - first] : start[step - first + 1]]

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return self._locate(step)[0]

    def _locate(self, step: int) -> tuple[int, int]:
        """Epoch of a step, and the first step of that epoch."""
        if self._plain:
            size = -(-self.n // int(self.spec.frames or self.n))
            return step // size, step // size * size
        while not self._ends or self._ends[-1] <= step:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends)).start) - 1)
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        return epoch, self._ends[epoch - 1] if epoch else 0

    def _epoch(self, epoch: int) -> _Epoch:
        if self._cached[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
            self._cached = (epoch, self._split(order) if self._plain else self._pack(order))
        return self._cached[1]

    def _split(self, order: np.ndarray) -> _Epoch:
        return _Epoch(order, np.append(np.arange(0, self.n, int(self.spec.frames or self.n)), self.n))

    def _pack(self, order: np.ndarray) -> _Epoch:
        whole = [*self._limits.tolist(), self.spec.frames or self.n, self.spec.full_atoms or _UNBOUNDED]
        member = np.empty(self.n, dtype=np.int64)  # batch of each frame, in shuffled order
        opened = 0
        left: list[list[int]] = []  # room in the last batches
        for place in range(self.n):
            atoms, edges, angles = self._counts[order[place]].tolist()
            for slot, room in enumerate(left):  # noqa: B007 (which one it was counts after the loop)
                if atoms <= room[0] and edges <= room[1] and angles <= room[2] and room[3] > 0 and room[4] > 0:
                    break
            else:
                slot, room = len(left), list(whole)
                left.append(room)
                opened += 1
            member[place] = opened - len(left) + slot
            for column, cost in enumerate((atoms, edges, angles, 1, atoms)):
                room[column] -= cost
            del left[: max(len(left) - _OPEN, 0)]
        by_batch = np.argsort(member, kind="stable")
        return _Epoch(order[by_batch], np.searchsorted(member[by_batch], np.arange(opened + 1)))

    def _refuse_oversized(self, counts: np.ndarray, name: Callable[[int], str] | None) -> None:
        over = np.argwhere(counts > self._limits)
        if len(over):
            index, column = (int(value) for value in over[0])
            what = ("atoms", "edges", "angles")[column]
            frame = name(index) if name is not None else f"the frame of index {index}"
            raise DataError(
                f"{frame} alone has {counts[index, column]} {what}, more than a batch may hold ({self._limits[column]}); "
                f"raise the bound on {what} to at least {counts[:, column].max()}, or remove the frame."
            )


class _Costs:
    """Costs of a chunk of frames; an object rather than a closure, so that it can be sent to a spawned process."""

    def __init__(self, frames: Frames, cutoff: float, angle_cutoff: float) -> None:
        self.frames = frames
        self.cutoff = cutoff
        self.angle_cutoff = angle_cutoff

    def __call__(self, start: int) -> np.ndarray:
        stop = min(start + _CHUNK, len(self.frames))
        return np.array([self._count(index) for index in range(start, stop)], dtype=np.int64)

    def _count(self, index: int) -> tuple[int, int]:
        frame = self.frames[index]
        src, _, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, self.cutoff, frame.source)
        short = src[np.einsum("ij,ij->i", vec, vec) < self.angle_cutoff**2]
        return len(src), int((np.bincount(short, minlength=1) ** 2).sum())
