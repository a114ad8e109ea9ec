"""``lamella show``: what a model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lamella.models.potential import Potential

__all__ = ["show"]


def show(
    model: Annotated[Path, typer.Argument(help="A run folder (its best step), a step folder, or a deepmd-kit .pt/.pth.")],
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

    return {
        "path": str(path),
        "format": FORMAT,
        "parameters": potential.parameter_count(),
        "dtype": str(potential.dtype).removeprefix("torch."),
        "elements": list(potential.elements),
        "tasks": list(potential.tasks),
        "cutoff": potential.cutoff,
        "angle_cutoff": potential.angle_cutoff,
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

    backbone, head = potential.config.backbone, potential.config.head
    order = 2 if backbone.update_angle else 1
    widths = f"node {backbone.node_dim}, edge {backbone.edge_dim}"
    cutoffs = f"{potential.cutoff:g} Å"
    if backbone.update_angle:
        widths += f", angle {backbone.angle_dim}"
        cutoffs += f", angles {potential.angle_cutoff:g} Å"
    heads = "one head, dataset encoding" if head.task_dim else "a head each" if len(potential.tasks) > 1 else "one head"
    rows = {
        "architecture": f"{backbone.kind}, {backbone.layers} layers, line graph of order {order}",
        "widths": widths,
        "parameters": f"{potential.parameter_count():,}",
        "dtype": str(potential.dtype).removeprefix("torch."),
        "cutoff": f"{cutoffs}; {backbone.switch} switch from {backbone.switch_start:g} Å",
        "head": f"{'-'.join(str(width) for width in head.hidden)}, {head.activation}",
        "tasks": f"{', '.join(potential.tasks)} ({heads})",
        "elements": f"{' '.join(potential.elements)} ({len(potential.elements)})",
        "units": ", ".join(f"{name} {unit}" for name, unit in UNITS.items()),
    }
    console.print(_table(str(path), rows))
    console.print(_baselines(potential))
    if potential.metadata:
        console.print(_table("metadata", {key: _short(value) for key, value in potential.metadata.items()}))
    console.print("every hyper-parameter: lamella show --json", style="dim")


def _table(title: str, rows: dict[str, str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, value in rows.items():
        table.add_row(escape(key), escape(value))
    return table


def _baselines(potential: Potential) -> Table:
    """Energy per element and task; elements that no task gives a baseline are counted, not listed."""
    from rich.table import Table

    table = Table(title="baseline, eV per atom", title_justify="left")
    table.add_column("element", style="bold")
    for task in potential.tasks:
        table.add_column(task, justify="right")
    columns = potential.baseline.t().tolist()
    for symbol, row in zip(potential.elements, columns, strict=True):
        if any(row):
            table.add_row(symbol, *(f"{energy:.6f}" for energy in row))
    zero = sum(not any(row) for row in columns)
    if zero:
        table.caption = f"{zero} of {len(columns)} elements have no baseline (0 eV)"
    return table


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]} … ({len(text)} characters; --json prints all)"
