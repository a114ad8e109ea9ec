"""A small DPA-3 with random weights and small structures, shared by the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential

BACKBONE = DPA3Config(
    layers=2,
    node_dim=16,
    edge_dim=12,
    angle_dim=8,
    cutoff=4.5,
    switch_start=3.8,
    angle_cutoff=3.2,
    angle_switch_start=2.7,
    switch="polynomial",
    edge_sel=40,
    angle_sel=12,
)


def small_model(tasks: tuple[str, ...] = ("default",), elements: tuple[str, ...] = ("H", "O"), seed: int = 0) -> Potential:
    """Random weights, baselines of about -10 eV that differ by element and task, float64."""
    torch.manual_seed(seed)
    model = Potential(ModelConfig(backbone=BACKBONE, head=HeadConfig(hidden=(16, 16))), elements, tasks).cast(torch.float64)
    for index, task in enumerate(tasks):
        model.set_baseline(task, {symbol: -10.0 - index - 0.5 * k for k, symbol in enumerate(elements)})
    return model.eval()


def water_box(n: int = 2, seed: int = 0) -> Atoms:
    """n³ water molecules in a skewed periodic cell with one diagonal."""
    rng = np.random.default_rng(seed)
    box = Atoms(pbc=True, cell=[[3.2 * n, 0.0, 0.0], [0.3, 3.1 * n, 0.0], [0.1, -0.2, 3.0 * n]])
    for corner in np.ndindex(n, n, n):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(np.array(corner) / n @ box.cell.array)
        box += water
    return box


def dimer() -> Atoms:
    """Two water molecules in vacuum, no cell."""
    pair = molecule("H2O")
    other = molecule("H2O")
    other.rotate(70, (1, 2, 3))
    other.translate((2.6, 0.7, 0.4))
    pair += other
    return pair


def labelled(model: Potential, structures: list[Atoms], noise: float = 0.05, seed: int = 1) -> list[Atoms]:
    """Copies whose energy, forces and (where there is a cell) stress are the model's with noise."""
    from ase.calculators.singlepoint import SinglePointCalculator

    from lamella.use.calculator import Calculator

    rng, calculator = np.random.default_rng(seed), Calculator(model)
    done = []
    for atoms in structures:
        atoms = atoms.copy()
        atoms.calc = calculator
        results = {"energy": atoms.get_potential_energy() + noise * rng.normal()}
        results["forces"] = atoms.get_forces() + noise * rng.normal(size=(len(atoms), 3))
        if atoms.cell.rank == 3:
            results["stress"] = atoms.get_stress() + 1e-3 * rng.normal(size=6)
        atoms.calc = SinglePointCalculator(atoms, **results)
        done.append(atoms)
    return done
