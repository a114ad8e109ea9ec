"""HDF5 and NumPy files of molecular sets: COMP6, ANI-1x, Transition-1x, SPICE, MD17, rMD17, MD22.

=================  ====================  ==============  =======================================
set                lengths               energies        forces
=================  ====================  ==============  =======================================
COMP6              Å                     Hartree         stored as gradients, Hartree/Å
ANI-1x             Å                     Hartree         Hartree/Å
Transition-1x      Å                     eV              eV/Å
SPICE              Bohr                  Hartree         stored as gradients, Hartree/Bohr
MD17, rMD17, MD22  Å                     kcal/mol        kcal/mol/Å
=================  ====================  ==============  =======================================

Molecules: no cell, no periodicity. A label that is NaN in the file (ANI-1x marks what was not computed so) is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree, kcal, mol

from lamella.data.convert import checked_frame
from lamella.data.keys import ReadReport
from lamella.data.refusal import unreadable
from lamella.errors import DataError
from lamella.types import Frame

__all__ = ["iter_ani1x", "iter_comp6", "iter_gdml", "iter_spice", "iter_transition1x"]

_KCAL = kcal / mol


class _Layout(NamedTuple):
    """Where a set keeps what, and in which units (factors to Å, eV, eV/Å)."""

    numbers: str
    positions: str
    energy: str
    forces: str
    length: float
    energy_unit: float
    force_unit: float


_COMP6 = _Layout("species", "coordinates", "energies", "forces", 1.0, Hartree, -Hartree)
_ANI1X = _Layout("atomic_numbers", "coordinates", "wb97x_dz.energy", "wb97x_dz.forces", 1.0, Hartree, Hartree)
_T1X = _Layout("atomic_numbers", "positions", "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces", 1.0, 1.0, 1.0)
_SPICE = _Layout("atomic_numbers", "conformations", "dft_total_energy", "dft_total_gradient", Bohr, Hartree, -Hartree / Bohr)


def iter_comp6(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of a COMP6 (or ANI-1) file; ωB97X/6-31G(d)."""
    yield from _iter_hdf5(path, _COMP6, "COMP6's file", report)


def iter_ani1x(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of the ANI-1x release with its ωB97X/6-31G(d) labels."""
    yield from _iter_hdf5(path, _ANI1X, "ANI-1x's file", report)


def iter_transition1x(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of Transition-1x; of the whole file, or of ``FILE#/train``, ``#/val``, ``#/test``."""
    yield from _iter_hdf5(path, _T1X, "Transition-1x's file", report)


def iter_spice(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of a SPICE release; total charges are not in the file as numbers and are not read."""
    yield from _iter_hdf5(path, _SPICE, "SPICE's file", report)


def iter_gdml(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of an MD17, MD22 (``z R E F``) or rMD17 (``nuclear_charges coords energies forces``) file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            revised = "nuclear_charges" in archive.files
            names = ("nuclear_charges", "coords", "energies", "forces") if revised else ("z", "R", "E", "F")
            numbers, positions, energy, forces = (np.asarray(archive[name]) for name in names)
            units = {name: _word(archive[name]) for name in ("e_unit", "r_unit") if name in archive.files}
    except Exception as error:  # zipfile and zlib have errors of their own
        raise unreadable(str(path), "MD17's file", error) from None
    for name, expected in (("e_unit", ("kcal/mol", "kcal mol-1")), ("r_unit", ("ang", "angstrom", "å"))):
        if name in units and units[name].lower() not in expected:
            what = "energies" if name == "e_unit" else "positions"
            raise DataError(
                f"{path}: its {what} are in {units[name][:40]!r}, where lamella reads {expected[0]}; convert the file."
            )
    arrays = {
        "positions": positions.astype(np.float64),
        "energy": energy.astype(np.float64).reshape(len(positions), -1) * _KCAL,
        "forces": forces.astype(np.float64) * _KCAL,
    }
    yield from _frames(numbers, arrays, str(path), names[2:], report)


def _iter_hdf5(path: Path, layout: _Layout, what: str, report: ReadReport) -> Iterator[Frame | DataError]:
    name, _, inner = str(path).partition("#")
    count = 0
    with _opened(name, what) as root:
        top = root.get(inner or "/")
        if not isinstance(top, h5py.Group):
            raise DataError(f"{name} has no group {inner!r}; it has {', '.join(sorted(root))[:120] or 'none'}.")
        for group in _leaves(top, layout):
            try:
                numbers, arrays = _arrays(group, layout)
            except (KeyError, OSError, TypeError, ValueError) as error:
                yield unreadable(f"{name}#{group.name}", what, error)
                continue
            labels = (layout.energy, layout.forces)
            yield from _frames(numbers, arrays, f"{name}#{group.name}", labels, report)
            count += 1
    if not count:
        raise unreadable(str(path), what, KeyError(f"{layout.positions}: in no group"))


def _word(array: np.ndarray) -> str:
    value = array.item() if array.size == 1 else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _opened(name: str, what: str) -> Iterator[Any]:
    try:
        handle = h5py.File(name, "r")
    except OSError as error:
        raise unreadable(name, what, error) from None
    with handle:
        yield handle


def _leaves(group: Any, layout: _Layout) -> Iterator[Any]:
    """Groups that hold conformations, in the file's order; a group below one of them repeats its frames."""
    if layout.numbers in group and layout.positions in group:
        yield group
        return
    # Transition-1x lists every frame under "data" and again under train, val and test
    for name in ["data"] if group.name == "/" and "data" in group else group:
        inner = group.get(name)
        if isinstance(inner, h5py.Group):
            yield from _leaves(inner, layout)


def _arrays(group: Any, layout: _Layout) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    numbers = np.asarray(group[layout.numbers])
    if numbers.dtype.kind in "SO":
        symbols = [value.decode() if isinstance(value, bytes) else str(value) for value in numbers.ravel().tolist()]
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    arrays = {"positions": np.asarray(group[layout.positions], dtype=np.float64) * layout.length}
    if layout.energy in group:
        energy = np.asarray(group[layout.energy], dtype=np.float64)
        arrays["energy"] = energy.reshape(len(arrays["positions"]), -1) * layout.energy_unit
    if layout.forces in group:
        arrays["forces"] = np.asarray(group[layout.forces], dtype=np.float64) * layout.force_unit
    return numbers, arrays


def _frames(
    numbers: np.ndarray,
    arrays: dict[str, np.ndarray],
    source: str,
    keys: tuple[str, ...],
    report: ReadReport,
) -> Iterator[Frame | DataError]:
    positions = arrays["positions"]
    if positions.ndim != 3 or any(len(array) != len(positions) for array in arrays.values()):
        yield unreadable(source, "arrays of one set", ValueError("arrays of different lengths"))
        return
    names = dict(zip(("energy", "forces"), keys, strict=True))
    for row in range(len(positions)):
        labels: dict[str, np.ndarray] = {}
        for name in names:
            if name in arrays and np.isfinite(arrays[name][row]).all():
                labels[name] = arrays[name][row].reshape(()) if name == "energy" else arrays[name][row]
                report.used[name, names[name]] += 1
            elif name in arrays:
                report.ignored[names[name], "NaN, so not computed"] += 1
        try:
            yield checked_frame(
                numbers, positions[row], np.zeros((3, 3)), np.zeros(3, dtype=bool), labels, f"{source}#{row}"
            )
        except DataError as error:
            yield error
