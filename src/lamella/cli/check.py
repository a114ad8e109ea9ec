"""``lamella check``: the laws of physics, measured on a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lamella.use.laws import Checks

__all__ = ["check"]


def check(
    model: Annotated[Path, typer.Argument(help="Run folder, step folder, deepmd-kit .pt/.pth file, or published name.")],
    task: Annotated[str | None, typer.Option(help="Check this task only; default: all, keeping the worst.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random structures.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure every law a potential must obey: symmetry, derivatives, smoothness, locality, precision.

    Exit status 1 where a law does not hold.
    """
    from rich.console import Console
    from rich.progress import track

    from lamella.formats.load import load
    from lamella.use.laws import LAWS, Checks, iter_checks

    potential = load(model)
    measured = iter_checks(potential, task, seed)
    progress = Console(stderr=True)
    rows = list(track(measured, "laws", total=len(LAWS), console=progress, transient=True, disable=not progress.is_terminal))
    checks = Checks(tuple(rows))
    if as_json:
        print(json.dumps({"passed": checks.passed, "rows": [row.as_dict() for row in checks.rows]}, indent=1))
    else:
        _print_table(checks, len(potential.tasks) > 1)
    if not checks.passed:
        raise typer.Exit(1)


def _print_table(checks: Checks, with_task: bool) -> None:
    """One line a law; what fails is spelled out below."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "law", "violation", "bound", *(["worst task"] if with_task else []), "measured"):
        table.add_column(heading, justify="right" if heading in ("violation", "bound") else "left", overflow="fold")
    for row in checks.rows:
        mark = "[green]ok[/]" if row.passed else "[red]FAIL[/]"
        where = [row.task] if with_task else []
        table.add_row(mark, row.law, f"{row.violation:.1e}", f"{row.bound:.0e}", *where, row.sentence)
    console = Console()
    console.print(table)
    failed = checks.failed
    count = len(checks.rows)
    console.print(f"{count - len(failed)} of {count} laws hold" + (f"; broken: {', '.join(failed)}." if failed else "."))
