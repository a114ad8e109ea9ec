"""From frames to batches: neighbour lists, angles and label tensors, made in worker processes while the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lamella.data.sample import Sampler
from lamella.data.source import Frames
from lamella.data.workers import run_in_order
from lamella.fields import FIELDS
from lamella.geometry.graph import build_graph, collate, frame_input
from lamella.types import Batch, Frame, GraphSpec

__all__ = ["batches", "check_inputs", "make_batch"]


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
    frames: Frames,
    sampler: Sampler,
    spec: GraphSpec,
    first_step: int,
    last_step: int,
    workers: int,
) -> Iterator[Batch]:
    """The batches of steps ``first_step`` to ``last_step - 1``: the same, in the same order, for any number of workers.

    Args:
        frames: what the sampler draws from.
        sampler: which frames make the batch of a step.
        spec: which graph the model reads.
        first_step: from 0.
        last_step: exclusive.
        workers: processes that build batches ahead; 0 builds them here.

    Raises:
        StructureError: naming the frame no graph can be built of.
    """
    steps = range(first_step, last_step)
    yield from run_in_order(_MakeBatch(frames, sampler, spec), steps, workers)


def _label(frame: Frame, name: str) -> np.ndarray:
    field = FIELDS[name]
    if name in frame.labels:
        return np.asarray(frame.labels[name], dtype=np.float64)
    return np.zeros((len(frame), *field.shape) if field.owner == "atom" else field.shape)


class _MakeBatch:
    """The batch of a step; an object rather than a closure, so that it can be sent to a spawned process."""

    def __init__(self, frames: Frames, sampler: Sampler, spec: GraphSpec) -> None:
        self.frames = frames
        self.sampler = sampler
        self.spec = spec

    def __call__(self, step: int) -> Batch:
        return make_batch([self.frames[int(index)] for index in self.sampler.batch(step)], self.spec)
