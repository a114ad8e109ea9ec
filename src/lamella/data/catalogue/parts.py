"""The parts of a fetched set: which files each is made of, and writing each as one store or extended XYZ file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from lamella.data.catalogue.entry import Entry, Part
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.write import write_frames

__all__ = ["Converted", "convert", "part_paths"]

_PREFIX = re.compile(r"([a-z0-9_]+(?:/[a-z0-9-]+)*):(.+)")
_ENDINGS = {"store": ".store", "extxyz": ".extxyz"}


class Converted(NamedTuple):
    """One part of a set as one file or store."""

    name: str
    path: Path
    frames: int
    expected: int | None
    """Frames that the catalogue knows of."""
    lines: list[str]
    """Which keys were read, and which not."""


def part_paths(place: Path, part: Part) -> list[str]:
    """The paths of a part that are there, each as every command and recipe takes it (``format:PATH#group``)."""
    found: list[str] = []
    for pattern in part.paths:
        match = _PREFIX.fullmatch(pattern)
        prefix, rest = (f"{match[1]}:", match[2]) if match else ("", pattern)
        name, hash_mark, group = rest.partition("#")
        found += [f"{prefix}{path}{hash_mark}{group}" for path in sorted(place.glob(name))]
    return found


def convert(entry: Entry, place: Path, form: Literal["store", "extxyz"]) -> list[Converted]:
    """Write each part of a set that is there as ``PART.store`` or ``PART.extxyz`` in its folder; those written stay.

    Raises:
        DataError: a frame that cannot be used; that part is not written.
    """
    done: list[Converted] = []
    for name, part in entry.parts.items():
        paths = part_paths(place, part)
        target = place / f"{name}{_ENDINGS[form]}"
        if not paths or target.exists():
            continue
        report = ReadReport()
        written = write_frames(paths, target, LabelKeys(**part.keys) if part.keys else None, report, form)
        done.append(Converted(name, target, written.frames, part.frames, report.lines() + written.lines()))
    return done
