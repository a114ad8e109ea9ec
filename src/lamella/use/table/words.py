"""The table in words: grids of cells for the terminal and for Markdown, tidy lines for CSV, everything for JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from lamella.errors import InputError
from lamella.use.save import replacing
from lamella.use.table.averages import AVERAGES, average, normalised, own, quantities, shared
from lamella.use.table.config import BASELINES
from lamella.use.table.result import Row, Table

__all__ = ["UNITS", "Grid", "grids", "markdown", "notes", "require_suffix", "summary", "tidy", "write_table"]

UNITS: Final = {"energy": "eV/atom", "forces": "eV/Å", "virial": "eV/atom"}
"""Of errors by quantity, in files that machines read; people read thousandths."""

_TITLES: Final = {"energy": "energy RMSE, meV/atom", "forces": "force RMSE, meV/Å", "virial": "virial RMSE, meV/atom"}
_NONE: Final = "–"
_WORSE: Final = "†"


class Grid(NamedTuple):
    """One quantity: a title, headings, and rows of cells; ``best`` are the (row, column) of the lowest errors."""

    title: str
    heading: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]


def grids(table: Table) -> list[Grid]:
    """One grid a quantity, averages first as in Table 2 of the DPA-2 paper."""
    overall = {model: normalised(table, model) for model in table.models}
    found = [_grid(table, quantity) for quantity in quantities(table)]
    if any(value is not None for value in overall.values()):
        cells = [_NONE if value is None else f"{value:.3f}" for value in overall.values()]
        found.append(Grid("normalised error: 0 perfect, 1 no network", ["", *overall], [["all sets", *cells]], set()))
    return found


def notes(table: Table) -> list[str]:
    """What has to be known to read the numbers, a sentence each."""
    said = []
    for choice in dict.fromkeys(row.config.baseline for row in table.rows):
        names = [row.name for row in table.rows if row.config.baseline == choice]
        which = "" if len(names) == len(table.rows) else f" of {', '.join(names)}"
        said.append(f"Energies{which}: {BASELINES[choice]}.")
    for row in table.rows:
        if row.config.baseline == "refit" and row.config.fit is not None:
            said.append(f"{row.name}: refitted to {row.labels.fitted} other frames ({', '.join(row.config.fit)}).")
        elif row.config.baseline == "refit" and row.labels.few:
            said.append(
                f"{row.name}: energies per element ({row.labels.rank} determined) are fitted to its "
                f"{row.labels.fitted} frames, too few not to flatter every energy error and the standard deviation; name "
                "other frames (fit)."
            )
    said.append(
        "std: of the labels; for energies, of what energies per element leave: the error of a model without a network."
    )
    if any(cell.startswith(_WORSE) or cell.endswith(_WORSE) for grid in grids(table) for row in grid.rows for cell in row):
        said.append(f"{_WORSE} not below std: on this set the model does not generalise.")
    said += _tasks_said(table)
    said += [f"{model} is not evaluated on {name}: {why}." for name, model, why in table.unevaluated]
    for quantity in quantities(table):
        alike, every = len(shared(table, quantity)), sum(quantity in row.labels.counts for row in table.rows)
        if alike < every:
            said.append(
                f"Averages ({quantity}): over {alike} of {every} sets, those of weight above 0 that every model gave."
            )
    return said


def markdown(table: Table) -> str:
    """All of it as Markdown; the lowest error of a row is bold."""
    parts = []
    for grid in grids(table):
        lines = [f"**{grid.title}**", ""]
        lines.append("| " + " | ".join(_escaped(cell) for cell in grid.heading) + " |")
        lines.append("|---|" + "---:|" * (len(grid.heading) - 1))
        for index, row in enumerate(grid.rows):
            cells = [f"**{_escaped(cell)}**" if (index, at) in grid.best else _escaped(cell) for at, cell in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    parts.append("\n".join(f"* {_escaped(note)}" for note in notes(table)))
    return "\n\n".join(parts) + "\n"


def tidy(table: Table) -> list[dict[str, Any]]:
    """One line per set, model and quantity, and per average; errors in eV/atom and eV/Å."""
    lines: list[dict[str, Any]] = []
    for row in table.rows:
        common = {"set": row.name, "weight": row.config.weight, "domain": row.config.domain, "frames": row.labels.frames}
        for quantity in row.labels.counts:
            for model, cell in row.cells.items():
                score = cell.compared.scores.get(quantity) if cell.compared is not None else None
                lines.append(
                    common
                    | {"model": model, "task": cell.task, "quantity": quantity, "unit": UNITS[quantity]}
                    | {"rmse": score.rmse if score else None, "mae": score.mae if score else None}
                    | {"label_std": row.labels.std[quantity], "zero_model": row.labels.zero[quantity]}
                    | {"values": row.labels.counts[quantity], "baseline": row.config.baseline, "why_not": cell.why_not}
                )
    for quantity in quantities(table):
        rows = shared(table, quantity)
        for kind in AVERAGES:
            for model in table.models:
                lines.append(
                    dict.fromkeys(lines[0])
                    | {"set": kind, "model": model, "quantity": quantity, "unit": UNITS[quantity]}
                    | {"frames": sum(row.labels.frames for row in rows), "rmse": average(rows, quantity, model, kind)}
                    | {"label_std": average(rows, quantity, None, kind)}
                )
    return lines


def summary(table: Table) -> dict[str, Any]:
    """Everything, for JSON: eV/atom and eV/Å."""
    averages: dict[str, Any] = {}
    for quantity in quantities(table):
        rows = shared(table, quantity)
        averages[quantity] = {"sets": [row.name for row in rows]}
        for kind in AVERAGES:
            columns = {model: average(rows, quantity, model, kind) for model in table.models}
            averages[quantity][kind] = {"label_std": average(rows, quantity, None, kind), "models": columns}
        averages[quantity]["each over its own sets"] = {
            model: {"sets": len(own(table, quantity, model))}
            | {kind: average(own(table, quantity, model), quantity, model, kind) for kind in AVERAGES}
            for model in table.models
        }
    return {
        "units": UNITS,
        "models": dict(table.models),
        "sets": {row.name: _row_summary(row) for row in table.rows},
        "averages": averages,
        "normalised": {model: normalised(table, model) for model in table.models},
        "notes": notes(table),
    }


def require_suffix(path: Path) -> None:
    """Refuse a file whose name does not say what to write.

    Raises:
        InputError: naming it.
    """
    if path.suffix not in _WRITERS:
        raise InputError(f"{path}: a table is written as {', '.join(_WRITERS)}; choose a name that ends so.")


def write_table(path: Path, table: Table) -> None:
    """Write ``.md``, ``.csv`` or ``.json``; the file appears whole.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    require_suffix(path)
    with replacing(path) as file:
        file.write(_WRITERS[path.suffix](table))


