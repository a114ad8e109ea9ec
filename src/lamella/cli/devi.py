"""``lamella devi``: model deviation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.terminal import check_output, labelled_frames, progress, settings
from lamella.errors import DataError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from lamella.data.source import Frames
    from lamella.models.potential import Potential
    from lamella.use.deviation import Deviation, DeviationConfig, Member, Spread
    from lamella.use.deviation_files import DeviationTable

__all__ = ["devi"]

_LISTED = 20
"""So many frames are listed; of more, the ten that deviate most."""

_WORST = 10

Key = Annotated[str | None, typer.Option(help="The data's key of this label, for --real-error; guessed where not given.")]


def devi(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL MODEL... DATA",
            help="Models, each as for `lamella eval`, MODEL@TASK for a task of its own; last the structures: a file, a "
            "folder, embedded:NAME[:train|:test]. Labels are not needed.",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="Task of the models named without @TASK.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "--output", "-o", help="Every frame to FILE.csv, .npz, .json, .extxyz, .out (deepmd)."),
    ] = None,
    relative: Annotated[float | None, typer.Option(help="eV/Å: relative force deviations of this level.")] = None,
    relative_virial: Annotated[
        float | None, typer.Option("--relative-v", help="eV/atom: relative virial deviations of this level.")
    ] = None,
    atomic: Annotated[bool, typer.Option("--atomic", help="The force deviation of every atom too.")] = False,
    real_error: Annotated[bool, typer.Option("--real-error", help="RMS error against the labels instead.")] = False,
    frequency: Annotated[int, typer.Option("--frequency", "-f", min=1, help="Steps between two frames of DATA.")] = 1,
    every: Annotated[bool, typer.Option("--all", help="List every frame, however many there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output, in eV/atom and eV/Å.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; that of each checkpoint where not given.")] = None,
    device: Annotated[str | None, typer.Option(help="For example cpu or cuda:0; the CPU where not given.")] = None,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output file that exists.")] = False,
) -> None:
    """Say how far models disagree about each structure: standard deviation of forces, virial and energy over the models."""
    from lamella.data.keys import LabelKeys
    from lamella.use.deviation import DeviationConfig, summarise
    from lamella.use.deviation_files import DeviationTable, write_deviations

    given = {"relative": relative, "relative_virial": relative_virial, "real_error": real_error}
    config = settings(DeviationConfig, given, "lamella devi")
    _check(paths, config, out, atomic and not as_json, overwrite)
    members = _members(paths[:-1], task, dtype, device)
    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    frames = labelled_frames(paths[-1:], keys)
    table = DeviationTable(_measured(members, frames, config), frames, frequency, atomic)
    summary = summarise([each.row() for each in table.found])
    if not summary:
        raise DataError(
            f"{paths[-1]}: no frame carries a label, and --real-error needs them; name their keys, or leave it out."
        )
    if out is not None:
        write_deviations(out, table)
    if as_json:
        print(json.dumps(_everything(paths, members, config, summary, table), indent=1, ensure_ascii=False))
        return
    _print(paths, members, config, summary, table, every)
    if out is not None:
        print(f"every frame: {out}")


def _check(paths: list[str], config: DeviationConfig, out: Path | None, needs_file: bool, overwrite: bool) -> None:
    """Refuse, before anything is computed, what cannot be done."""
    from lamella.use.deviation_files import require_suffix

    if len(paths) < (2 if config.real_error else 3):
        raise InputError(f"{' '.join(paths)}: name two or more models, and behind them the structures.")
    if out is None:
        if needs_file:
            raise InputError("--atomic: a number for every atom goes to a file; name one with --out, or say --json.")
        return
    require_suffix(out)
    check_output(out, overwrite)


def _measured(members: list[Member], frames: Frames, config: DeviationConfig) -> list[Deviation]:
    from lamella.use.deviation import deviations

    found = []
    with progress("predicting", len(frames)) as advance:
        for each in deviations(members, (frames[index] for index in range(len(frames))), config):
            found.append(each)
            advance(1, "")
    return found


def _members(names: list[str], task: str | None, dtype: str | None, device: str | None) -> list[Member]:
    """The models, each file read once; ``@TASK`` at the end of a name that is no file is its task."""
    from lamella.formats.load import load
    from lamella.use.deviation import Member

    loaded: dict[str, Potential] = {}
    members = []
    for name in names:
        path, mark, own = (name, "", "") if Path(name).exists() else name.rpartition("@")
        path = path if mark else name
        if path not in loaded:
            loaded[path] = load(path, device, dtype)
        index = _task_index(loaded[path], path, own if mark else task)
        members.append(Member(loaded[path], loaded[path].tasks[index]))
    return members


def _task_index(potential: Potential, path: str, task: str | None) -> int:
    if task is None and len(potential.tasks) > 1:
        raise InputError(f"{path} has several tasks, {', '.join(potential.tasks)}: write {path}@TASK, or give --task TASK.")
    try:
        return potential.task_index(task)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _everything(
    paths: list[str], members: list[Member], config: DeviationConfig, summary: dict[str, Spread], table: DeviationTable
) -> dict[str, Any]:
    from lamella.use.deviation_files import rows

    return {
        "models": paths[:-1],
        "tasks": [member.task for member in members],
        "data": paths[-1],
        "config": config.model_dump(),
        "units": config.units,
        "summary": {name: asdict(spread) for name, spread in summary.items()},
        "frames": rows(table),
    }


_HEADINGS = {
    "forces_max": ("F max", "forces, largest"),
    "forces_min": ("F min", "forces, least"),
    "forces_mean": ("F mean", "forces, mean"),
    "virial_max": ("W max", "virial, largest"),
    "virial_min": ("W min", "virial, least"),
    "virial_rms": ("W rms", "virial, rms"),
    "energy": ("E", "energy"),
}
"""Heading of a column: short, and in words."""


def _print(
    paths: list[str],
    members: list[Member],
    config: DeviationConfig,
    summary: dict[str, Spread],
    table: DeviationTable,
    every: bool,
) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # nobody folds a file's lines
    what = "root mean square error against the labels of" if config.real_error else "deviation of"
    tasks = ", ".join(dict.fromkeys(str(member.task) for member in members))
    console.print(f"{what} {len(members)} models (task {tasks}) on {paths[-1]}", highlight=False, soft_wrap=True)
    units = {name: _unit(config, name) for name in summary}
    shown = list(range(len(table.found)))
    if len(shown) > _LISTED and not every:
        leading = next(iter(summary))
        shown = sorted(shown, key=lambda index: -(table.found[index].row()[leading] or 0.0))[:_WORST]
    drawn = _table("frame", "step", "atoms", *(_HEADINGS[name][0] for name in summary), "on atom")
    for index in shown:
        each = table.found[index]
        cells = [_cell(each.row()[name], units[name][0]) for name in summary]
        atom = "-" if each.worst_atom is None else str(each.worst_atom)
        drawn.add_row(each.source, str(index * table.frequency), str(each.atoms), *cells, atom)
    console.print(drawn)
    if len(shown) < len(table.found):
        print(f"the {len(shown)} of largest deviation of {len(table.found)} frames; --all lists every frame")
    totals = _table("over the frames", "mean", "median", "90 %", "99 %", "largest", "of frame")
    for name, spread in summary.items():
        factor, unit = units[name]
        numbers = (spread.mean, spread.median, spread.percentile_90, spread.percentile_99, spread.largest)
        title = f"{_HEADINGS[name][0]:<7} {_HEADINGS[name][1]}{unit}"
        totals.add_row(title, *(_cell(value, factor) for value in numbers), str(spread.frame))
    console.print(totals)


def _unit(config: DeviationConfig, name: str) -> tuple[float, str]:
    """What a column is multiplied by on the terminal, and its unit there: thousandths, or none where relative."""
    unit = config.units[name.partition("_")[0]]
    return (1.0, "") if unit == "1" else (1000.0, f", m{unit}")


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _cell(value: float | None, factor: float) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if factor == 1.0 else f"{factor * value:.2f}"
