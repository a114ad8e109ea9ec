"""The table: a row per set, a cell per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamella.use.table.compare import Compared, Labels
from lamella.use.table.config import SetConfig

__all__ = ["Cell", "Row", "Table"]


@dataclass(frozen=True)
class Cell:
    """One model on one set.

    Attributes:
        task: which task answered; None for what has none.
        compared: errors; None where the model could not be evaluated.
        why_not: why it could not.
    """

    task: str | None
    compared: Compared | None
    why_not: str | None = None


@dataclass(frozen=True)
class Row:
    """One set: its settings, its labels, and what each model made of it."""

    name: str
    config: SetConfig
    labels: Labels
    cells: Mapping[str, Cell]

    def rmse(self, model: str, quantity: str) -> float | None:
        """Of a model; ``None`` where it did not give the quantity."""
        compared = self.cells[model].compared
        return compared.scores[quantity].rmse if compared is not None and quantity in compared.scores else None


@dataclass(frozen=True)
class Table:
    """Errors of several models on several sets.

    Attributes:
        models: where each comes from, by its name.
        rows: in the order of the suite.
    """

    models: Mapping[str, str]
    rows: Sequence[Row]

    @property
    def unevaluated(self) -> list[tuple[str, str, str]]:
        """``(set, model, why)`` of every pair without errors."""
        return [
            (row.name, model, cell.why_not)
            for row in self.rows
            for model, cell in row.cells.items()
            if cell.why_not is not None
        ]
