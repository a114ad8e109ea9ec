"""Paths in recipes: files, folders, and data sets that come with the package; and the frames there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from lamella import datasets
from lamella.data.convert import frame_from_atoms
from lamella.data.keys import LabelKeys
from lamella.data.source import Chain, FrameList, Frames, open_frames

__all__ = ["EMBEDDED", "Paths", "absolute", "open_data"]

EMBEDDED: Final = "embedded:"
"""Prefix of a data set that comes with the package."""


def _paths(value: Any) -> Any:
    """One path is a list of one; relative paths become absolute, since the saved recipe is read again from elsewhere."""
    listed = [value] if isinstance(value, str | Path) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError("give at least one path, alone or as a list")
    return [absolute(str(path)) if isinstance(path, str | Path) else path for path in listed]


def absolute(path: str) -> str:
    """The path as it is found from any folder; a format that stands in front stays there."""
    if path.startswith(EMBEDDED):
        return path
    prefix, colon, rest = path.rpartition(":")  # a format may stand in front: vasp/outcar:run/OUTCAR
    if colon and prefix and not Path(path).exists():
        return f"{prefix}:{Path.cwd() / Path(rest).expanduser()}"
    return str(Path.cwd() / Path(path).expanduser())


Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]
"""Files, folders or ``embedded:NAME[:train|:test]``; relative ones are relative to where the command is started."""


def open_data(paths: Sequence[str], keys: LabelKeys | None = None) -> Frames:
    """Frames of files, folders and ``embedded:NAME[:train|:test]``, in the order given.

    Raises:
        DataError: one of them cannot be read.
    """
    parts = [_embedded(path, keys) if path.startswith(EMBEDDED) else open_frames([path], keys) for path in paths]
    return parts[0] if len(parts) == 1 else Chain(parts)


def _embedded(path: str, keys: LabelKeys | None) -> Frames:
    """``embedded:NAME`` or ``embedded:NAME:SPLIT``."""
    name, _, split = path.removeprefix(EMBEDDED).partition(":")
    loaded = datasets.load(name, split or None)
    return FrameList(frame_from_atoms(atoms, keys, f"{path}#{index}") for index, atoms in enumerate(loaded))
