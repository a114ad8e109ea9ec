"""What commands share: progress on a terminal or in plain lines, output files nobody overwrites, structures by name."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from lamella.errors import DataError, InputError

if TYPE_CHECKING:
    from ase import Atoms

    from lamella.data.keys import LabelKeys
    from lamella.data.source import Frames

__all__ = ["EMBEDDED", "Megabytes", "check_output", "labelled_frames", "progress", "read_structure", "settings"]

EMBEDDED = "embedded:"
"""Prefix of what comes with the package."""

_INDEX = re.compile(r"-?[0-9]+")

Settings = TypeVar("Settings", bound=BaseModel)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar with ETA where standard error is a terminal, else a line every tenth of the way, both there.

    Gives a function that takes how many steps were done since its last call, and what to say of the present one.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    says = TextColumn("{task.fields[says]}")
    counts = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), BarColumn(), *counts, says, console=console) as bar:
        task = bar.add_task(title, total=max(total, 1), says="")
        yield lambda steps, says: bar.update(task, advance=steps, says=says)


class _Lines:
    """Progress without a terminal."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, max(total, 1)
        self.done = self.tenths = 0
        self.start = time.perf_counter()

    def __call__(self, steps: int, says: str) -> None:
        self.done += steps
        tenths = 10 * self.done // self.total
        if tenths == self.tenths:
            return
        self.tenths = tenths
        elapsed = time.perf_counter() - self.start
        left = elapsed * (self.total - self.done) / self.done
        line = f"{self.title} {self.done}/{self.total}  {says}  {elapsed:.1f} s, {left:.1f} s to go"
        print(line.replace("    ", "  "), file=sys.stderr, flush=True)


class Megabytes:
    """Bars of megabytes for files that come in one after the other; each begins when its host answers."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._shown: tuple[str, int | None] | None = None
        self._done = 0

    def __enter__(self) -> Megabytes:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, title: str, done: int, total: int | None) -> None:
        """So many bytes are there now, of so many where the host says so."""
        if (title, total) != self._shown or done // 10**6 < self._done:  # another file or host, or from the beginning again
            self._stack.close()
            self._shown, self._done = (title, total), 0
            self._advance = self._stack.enter_context(progress(f"{title}, MB", (total or 0) // 10**6))
        now = done // 10**6
        if now > self._done:
            self._advance(now - self._done, "" if total else f"{now} MB")
            self._done = now


def check_output(path: Path | None, overwrite: bool) -> None:
    """Refuse, before anything is computed, an output file that exists or has no folder.

    Raises:
        InputError: naming the file.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it, or choose another place.")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: the file exists; choose another name, or say --overwrite.")


def settings(kind: type[Settings], values: Mapping[str, Any], command: str) -> Settings:
    """Options as a configuration.

    Raises:
        RecipeError: naming the option that is out of range.
    """
    from lamella.train.explain import explain

    try:
        return kind(**values)
    except ValidationError as error:
        raise explain(error, kind, values, command) from None


def labelled_frames(paths: list[str], keys: LabelKeys) -> Frames:
    """All frames of files and of ``embedded:NAME[:train|:test]`` data sets, in the order given.

    Raises:
        InputError: what cannot be read, by name.
    """
    from lamella.data.convert import frame_from_atoms
    from lamella.data.source import Chain, FrameList, open_frames

    if not any(path.startswith(EMBEDDED) for path in paths):
        return open_frames(paths, keys)
    from lamella import datasets

    parts: list[Frames] = []
    for path in paths:
        if not path.startswith(EMBEDDED):
            parts.append(open_frames([path], keys))
            continue
        name, _, split = path.removeprefix(EMBEDDED).partition(":")
        listed = datasets.load(name, split or None)
        parts.append(FrameList(frame_from_atoms(atoms, source=f"{path}#{index}") for index, atoms in enumerate(listed)))
    return parts[0] if len(parts) == 1 else Chain(parts)


def read_structure(name: str) -> Atoms:
    """The structure of a file that ASE reads (its last frame, ``FILE@3`` for another), or ``embedded:water_box``.

    Raises:
        DataError: there is no such file, or it holds no structure that ASE can read.
    """
    from ase import Atoms
    from ase.io import read

    from lamella.data import extxyz

    if name.startswith(EMBEDDED):
        from lamella import datasets

        known = name.removeprefix(EMBEDDED)
        return datasets.water_box() if known == "water_box" else datasets.load(known)[-1]
    whole = Path(name).exists()
    path = Path(name if whole else name.rpartition("@")[0] or name)
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path, or try {EMBEDDED}water_box.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; write it again.")
    index = "-1" if whole else name.rpartition("@")[2]
    if path.name.endswith((".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")) and _INDEX.fullmatch(index):
        return extxyz.read_atoms(path, int(index))  # ASE's own stops without a word at a blank line
    try:
        atoms = read(name)
    except Exception as error:  # ASE's readers fail in every way there is
        reason = "no such frame" if isinstance(error, StopIteration) else (str(error).strip().splitlines() or [""])[0]
        reason = reason or type(error).__name__
        raise DataError(f"{name}: ASE cannot read a structure from it ({reason[:200]}); check the file.") from None
    if not isinstance(atoms, Atoms):
        raise DataError(f"{name}: it names {len(atoms)} frames where one is needed; end it with @ and the index of one.")
    if len(atoms) == 0:
        raise DataError(f"{name}: the structure has no atoms; give another frame.")
    return atoms
