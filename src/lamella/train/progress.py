"""What a person sees of a run: a progress bar with time left and live errors on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

__all__ = ["Display", "Lines", "Silent", "TerminalBar", "make_display", "summary"]

_SHOWN = {"energy_rmse": ("E", "meV/atom", 1e3), "forces_rmse": ("F", "meV/Å", 1e3), "virial_rmse": ("V", "meV/atom", 1e3)}
"""Metric -> (letter, unit shown, factor from eV)."""


class Display(Protocol):
    """Shows the run; a context manager."""

    def line(self, text: str) -> None:
        """Print a line that stays."""

    def record(self, record: dict[str, Any]) -> None:
        """Show a record of the log."""

    def step(self, step: int) -> None:
        """So many steps are made."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(steps: int, tasks: Sequence[str] = ()) -> Display:
    """A bar on a terminal, lines elsewhere."""
    console = Console(file=sys.stdout)
    return TerminalBar(console, steps, tasks) if console.is_terminal else Lines()


def summary(record: dict[str, Any]) -> str:
    """Errors of a record in the units of tables: ``E 1.23 meV/atom  F 45.6 meV/Å``."""
    parts = [
        f"{letter} {record[name] * factor:.4g} {unit}" for name, (letter, unit, factor) in _SHOWN.items() if name in record
    ]
    return "  ".join(parts)


class Lines:
    """A line for each record, for files and pipes."""

    def line(self, text: str) -> None:
        """Print at once: a pipe would hold lines back."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def record(self, record: dict[str, Any]) -> None:
        """One line."""
        self.line(_describe(record))

    def step(self, step: int) -> None:
        """Nothing: lines come with records."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


class Silent:
    """Nothing: of several processes, one talks."""

    def line(self, text: str) -> None:
        """Nothing."""

    def record(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def step(self, step: int) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


class TerminalBar:
    """A rich progress bar with live errors, a row for each task where there are several; validations stay on the screen."""

    def __init__(self, console: Console, steps: int, tasks: Sequence[str] = ()) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[live]}"),
            console=console,
        )
        self._bar = self._progress.add_task("train", total=steps, live="")
        self._rows = dict.fromkeys(tasks, "not drawn yet") if len(tasks) > 1 else {}
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4)

    def line(self, text: str) -> None:
        """Print above the bar."""
        self._live.console.print(text, markup=False, highlight=False)

    def record(self, record: dict[str, Any]) -> None:
        """Training: live, beside the bar or in the task's row below it. Everything else: a line."""
        if record["event"] != "train":
            self.line(_describe(record))
        elif self._rows:
            self._rows[record["task"]] = f"{summary(record)}  step {record['step']}"
        else:
            self._progress.update(self._bar, live=summary(record))

    def step(self, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=step)

    def refresh(self) -> None:
        """Draw now."""
        self._live.refresh()

    def __enter__(self) -> TerminalBar:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for task, live in self._rows.items():
            table.add_row(Text(task, style="bold"), Text(live))
        return Group(self._progress.get_renderable(), table) if self._rows else self._progress.get_renderable()


def _describe(record: dict[str, Any]) -> str:
    event = record["event"]
    if event == "best":
        return f"step {record['step']:>7}  new best, score {record['score']:.5g}"
    extra = f"  loss {record['loss']:.5g}  lr {record['lr']:.3g}" if event == "train" else f"  score {record['score']:.5g}"
    return f"step {record['step']:>7}  {event:5} {record['task']}  {summary(record)}{extra}  {record['seconds']:.0f} s"
