"""Errors of values that arrive in chunks, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Errors", "Tally"]


@dataclass(frozen=True)
class Errors:
    """Errors of one quantity, in its own unit.

    Attributes:
        rmse: root mean square error.
        mae: mean absolute error.
        mean_error: mean of predicted - label; far from zero for an energy whose reference differs from the model's.
        label_std: standard deviation of the labels.
        count: how many values were compared.
    """

    rmse: float
    mae: float
    mean_error: float
    label_std: float
    count: int


class Tally:
    """Adds up errors, and moments of the labels.

    The moments are merged chunk by chunk (Chan, Golub, LeVeque 1979): a large common offset does not cost digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self._signed = self._absolute = self._squared = 0.0
        self._mean = self._spread = 0.0

    def add(self, label: np.ndarray, predicted: np.ndarray) -> None:
        """Two arrays (m,), m > 0."""
        error = predicted - label
        self._signed += float(error.sum())
        self._absolute += float(np.abs(error).sum())
        self._squared += float((error**2).sum())
        mean, total = float(label.mean()), self.count + len(label)
        shift = mean - self._mean
        self._spread += float(((label - mean) ** 2).sum()) + shift**2 * self.count * len(label) / total
        self._mean += shift * len(label) / total
        self.count = total

    def errors(self) -> Errors:
        """What was added up so far; at least one value must have been."""
        return Errors(
            rmse=float(np.sqrt(self._squared / self.count)),
            mae=self._absolute / self.count,
            mean_error=self._signed / self.count,
            label_std=float(np.sqrt(self._spread / self.count)),
            count=self.count,
        )
