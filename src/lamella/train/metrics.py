"""Errors of predictions: RMSE and MAE of energy per atom, forces, and virial per atom, over what carries the label."""

from __future__ import annotations

import math

from torch import Tensor

from lamella.fields import FIELDS, LABELS
from lamella.types import Batch, Prediction

__all__ = ["ErrorSums"]


class ErrorSums:
    """Adds up squared and absolute errors over batches, pooled over all components of all frames.

    ``energy_*`` in eV/atom, ``forces_*`` in eV/Å per component, ``virial_*`` in eV/atom per component.
    """

    def __init__(self) -> None:
        self._square = dict.fromkeys(LABELS, 0.0)
        self._absolute = dict.fromkeys(LABELS, 0.0)
        self._count = dict.fromkeys(LABELS, 0)
        self.frames = 0

    def add(self, prediction: Prediction, batch: Batch) -> None:
        """Take in one batch; frames without a label do not count for it."""
        self.frames += batch.graph.n_frames
        for name in (label for label in LABELS if label in batch.labels):
            error = _carried_errors(name, getattr(prediction, name), batch)
            self._square[name] += error.square().sum().item()
            self._absolute[name] += error.abs().sum().item()
            self._count[name] += error.numel()

    def result(self) -> dict[str, float]:
        """``energy_rmse``, ``energy_mae``, ``forces_rmse``, ...; nothing for a label that no frame carried."""
        table: dict[str, float] = {}
        for name in LABELS:
            if self._count[name]:
                table[f"{name}_rmse"] = math.sqrt(self._square[name] / self._count[name])
                table[f"{name}_mae"] = self._absolute[name] / self._count[name]
        return table


def _carried_errors(name: str, predicted: Tensor, batch: Batch) -> Tensor:
    error = predicted.double() - batch.labels[name]
    carries_F = batch.carries[name]
    if FIELDS[name].owner == "atom":
        return error[carries_F[batch.graph.frame.index]]
    n_atoms_F = batch.graph.frame.ptr.diff().double()
    return (error / n_atoms_F.reshape(-1, *[1] * (error.dim() - 1)))[carries_F]
