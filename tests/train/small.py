"""A model that trains in milliseconds, and frames with Lennard-Jones labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

MODEL: dict[str, Any] = {
    "backbone": {
        "layers": 2,
        "node_dim": 8,
        "edge_dim": 6,
        "angle_dim": 4,
        "cutoff": 4.0,
        "switch_start": 3.0,
        "angle_cutoff": 2.5,
        "angle_switch_start": 2.0,
        "edge_sel": 20,
        "angle_sel": 10,
    },
    "head": {"hidden": [8, 8]},
}


def labelled(atoms: Atoms, seed: int) -> Atoms:
    """A distorted copy with Lennard-Jones labels; stress only where there is a cell."""
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed).normal(0.0, 0.04, moved.positions.shape)
    moved.calc = LennardJones(sigma=1.0, epsilon=0.1, rc=4.0)
    results: dict[str, Any] = {"energy": moved.get_potential_energy() - 3.0 * len(moved), "forces": moved.get_forces()}
    if moved.pbc.all():
        results["stress"] = moved.get_stress()
    moved.calc = SinglePointCalculator(moved, **results)
    return moved
