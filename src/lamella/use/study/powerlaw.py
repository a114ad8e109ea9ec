"""Power laws through a few points, and how sure they are.

    e(x) = (x / x_c)^(-α)          log e = -α log x + α log x_c

α and x_c by least squares in logarithms. The interval is from the pairs bootstrap (Efron 1979): points are drawn anew with
replacement, draws in which all x are equal again, and the 2.5 % and 97.5 % quantiles of the fitted α are taken. With four or
five points it is rough, and says so by its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

__all__ = ["PowerLaw", "fit_power_law", "frontier"]

_DRAWS: Final = 2000
_SEED: Final = 0


class PowerLaw(NamedTuple):
    """e = c x^-α: α, its 95 % interval (NaN where there are too few points), c, and how many points were fitted."""

    exponent: float
    low: float
    high: float
    coefficient: float
    points: int

    def __call__(self, x: float) -> float:
        """e(x)."""
        return float(self.coefficient * x**-self.exponent)

    @property
    def scale(self) -> float:
        """x_c, at which e is 1; NaN where e does not fall, or where it is beyond all numbers."""
        power = math.log(self.coefficient) / self.exponent if self.exponent > 0 else math.nan
        return math.exp(power) if abs(power) < 700 else math.nan


def fit_power_law(x: Sequence[float], errors: Sequence[float]) -> PowerLaw | None:
    """Through positive points; ``None`` with fewer than two different x."""
    log_x, log_e = np.log(np.asarray(x, float)), np.log(np.asarray(errors, float))
    if len(np.unique(log_x)) < 2:
        return None
    slope, offset = _line(log_x, log_e)
    random = np.random.default_rng(_SEED)
    slopes: list[float] = []
    while len(np.unique(log_x)) > 2 and len(slopes) < _DRAWS:
        drawn = random.integers(len(log_x), size=len(log_x))
        if len(np.unique(log_x[drawn])) > 1:
            slopes.append(-_line(log_x[drawn], log_e[drawn])[0])
    low, high = np.quantile(slopes, [0.025, 0.975]).tolist() if slopes else (math.nan, math.nan)
    return PowerLaw(-slope, low, high, math.exp(offset), len(log_x))


def frontier(x: Sequence[float], errors: Sequence[float]) -> list[int]:
    """Points that no cheaper point beats: positions, by increasing x."""
    found: list[int] = []
    best = math.inf
    for index in sorted(range(len(x)), key=lambda index: (x[index], errors[index])):
        if errors[index] < best:
            best = errors[index]
            found.append(index)
    return found


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset by least squares."""
    centred = x - x.mean()
    slope = float(centred @ (y - y.mean()) / (centred @ centred))
    return slope, float(y.mean() - slope * x.mean())