def _csv(table: Table) -> str:
    lines = tidy(table)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _json(table: Table) -> str:
    return json.dumps(summary(table), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


_WRITERS: Final = {".md": markdown, ".csv": _csv, ".json": _json}


def _grid(table: Table, quantity: str) -> Grid:
    rows: list[list[str]] = []
    best: set[tuple[int, int]] = set()

    def put(first: Sequence[str], std: float | None, errors: Sequence[float | None]) -> None:
        known = [error for error in errors if error is not None]
        if len(known) > 1:
            best.update((len(rows), len(first) + 1 + at) for at, error in enumerate(errors) if error == min(known))
        worse = [error is not None and std is not None and error >= std for error in errors]
        cells = [number(error) + (f" {_WORSE}" if bad else "") for error, bad in zip(errors, worse, strict=True)]
        rows.append([*first, number(std), *cells])

    def number(value: float | None) -> str:
        return _NONE if value is None else milli(value)

    alike = shared(table, quantity)
    for kind in AVERAGES:
        errors = [average(alike, quantity, model, kind) for model in table.models]
        put([kind, f"{sum(row.config.weight for row in alike):g}", ""], average(alike, quantity, None, kind), errors)
    for row in table.rows:
        if quantity in row.labels.counts:
            first = [row.name, f"{row.config.weight:g}", str(row.labels.frames)]
            put(first, row.labels.std[quantity], [row.rmse(model, quantity) for model in table.models])
    return Grid(_TITLES[quantity], ["set", "weight", "frames", "std", *table.models], rows, best)


def milli(value: float) -> str:
    """In thousandths, with three digits that count or one decimal."""
    thousand = 1000.0 * value
    return f"{thousand:.1f}" if thousand >= 100.0 else f"{thousand:.2f}" if thousand >= 1.0 else f"{thousand:.3f}"


def _tasks_said(table: Table) -> list[str]:
    """By which task a model with several answers, where that is not the set's name."""
    said = []
    for model in table.models:
        tasks = {row.name: row.cells[model].task for row in table.rows if row.cells[model].task is not None}
        if len(set(tasks.values())) == 1 and len(tasks) > 1:
            said.append(f"{model} answers as its task {next(iter(tasks.values()))}.")
        elif any(task != name for name, task in tasks.items()):
            by_set = ", ".join(f"{task} on {name}" for name, task in tasks.items())
            said.append(f"{model} answers as its task {by_set}.")
    return said


def _row_summary(row: Row) -> dict[str, Any]:
    labels = row.labels
    return {
        "data": list(row.config.data),
        "weight": row.config.weight,
        "domain": row.config.domain,
        "baseline": row.config.baseline,
        "frames": labels.frames,
        "atoms": labels.atoms,
        "elements": list(labels.elements),
        "labels": {
            name: {"std": labels.std[name], "zero_model": labels.zero[name], "count": labels.counts[name]}
            for name in labels.counts
        },
        "refit": {"frames": labels.fitted, "rank": labels.rank, "of": list(row.config.fit or row.config.data)},
        "models": {model: _cell_summary(row, model) for model in row.cells},
    }


def _cell_summary(row: Row, model: str) -> dict[str, Any]:
    cell = row.cells[model]
    if cell.compared is None:
        return {"task": cell.task, "not_evaluated": cell.why_not}
    refit = cell.compared.refit
    return {
        "task": cell.task,
        **{name: asdict(score) for name, score in cell.compared.scores.items()},
        "added_energies": None if refit is None else dict(refit.energies),
    }


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
