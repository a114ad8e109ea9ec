"""Outputs of quantum-mechanical codes through dpdata: one labelled system per file, frame by frame.

dpdata drops steps that did not converge and rotates VASP's cells to lower-triangular form (positions, forces and virial
with them); both are its behaviour, and what it warns of is passed on in the report.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from ase.data import atomic_numbers

from lamella.data.convert import checked_frame
from lamella.data.keys import ReadReport
from lamella.errors import DataError, nearest
from lamella.types import Frame

__all__ = ["iter_output"]

_LABELS = {"energies": "energy", "forces": "forces", "virials": "virial"}


def iter_output(path: str, format: str, report: ReadReport) -> Iterator[Frame | DataError]:
    """The frames of a QM output.

    Args:
        path: file or folder, whatever the format reads.
        format: dpdata's name of it, e.g. ``"vasp/outcar"``, ``"cp2k/output"``, ``"qe/cp/traj"``.
        report: counts what was used; dpdata's warnings become notes.

    Raises:
        DataError: unknown format, or an output dpdata cannot read.
    """
    import dpdata  # takes half a second, and few need it
    from dpdata.format import Format

    known = Format.get_formats()
    if format not in known:
        raise DataError(f"{path}: there is no format {format!r}{nearest(format, known)}; see docs/data.md for the names.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            systems = _loaded(dpdata, path, format)
        except Exception as error:  # a parser of foreign text may fail in any way
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            raise DataError(
                f"{path}: dpdata cannot read it as {format} ({reason[:160]}); check that the file is complete and of "
                "this format."
            ) from None
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            report.notes[f"{path}: dpdata: {str(warning.message).strip()}"[:240]] += 1
    index = 0
    for system in systems:
        for row in range(len(system["coords"])):
            yield _frame(system, row, f"{path}#{index}", report)
            index += 1


def _loaded(dpdata: object, path: str, format: str) -> list[dict[str, np.ndarray]]:
    system = dpdata.LabeledSystem(path, fmt=format)  # type: ignore[attr-defined]
    return [system.data] if len(system) else []


def _frame(data: dict[str, np.ndarray], row: int, source: str, report: ReadReport) -> Frame | DataError:
    symbols = [data["atom_names"][index] for index in data["atom_types"]]
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        return DataError(
            f"{source}: dpdata names an atom {unknown[0]!r}, which is no chemical symbol; the output lacks the elements."
        )
    labels = {name: np.asarray(data[key][row]) for key, name in _LABELS.items() if key in data}
    for name in labels:
        report.used[name, name] += 1
    periodic = not data.get("nopbc", False)
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    cell = data["cells"][row] if periodic else np.zeros((3, 3))
    try:
        return checked_frame(numbers, data["coords"][row], cell, np.full(3, periodic), labels, source)
    except DataError as error:
        return error
