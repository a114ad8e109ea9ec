"""The command line: ``lamella COMMAND``.

Each command is a plain function of a module of this folder; the lists below are all there is. Modules of this folder import
what they run inside their functions, so that ``lamella --help`` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lamella import __version__
from lamella.cli import (
    catalogue,
    check,
    convert,
    data,
    devi,
    explain,
    finetune,
    models,
    project,
    published,
    report,
    study,
    table,
    tasks,
    train,
    use,
)
from lamella.errors import LamellaError, shown

__all__ = ["app", "main"]

_COMMANDS: dict[str, Callable[..., Any]] = {
    "train": train.train,
    "finetune": finetune.finetune,
    "heads": finetune.heads,
    "eval": use.evaluate,
    "table": table.table,
    "md": use.md,
    "relax": use.relax,
    "check": check.check,
    "devi": devi.devi,
    "explain": explain.explain,
    "show": models.show,
    "convert": convert.convert,
    "report": report.report,
    "demo": report.demo,
    "doctor": project.doctor,
}
"""Command by name, in the order of ``lamella --help``."""

_NEEDS_ARGUMENTS = frozenset(_COMMANDS) - {"demo", "doctor", "report", "train"}
"""Commands that without arguments can only print their help."""

_DATA_COMMANDS: dict[str, Callable[..., Any]] = {
    "lint": data.lint,
    "info": data.info,
    "convert": data.convert,
    "list": catalogue.listing,
    "show": catalogue.show,
    "fetch": catalogue.fetch,
}
"""Command of ``lamella data`` by name."""

_MODELS_COMMANDS: dict[str, Callable[..., Any]] = {"list": published.listing, "fetch": published.fetch}
"""Command of ``lamella models`` by name."""

_STUDY_COMMANDS: dict[str, Callable[..., Any]] = {
    "learning-curve": study.learning_curve,
    "tasks": study.tasks,
    "benchmark": study.benchmark,
    "heads": study.heads,
    "ablation": study.ablation,
    "scaling": study.scaling,
    "drift": study.drift,
}
"""Command of ``lamella study`` by name."""


_TASKS_COMMANDS: dict[str, Callable[..., Any]] = {"list": tasks.listing, "add": tasks.add, "drop": tasks.drop}
"""Command of ``lamella tasks`` by name."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lamella {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Large atomistic models: from labelled structures to a trained potential that runs molecular dynamics.

    Å, eV, fs and K throughout; pressure in GPa. `lamella COMMAND --help` explains a command.
    """


def _build() -> typer.Typer:
    root = typer.Typer(
        name="lamella", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    root.callback()(_root)
    for name, command in _COMMANDS.items():
        root.command(name, no_args_is_help=name in _NEEDS_ARGUMENTS)(command)
    group = typer.Typer(no_args_is_help=True, help="Inspect, check, convert and fetch labelled structures.")
    for name, command in _DATA_COMMANDS.items():
        group.command(name, no_args_is_help=name != "list")(command)
    root.add_typer(group, name="data")
    group = typer.Typer(no_args_is_help=True, help="Published checkpoints: which there are, and bringing one here.")
    for name, command in _MODELS_COMMANDS.items():
        group.command(name, no_args_is_help=name != "list")(command)
    root.add_typer(group, name="models")
    group = typer.Typer(no_args_is_help=True, help="The tasks of a model: list them, add one, drop some.")
    for name, command in _TASKS_COMMANDS.items():
        group.command(name, no_args_is_help=True)(command)
    root.add_typer(group, name="tasks")
    group = typer.Typer(
        no_args_is_help=True, help="Comparisons of the papers: a table, a picture and the recipes behind them."
    )
    for name, command in _STUDY_COMMANDS.items():
        group.command(name, no_args_is_help=True)(command)
    root.add_typer(group, name="study")
    return root


app = _build()


def _warning(message: Warning | str, *where: object, **more: object) -> None:
    """A warning on one line: who types a command has no use for a line of the source."""
    print("warning:", shown(str(message), most=100_000), file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line of this process.

    An error that lamella raises on purpose becomes one line ``error: ...`` and exit status 1; a warning becomes one line
    ``warning: ...``; Ctrl-C exits with 130. Any other exception is a defect and keeps its traceback.
    """
    warnings.showwarning = _warning  # type: ignore[assignment]
    try:
        app()
    except LamellaError as error:
        print("error:", "\n".join(shown(line, most=100_000) for line in str(error).split("\n")), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        error.add_note(
            f"This is a defect of lamella {__version__}, not of your input: please report it with the lines above, "
            "the command, and what `lamella doctor` prints."
        )
        raise
