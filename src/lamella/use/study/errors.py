"""Errors of several series of models on several sets, side by side: rows of a table, and a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamella.use.study.chart import STD, Line, Panel
from lamella.use.study.report import PLUS_MINUS, QUANTITIES, Value, spread
from lamella.use.study.trial import Outcome
from lamella.use.table.averages import AVERAGES

__all__ = ["average_rows", "averages_said", "error_panel", "error_rows", "given", "mean_error"]


def given(outcomes: Sequence[Outcome]) -> list[str]:
    """Quantities that any outcome has an error of."""
    return [q for q in QUANTITIES if any(q in scores for outcome in outcomes for scores in outcome.scores.values())]


def mean_error(outcomes: Sequence[Outcome], series: str, name: str, quantity: str) -> tuple[float, float | None] | None:
    """RMSE of a series on a set, in units for people: mean and standard deviation over seeds; ``None`` of no model."""
    errors = [o.rmse(name, quantity) for o in outcomes if o.trial.series == series and name in o.trial.sets]
    known = [QUANTITIES[quantity][1] * error for error in errors if error is not None]
    return spread(known) if known else None


def error_rows(
    outcomes: Sequence[Outcome],
    weights: Mapping[str, float],
    series: Sequence[str],
    suffix: str = "",
    extra: Mapping[str, Mapping[str, Value]] | None = None,
) -> list[dict[str, Any]]:
    """A line per set.

    Args:
        outcomes: what the errors are taken from.
        weights: of the sets, by name.
        series: columns.
        suffix: of the names in the column ``set``.
        extra: other columns, by heading and set.
    """
    several = len({outcome.trial.values.get("seed") for outcome in outcomes} - {None}) > 1
    rows: list[dict[str, Any]] = []
    for name, weight in weights.items():
        row: dict[str, Any] = {"set": name + suffix, "weight": weight}
        row |= {heading: column.get(name) for heading, column in (extra or {}).items()}
        for quantity in given(outcomes):
            heading = QUANTITIES[quantity][0]
            row[f"{heading}: std"] = _std(outcomes, name, quantity)
            for each in series:
                mean, deviation = mean_error(outcomes, each, name, quantity) or (None, None)
                row[f"{heading}: {each}"] = mean
                if several:
                    row[f"{heading}: {each}{PLUS_MINUS}"] = deviation
        rows.append(row)
    return rows


def average_rows(rows: Sequence[Mapping[str, Any]], suffix: str = "") -> list[dict[str, Any]]:
    """Averages of the columns that are errors, over the sets on which all models gave the quantity."""
    found = []
    for kind, average in AVERAGES.items():
        total: dict[str, Any] = dict.fromkeys(rows[0]) | {"set": kind + suffix, "weight": sum(row["weight"] for row in rows)}
        for name in (name for name in rows[0] if ": " in name and not name.endswith(PLUS_MINUS)):
            shared = _shared(rows, name.partition(": ")[0])
            if shared:
                total[name] = average([row[name] for row in shared], [row["weight"] for row in shared])
        found.append(total)
    return found


def averages_said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where averages are not over all labelled sets of weight above 0, a sentence a quantity."""
    said = []
    for heading in dict.fromkeys(name.partition(": ")[0] for name in rows[0] if ": " in name):
        labelled = [row for row in rows if row["weight"] and row[f"{heading}: std"] is not None]
        shared = _shared(rows, heading)
        if len(shared) < len(labelled):
            left = ", ".join(row["set"] for row in labelled if row not in shared)
            said.append(f"Averages of {heading}: without {left}, where not every model has an error.")
    return said


def error_panel(
    outcomes: Sequence[Outcome], names: Sequence[str], series: Sequence[str], quantity: str, title: str = "", row: int = 0
) -> Panel:
    """Errors by set, and the standard deviations of the labels below which something was learned."""
    levels = [(name, level) for name in names if (level := _std(outcomes, name, quantity)) is not None]
    lines = [Line(STD, [name for name, _ in levels], [level for _, level in levels], style="bars")] if levels else []
    for each in series:
        known = [(name, found) for name in names if (found := mean_error(outcomes, each, name, quantity)) is not None]
        error = [deviation or 0.0 for _, (_, deviation) in known]
        x, y = [name for name, _ in known], [mean for _, (mean, _) in known]
        lines.append(Line(each, x, y, error if any(error) else None, "apart"))
    return Panel(title, "", QUANTITIES[quantity][0], lines, row)


def _std(outcomes: Sequence[Outcome], name: str, quantity: str) -> float | None:
    found = next((outcome.std[name] for outcome in outcomes if name in outcome.std), {})
    return QUANTITIES[quantity][1] * found[quantity] if quantity in found else None


def _shared(rows: Sequence[Mapping[str, Any]], heading: str) -> list[Mapping[str, Any]]:
    """Sets of weight above 0 with an error of every series."""
    return [
        row
        for row in rows
        if row["weight"]
        and all(
            value is not None
            for name, value in row.items()
            if name.startswith(f"{heading}: ") and not name.endswith(PLUS_MINUS)
        )
    ]
