"""Which element of a model a new one is likened to: the nearest in the periodic table."""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import atomic_numbers

__all__ = ["likened"]

_NOBLE = (2, 10, 18, 36, 54, 86, 118)


def likened(symbols: Sequence[str], elements: Sequence[str]) -> dict[str, str | None]:
    """By new symbol the known element of the same group in the nearest period, else the one of nearest group and period."""
    return {
        symbol: min(elements, key=lambda known: _distance(symbol, known)) for symbol in symbols if symbol in atomic_numbers
    } | {symbol: None for symbol in symbols if symbol not in atomic_numbers}


def _distance(a: str, b: str) -> tuple[float, int]:
    (period_a, group_a), (period_b, group_b) = _place(a), _place(b)
    return abs(group_a - group_b) + abs(period_a - period_b), atomic_numbers[b]


def _place(symbol: str) -> tuple[int, int]:
    """Period, and group from 1 to 18; lanthanides and actinides count to group 3."""
    number = atomic_numbers[symbol]
    period = next(index for index, last in enumerate(_NOBLE, start=1) if number <= last)
    first = _NOBLE[period - 2] if period > 1 else 0
    column, length = number - first, _NOBLE[period - 1] - first
    if column <= 2 and not (period == 1 and column == 2):
        return period, column
    return period, max(18 - (length - column), 3)
