"""What an atlas colours atoms by: properties of each atom, of its surroundings, and of what a model says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.geometry import get_distances, minkowski_reduce

from lamella.errors import DataError
from lamella.geometry.neighbors import neighbor_edges
from lamella.models.potential import Potential
from lamella.types import Frame, Prediction
from lamella.use.atlas.sample import Sample
from lamella.use.predict import predict_frames

__all__ = ["BOND", "Trait", "group", "period", "predicted", "static"]

BOND: Final = 1.25
"""Atoms are neighbours for the coordination number where they are closer than this times the sum of their covalent radii; in
bcc metals, whose second shell is 15 % farther than the first, that makes 8 + 6."""

_NOBLE = (2, 10, 18, 36, 54, 86, 118)
_CHUNK = 20_000
_NAMED = 6


@dataclass(frozen=True)
class Trait:
    """A property of every atom of a sample.

    Attributes:
        title: what it is, in words.
        values: (N,) float64, NaN where an atom has none; or names, where ``classes`` are given.
        unit: of the numbers, empty where they have none.
        classes: the names in order; None for numbers.
        without: in words, what an atom without a value lacks.
    """

    title: str
    values: np.ndarray
    unit: str = ""
    classes: tuple[str, ...] | None = None
    without: str = "unknown"

    @property
    def label(self) -> str:
        """Title with unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def period(number: int) -> int:
    """Row of the periodic table, from 1."""
    return 1 + sum(number > last for last in _NOBLE)


def group(number: int) -> int:
    """Column of the periodic table, 1 to 18; 0 for the f block (La to Yb, Ac to No), which has none."""
    row = period(number)
    last = _NOBLE[row - 1]
    place = number - (_NOBLE[row - 2] if row > 1 else 0)
    if place <= 2 and number != 2:
        return place
    if row >= 6 and place <= 16:
        return 0
    return 18 - (last - number)


def static(sample: Sample, distance_from: Sequence[str]) -> dict[str, Trait]:
    """Traits that need no model: element, group, period, task, coordination, distance.

    Args:
        sample: which atoms.
        distance_from: distances are to the nearest other atom of these elements; of any where none is named.
    """
    numbers, symbols = sample.numbers, sample.symbols
    groups = np.array([str(group(number) or "f") for number in numbers.tolist()])
    periods = np.array([str(period(number)) for number in numbers.tolist()])
    coordination, distance = _surroundings(sample, [atomic_numbers[symbol] for symbol in distance_from])
    others = _listed(distance_from)
    known = dict.fromkeys(chemical_symbols[number] for number in np.unique(numbers).tolist())
    return {
        "element": Trait("element", symbols, classes=tuple(known)),
        "group": Trait("group of the periodic table", groups, classes=_present([*map(str, range(1, 19)), "f"], groups)),
        "period": Trait("period of the periodic table", periods, classes=_present(list("1234567"), periods)),
        "task": Trait("data set", sample.task, classes=tuple(dict.fromkeys(sample.tasks))),
        "coordination": Trait("neighbours", coordination),
        "distance": Trait(f"distance to the nearest {others}", distance, "Å", without=f"no other {others}"),
    }


def _listed(symbols: Sequence[str]) -> str:
    """Elements in few words: by name, or by the names of those that are left out."""
    left = [symbol for symbol in chemical_symbols[1:] if symbol not in symbols]
    if not symbols or not left:
        return "atom"
    if len(symbols) <= _NAMED:
        return ", ".join(symbols)
    return f"atom but {', '.join(left)}" if len(left) <= _NAMED else f"atom of {len(symbols)} elements"


