"""``lamella doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["doctor"]


def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs would be written: its free space is looked at.")] = Path(),
) -> None:
    """Examine the installation and the machine; exit with status 1 where something will not work."""
    from rich.console import Console
    from rich.table import Table

    from lamella.use.doctor import examine

    findings = examine(folder.resolve())
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "found"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.topic, finding.value)
    console = Console()
    console.print(table)
    for finding in findings:
        if finding.advice:
            console.print(f"{marks[finding.verdict]} {finding.topic}: {finding.advice}", soft_wrap=True)
    problems = sum(finding.verdict == "problem" for finding in findings)
    if problems:
        console.print(f"\n{problems} problem{'s' if problems > 1 else ''} to solve, listed above.")
        sys.exit(1)
    console.print("\nNo problems found.")
