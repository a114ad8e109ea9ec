"""Which task a step trains: drawn with probability ∝ weight, a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["TaskDraw"]


class TaskDraw:
    """The task of every step, and how often each task was drawn before (which batch of the task it is).

    A task of weight 0 is never drawn and changes nothing for the others. More steps extend the sequence without changing it.
    """

    def __init__(self, weights: Mapping[str, float], steps: int, seed: int) -> None:
        self.names = tuple(name for name, weight in weights.items() if weight > 0)
        share = np.array([weights[name] for name in self.names])
        edges = np.cumsum(share / share.sum())[:-1]
        self._task = np.searchsorted(edges, np.random.default_rng(seed).random(steps), side="right").astype(np.int16)

    def task(self, step: int) -> str:
        """The task trained after ``step`` steps were made."""
        return self.names[self._task[step]]

    def count(self, task: str, step: int) -> int:
        """How many of the first ``step`` steps train ``task``."""
        return int(np.count_nonzero(self._task[:step] == self.names.index(task)))
