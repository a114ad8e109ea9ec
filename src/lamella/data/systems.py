"""deepmd-kit's data: ``npy`` and ``npy/mixed`` folders, and the same tree inside an HDF5 file (``file.hdf5#/path``).

A system holds ``type.raw``, ``type_map.raw``, perhaps ``nopbc``, and sets ``set.*`` with ``coord``, ``box``, ``energy``,
``force``, ``virial`` (eV, Å; virial = -volume × stress, as inside lamella), perhaps ``fparam`` and ``charge_spin``.
Source: deepmd-kit's documentation of its data format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from ase.data import atomic_numbers

from lamella.data.convert import checked_frame
from lamella.data.inputs import CHARGE_SPIN, split_charge_spin
from lamella.data.keys import ReadReport
from lamella.data.refusal import TruncatedError, WrongShapeError
from lamella.errors import DataError, nearest
from lamella.fields import INPUTS
from lamella.types import Frame

__all__ = ["find_systems", "iter_folder", "iter_hdf5", "split_hdf5"]

_SHAPES: Mapping[str, tuple[str, int, int]] = {
    "coord": ("positions", 3, 0),
    "force": ("forces", 3, 0),
    "atom_ener": ("atom_energy", 1, 0),
    "box": ("cell", 0, 9),
    "energy": ("energy", 0, 1),
    "virial": ("virial", 0, 9),
    "fparam": ("frame_params", 0, -1),
    CHARGE_SPIN: (CHARGE_SPIN, 0, 2),
}
"""File -> name inside lamella, numbers per atom, numbers per frame (-1: any)."""

_BOOKKEEPING = frozenset({"real_atom_types", *_SHAPES})


class _Node(Protocol):
    """A folder, or an HDF5 group that looks like one."""

    name: str

    def names(self) -> list[str]: ...
    def child(self, name: str) -> _Node: ...
    def array(self, name: str) -> np.ndarray: ...
    def words(self, name: str) -> list[str]: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.iterdir())

    def child(self, name: str) -> _Node:
        return _Folder(self.path / name)

    def array(self, name: str) -> np.ndarray:
        try:
            return np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise TruncatedError(
                f"{self.name}/{name} cannot be read ({str(error)[:120]}): it is empty, cut short or no NumPy array; "
                "copy it again."
            ) from None

    def words(self, name: str) -> list[str]:
        try:
            return (self.path / name).read_text(encoding="utf-8").split()
        except (UnicodeDecodeError, OSError) as error:
            raise DataError(f"{self.name}/{name} cannot be read as text ({error}); write it again.") from None


class _Group:
    def __init__(self, group: h5py.Group, name: str) -> None:
        self.group = group
        self.name = name

    def names(self) -> list[str]:
        return sorted(self.group.keys())

    def child(self, name: str) -> _Node:
        group, path = self.group.get(name), f"{self.name.rstrip('/')}/{name}"
        if not isinstance(group, h5py.Group):
            raise DataError(f"{path} is no group of arrays; the file is damaged, copy it again.")
        return _Group(group, path)

    def array(self, name: str) -> np.ndarray:
        try:
            return np.asarray(self.group[name])
        except (OSError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.name}/{name} cannot be read ({str(error)[:120]}); the file is damaged, copy it again."
            ) from None

    def words(self, name: str) -> list[str]:
        values = np.ravel(self.array(name))
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]


def find_systems(folder: Path) -> list[Path]:
    """Every folder at or below ``folder`` that holds a ``type.raw``, in sorted order."""
    return sorted(found.parent for found in folder.rglob("type.raw"))


def iter_folder(folder: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """The frames of one ``npy`` or ``npy/mixed`` system; what is wrong with the whole of it takes the place of the rest."""
    try:
        yield from _frames(_Folder(folder), report)
    except DataError as error:
        yield error


def split_hdf5(path: str) -> tuple[str, str]:
    """``file.hdf5#/group`` as file and group (``"/"`` where none is named)."""
    file, _, group = path.partition("#")
    return file, group or "/"


