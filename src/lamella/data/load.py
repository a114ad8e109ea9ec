"""From frames to batches: neighbour lists, angles and label tensors, made in worker processes while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from lamella.data.source import Frames
from lamella.data.workers import run_in_order
from lamella.fields import FIELDS
from lamella.geometry.graph import build_graph, collate, frame_input
from lamella.types import Batch, Frame, GraphSpec

__all__ = ["Choice", "Plan", "Share", "batches", "check_inputs", "make_batch"]


class Choice(NamedTuple):
    """Frames of one task that are looked at together.

    Attributes:
        task: name.
        indices: (n,) of its frames; none at all where another process looks at them.
    """

    task: str
    indices: np.ndarray


class Share(NamedTuple):
    """A choice, read: what a process trains or judges one task on.

    Attributes:
        task: name.
        batch: its frames; None where there is none for this process.
    """

    task: str
    batch: Batch | None


Plan = Callable[[int], Sequence[Choice]]
"""What each step looks at; a function of the step alone. Picklable where processes are spawned."""


def make_batch(frames: Sequence[Frame], spec: GraphSpec) -> Batch:
    """Frames of any size, periodic or not, as one batch on the CPU.

    Args:
        frames: at least one.
        spec: which graph the model reads.

    Returns:
        the batch; its labels are those that at least one frame carries.

    Raises:
        StructureError: naming the frame no graph can be built of.
    """
    graph = collate([build_graph(frame, spec) for frame in frames])
    labels: dict[str, torch.Tensor] = {}
    carries: dict[str, torch.Tensor] = {}
    for name, field in FIELDS.items():
        has = [name in frame.labels for frame in frames]
        if not any(has):
            continue
        parts = [_label(frame, name) for frame in frames]
        labels[name] = torch.from_numpy(np.concatenate(parts) if field.owner == "atom" else np.stack(parts))
        carries[name] = torch.tensor(has)
    return Batch(graph, labels, carries, tuple(frame.source for frame in frames))


def check_inputs(frames: Frames, spec: GraphSpec) -> None:
    """Refuse, before the first step, frames that lack what the model reads beside the geometry.

    Raises:
        StructureError: naming the first such frame and what it lacks.
    """
    if not spec.inputs:
        return
    for index in range(len(frames)):
        frame = frames[index]
        for wanted in spec.inputs:
            frame_input(frame, wanted)


def batches(
    frames: Mapping[str, Frames], plan: Plan, spec: GraphSpec, steps: Sequence[int], workers: int
) -> Generator[list[Share]]:
    """What a plan chooses at each of some steps: the same, in the same order, for any number of workers.

    Args:
        frames: by task.
        plan: which of them a step looks at.
        spec: which graph the model reads.
        steps: e.g. a ``range``.
        workers: processes that build batches ahead; 0 builds them here.

    Raises:
        StructureError: naming the frame no graph can be built of.
    """
    yield from run_in_order(_MakeBatches(frames, plan, spec), steps, workers)


def _label(frame: Frame, name: str) -> np.ndarray:
    field = FIELDS[name]
    if name in frame.labels:
        return np.asarray(frame.labels[name], dtype=np.float64)
    return np.zeros((len(frame), *field.shape) if field.owner == "atom" else field.shape)


class _MakeBatches:
    """The shares of a step; an object rather than a closure, so that it can be sent to a spawned process."""

    def __init__(self, frames: Mapping[str, Frames], plan: Plan, spec: GraphSpec) -> None:
        self.frames = frames
        self.plan = plan
        self.spec = spec

    def __call__(self, step: int) -> list[Share]:
        return [Share(task, self._batch(task, indices)) for task, indices in self.plan(step)]

    def _batch(self, task: str, indices: np.ndarray) -> Batch | None:
        frames = self.frames[task]
        return make_batch([frames[int(index)] for index in indices], self.spec) if len(indices) else None
