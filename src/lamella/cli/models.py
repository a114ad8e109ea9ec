"""``lamella show``: what a model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.errors import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lamella.models.potential import Potential
    from lamella.types import FrameInput

__all__ = ["show"]


def show(
    model: Annotated[Path, typer.Argument(help="A run or step folder, a deepmd-kit .pt/.pth, or a published model's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a model is: its architecture, size, elements, tasks, cutoffs, units, baselines and origin."""
    from rich.console import Console

    from lamella.formats.load import load

    potential = load(model)
    if as_json:
        print(json.dumps(_everything(potential, model), indent=1, ensure_ascii=False))
        return
    _print(Console(), potential, model)


def _everything(potential: Potential, path: Path) -> dict[str, Any]:
    from lamella.models.bundle import FORMAT, UNITS
    from lamella.models.words import ARCHITECTURES

    backbone = potential.config.backbone
    return {
        "path": str(path),
        "format": FORMAT,
        "architecture": ARCHITECTURES[backbone.kind],
        "parameters": potential.parameter_count(),
        "dtype": str(potential.dtype).removeprefix("torch."),
        "elements": list(potential.elements),
        "tasks": list(potential.tasks),
        "cutoff": potential.cutoff,
        "angle_cutoff": potential.angle_cutoff,
        "cutoffs": [shell._asdict() for shell in backbone.shells],
        "inputs": [item._asdict() for item in potential.graph_spec.inputs],
        "rough": list(backbone.rough),
        "config": potential.config.model_dump(mode="json"),
        "units": UNITS,
        "baseline": {
            task: dict(zip(potential.elements, row, strict=True))
            for task, row in zip(potential.tasks, potential.baseline.tolist(), strict=True)
        },
        "metadata": potential.metadata,
    }


def _print(console: Console, potential: Potential, path: Path) -> None:
    from lamella.models.bundle import UNITS
    from lamella.models.words import ARCHITECTURES, cutoffs, sizes

    config, backbone, head = potential.config, potential.config.backbone, potential.config.head
    heads = "a head each" if len(potential.heads) > 1 else "one head, dataset encoding" if head.task_dim else "one head"
    networks = ", one network per element" if backbone.element_heads else ""
    rows = {
        "architecture": ARCHITECTURES[backbone.kind],
        "sizes": sizes(backbone),
        "parameters": f"{potential.parameter_count():,}",
        "dtype": str(potential.dtype).removeprefix("torch."),
        "cutoffs": cutoffs(backbone),
        "head": f"{'-'.join(str(width) for width in head.hidden)}, {head.activation}{networks}",
        "tasks": f"{', '.join(potential.tasks)} ({heads})",
        "elements": f"{' '.join(potential.elements)} ({len(potential.elements)})",
        "inputs": ", ".join(_input(item) for item in potential.graph_spec.inputs),
        "pairs left out": ", ".join("-".join(pair) for pair in (*config.excluded_pairs, *backbone.excluded_pairs)),
        "atoms left out": " ".join(config.excluded_atoms),
        "not smooth": "; ".join(backbone.rough),
        "units": ", ".join(f"{name} {unit}" for name, unit in UNITS.items()),
    }
    console.print(_table(str(path), {key: value for key, value in rows.items() if value}))
    metadata = dict(potential.metadata)
    card = metadata.pop("card", None)
    if isinstance(card, dict):
        _print_card(console, potential, card)
    console.print(_baselines(potential))
    if metadata:
        console.print(_table("metadata", {key: _short(value) for key, value in metadata.items()}))
    console.print("every hyper-parameter: lamella show --json", style="dim")


def _print_card(console: Console, potential: Potential, card: dict[str, Any]) -> None:
    """The main parts of a model card, as scripts/mini_card.py writes them."""
    from rich.table import Table

    methods = potential.metadata.get("methods")
    tasks = Table(title="tasks", title_justify="left")
    for heading in ("task", "labels", "trained on", "frames", "elements"):
        tasks.add_column(heading, justify="right" if heading == "frames" else "left")
    for name, task in card["tasks"].items():
        label = methods.get(name, "") if isinstance(methods, dict) else ""
        mark = " (default)" if name == potential.metadata.get("default_task") else ""
        elements = task["elements"]
        few = " ".join(elements) if len(elements) < 20 else str(len(elements))
        tasks.add_row(name + mark, label, ", ".join(task["sets"]), f"{task['frames']:,}", few)
    errors = Table(title="errors on frames held out, beside the spread of the labels", title_justify="left")
    for heading in ("task", "set", "frames", "E RMSE, meV/atom", "E std", "F RMSE, meV/Å", "F std"):
        errors.add_column(heading, justify="left" if heading in ("task", "set") else "right")
    for row in card["errors"]:
        figures = (row[key] for key in ("energy_rmse", "energy_std", "forces_rmse", "forces_std"))
        errors.add_row(row["task"], row["set"].replace("_", " "), str(row["frames"]), *(f"{value:.4g}" for value in figures))
    console.print(tasks)
    console.print(errors)
    console.print("not for", style="bold")
    for line in card["not_for"]:
        console.print(f"  {line}", highlight=False)
    console.print(f"licence: {card['licence']}", highlight=False)


def _input(item: FrameInput) -> str:
    default = "needed" if item.default is None else f"default {' '.join(f'{value:g}' for value in item.default)}"
    return f"{item.name} ({item.width}, {default})"


def _table(title: str, rows: dict[str, str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, value in rows.items():
        table.add_row(escape(shown(key)), escape(shown(value, most=100_000)))
    return table


def _baselines(potential: Potential) -> Table:
    """Energy per element and task, a dash for none; elements that no task gives a baseline are counted, not listed."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="baseline, eV per atom", title_justify="left")
    table.add_column("element", style="bold")
    for task in potential.tasks:
        table.add_column(escape(shown(task)), justify="right")
    columns = potential.baseline.t().tolist()
    digits = 6 if len(potential.tasks) <= 4 else 2  # many columns would be cut off at the edge of a terminal
    for symbol, row in zip(potential.elements, columns, strict=True):
        if any(row):
            table.add_row(symbol, *(f"{energy:.{digits}f}" if energy else "–" for energy in row))
    zero = sum(not any(row) for row in columns)
    if zero:
        table.caption = f"{zero} of {len(columns)} elements have no baseline (0 eV)"
    return table


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]} … ({len(text)} characters; --json prints all)"
