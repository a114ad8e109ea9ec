"""ASE structures to frames and back: units, shapes and the one place where the sign of stress turns into virial.

    W = -V σ                 V = |det cell|;  σ is ASE's stress (positive under tension), W = -∂E/∂ε

Source of the signs: ASE's documentation of ``Atoms.get_stress``; checked against finite strain in ``tests/data``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from lamella.data.inputs import frame_inputs
from lamella.data.keys import AGREES, Candidate, LabelKeys, ReadReport, choose
from lamella.data.refusal import ContradictionError, NotFiniteError, WrongShapeError
from lamella.errors import DataError
from lamella.fields import INPUTS, QUANTITIES
from lamella.types import Frame

__all__ = [
    "atoms_from_frame",
    "checked_frame",
    "frame_from_atoms",
    "has_volume",
    "stress_from_virial",
    "structure_from_atoms",
    "virial_from_stress",
]

_RELATIVE = 1e-3
"""Stress and virial of one frame may differ by this fraction: files print few digits."""

_ABSOLUTE = 1e-5
"""... or by this much stress, eV/Å³ (16 bar)."""

_FARTHEST = 1e7
"""Å; beyond it a float64 resolves no more than 2e-9 Å, and differences of positions lose what the laws promise."""

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def virial_from_stress(stress: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Virial W = -V σ, (3, 3) eV, from ASE's stress.

    Args:
        stress: (3, 3), (9,) row by row, or (6,) in Voigt order xx yy zz yz xz xy, eV/Å³, positive under tension.
        cell: (3, 3), Å, of full rank.
    """
    return -abs(np.linalg.det(cell)) * _matrix(np.asarray(stress, dtype=np.float64))


def stress_from_virial(virial: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """ASE's stress -sym(W)/V in Voigt order xx yy zz yz xz xy, (6,) eV/Å³."""
    symmetric = -0.5 * (virial + virial.T) / abs(np.linalg.det(cell))
    return np.array([symmetric[pair] for pair in _VOIGT])


def has_volume(cell: np.ndarray) -> bool:
    """Whether three independent cell vectors are given, so that a stress means anything."""
    lengths = np.linalg.norm(cell, axis=1)
    return bool(lengths.min() > 0.0 and abs(np.linalg.det(cell)) > 1e-6 * np.prod(lengths))


def structure_from_atoms(atoms: Atoms, source: str = "atoms") -> Frame:
    """The structure without what was computed for it: what a prediction needs, charge, spin and parameters of ``info`` too.

    Raises:
        DataError: positions or cell that are not finite, an atom of no element, an input that is no number.
    """
    inputs = frame_inputs(atoms.info, None, source, ReadReport())
    return checked_frame(atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc, inputs, source)


def frame_from_atoms(
    atoms: Atoms, keys: LabelKeys | None = None, source: str = "atoms", report: ReadReport | None = None
) -> Frame:
    """A frame with its labels, from ``info``, ``arrays`` and the calculator's results (unless the atoms moved since).

    Charge, spin and parameters of the frame are read from ``info``, see :mod:`lamella.data.inputs`.

    Args:
        atoms: in ASE's units; not modified.
        keys: which key is which label; ``None`` guesses all.
        source: names the frame in messages.
        report: counts what was used and what was not.

    Raises:
        DataError: ambiguous, contradictory, misshapen or non-finite labels; the message names the frame and the key.
    """
    report = ReadReport() if report is None else report
    chosen = choose(_candidates(atoms, keys), keys or LabelKeys(), source, report)
    cell = np.array(atoms.cell, dtype=np.float64)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "energy": ((), (1,)),
        "forces": ((len(atoms), 3),),
        "stress": ((3, 3), (9,), (6,)),
        "virial": ((3, 3), (9,)),
    }
    values = {name: _numbers(item, name, shapes[name], source) for name, item in chosen.items()}
    labels: dict[str, np.ndarray] = {}
    if "energy" in values:
        labels["energy"] = values["energy"].reshape(())
    if "forces" in values:
        labels["forces"] = values["forces"]
    if "virial" in values:
        labels["virial"] = values["virial"].reshape(3, 3)
    for name in labels:
        report.used[name, chosen[name].key] += 1  # type: ignore[index]
    if "stress" in values:
        _take_stress(values["stress"], chosen["stress"].key, cell, labels, (source, report))
    labels |= frame_inputs(atoms.info, keys, source, report)
    return checked_frame(atoms.numbers, atoms.positions, cell, atoms.pbc, labels, source)


