"""JSON files of the materialsvirtuallab sets (mlearn, SNAP) and of FitSNAP's examples.

Both carry VASP's stress: positive under compression, so that the virial is +volume × stress.

    W = V σ_VASP,    mlearn: kbar, six numbers;    FitSNAP: bar, a matrix

Checked against frames converted independently (``tests/data/test_deposits.py``), and their signs by ΔE = -W:Δε there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.data import atomic_numbers

from lamella.data.convert import checked_frame
from lamella.data.keys import ReadReport
from lamella.data.refusal import unreadable
from lamella.errors import DataError
from lamella.types import Frame
from lamella.units import GPA

__all__ = ["iter_fitsnap", "iter_mlearn", "iter_mlearn_zx", "pymatgen_structure"]

_BAR = 1e-4 * GPA
_VASP: Final = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
"""Order of six stress components: xx yy zz xy yz zx."""
_ZX: Final = ((0, 0), (1, 1), (2, 2), (0, 1), (2, 0), (1, 2))
"""... and in mlearn's Ni and Cu files: xx yy zz xy zx yz."""


def iter_mlearn(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of a list of pymatgen structures with ``outputs``: energy, forces, stress in kbar as xx yy zz xy yz zx."""
    yield from _structures(path, _VASP, report)


def iter_mlearn_zx(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """The same with the stress as xx yy zz xy zx yz, as mlearn has it for Ni and Cu."""
    yield from _structures(path, _ZX, report)


def iter_fitsnap(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of one of FitSNAP's JSON files, or of all below a folder."""
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    for file in files:
        content = _loaded(file, "FitSNAP's JSON")
        try:
            styles = {key: str(value).lower() for key, value in content["Dataset"].items() if key.endswith("Style")}
            frames = list(content["Dataset"]["Data"])
        except (TypeError, KeyError, AttributeError) as error:
            yield unreadable(f"{file}", "FitSNAP's JSON", error)
            continue
        for index, item in enumerate(frames):
            try:
                yield _fitsnap(item, styles, f"{file}#{index}", report)
            except DataError as error:
                yield error
            except (TypeError, KeyError, ValueError, IndexError) as error:
                yield unreadable(f"{file}#{index}", "FitSNAP's JSON", error)


def _loaded(path: Path, what: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text[text.index("{") :] if text.startswith("#") else text)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise unreadable(str(path), what, error) from None


def _structures(path: Path, order: tuple[tuple[int, int], ...], report: ReadReport) -> Iterator[Frame | DataError]:
    content = _loaded(path, "mlearn's JSON")
    if not isinstance(content, list):
        raise unreadable(str(path), "mlearn's JSON", TypeError("no list of structures"))
    for index, item in enumerate(content):
        try:
            yield _mlearn(item, order, f"{path}#{index}", report)
        except DataError as error:
            yield error
        except (TypeError, KeyError, ValueError, IndexError) as error:
            yield unreadable(f"{path}#{index}", "mlearn's JSON", error)


def pymatgen_structure(structure: Any, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers (N,), positions (N, 3) and cell (3, 3) of a pymatgen ``Structure`` as its ``as_dict`` writes it.

    Raises:
        DataError: a site that several elements share.
    """
    sites = structure["sites"]
    mixed = [site for site in sites if len(site["species"]) != 1 or site["species"][0]["occu"] != 1]
    if mixed:
        raise DataError(f"{source}: a site is shared by several elements; remove the structure.")
    numbers = np.array([atomic_numbers[site["species"][0]["element"]] for site in sites])
    positions = np.array([site["xyz"] for site in sites], dtype=np.float64)
    return numbers, positions, np.array(structure["lattice"]["matrix"], dtype=np.float64)


def _mlearn(item: Any, order: tuple[tuple[int, int], ...], source: str, report: ReadReport) -> Frame:
    outputs = item["outputs"]
    numbers, positions, cell = pymatgen_structure(item["structure"], source)
    labels = {"energy": np.array(outputs["energy"], dtype=np.float64)}
    report.used["energy", "energy"] += 1
    if "forces" in outputs:
        labels["forces"] = np.array(outputs["forces"], dtype=np.float64)
        report.used["forces", "forces"] += 1
    key = next((name for name in ("virial_stress", "stress") if name in outputs), None)
    if key is not None:
        stress = np.empty((3, 3))
        for value, (row, column) in zip(outputs[key], order, strict=True):
            stress[row, column] = stress[column, row] = value
        labels["virial"] = abs(np.linalg.det(cell)) * 0.1 * GPA * stress
        report.used["virial", key] += 1
    return checked_frame(numbers, positions, cell, np.ones(3, dtype=bool), labels, source)


_FITSNAP = {
    "PositionsStyle": "angstrom",
    "LatticeStyle": "angstrom",
    "EnergyStyle": "electronvolt",
    "ForcesStyle": "electronvoltperangstrom",
    "StressStyle": "bar",
}


def _fitsnap(item: Any, styles: dict[str, str], source: str, report: ReadReport) -> Frame:
    for name, expected in _FITSNAP.items():
        if styles.get(name, expected) != expected:
            raise DataError(f"{source}: {name} is {styles[name]!r}, where lamella reads {expected!r}; convert the file.")
    symbols = item["AtomTypes"]
    if any(symbol not in atomic_numbers for symbol in symbols):
        raise DataError(f"{source}: AtomTypes holds something else than chemical symbols; name the elements.")
    cell = np.array(item["Lattice"], dtype=np.float64)
    labels = {
        "energy": np.array(item["Energy"], dtype=np.float64),
        "forces": np.array(item["Forces"], dtype=np.float64),
    }
    report.used["energy", "Energy"] += 1
    report.used["forces", "Forces"] += 1
    if "Stress" in item:
        labels["virial"] = abs(np.linalg.det(cell)) * _BAR * np.array(item["Stress"], dtype=np.float64)
        report.used["virial", "Stress"] += 1
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    return checked_frame(numbers, np.array(item["Positions"]), cell, np.ones(3, dtype=bool), labels, source)
