"""What each process looks at: every one draws the same global batch and takes its share of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lamella.data.load import Choice
from lamella.data.sample import Sampler
from lamella.train.draw import TaskDraw
from lamella.train.parallel.packing import packed

__all__ = ["TrainingPlan", "ValidationPlan"]

_LOOKED_AT = 50
"""Steps that the plan's words are about."""


class TrainingPlan:
    """The choices of a training step: one for each draw, in order, also where this process has no frame of it."""

    def __init__(self, draw: TaskDraw, samplers: Mapping[str, Sampler], rank: int = 0, world: int = 1) -> None:
        self.draw = draw
        self.samplers = samplers
        self.rank = rank
        self.world = world

    def __call__(self, step: int) -> Sequence[Choice]:
        """The share of this process."""
        drawn = [Choice(task, self.samplers[task].batch(number)) for task, number in self.draw.draws(step)]
        if self.world == 1:
            return drawn
        holder = packed(self._costs(drawn), self.world)
        parts = np.split(holder, np.cumsum([len(choice.indices) for choice in drawn])[:-1])
        return [Choice(task, indices[part == self.rank]) for (task, indices), part in zip(drawn, parts, strict=True)]

    def lines(self) -> list[str]:
        """For several processes, how well their first steps are divided."""
        if self.world == 1:
            return []
        excess = np.mean([self._excess(step) for step in range(min(_LOOKED_AT, self.draw.steps))])
        return [
            f"ranks     {self.world} processes share every batch by the edges and angles of its frames; the largest share "
            f"is on average {excess:.2f} times the mean"
        ]

    def _excess(self, step: int) -> float:
        """Cost of a step's largest share over the mean of all shares."""
        costs = self._costs([Choice(task, self.samplers[task].batch(number)) for task, number in self.draw.draws(step)])
        loads = np.bincount(packed(costs, self.world), weights=costs, minlength=self.world)
        return float(loads.max() / loads.mean())

    def _costs(self, drawn: Sequence[Choice]) -> np.ndarray:
        """Edges and angles of every frame of the step; one more each, since nothing is free."""
        return np.concatenate([self.samplers[task].costs(indices) for task, indices in drawn]) + 1.0


class ValidationPlan:
    """Every validation frame of every task once, in batches that the processes take in turn.

    Attributes:
        mine: the batches of this process, as the steps of a plan.
    """

    def __init__(self, samplers: Mapping[str, Sampler], rank: int = 0, world: int = 1) -> None:
        self.samplers = samplers
        self.tasks = tuple(samplers)
        self._first = np.cumsum([0, *(len(sampler.batches(0)) for sampler in samplers.values())])
        self.mine = range(rank, int(self._first[-1]), world)

    def __call__(self, item: int) -> Sequence[Choice]:
        """The frames of one batch."""
        which = int(np.searchsorted(self._first, item, side="right")) - 1
        task = self.tasks[which]
        return [Choice(task, self.samplers[task].batch(item - int(self._first[which])))]