def atoms_from_frame(frame: Frame) -> Atoms:
    """ASE atoms with the labels as a calculator's results; the virial becomes ``stress`` where the cell has a volume.

    Without a volume the virial stays in ``info["virial"]`` (3, 3) eV. Charge, spin and parameters go to ``info``.
    """
    atoms = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    names = {"energy": "energy", "forces": "forces", "atom_energy": "energies"}
    results: dict[str, object] = {names[k]: np.array(v) for k, v in frame.labels.items() if k in names}
    if "energy" in frame.labels:
        results["energy"] = float(frame.labels["energy"])
    if "virial" in frame.labels:
        if has_volume(frame.cell):
            results["stress"] = stress_from_virial(frame.labels["virial"], frame.cell)
        else:
            atoms.info["virial"] = np.array(frame.labels["virial"])
    for name in INPUTS:
        if name in frame.labels:
            value = frame.labels[name]
            atoms.info[name] = np.array(value) if value.ndim else float(value)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def checked_frame(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    labels: Mapping[str, np.ndarray],
    source: str,
) -> Frame:
    """A frame whose arrays have the shapes and types of :class:`lamella.types.Frame`, copied, every number finite.

    Raises:
        DataError: naming the frame and what is wrong with it.
    """
    frame = Frame(
        np.array(numbers, dtype=np.int64),
        np.array(positions, dtype=np.float64),
        np.array(cell, dtype=np.float64).reshape(3, 3),
        np.array(np.broadcast_to(pbc, 3), dtype=bool),
        {name: np.array(value, dtype=np.float64) for name, value in labels.items()},
        source,
    )
    n = len(frame.numbers)
    if n == 0:
        raise DataError(f"{source}: the frame has no atoms; remove it.")
    if frame.positions.shape != (n, 3):
        raise WrongShapeError(f"{source}: {n} atoms but positions of shape {frame.positions.shape}; repair the file.")
    if frame.numbers.min() < 1 or frame.numbers.max() > 118:
        wrong = int(np.flatnonzero((frame.numbers < 1) | (frame.numbers > 118))[0])
        raise DataError(f"{source}: atom {wrong} is of no known element; give its chemical symbol, or remove it.")
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        raise NotFiniteError(f"{source}: positions or cell contain NaN or infinity; remove or repair the frame.")
    if np.abs(frame.positions).max() > _FARTHEST:
        wrong = int(np.abs(frame.positions).max(axis=1).argmax())
        raise DataError(
            f"{source}: atom {wrong} is {np.abs(frame.positions[wrong]).max():.3g} Å from the origin, where numbers have "
            "too few digits for a distance; move the atoms back to the origin, or repair the frame."
        )
    for name, value in frame.labels.items():
        expected = QUANTITIES[name].shape
        shape = (n, *expected) if QUANTITIES[name].owner == "atom" else value.shape if expected == (-1,) else expected
        if value.shape != shape or (expected == (-1,) and (value.ndim != 1 or not value.size)):
            wanted = "a list of numbers" if expected == (-1,) else shape
            raise WrongShapeError(f"{source}: {name} has shape {value.shape}, expected {wanted}; repair the file.")
        if not np.isfinite(value).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
            place = f" at index {where}" if where else ""
            word = "input" if name in INPUTS else "label"
            raise NotFiniteError(f"{source}: the {word} {name} is not finite{place}; remove the {word} or the frame.")
    return frame


def _candidates(atoms: Atoms, keys: LabelKeys | None) -> list[Candidate]:
    found = [Candidate(str(key), "info", value) for key, value in atoms.info.items()]
    found += [Candidate(key, "arrays", value) for key, value in atoms.arrays.items() if key not in ("numbers", "positions")]
    calc = atoms.calc
    if calc is not None and not (isinstance(calc, Calculator) and calc.check_state(atoms)):
        found += [Candidate(key, "calculator", value) for key, value in calc.results.items() if value is not None]
    return found


def _numbers(item: Candidate, name: str, shapes: tuple[tuple[int, ...], ...], source: str) -> np.ndarray:
    try:
        if np.asarray(item.value).dtype.kind == "b":  # energy=T
            raise TypeError
        value = np.asarray(item.value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{source}: {item.key!r} (read as {name}) is not a number but {str(item.value)[:40]!r}; repair the file."
        ) from None
    if value.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise WrongShapeError(
            f"{source}: {item.key!r} (read as {name}) has shape {value.shape}, expected {expected}; repair the file "
            f"or name another key (keys.{name})."
        )
    if not np.isfinite(value).all():
        raise NotFiniteError(
            f"{source}: {item.key!r} (read as {name}) contains NaN or infinity; remove the label or the frame."
        )
    return value


def _take_stress(
    stress: np.ndarray, key: str, cell: np.ndarray, labels: dict[str, np.ndarray], where: tuple[str, ReadReport]
) -> None:
    """Turn stress into the virial, or compare it with the virial that is there already."""
    source, report = where
    if not has_volume(cell):
        report.ignored[key, "a stress needs three cell vectors"] += 1
        return
    virial = virial_from_stress(stress, cell)
    if "virial" not in labels:
        labels["virial"] = virial
        report.used["virial", key] += 1
        return
    given = labels["virial"]
    scale = max(float(np.abs(virial).max()), float(np.abs(given).max()))
    error = float(np.abs(virial - 0.5 * (given + given.T)).max())
    if error > _RELATIVE * scale + _ABSOLUTE * abs(np.linalg.det(cell)):
        raise ContradictionError(
            f"{source}: stress and virial contradict each other ({_ratio(virial, given)}; virial must be -volume × stress, "
            "in eV); repair the frame, or name the one to trust (keys.stress or keys.virial)."
        )
    report.ignored[key, AGREES] += 1


def _ratio(virial: np.ndarray, given: np.ndarray) -> str:
    size = float(np.sum(given * given))
    ratio = float(np.sum(virial * given)) / size if size > 0.0 else float("inf")
    if np.allclose(virial, -given, rtol=0.01, atol=0.01 * np.abs(given).max()):
        return "opposite signs"
    return f"-volume × stress is {ratio:.4g} times the virial"


def _matrix(stress: np.ndarray) -> np.ndarray:
    if stress.shape != (6,):
        return stress.reshape(3, 3)
    matrix = np.empty((3, 3))
    for value, (row, column) in zip(stress, _VOIGT, strict=True):
        matrix[row, column] = matrix[column, row] = value
    return matrix
