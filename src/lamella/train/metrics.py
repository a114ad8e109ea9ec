"""Errors of predictions: RMSE and MAE of energy per atom, forces, and virial per atom, over what carries the label."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lamella.fields import FIELDS, LABELS
from lamella.train.parallel.ranks import Ranks
from lamella.types import Batch, Prediction

__all__ = ["ErrorSums"]


class ErrorSums:
    """Adds up squared and absolute errors over batches, pooled over all components of all frames.

    ``energy_*`` in eV/atom, ``forces_*`` in eV/Å per component, ``virial_*`` in eV/atom per component.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(len(LABELS), 3, dtype=torch.float64)  # squares, absolute values, how many
        self._frames = torch.zeros((), dtype=torch.int64)

    @property
    def frames(self) -> int:
        """How many frames were taken in."""
        return int(self._frames)

    def add(self, prediction: Prediction, batch: Batch) -> None:
        """Take in one batch; frames without a label do not count for it."""
        self._frames += batch.graph.n_frames
        for index, name in enumerate(LABELS):
            if name in batch.labels:
                error = _carried_errors(name, getattr(prediction, name), batch)
                count = torch.tensor(error.numel(), dtype=torch.float64, device=error.device)
                self._sums[index] += torch.stack([error.square().sum(), error.abs().sum(), count]).cpu()

    def pooled(self, ranks: Ranks) -> ErrorSums:
        """With what the other processes took in; this object."""
        ranks.sum(self._sums)
        ranks.sum(self._frames)
        return self

    def result(self) -> dict[str, float]:
        """``energy_rmse``, ``energy_mae``, ``forces_rmse``, ...; nothing for a label that no frame carried."""
        table: dict[str, float] = {}
        for name, (square, absolute, count) in zip(LABELS, self._sums.tolist(), strict=True):
            if count:
                table[f"{name}_rmse"] = math.sqrt(square / count)
                table[f"{name}_mae"] = absolute / count
        return table


def _carried_errors(name: str, predicted: Tensor, batch: Batch) -> Tensor:
    error = predicted.double() - batch.labels[name]
    carries_F = batch.carries[name]
    if FIELDS[name].owner == "atom":
        return error[carries_F[batch.graph.frame.index]]
    n_atoms_F = batch.graph.frame.ptr.diff().double()
    return (error / n_atoms_F.reshape(-1, *[1] * (error.dim() - 1)))[carries_F]
