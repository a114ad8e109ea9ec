"""Validation: errors over a task's validation frames, and the score by which the best step is chosen."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lamella.models.potential import Potential
from lamella.train.loss import LossConfig, Term, frame_terms
from lamella.train.metrics import ErrorSums
from lamella.types import Batch

__all__ = ["score", "validate"]


def validate(potential: Potential, task: str, batches: Iterable[Batch], loss: LossConfig) -> dict[str, float]:
    """RMSE and MAE of every label (:class:`lamella.train.metrics.ErrorSums`), ``frames`` and ``score``.

    Args:
        potential: with the weights to judge.
        task: whose labels.
        batches: every validation frame once.
        loss: the score is this loss at its judging prefactors.
    """
    errors = ErrorSums()
    sums: dict[str, Term] = {}
    for batch in batches:
        placed = batch.to(potential.device)
        prediction = potential(placed.graph, task)
        errors.add(prediction, placed)
        for name, term in frame_terms(prediction, placed, loss).items():
            before = sums.get(name, Term(torch.zeros_like(term.total), torch.zeros_like(term.frames)))
            sums[name] = Term(before.total + term.total, before.frames + term.frames)
    return {"frames": errors.frames, "score": score(sums, loss), **errors.result()}


def score(sums: dict[str, Term], loss: LossConfig) -> float:
    """The loss at its judging prefactors: the same measure throughout a run."""
    prefactors = loss.judging()
    return sum(prefactors[name] * (term.total / term.frames.clamp(min=1)).item() for name, term in sums.items())
