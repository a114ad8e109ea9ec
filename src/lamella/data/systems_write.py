"""Writing deepmd-kit's data: ``npy`` and ``npy/mixed`` folders, and the same tree in one HDF5 file.

A system holds frames of the same atoms in the same order (mixed: of the same number of atoms), all periodic or none, with
the same labels; frames are grouped accordingly, so their order across groups changes. Numbers are float64, in Å and eV;
virial = -volume × stress, as inside lamella. What deepmd-kit cannot hold is refused or counted, never dropped in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import h5py
import numpy as np
from ase.data import chemical_symbols

from lamella.errors import DataError
from lamella.types import Frame

__all__ = ["Form", "write_systems"]

Form = Literal["deepmd/npy", "deepmd/npy/mixed", "deepmd/hdf5"]

SET_FRAMES: Final = 2000
"""Frames in one set."""

BUFFERED_ATOMS: Final = 5_000_000
"""Atoms in memory over all groups before they are written."""

_FILES: Final = {
    "energy": "energy",
    "forces": "force",
    "virial": "virial",
    "atom_energy": "atom_ener",
    "frame_params": "fparam",
}
"""Label inside lamella -> file; charge and spin go together into charge_spin."""


class _Kind(NamedTuple):
    """What the frames of one system have in common."""

    atoms: bytes | int
    """Atomic numbers in order; their number alone where types are mixed."""
    periodic: bool
    labels: tuple[str, ...]
    width: int
    """Numbers in frame_params."""


class _Sink(Protocol):
    """Where systems go: a folder or an HDF5 file."""

    def words(self, system: str, name: str, words: list[str]) -> None: ...
    def types(self, system: str, types: np.ndarray) -> None: ...
    def mark(self, system: str, name: str) -> None: ...
    def array(self, system: str, part: str, name: str, array: np.ndarray) -> None: ...


def write_systems(target: Path, frames: Iterable[Frame], form: Form, lost: Counter[str]) -> int:
    """Write frames as deepmd-kit's systems below ``target`` (or into it, where it is an HDF5 file), which must not exist.

    Args:
        target: folder or file.
        frames: any iterable.
        form: which of the three.
        lost: counts what could not be kept, by reason.

    Returns:
        the number of frames.

    Raises:
        DataError: a frame that is periodic in some directions only.
        OSError: a target that cannot be written.
    """
    if form == "deepmd/hdf5":
        with h5py.File(target, "w") as root:
            return _Writer(_Hdf5(root), mixed=False, lost=lost).write(frames)
    target.mkdir(parents=True)
    return _Writer(_Folder(target), form == "deepmd/npy/mixed", lost).write(frames)


class _Writer:
    def __init__(self, sink: _Sink, mixed: bool, lost: Counter[str]) -> None:
        self.sink, self.mixed, self.lost = sink, mixed, lost
        self.names: dict[_Kind, str] = {}
        self.used: Counter[str] = Counter()
        self.sets: Counter[str] = Counter()
        self.waiting: dict[_Kind, list[Frame]] = {}
        self.elements: dict[int, int] = {}
        """Atomic number -> type, in the order they are met; mixed systems share it."""

    def write(self, frames: Iterable[Frame]) -> int:
        """All frames, then what belongs to each system as a whole."""
        count = atoms = 0
        for frame in frames:
            kind = self._kind(frame)
            waiting = self.waiting.setdefault(kind, [])
            waiting.append(frame)
            count += 1
            atoms += len(frame)
            if len(waiting) == SET_FRAMES:
                atoms -= sum(len(each) for each in waiting)
                self._flush(kind)
            elif atoms > BUFFERED_ATOMS:
                for each in list(self.waiting):
                    self._flush(each)
                atoms = 0
        for kind in list(self.waiting):
            self._flush(kind)
        for kind, name in self.names.items():
            self._finish(kind, name)
        return count

    def _kind(self, frame: Frame) -> _Kind:
        if frame.pbc.any() != frame.pbc.all():
            raise DataError(
                f"{frame.source}: it is periodic in some directions only, which deepmd-kit's data cannot say; write "
                "extended XYZ or a store, or leave the frame out."
            )
        periodic = bool(frame.pbc.all())
        if not periodic and frame.cell.any():
            self.lost["the cell of a frame without periodicity"] += 1
        both = {"charge", "spin"} <= set(frame.labels)
        if not both and {"charge", "spin"} & set(frame.labels):
            self.lost["a charge without a spin, or a spin without a charge"] += 1
        names = tuple(name for name in _FILES if name in frame.labels) + (("charge",) if both else ())
        width = len(frame.labels["frame_params"]) if "frame_params" in frame.labels else 0
        for number in frame.numbers.tolist():
            self.elements.setdefault(number, len(self.elements))
        return _Kind(len(frame) if self.mixed else frame.numbers.tobytes(), periodic, names, width)

    def _flush(self, kind: _Kind) -> None:
        """Write what waits of one system as a set."""
        frames = self.waiting.pop(kind)
        if kind not in self.names:
            self.names[kind] = self._name(frames[0])
        name = self.names[kind]
        part = f"set.{self.sets[name]:03d}"
        self.sets[name] += 1
        n = len(frames)
        self.sink.array(name, part, "coord", np.stack([frame.positions for frame in frames]).reshape(n, -1))
        if kind.periodic:
            self.sink.array(name, part, "box", np.stack([frame.cell for frame in frames]).reshape(n, 9))
        for label in kind.labels:
            if label == "charge":
                pairs = [[float(frame.labels["charge"]), float(frame.labels["spin"])] for frame in frames]
                self.sink.array(name, part, "charge_spin", np.array(pairs))
                continue
            values = np.stack([frame.labels[label] for frame in frames])
            self.sink.array(name, part, _FILES[label], values if label == "energy" else values.reshape(n, -1))
        if self.mixed:
            types = [[self.elements[number] for number in frame.numbers.tolist()] for frame in frames]
            self.sink.array(name, part, "real_atom_types", np.array(types, dtype=np.int64))

    def _name(self, frame: Frame) -> str:
        """Name of a new system: its formula (mixed: its number of atoms), with a number behind it from the second on."""
        counts = Counter(frame.numbers.tolist())
        own = "".join(f"{chemical_symbols[number]}{counts[number]}" for number in sorted(counts))
        base = str(len(frame)) if self.mixed else own
        self.used[base] += 1
        return base if self.used[base] == 1 else f"{base}.{self.used[base]}"

    def _finish(self, kind: _Kind, name: str) -> None:
        if isinstance(kind.atoms, int):
            elements, types = list(self.elements), np.zeros(kind.atoms, dtype=np.int64)
        else:
            numbers = np.frombuffer(kind.atoms, dtype=np.int64)
            elements = sorted(set(numbers.tolist()))
            types = np.searchsorted(elements, numbers)
        self.sink.types(name, types)
        self.sink.words(name, "type_map.raw", [chemical_symbols[number] for number in elements])
        if not kind.periodic:
            self.sink.mark(name, "nopbc")


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def words(self, system: str, name: str, words: list[str]) -> None:
        (self.path / system / name).write_text("\n".join(words) + "\n", encoding="utf-8")

    def types(self, system: str, types: np.ndarray) -> None:
        self.words(system, "type.raw", [str(kind) for kind in types.tolist()])

    def mark(self, system: str, name: str) -> None:
        (self.path / system / name).touch()

    def array(self, system: str, part: str, name: str, array: np.ndarray) -> None:
        folder = self.path / system / part
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", array)


class _Hdf5:
    def __init__(self, root: Any) -> None:
        self.root = root

    def words(self, system: str, name: str, words: list[str]) -> None:
        self.root[f"{system}/{name}"] = np.array([word.encode() for word in words])

    def types(self, system: str, types: np.ndarray) -> None:
        self.root[f"{system}/type.raw"] = types

    def mark(self, system: str, name: str) -> None:
        self.root[f"{system}/{name}"] = True

    def array(self, system: str, part: str, name: str, array: np.ndarray) -> None:
        self.root[f"{system}/{part}/{name}.npy"] = array
