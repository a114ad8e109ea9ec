"""Data: ``lamella data lint``, ``lamella data info``, ``lamella data convert``."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cli.terminal import EMBEDDED, check_output

if TYPE_CHECKING:
    from rich.console import Console

    from lamella.data.lint import Finding, LintReport
    from lamella.data.summary import Summary

__all__ = ["convert", "info", "lint"]

Paths = Annotated[
    list[str],
    typer.Argument(help="Files, deepmd folders, file.hdf5#/group, stores, FORMAT:PATH (vasp/outcar:OUTCAR), embedded:NAME."),
]
Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")]
Key = Annotated[str | None, typer.Option(help="The file's key of this label; guessed and reported where not given.")]


def lint(
    paths: Paths,
    as_json: Json = False,
    every: Annotated[bool, typer.Option("--all", help="List every finding, however many are alike.")] = False,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
) -> None:
    """Find what is wrong with labelled structures: which frame of which file. Exit status 1 where there is a problem."""
    from lamella.data.keys import LabelKeys
    from lamella.data.lint import lint as run

    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    report = run([_located(path) for path in paths], keys)
    if as_json:
        content = {
            "problems": len(report.problems),
            "frames": report.frames,
            "keys": report.keys,
            "findings": [asdict(item) for item in report.findings],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _print_findings(report, every)
    if report.problems:
        raise typer.Exit(1)


def info(
    paths: Paths,
    as_json: Json = False,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
) -> None:
    """Describe labelled structures: frames, elements, sizes, labels, their spread, and the keys they were read from."""
    from lamella.data.keys import LabelKeys
    from lamella.data.summary import summarise

    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    summaries = [summarise(_located(path), keys) for path in paths]
    if as_json:
        print(json.dumps([asdict(item) for item in summaries], indent=2, ensure_ascii=False))
        return
    for summary in summaries:
        _print_summary(summary)


def convert(
    paths: Paths,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="FILE.extxyz, FILE.hdf5, a folder; the last path where not given.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="store, extxyz, deepmd/npy, deepmd/npy/mixed, deepmd/hdf5; told by OUT's name, else store."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
) -> None:
    """Write anything readable as a store (random access), extended XYZ or deepmd-kit's data; says what was kept and not."""
    from lamella.data.keys import LabelKeys, ReadReport
    from lamella.data.write import format_of, write_frames
    from lamella.errors import InputError

    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    *inputs, last = paths
    if out is None and not inputs:
        raise InputError(f"{last}: a target is missing; say lamella data convert IN OUT, or name it with --out.")
    target = Path(last) if out is None else out
    format_of(target, form)
    check_output(target, overwrite)
    report = ReadReport()
    written = write_frames([_located(path) for path in (inputs if out is None else paths)], target, keys, report, form)
    print(f"wrote {written.frames} frames to {target} ({written.format})")
    for line in report.lines() + written.lines():
        print(f"  {line}")


def _located(path: str) -> str:
    """The file of ``embedded:NAME``; any other path as it is."""
    if not path.startswith(EMBEDDED):
        return path
    from lamella import datasets

    return str(datasets.path(path.removeprefix(EMBEDDED)))


_ALIKE = 5
"""Findings of one kind and file that are listed before the rest is counted."""


def _print_findings(report: LintReport, every: bool) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # nobody folds a file's lines
    for file in dict.fromkeys([*report.frames, *(item.file for item in report.findings)]):
        console.print(file, style="bold", soft_wrap=True, highlight=False, markup=False)
        if report.keys.get(file):
            console.print(f"  {'; '.join(report.keys[file])}", soft_wrap=True, highlight=False, markup=False)
        found = [item for item in report.findings if item.file == file]
        if found:
            _print_table(console, found, every)
    notes = len(report.findings) - len(report.problems)
    read = f"{sum(report.frames.values())} frames in {len(report.frames)} files"
    print(f"{read}: {len(report.problems)} problems, {notes} notes")


def _print_table(console: Console, found: list[Finding], every: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("frame", "check", "finding", box=None, padding=(0, 1, 0, 2), header_style="dim")
    shown: Counter[tuple[str, str]] = Counter()
    for item in found:
        shown[item.kind, item.severity] += 1
        if every or shown[item.kind, item.severity] <= _ALIKE:
            frame = "all" if item.frame is None else str(item.frame)
            note = "" if item.severity == "problem" else "note: "
            style = "red" if item.severity == "problem" else ""
            table.add_row(Text(frame), Text(item.kind, style), Text(note + item.message))
    console.print(table)
    for (kind, severity), count in shown.items():
        if count > _ALIKE and not every:
            print(f"  and {count - _ALIKE} more {severity}s of the kind '{kind}' (--all lists them)")


def _print_summary(summary: Summary) -> None:
    from rich.console import Console
    from rich.table import Table

    units = {"energy": "eV/atom", "forces": "eV/Å", "virial": "eV/atom", "atom_energy": "eV"}
    low, mean, high = summary.atoms
    table = Table(title=summary.path, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_row("frames", str(summary.frames))
    table.add_row("atoms", f"{low} to {high}, mean {mean:.1f}")
    table.add_row("elements", ", ".join(f"{symbol} ({count})" for symbol, count in summary.elements.items()))
    table.add_row("periodic", ", ".join(f"{flags} ({count})" for flags, count in summary.periodic.items()))
    for name, count in summary.labels.items():
        table.add_row(name, f"{count} frames, std {summary.std[name]:.4g} {units[name]}")
    for name, given in summary.inputs.items():
        spans = (f"{a:g}" if a == b else f"{a:g} to {b:g}" for a, b in zip(given.low, given.high, strict=True))
        table.add_row(name, f"{given.frames} frames, {', '.join(spans)}")
    for line in summary.keys:
        table.add_row("key", line)
    table.add_row("hash", summary.content_hash)
    Console().print(table)
