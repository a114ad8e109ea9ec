"""The public names against numbers that deepmd-kit 3.2.0 gave for its own checkpoints (see the README beside them)."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

import lamella


def relative(found: np.ndarray, known: np.ndarray) -> float:
    return float(np.max(np.abs(found - known)) / max(np.max(np.abs(known)), 1e-3))


@pytest.mark.parametrize(
    "name", ["dp_se_e2_a", "dpa3_static", "dpa3_dynamic", "dpa3_multitask_case", "dpa3_multitask_heads"]
)
def test_public_names_reproduce_the_reference_checkpoints(shared, name):
    table = np.load(shared / "reference" / f"{name}.npz")
    model = lamella.load(shared / "reference" / f"{name}.pt")
    for prefix in sorted({key.rpartition("/")[0] for key in table.files if key.endswith("/positions")}):
        task = prefix.rpartition("/")[0] or None
        values = {key.rpartition("/")[2]: table[key] for key in table.files if key.startswith(f"{prefix}/")}
        atoms = Atoms(values["symbols"].tolist(), positions=values["positions"])
        if "cell" in values:
            atoms.set_cell(values["cell"])
            atoms.pbc = True
        (found,) = lamella.predict(model, [atoms], task)
        (features,) = lamella.describe(model, [atoms], task)
        assert relative(np.array(found.energy), values["energy"]) < 1e-10
        assert relative(found.forces, values["forces"]) < 1e-10
        assert relative(found.atom_energy, values["atomic_energy"].ravel()) < 1e-10
        assert relative(features, values["descriptor"]) < 1e-10
        atoms.calc = lamella.Calculator(model, task=task)
        assert relative(atoms.get_forces(), values["forces"]) < 1e-10
        if "virial" in values:
            found_virial, known_virial = (0.5 * (w + w.T) for w in (found.virial, values["virial"].reshape(3, 3)))
            assert relative(found_virial, known_virial) < 1e-10
            assert relative(-atoms.get_volume() * atoms.get_stress(voigt=False), known_virial) < 1e-10
