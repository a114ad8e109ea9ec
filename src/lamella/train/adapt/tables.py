"""Errors in words and in columns, for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["SHOWN", "error_table", "in_words", "one_error", "some"]

SHOWN: Final = {"energy": ("E", "meV/atom"), "forces": ("F", "meV/Å"), "virial": ("V", "meV/atom")}
"""Letter and unit of each label's error, shown in thousandths."""

_WIDTH: Final = 10


def in_words(errors: Mapping[str, float]) -> str:
    """``E 1.23 meV/atom  F 45.6 meV/Å``."""
    return "  ".join(f"{SHOWN[label][0]} {one_error(label, value)}" for label, value in errors.items())


def one_error(label: str, value: float) -> str:
    """``1.23 meV/atom``."""
    return f"{1e3 * value:.4g} {SHOWN[label][1]}"


def error_table(title: str, rows: Sequence[tuple[str, Mapping[str, float] | None]], indent: int = 10) -> list[str]:
    """A line of titles, then a line for each row: its words, and its errors in columns. One without errors is a heading.

    Args:
        title: above the words.
        rows: words, and RMSE by label in eV/atom and eV/Å.
        indent: spaces before each row; the title has its own.
    """
    labels = [label for label in SHOWN if any(errors and label in errors for _, errors in rows)]
    said = [" " * indent + words for words, _ in rows]
    width = max(map(len, [title, *said]))
    units = [f"{SHOWN[label][0]} {SHOWN[label][1]}".rjust(_WIDTH) for label in labels]
    lines = ["  ".join([f"{title:<{width}}", *units])]
    for words, (_, errors) in zip(said, rows, strict=True):
        shown = [
            (f"{1e3 * errors[label]:.4g}" if label in errors else "").rjust(len(unit))
            for label, unit in zip(labels, units, strict=True)
            if errors is not None
        ]
        lines.append("  ".join([f"{words:<{width}}", *shown]).rstrip())
    return lines


def some(words: Iterable[str], most: int) -> str:
    """The first few of many, and how many more."""
    listed = list(words)
    return ", ".join(listed) if len(listed) <= most + 1 else f"{', '.join(listed[:most])} and {len(listed) - most} more"
