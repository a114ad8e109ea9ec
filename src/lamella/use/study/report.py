"""What a study found: a table, panels of a picture, and sentences; written as Markdown, CSV, PNG and SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel

from lamella import __version__
from lamella.train.state import write_file
from lamella.use.study.chart import Panel, draw
from lamella.use.study.trial import Outcome

__all__ = ["PLUS_MINUS", "QUANTITIES", "Report", "Value", "failures", "spread", "write_report", "write_settings"]

QUANTITIES: Final = {
    "energy": ("energy RMSE, meV/atom", 1000.0),
    "forces": ("force RMSE, meV/Å", 1000.0),
    "virial": ("virial RMSE, meV/atom", 1000.0),
}
"""Heading and factor of each quantity's errors, for people."""

PLUS_MINUS: Final = " ±"
"""Ends the heading of the standard deviation over seeds of the column before it."""

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


def write_settings(config: BaseModel, folder: Path) -> None:
    """Write ``study.yaml``: the settings of a study with every default, which make all of it again."""
    folder.mkdir(parents=True, exist_ok=True)
    content = config.model_dump(mode="json")
    write_file(folder / "study.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def write_report(report: Report, folder: Path, command: str) -> Path:
    """Write ``study.md``, ``table.csv``, ``figure.png`` and ``figure.svg``.

    Returns:
        The page.
    """
    write_file(folder / "table.csv", as_csv(report.rows))
    picture = ""
    if report.panels:
        draw(report.panels, folder / "figure.png", folder / "figure.svg")
        picture = f"![{report.title}](figure.svg)\n\n"
    said = "".join(f"* {sentence}\n" for sentence in report.sentences)
    recipes = " Recipes of all trainings are in `recipes/`, their runs in `runs/`." if (folder / "recipes").is_dir() else ""
    again = f"Made by lamella {__version__}; `{command} study.yaml` makes it again.{recipes} Every error is in `errors/`."
    page = folder / "study.md"
    write_file(page, f"# {report.title}\n\n{markdown(report.rows)}\n{picture}{said}\n{again}\n")
    return page


def markdown(rows: Sequence[Mapping[str, Value]]) -> str:
    """The rows as a table, or as one for each quantity where headings are ``"quantity: model"``."""
    if not rows:
        return ""
    quantities = list(dict.fromkeys(name.partition(": ")[0] for name in rows[0] if ": " in name))
    common = {name: name for name in rows[0] if ": " not in name}
    if not quantities:
        return _grid(rows, common)
    parts = []
    for quantity in quantities:
        own = {name: name.partition(": ")[2] for name in rows[0] if name.startswith(f"{quantity}: ")}
        known = [row for row in rows if any(row[name] is not None for name in own)]
        parts.append(f"**{quantity}**\n\n{_grid(known, common | own)}")
    return "\n".join(parts)


def _grid(rows: Sequence[Mapping[str, Value]], headings: Mapping[str, str]) -> str:
    """Columns by their headings; a standard deviation stands in the cell of its mean."""
    shown = {name: heading for name, heading in headings.items() if not name.endswith(PLUS_MINUS)}

    def written(row: Mapping[str, Value], name: str) -> str:
        deviation = row.get(name + PLUS_MINUS)
        return cell(row[name]) + ("" if deviation is None else f" ± {float(f'{deviation:.2g}'):g}")

    lines = ["| " + " | ".join(_escaped(heading) for heading in shown.values()) + " |", "|---|" + "---:|" * (len(shown) - 1)]
    lines += ["| " + " | ".join(_escaped(written(row, name)) for name in shown) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


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


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence on every trial without errors: none is left out silently."""
    return [
        f"{outcome.trial.name} {'could not be trained' if not name else f'is not evaluated on {name}'}: {why}"
        for outcome in outcomes
        for name, why in outcome.failed.items()
    ]
