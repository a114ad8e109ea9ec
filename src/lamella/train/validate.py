"""Validation: errors over the tasks' validation frames, and the score by which the best step is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lamella.data.load import Share
from lamella.fields import LABELS
from lamella.models.potential import Potential
from lamella.train.loss import LossConfig, frame_terms
from lamella.train.metrics import ErrorSums
from lamella.train.parallel.ranks import ALONE, Ranks
from lamella.types import Batch, Prediction

__all__ = ["Judgement", "validate"]


class Judgement:
    """Adds up what one task's validation frames say."""

    def __init__(self, loss: LossConfig) -> None:
        """``loss``: of the task; the score is this loss at its judging prefactors."""
        self.loss = loss
        self.errors = ErrorSums()
        self._terms = torch.zeros(len(LABELS), 2, dtype=torch.float64)  # sum of ℓ, frames

    def add(self, prediction: Prediction, batch: Batch) -> None:
        """Take in one batch."""
        self.errors.add(prediction, batch)
        for name, term in frame_terms(prediction, batch, self.loss).items():
            self._terms[LABELS.index(name)] += torch.stack([term.total, term.frames.double()]).cpu()

    def pooled(self, ranks: Ranks) -> Judgement:
        """With what the other processes saw; this object."""
        self.errors.pooled(ranks)
        ranks.sum(self._terms)
        return self

    def result(self) -> dict[str, float]:
        """RMSE and MAE of every label (:class:`lamella.train.metrics.ErrorSums`), ``frames`` and ``score``."""
        return {"frames": self.errors.frames, "score": self._score(), **self.errors.result()}

    def _score(self) -> float:
        """The loss at its judging prefactors: the same measure throughout a run."""
        mean = _mean(self._terms)
        return sum(prefactor * mean[LABELS.index(name)] for name, prefactor in self.loss.judging().items())


def validate(
    potential: Potential, batches: Iterable[Sequence[Share]], losses: Mapping[str, LossConfig], ranks: Ranks = ALONE
) -> dict[str, dict[str, float]]:
    """By task: RMSE and MAE of every label (:class:`lamella.train.metrics.ErrorSums`), ``frames`` and ``score``.

    Args:
        potential: with the weights to judge.
        batches: every validation frame of every task once, over all processes.
        losses: by task.
        ranks: who judges together.
    """
    judged = {name: Judgement(loss) for name, loss in losses.items()}
    for task, batch in (share for shares in batches for share in shares):
        if batch is not None:
            placed = batch.to(potential.device)
            judged[task].add(potential(placed.graph, task), placed)
    return {name: judgement.pooled(ranks).result() for name, judgement in judged.items()}


def _mean(terms: Tensor) -> list[float]:
    return (terms[:, 0] / terms[:, 1].clamp(min=1)).tolist()
