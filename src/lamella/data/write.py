"""One door for every way to write frames: extended XYZ, lamella's store, deepmd-kit's npy, mixed and HDF5.

The target appears only when it is complete. What a format cannot hold is refused, or counted and told; what was read as
which label is in the :class:`lamella.data.keys.ReadReport`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ase.data import chemical_symbols

from lamella.data import extxyz
from lamella.data.keys import LabelKeys, ReadReport, check_named
from lamella.data.read import iter_frames
from lamella.data.store import is_store, write_store
from lamella.data.systems_write import Form, write_systems
from lamella.errors import DataError, InputError
from lamella.types import Frame

__all__ = ["FORMATS", "Written", "format_of", "write_frames"]

FORMATS: Final = ("store", "extxyz", "deepmd/npy", "deepmd/npy/mixed", "deepmd/hdf5")
"""What can be written."""

_SUFFIXES: Final = {".extxyz": "extxyz", ".xyz": "extxyz", ".hdf5": "deepmd/hdf5", ".h5": "deepmd/hdf5"}
_COMPRESSED: Final = (".gz", ".bz2", ".xz")


@dataclass
class Written:
    """What was written.

    Attributes:
        format: one of :data:`FORMATS`.
        frames: number of frames.
        atoms: smallest and largest number of atoms in a frame, and their sum.
        elements: number of frames by chemical symbol, in order of atomic number.
        labels: number of frames by label or input.
        lost: what the format cannot hold and was left out, with the number of frames.
    """

    format: str
    frames: int = 0
    atoms: tuple[int, int, int] = (0, 0, 0)
    elements: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """What a person wants to know of it, one line each."""
        low, high, total = self.atoms
        lines = [
            f"{total} atoms, {low} to {high} in a frame",
            "elements: " + ", ".join(f"{symbol} ({count})" for symbol, count in self.elements.items()),
            "labels: " + (", ".join(f"{name} ({count})" for name, count in sorted(self.labels.items())) or "none"),
        ]
        return lines + [f"not kept: {what} ({count} frames)" for what, count in self.lost.items()]


def format_of(target: Path, format: str | None = None) -> str:
    """The format a target is written in: the one asked for, else what its name says, else a store.

    Raises:
        InputError: a format that lamella does not write.
        DataError: a compressed file.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"lamella does not write {format!r}; choose one of {', '.join(FORMATS)}.")
    if target.suffix in _COMPRESSED:
        raise DataError(f"{target}: lamella writes no compressed files; write FILE.extxyz and compress it afterwards.")
    return format or _SUFFIXES.get(target.suffix.lower(), "store")


def write_frames(
    paths: Sequence[str | os.PathLike[str]],
    target: Path,
    keys: LabelKeys | None = None,
    report: ReadReport | None = None,
    format: str | None = None,
) -> Written:
    """Write the frames of some files as one. Constant memory (deepmd's formats: a few million atoms).

    Args:
        paths: see :func:`lamella.data.read.iter_frames`.
        target: file or folder; a file that exists is replaced, a folder is refused.
        keys: which key is which label; ``None`` guesses all and reports.
        report: where to count the keys used and not used.
        format: one of :data:`FORMATS`; told by the target's name if not given.

    Raises:
        DataError: a frame that cannot be used or held, a named key that no frame has, a folder that exists, or a target
            that cannot be written; nothing is left behind then.
        InputError: a format that lamella does not write.
    """
    own = ReadReport() if report is None else report
    written = Written(format_of(target, format))
    frames = _counted(_frames(paths, keys, own), written)
    if written.format == "store":
        write_store(target, frames)
        return written
    if target.is_dir() or (written.format in ("deepmd/npy", "deepmd/npy/mixed") and target.exists()):
        raise DataError(f"{target} exists already; remove it, or choose another name.")
    scratch = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        if written.format == "extxyz":
            extxyz.write_frames(scratch, frames)
        else:
            write_systems(scratch, frames, _deepmd(written.format), written.lost)
        os.replace(scratch, target)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror or error}); free some space or choose another place."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.unlink(missing_ok=True)
    return written


def _deepmd(format: str) -> Form:
    forms: dict[str, Literal["deepmd/npy", "deepmd/npy/mixed", "deepmd/hdf5"]] = {
        "deepmd/npy": "deepmd/npy",
        "deepmd/npy/mixed": "deepmd/npy/mixed",
        "deepmd/hdf5": "deepmd/hdf5",
    }
    return forms[format]


def _frames(paths: Sequence[str | os.PathLike[str]], keys: LabelKeys | None, report: ReadReport) -> Iterator[Frame]:
    """Every frame; at their end, before the target gets its name, named keys must have occurred."""
    for path in paths:
        yield from iter_frames(path, keys, report=report)
    if keys is not None and not all(is_store(path) for path in paths):
        check_named(keys, report, paths)


def _counted(frames: Iterable[Frame], written: Written) -> Iterator[Frame]:
    elements: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    for frame in frames:
        low, high, total = written.atoms
        written.frames += 1
        written.atoms = (min(low or len(frame), len(frame)), max(high, len(frame)), total + len(frame))
        elements.update(set(frame.numbers.tolist()))
        labels.update(frame.labels.keys())
        yield frame
    written.elements = {chemical_symbols[number]: elements[number] for number in sorted(elements)}
    written.labels = dict(labels)