def iter_hdf5(path: str, report: ReadReport) -> Iterator[Frame | DataError]:
    """The frames of every system at or below a group of an HDF5 file."""
    file, group = split_hdf5(path)
    with _opened(file) as root:
        if group not in root or not isinstance(root[group], h5py.Group):
            known = sorted(_groups(root, ""))
            raise DataError(
                f"{file} has no group {group!r}{nearest(group, known)}; it has {', '.join(known[:8]) or 'none'}."
            )
        systems = sorted(_groups(root[group], ""))
        if not systems:
            raise DataError(f"{path}: no deepmd system (a group with type.raw) in this file; name another file or group.")
        for system in systems:
            node = root[group][system] if system else root[group]
            name = f"{file}#/{(group.strip('/') + '/' + system).strip('/')}"
            try:
                yield from _frames(_Group(node, name), report)
            except DataError as error:
                yield error


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    try:
        handle = h5py.File(file, "r")
    except OSError as error:
        raise DataError(
            f"{file} cannot be opened as HDF5 ({str(error)[:120]}); it is damaged or of another format."
        ) from None
    with handle:
        yield handle


def _groups(group: Any, prefix: str, above: tuple[Any, ...] = ()) -> Iterator[str]:
    """Paths, relative to ``group``, of all groups that hold a ``type.raw``."""
    if "type.raw" in group:
        yield prefix
    for name in group:
        inner, path = group.get(name), f"{prefix}/{name}".strip("/")
        if inner is None:
            raise DataError(f"{group.file.filename}#/{path}: a link that leads nowhere; complete the file, or remove it.")
        circle = inner in (group, *above)
        if isinstance(inner, h5py.Group) and not name.startswith("set.") and not circle:
            yield from _groups(inner, path, (group, *above))


def _frames(system: _Node, report: ReadReport) -> Iterator[Frame | DataError]:
    names = system.names()
    elements = _elements(system, names)
    types = _types(system)
    sets = [name for name in names if name.startswith("set.")]
    if not sets:
        raise DataError(f"{system.name}: the system has no sets (set.000, ...); remove it or complete it.")
    first = 0
    for name in sets:
        part = system.child(name)
        arrays = _read_set(part, len(types), "nopbc" in names, report)
        mixed = _real_types(part, arrays["positions"].shape[:2])
        for row in range(len(arrays["positions"])):
            yield _frame(arrays, row, types if mixed is None else mixed[row], elements, f"{system.name}#{first + row}")
        first += len(arrays["positions"])


def _elements(system: _Node, names: list[str]) -> np.ndarray:
    """Atomic numbers by type index."""
    if "type_map.raw" not in names:
        raise DataError(
            f"{system.name}: type_map.raw is missing, so nobody knows which elements the types are; "
            "write one with the chemical symbols, one a line, in the order of the types."
        )
    symbols = system.words("type_map.raw")
    unknown = [symbol for symbol in symbols if not atomic_numbers.get(symbol, 0) >= 1]
    if unknown:
        raise DataError(
            f"{system.name}/type_map.raw: {unknown[0]!r} is no chemical symbol{nearest(unknown[0], atomic_numbers)}; "
            "write the element that this type is."
        )
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)


def _types(system: _Node) -> np.ndarray:
    try:
        types = np.array([int(word) for word in system.words("type.raw")], dtype=np.int64)
    except ValueError:
        raise DataError(f"{system.name}/type.raw contains something else than integers; repair it.") from None
    if not len(types):
        raise DataError(f"{system.name}/type.raw is empty; the system has no atoms, remove it.")
    return types


