"""A small model of two tasks, and frames that one of them labelled."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from contract.models import build
from lamella.data.convert import frame_from_atoms
from lamella.models.potential import Potential

SHIFT = {"H": 3.0, "C": -500.0, "N": 7.0, "O": -2000.0, "S": 11.0}
"""Energies per element by which labels differ from the task that made them: another code's zero of energy."""


def two_tasks(architecture: str = "dpa3", **options: Any) -> Potential:
    """H C N O, tasks ``low`` and ``high``, random weights."""
    return build(elements=("H", "C", "N", "O"), tasks=("low", "high"), architecture=architecture, **options)


def labelled_by(potential: Potential, task: str, names: list[str], noise: float = 0.0, seed: int = 0) -> list[Atoms]:
    """Distorted molecules with a task's energies and forces, the energies shifted by ``SHIFT``, the forces disturbed."""
    random = np.random.default_rng(seed)
    found = []
    for name in names:
        atoms = molecule(name)
        atoms.positions += random.normal(0.0, 0.06, atoms.positions.shape)
        known = atoms.copy()
        known.symbols = ["O" if symbol not in potential.elements else symbol for symbol in known.symbols]
        prediction = potential(potential.graph([frame_from_atoms(known)]), task)
        energy = float(prediction.energy) + sum(SHIFT[symbol] for symbol in atoms.symbols)
        forces = prediction.forces.numpy() + random.normal(0.0, noise, atoms.positions.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        found.append(atoms)
    return found
