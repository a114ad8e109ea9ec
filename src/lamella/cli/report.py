"""``lamella report`` and ``lamella demo``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo", "report"]


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, as `lamella train` writes it.")] = Path("run"),
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="Labelled structures to judge the model on: files, folders, stores, embedded:NAME[:train|:test]. "
            "What RUN/eval.json names where not given, else the run's validation data."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Which task labels DATA; needed where the model has several.")] = None,
) -> None:
    """Write RUN/report.html: learning curves, parity plots, errors, the worst structures, dynamics, laws, the manifest."""
    from contextlib import ExitStack

    from lamella.cli.terminal import progress
    from lamella.use.report import write_report

    with ExitStack() as stack:
        advance: Callable[[int, str], None] = _nothing

        def on_progress(done: int, total: int) -> None:
            nonlocal advance
            if done == 1:
                stack.close()
                advance = stack.enter_context(progress("judging the model", total))
            advance(1, "")

        path = write_report(run, data or (), task, on_progress)
    print(f"report: {path}")


def _nothing(steps: int, says: str) -> None:
    """Progress before the number of frames is known."""


def demo(
    run: Annotated[
        Path, typer.Option(help="Folder to write; where it is taken, the next free one (run-2, run-3, ...).")
    ] = Path("run"),
) -> None:
    """The life of a large atomistic model in miniature: two tasks, zero-shot, fine-tuning, dynamics, a page (minutes)."""
    from lamella.cli.terminal import progress
    from lamella.train.stop import Interrupted
    from lamella.use.demo import Show, run_demo

    def line(words: str) -> None:
        print(words, flush=True)

    try:
        run_demo(run, Show(line, progress))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