def _read_set(part: _Node, n_atoms: int, open_boundaries: bool, report: ReadReport) -> dict[str, np.ndarray]:
    """Arrays of one set by their names inside lamella, each (frames, ...)."""
    # HDF5 spells the names alike, with the ending
    present = {name.removesuffix(".npy"): name for name in part.names() if name.endswith(".npy")}
    required = ("coord",) if open_boundaries else ("coord", "box")
    for name in required:
        if name not in present:
            hint = " (or an empty file nopbc beside type.raw for open boundaries)" if name == "box" else ""
            raise DataError(f"{part.name}: {name}.npy is missing; every set needs it{hint}.")
    arrays: dict[str, np.ndarray] = {}
    for name, (target, per_atom, per_frame) in _SHAPES.items():
        if name not in present or (name == "box" and open_boundaries):
            continue
        array = _real_numbers(part, present[name])
        frames = len(array) if array.ndim else 0
        width = per_atom * n_atoms + per_frame if per_frame >= 0 else array.size // max(frames, 1)
        if frames == 0 or width == 0 or array.size != frames * width:
            raise WrongShapeError(
                f"{part.name}/{present[name]} has shape {array.shape}, expected (frames, {width}) for {n_atoms} "
                "atoms; repair the set."
            )
        arrays[target] = array.reshape((frames, n_atoms, per_atom) if per_atom > 1 else (frames, width))
    counts = {target: len(array) for target, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{target} {count}" for target, count in counts.items())
        raise TruncatedError(
            f"{part.name}: the arrays have different numbers of frames ({listed}); the set is cut short, copy it again."
        )
    n = counts["positions"]
    for name, (target, _, _) in _SHAPES.items():
        if target in arrays and target not in ("positions", "cell"):
            for label in ("charge", "spin") if target == CHARGE_SPIN else (target,):
                report.used[label, name if label in INPUTS else label] += n
    for name in sorted(set(present) - _BOOKKEEPING):
        report.ignored[f"{name}.npy", "not a label lamella trains on"] += n
    return arrays


def _real_numbers(part: _Node, name: str) -> np.ndarray:
    array = part.array(name)
    if array.dtype.kind not in "iuf":
        raise WrongShapeError(f"{part.name}/{name} holds {array.dtype}, not real numbers; write it again as floats.")
    return array


def _real_types(part: _Node, shape: tuple[int, ...]) -> np.ndarray | None:
    if "real_atom_types.npy" not in part.names():
        return None
    types = _real_numbers(part, "real_atom_types.npy")
    if not np.array_equal(types, np.floor(types)):  # NaN too
        raise WrongShapeError(f"{part.name}/real_atom_types.npy holds something else than whole numbers; repair the set.")
    if types.shape != shape:
        raise WrongShapeError(f"{part.name}/real_atom_types.npy has shape {types.shape}, expected {shape}; repair the set.")
    return types


def _frame(
    arrays: Mapping[str, np.ndarray], row: int, types: np.ndarray, elements: np.ndarray, source: str
) -> Frame | DataError:
    types = np.asarray(types, dtype=np.int64)
    real = types >= 0
    if types.max(initial=-1) >= len(elements):
        return DataError(f"{source}: type {int(types.max())} is not in type_map.raw ({len(elements)} names); complete it.")
    labels: dict[str, np.ndarray] = {}
    if "energy" in arrays:
        labels["energy"] = arrays["energy"][row].reshape(())
    if "forces" in arrays:
        labels["forces"] = arrays["forces"][row][real]
    if "virial" in arrays:
        labels["virial"] = arrays["virial"][row].reshape(3, 3)
    if "atom_energy" in arrays:
        labels["atom_energy"] = arrays["atom_energy"][row][real]
    if "frame_params" in arrays:
        labels["frame_params"] = arrays["frame_params"][row]
    if CHARGE_SPIN in arrays:
        labels |= split_charge_spin(arrays[CHARGE_SPIN][row])
    periodic = "cell" in arrays
    cell = arrays["cell"][row] if periodic else np.zeros(9)
    try:
        return checked_frame(
            elements[types[real]], arrays["positions"][row][real], cell, np.full(3, periodic), labels, source
        )
    except DataError as error:
        return error
