"""What a study found: a table, panels of a picture, and sentences; written as Markdown, CSV, PNG and SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from lamella.train.state import write_file
from lamella.use.study.chart import Panel, draw
from lamella.use.study.trial import Outcome
from lamella.use.table.averages import AVERAGES

__all__ = ["QUANTITIES", "Report", "averaged", "failures", "spread", "write_report"]

QUANTITIES: Final = {
    "energy": ("energy RMSE, meV/atom", 1000.0),
    "forces": ("force RMSE, meV/Å", 1000.0),
    "virial": ("virial RMSE, meV/atom", 1000.0),
}
"""Heading and factor of each quantity's errors, for people."""

Value = str | float | int | None


@dataclass(frozen=True)
class Report:
    """What a study found.

    Attributes:
        title: heading.
        rows: of the table; every row has the same keys, which are the headings.
        panels: of the picture.
        sentences: what the numbers say, and how they came about.
    """

    title: str
    rows: Sequence[Mapping[str, Value]]
    panels: Sequence[Panel]
    sentences: Sequence[str] = field(default_factory=tuple)


def write_report(report: Report, folder: Path, command: str, config: Mapping[str, object]) -> Path:
    """Write ``study.md``, ``table.csv``, ``figure.png``, ``figure.svg`` and ``study.yaml``, which makes all of it again.

    Returns:
        The page.
    """
    write_file(folder / "table.csv", as_csv(report.rows))
    write_file(folder / "study.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    picture = ""
    if report.panels:
        draw(report.panels, folder / "figure.png", folder / "figure.svg")
        picture = f"![{report.title}](figure.svg)\n\n"
    said = "".join(f"* {sentence}\n" for sentence in report.sentences)
    recipes = " Recipes of all trainings are in `recipes/`, their runs in `runs/`." if (folder / "recipes").is_dir() else ""
    again = f"Made by `{command} study.yaml`, which makes it again.{recipes} Every error is in `errors/`."
    page = folder / "study.md"
    write_file(page, f"# {report.title}\n\n{markdown(report.rows)}\n{picture}{said}\n{again}\n")
    return page


def markdown(rows: Sequence[Mapping[str, Value]]) -> str:
    """The rows as a table."""
    if not rows:
        return ""
    heading = list(rows[0])
    lines = ["| " + " | ".join(heading) + " |", "|---|" + "---:|" * (len(heading) - 1)]
    lines += ["| " + " | ".join(cell(row[name]).replace("|", "\\|") for name in heading) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Mapping[str, Value]]) -> str:
    """The rows with every digit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def cell(value: Value) -> str:
    """Four digits of a number that is none of things counted."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else str(value).removesuffix(".0")


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample where there are several values."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def averaged(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """Average of the columns that are errors (``"quantity: model"``), over the sets on which all models gave the quantity.

    Args:
        rows: a set each, with its ``weight``.
        kind: one of :data:`lamella.use.table.averages.AVERAGES`.
    """
    total: dict[str, Any] = dict.fromkeys(rows[0]) | {"set": kind, "weight": sum(row["weight"] for row in rows)}
    for heading in (name for name in rows[0] if ": " in name):
        alike = [name for name in rows[0] if name.startswith(heading.split(": ")[0] + ": ")]
        shared = [row for row in rows if row["weight"] and all(row[name] is not None for name in alike)]
        if shared:
            total[heading] = AVERAGES[kind]([row[heading] for row in shared], [row["weight"] for row in shared])
    return total


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence on every trial without errors: none is left out silently."""
    return [
        f"{outcome.trial.name} {'could not be trained' if not name else f'is not evaluated on {name}'}: {why}"
        for outcome in outcomes
        for name, why in outcome.failed.items()
    ]
