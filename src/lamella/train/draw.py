"""Which tasks a step trains: drawn with probability ∝ weight, a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Draw", "TaskDraw"]

_BLOCK = 4096
"""Steps between two counts that are kept."""


class Draw(NamedTuple):
    """One draw: the task, and how many draws of that task came before (which of its batches it is)."""

    task: str
    number: int


class TaskDraw:
    """The tasks of every step, drawn with replacement (DPA-2 paper, S of Eq. 44).

    A task of weight 0 is never drawn and changes nothing for the others. More steps extend the sequence without changing it.
    """

    def __init__(self, weights: Mapping[str, float], steps: int, seed: int, per_step: int = 1) -> None:
        """Draw for all steps.

        Args:
            weights: by task; at least one above 0.
            steps: how many.
            seed: of the draw.
            per_step: tasks a step.
        """
        self.names = tuple(name for name, weight in weights.items() if weight > 0)
        self.steps = steps
        share = np.array([weights[name] for name in self.names])
        self.shares = dict(zip(self.names, (share / share.sum()).tolist(), strict=True))
        edges = np.cumsum(share / share.sum())[:-1]
        rng = np.random.default_rng(seed)
        self._task = np.empty((steps, per_step), dtype=np.int16)
        counts = [np.zeros(len(self.names), dtype=np.int64)]
        for first in range(0, steps, _BLOCK):
            block = self._task[first : first + _BLOCK]
            block[:] = np.searchsorted(edges, rng.random(block.shape), side="right")
            counts.append(counts[-1] + self._tally(block))
        self._counts = counts
        self._offset = np.zeros(len(self.names), dtype=np.int64)

    def go_on(self, step: int, drawn: Mapping[str, int]) -> None:
        """Count from ``drawn`` at ``step``: what a run had drawn there, whatever its weights were until then."""
        before = [drawn.get(name, 0) for name in self.names]
        self._offset = np.array(before, dtype=np.int64) - self._before(step)

    def draws(self, step: int) -> Sequence[Draw]:
        """What is trained after ``step`` steps were made."""
        count = self._before(step) + self._offset
        drawn = []
        for index in self._task[step].tolist():
            drawn.append(Draw(self.names[index], int(count[index])))
            count[index] += 1
        return drawn

    def drawn(self, step: int) -> dict[str, int]:
        """How often each task was drawn in the first ``step`` steps."""
        return dict(zip(self.names, (self._before(step) + self._offset).tolist(), strict=True))

    def _before(self, step: int) -> np.ndarray:
        block = step // _BLOCK
        return np.asarray(self._counts[block] + self._tally(self._task[block * _BLOCK : step]))

    def _tally(self, rows: np.ndarray) -> np.ndarray:
        return np.bincount(rows.reshape(-1), minlength=len(self.names))
