"""What a person sees of a run: a progress bar with time left and live errors on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Display", "Lines", "TerminalBar", "make_display", "summary"]

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


def make_display(steps: int) -> Display:
    """A bar on a terminal, lines elsewhere."""
    console = Console(file=sys.stdout)
    return TerminalBar(console, steps) if console.is_terminal else Lines()


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


class TerminalBar:
    """A rich progress bar; training records change its live part, validations stay on the screen."""

    def __init__(self, console: Console, steps: int) -> None:
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

    def line(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def record(self, record: dict[str, Any]) -> None:
        """Training: live beside the bar. Everything else: a line."""
        if record["event"] == "train":
            self._progress.update(self._bar, live=summary(record))
        else:
            self.line(_describe(record))

    def step(self, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=step)

    def __enter__(self) -> TerminalBar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()


def _describe(record: dict[str, Any]) -> str:
    event = record["event"]
    if event == "best":
        return f"step {record['step']:>7}  new best, score {record['score']:.5g}"
    extra = f"  loss {record['loss']:.5g}  lr {record['lr']:.3g}" if event == "train" else f"  score {record['score']:.5g}"
    return f"step {record['step']:>7}  {event:5} {record['task']}  {summary(record)}{extra}  {record['seconds']:.0f} s"