def predicted(
    potential: Potential, sample: Sample, task_of: Mapping[str, str | None], on_frame: Callable[[int], None] | None = None
) -> dict[str, Trait]:
    """Traits that a model predicts: ``energy``, ``force`` and, where forces are labelled, ``force-error``.

    Args:
        potential: which predicts.
        sample: which atoms.
        task_of: by data set, the task that predicts it.
        on_frame: called with 1 after each structure.

    Raises:
        InputError: a data set whose task is not known.
        DataError: a prediction that is not finite.
    """
    energy, force, error = (np.full(len(sample), np.nan) for _ in range(3))
    for name in dict.fromkeys(sample.tasks):
        index = potential.task_index(task_of[name])
        baseline = potential.baseline[index].cpu().numpy()
        column = {number: baseline[k] for k, number in enumerate(potential.numbers)}
        own = [f for f, task in enumerate(sample.tasks) if task == name]
        frames = [sample.frames[f] for f in own]
        for f, (frame, made) in zip(own, predict_frames(potential, frames, potential.tasks[index]), strict=True):
            rows = sample.frame == f
            atoms = sample.atom[rows]
            energy[rows], force[rows], error[rows] = _of_atoms(frame, made, atoms, column)
            if on_frame is not None:
                on_frame(1)
    return {
        "energy": Trait("atomic energy above the baseline", energy, "eV"),
        "force": Trait("length of the predicted force", force, "eV/Å"),
        "force-error": Trait("force error", error, "eV/Å", without="no force is labelled"),
    }


def _of_atoms(
    frame: Frame, made: Prediction, atoms: np.ndarray, baseline: Mapping[int, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not (np.isfinite(made.forces).all() and np.isfinite(made.atom_energy).all()):
        raise DataError(f"{frame.source}: the model predicts NaN or infinity; look at the frame (lamella data lint).")
    learned = made.atom_energy[atoms] - np.array([baseline[number] for number in frame.numbers[atoms].tolist()])
    lengths = np.linalg.norm(made.forces[atoms], axis=1)
    if "forces" not in frame.labels:
        return learned, lengths, np.full(len(atoms), np.nan)
    return learned, lengths, np.linalg.norm(made.forces[atoms] - np.asarray(frame.labels["forces"])[atoms], axis=1)


def _present(names: Sequence[str], values: np.ndarray) -> tuple[str, ...]:
    found = set(values.tolist())
    return tuple(name for name in names if name in found)


def _surroundings(sample: Sample, targets: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) coordination numbers, and distances to the nearest target, Å."""
    coordination, distance = np.zeros(len(sample)), np.full(len(sample), np.nan)
    for f, frame in enumerate(sample.frames):
        rows = sample.frame == f
        coordination[rows] = _coordination(frame)[sample.atom[rows]]
        distance[rows] = _nearest(frame, sample.atom[rows], targets)
    return coordination, distance


def _coordination(frame: Frame) -> np.ndarray:
    """(n,) how many atoms are closer than :data:`BOND` times the sum of the covalent radii."""
    radii = covalent_radii[frame.numbers]
    reach = 2 * BOND * float(radii.max())
    src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, reach, frame.source)
    bonded = np.linalg.norm(vec, axis=1) < BOND * (radii[src] + radii[dst])
    return np.bincount(src[bonded], minlength=len(frame)).astype(np.float64)


def _nearest(frame: Frame, atoms: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """(m,) Å, distance of atoms to the nearest target, its own periodic images among them; NaN where there is none."""
    others = np.flatnonzero(np.isin(frame.numbers, targets)) if targets else np.arange(len(frame))
    found = np.full(len(atoms), np.inf)
    if frame.pbc.any():
        reduced, _ = minkowski_reduce(frame.cell, frame.pbc)
        shortest = np.linalg.norm(reduced[frame.pbc], axis=1).min()  # the first vector of a reduced basis is the shortest
        found[np.isin(atoms, others)] = shortest
    step = max(1, _CHUNK // max(len(others), 1))
    for start in range(0, len(atoms) if len(others) else 0, step):
        part = slice(start, start + step)
        here = frame.positions[atoms[part]]
        _, apart = get_distances(here, frame.positions[others], cell=frame.cell, pbc=frame.pbc)
        apart[atoms[part][:, None] == others[None, :]] = np.inf
        found[part] = np.minimum(found[part], apart.min(axis=1))
    return np.where(np.isfinite(found), found, np.nan)
