"""Model deviations as files: one kind by suffix, each a plain function."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from ase.io import write

from lamella.data.convert import atoms_from_frame
from lamella.data.source import Frames
from lamella.errors import InputError
from lamella.use.deviation import COLUMNS, Deviation
from lamella.use.save import replacing

__all__ = ["WRITERS", "DeviationTable", "require_suffix", "write_deviations"]


class DeviationTable(NamedTuple):
    """The deviations of a set of frames, and how to write them."""

    found: Sequence[Deviation]
    frames: Frames
    frequency: int = 1
    """Steps of the trajectory between two frames: a frame's step is its index times this."""
    atomic: bool = False
    """Write the deviation of every atom too."""


def write_deviations(path: Path, table: DeviationTable) -> None:
    """Write deviations; the suffix says as what, :data:`WRITERS`. The file appears when it is complete.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    require_suffix(path)
    WRITERS[path.suffix](path, table)


def require_suffix(path: Path) -> None:
    """Refuse a file that no writer knows.

    Raises:
        InputError: naming those there are.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"{path}: deviations are written as {', '.join(WRITERS)}; choose a name that ends in one of them.")


def rows(table: DeviationTable) -> list[dict[str, Any]]:
    """One plain dict per frame: step, source, atoms, the numbers of the frame, the atom of the largest deviation."""
    listed: list[dict[str, Any]] = []
    for index, each in enumerate(table.found):
        row = {"step": index * table.frequency, "source": each.source, "atoms": each.atoms, **each.row()}
        row["worst_atom"] = each.worst_atom
        if table.atomic:
            row["forces"] = None if each.forces is None else each.forces.tolist()
        listed.append(row)
    return listed


def _write_csv(path: Path, table: DeviationTable) -> None:
    """Commas, a line of names; with all atoms a column each, empty where a frame has fewer."""
    listed = rows(table)
    widest = max((each.atoms for each in table.found), default=0) if table.atomic else 0
    names = ["step", "source", "atoms", *COLUMNS, "worst_atom"]
    with replacing(path) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*names, *(f"forces_{atom}" for atom in range(widest))])
        for row in listed:
            by_atom = row.get("forces") or []
            cells = [row[name] for name in names] + by_atom + [None] * (widest - len(by_atom))
            out.writerow(["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in cells])


def _write_json(path: Path, table: DeviationTable) -> None:
    with replacing(path) as file:
        json.dump(rows(table), file, indent=1, ensure_ascii=False, allow_nan=False)


def _write_npz(path: Path, table: DeviationTable) -> None:
    """One array per column, NaN where a label is missing; ``forces`` has the atoms of all frames one after the other."""
    arrays: dict[str, np.ndarray] = {
        "step": np.arange(len(table.found)) * table.frequency,
        "source": np.array([each.source for each in table.found]),
        "atoms": np.array([each.atoms for each in table.found], dtype=np.int64),
    }
    numbers = [each.row() for each in table.found]
    arrays |= {name: np.array([row[name] for row in numbers], dtype=np.float64) for name in COLUMNS}
    if table.atomic:
        arrays["forces"] = np.concatenate([_by_atom(each) for each in table.found])
    with replacing(path) as file:
        np.savez_compressed(file.buffer, allow_pickle=False, **arrays)


def _write_out(path: Path, table: DeviationTable) -> None:
    """The columns of deepmd-kit's ``model_devi.out``, which programs that select structures read."""
    names = ["step"] + [f"{kind}_devi_{letter}" for letter in "vf" for kind in ("max", "min", "avg")] + ["devi_e"]
    order = ("virial_max", "virial_min", "virial_rms", "forces_max", "forces_min", "forces_mean", "energy")
    with replacing(path) as file:
        file.write("# " + " ".join(names + ["atm_devi_f(N)"] * table.atomic) + "\n")
        for index, each in enumerate(table.found):
            row = each.row()
            numbers = [np.nan if (value := row[name]) is None else value for name in order]
            numbers += _by_atom(each).tolist() if table.atomic else []
            file.write(f"{index * table.frequency:12d}" + "".join(f"{value:19.6e}" for value in numbers) + "\n")


def _write_extxyz(path: Path, table: DeviationTable) -> None:
    """The frames themselves, each atom with its deviation: to be looked at."""
    with replacing(path) as file:
        for index, each in enumerate(table.found):
            atoms = atoms_from_frame(table.frames[index])
            numbers = {f"lamella_deviation_{name}": value for name, value in each.row().items() if value is not None}
            atoms.info |= {"source": each.source, "step": index * table.frequency, **numbers}
            if each.forces is not None:
                atoms.set_array("lamella_deviation_forces", each.forces)
            write(file, atoms, format="extxyz")


def _by_atom(each: Deviation) -> np.ndarray:
    return np.full(each.atoms, np.nan) if each.forces is None else each.forces


WRITERS: Final[dict[str, Callable[[Path, DeviationTable], None]]] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".json": _write_json,
    ".out": _write_out,
    ".extxyz": _write_extxyz,
}
"""Writer by suffix."""
