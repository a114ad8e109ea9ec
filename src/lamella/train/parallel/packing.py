"""A step's frames divided among processes by cost, so that none waits for the largest of them longer than it must."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

__all__ = ["packed"]


def packed(costs: Sequence[float] | np.ndarray, bins: int) -> np.ndarray:
    """The bin of each item: the costliest first, each into the bin that is emptiest by then (longest processing time first).

    The fullest bin holds at most 4/3 - 1/(3 bins) of what the best division would give it (Graham 1969). Equal costs go
    round the bins in order, so that the division depends on the costs alone.

    Args:
        costs: one for each item.
        bins: how many.

    Returns:
        (n,) int64.
    """
    values = np.asarray(costs, dtype=np.float64)
    chosen = np.zeros(len(values), dtype=np.int64)
    loads = [(0.0, 0, index) for index in range(bins)]  # cost, items, bin
    for item in np.argsort(-values, kind="stable").tolist():
        load, items, index = loads[0]
        chosen[item] = index
        heapq.heapreplace(loads, (load + float(values[item]), items + 1, index))
    return chosen
