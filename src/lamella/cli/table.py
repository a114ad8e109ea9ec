"""``lamella table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.terminal import check_output, progress
from lamella.errors import InputError

if TYPE_CHECKING:
    from lamella.use.table.config import PredictionsConfig, SetConfig, SuiteConfig
    from lamella.use.table.result import Table

__all__ = ["table"]


def table(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="Columns. A lamella model as for `lamella eval`, MODEL@TASK for one of its tasks; an ASE calculator, "
            'ase:PATH.Class(key="value"); a file of predictions, predictions:FILE with {set} for the set\'s name.',
        ),
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="NAME=DATA", help="A row: labelled structures. May be repeated.")
    ] = None,
    suite: Annotated[Path | None, typer.Option(help="A YAML file of sets with their weights, and of models.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Energies per element, of every set: refit (zero-shot) or keep (the model's own).")
    ] = None,
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="Write the table to .md, .csv or .json. May be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output, in eV/atom and eV/Å.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; that of each checkpoint where not given.")] = None,
    device: Annotated[str | None, typer.Option(help="For example cpu or cuda:0; the CPU where not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False,
) -> None:
    """Compare models on many labelled sets: RMSE of each, label std, weighted and log-weighted averages, side by side."""
    from lamella.use.table.reference import named, respondents
    from lamella.use.table.run import evaluate_sets
    from lamella.use.table.words import require_suffix, write_table

    for path in out or []:
        require_suffix(path)
        check_output(path, overwrite)
    listed = _suite(suite)
    sets = _sets(listed, on or [], baseline)
    columns = [
        *respondents(_chosen(listed, models), dtype, device),
        *respondents(named(models or []), dtype, device, functions=True),
    ]
    found = evaluate_sets(sets, columns, progress)
    for path in out or []:
        write_table(path, found)
    if as_json:
        from lamella.use.table.words import summary

        print(json.dumps(summary(found), indent=1, ensure_ascii=False, allow_nan=False))
        _require_an_answer(found)
        return
    _print(found)
    for path in out or []:
        print(f"written: {path}")
    _require_an_answer(found)


def _require_an_answer(found: Table) -> None:
    """A table of dashes is no success."""
    cells = [(row.name, name, cell) for row in found.rows for name, cell in row.cells.items()]
    if cells and all(cell.compared is None for _, _, cell in cells):
        row, model, cell = cells[0]
        raise InputError(f"no model answered for any set; {model} on {row}: {cell.why_not}.")


def _suite(path: Path | None) -> SuiteConfig | None:
    from lamella.use.table.config import load_suite

    return None if path is None else load_suite(path)


def _chosen(listed: SuiteConfig | None, models: list[str] | None) -> dict[str, str | PredictionsConfig]:
    """Models of the suite; one of the same name on the command line takes its place."""
    from lamella.use.table.reference import named

    given = named(models or [])
    return {name: model for name, model in (listed.models if listed else {}).items() if name not in given}


def _sets(listed: SuiteConfig | None, on: list[str], baseline: str | None) -> dict[str, SetConfig]:
    """Rows of the suite and of ``--on``, by name; ``--on`` of one name may give several files."""
    from pydantic import ValidationError

    from lamella.use.table.config import BASELINES, SetConfig
    from lamella.use.table.reference import split_name

    if baseline is not None and baseline not in BASELINES:
        raise InputError(f"--baseline {baseline}: there is no such choice; use {' or '.join(BASELINES)}.")
    sets = dict(listed.sets) if listed else {}
    more: dict[str, list[str]] = {}
    for word in on:
        name, path = split_name(word)
        more.setdefault(name, []).append(path)
    for name, paths in more.items():
        if name in sets:
            raise InputError(f"--on {name}: the suite has a set of that name; choose another.")
        try:
            sets[name] = SetConfig(data=tuple(paths))
        except ValidationError as error:
            raise InputError(f"--on {name}: {error.errors()[0]['msg']}; write NAME=DATA.") from None
    if not sets:
        raise InputError("no sets to compare on; give some with --on NAME=DATA, or a file of them with --suite.")
    changed: dict[str, Any] = {} if baseline is None else {"baseline": baseline}
    return {name: config.model_copy(update=changed) for name, config in sets.items()}


def _print(found: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    from lamella.use.table.words import grids, notes

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # nobody folds a file's lines
    for grid in grids(found):
        console.print(grid.title, style="italic", markup=False, highlight=False)
        drawn = Drawn(box=None, pad_edge=False, header_style="bold")
        for index, heading in enumerate(grid.heading):
            drawn.add_column(heading, justify="right" if index else "left", overflow="fold")
        for at, row in enumerate(grid.rows):
            styles = ["bold" if (at, column) in grid.best else "" for column in range(len(row))]
            drawn.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
        console.print(drawn)
        console.print()
    for note in notes(found):
        console.print(note, highlight=False, markup=False)
