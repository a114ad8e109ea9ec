"""The ASE calculator: derivatives, signs, caching, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from lamella.errors import InputError, LamellaError, StructureError
from lamella.use.calculator import Calculator
from lamella.use.predict import predict
from use.small import dimer, small_model, water_box


@pytest.fixture(scope="module")
def model():
    return small_model()


def energy(calculator: Calculator, atoms: Atoms) -> float:
    calculator.reset()
    atoms.calc = calculator
    return atoms.get_potential_energy()


def test_stress_matches_finite_strain_in_sign_and_voigt_order(model):
    box, calculator = water_box(), Calculator(model)
    box.calc = calculator
    stress = box.get_stress()
    assert np.abs(stress).min() > 1e-6, "every component must be told apart from zero"
    step = 1e-5
    numeric = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        values = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            moved = box.copy()
            moved.set_cell(box.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            values.append(energy(calculator, moved))
        numeric.append((values[0] - values[1]) / (2 * step) / box.get_volume())
    np.testing.assert_allclose(stress, numeric, atol=1e-8 * np.abs(stress).max(), rtol=1e-5)


def test_forces_match_finite_differences(model):
    pair, calculator = dimer(), Calculator(model)
    pair.calc = calculator
    forces, step = pair.get_forces(), 1e-5
    for atom, axis in ((0, 0), (1, 2), (4, 1)):
        values = []
        for sign in (1, -1):
            moved = pair.copy()
            moved.positions[atom, axis] += sign * step
            values.append(energy(calculator, moved))
        assert forces[atom, axis] == pytest.approx(-(values[0] - values[1]) / (2 * step), abs=1e-8)


def test_energies_sum_to_energy_and_free_energy_is_energy(model):
    box = water_box()
    box.calc = Calculator(model)
    total = box.get_potential_energy()
    assert box.get_potential_energies().sum() == pytest.approx(total, abs=1e-9)
    assert box.get_potential_energy(force_consistent=True) == total
    assert box.get_potential_energies().shape == (len(box),)


def test_calculator_equals_predict(model):
    box = water_box()
    (known,) = predict(model, [box])
    box.calc = Calculator(model)
    np.testing.assert_array_equal(box.get_forces(), known.forces)
    np.testing.assert_array_equal(box.get_potential_energies(), known.atom_energy)
    assert box.get_potential_energy() == known.energy
    virial = -box.get_volume() * voigt_6_to_full_3x3_stress(box.get_stress())
    np.testing.assert_allclose(virial, 0.5 * (known.virial + known.virial.T), atol=1e-12)


def test_stress_exists_for_every_full_rank_cell_and_only_there(model):
    molecule = dimer()
    molecule.calc = Calculator(model)
    with pytest.raises(PropertyNotImplementedError):
        molecule.get_stress()
    assert np.isfinite(molecule.get_potential_energy())
    boxed = dimer()
    boxed.cell = [9.0, 10.0, 11.0]
    boxed.calc = Calculator(model)
    (known,) = predict(model, [boxed])
    assert boxed.get_stress()[:3] == pytest.approx(-np.diag(known.virial) / 990.0, abs=1e-14)
    flat = dimer()
    flat.cell = [[9.0, 0, 0], [0, 9.0, 0], [9.0, 9.0, 0]]
    flat.calc = Calculator(model)
    with pytest.raises(PropertyNotImplementedError):
        flat.get_stress()


def test_nothing_is_computed_twice_and_inputs_are_not_mutated(model, monkeypatch):
    box = water_box()
    before = {name: value.copy() for name, value in box.arrays.items()}
    cell = box.cell.array.copy()
    calculator = Calculator(model)
    calls = []
    run = calculator.model.forward
    monkeypatch.setattr(calculator.model, "forward", lambda *given: calls.append(1) or run(*given))
    box.calc = calculator
    for ask in (box.get_potential_energy, box.get_forces, box.get_stress, box.get_potential_energies):
        ask()
    box.set_initial_charges(np.ones(len(box)))
    box.get_forces()
    assert len(calls) == 1
    box.positions[0, 0] += 0.01
    box.get_forces()
    assert len(calls) == 2
    box.positions[0, 0] -= 0.01
    box.set_initial_charges(None)
    np.testing.assert_array_equal(box.cell.array, cell)
    for name, value in before.items():
        np.testing.assert_allclose(box.arrays[name], value, atol=1e-15)


def test_results_handed_out_are_copies(model):
    box = water_box()
    box.calc = Calculator(model)
    box.get_forces()[:] = 7.0
    assert np.abs(box.get_forces()).max() < 7.0


def test_another_dtype_leaves_the_given_model_alone():
    model = small_model()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    box = water_box()
    box.calc = Calculator(model, dtype="float32")
    single = box.get_potential_energy()
    assert box.calc.model.dtype == torch.float32
    assert box.calc.model.baseline.dtype == torch.float64
    box.calc = Calculator(model, dtype=torch.float64)
    assert 0 < abs(single - box.get_potential_energy()) < 1e-4
    assert model.dtype == torch.float64
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in box.calc.model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_tasks_must_be_named_where_there_are_several():
    model = small_model(tasks=("pbe", "scan"))
    with pytest.raises(InputError, match="pbe, scan"):
        Calculator(model)
    with pytest.raises(InputError, match="did you mean 'scan'"):
        Calculator(model, task="scann")
    energies = []
    for task in model.tasks:
        pair = dimer()
        pair.calc = Calculator(model, task=task)
        energies.append(pair.get_potential_energy())
    assert abs(energies[0] - energies[1]) > 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda atoms: atoms.set_atomic_numbers([29] * len(atoms)), "element Cu"),
        (lambda atoms: atoms.set_cell([[6, 0, 0], [0, 6, 0], [6, 6, 0]]), "no volume"),
        (lambda atoms: atoms.set_positions(np.zeros((len(atoms), 3))), "on top of each"),
        (lambda atoms: atoms.set_positions(np.full((len(atoms), 3), np.nan)), "NaN"),
    ],
    ids=["unknown element", "cell without volume", "overlapping atoms", "NaN"],
)
def test_impossible_structures_are_refused_by_name(model, change, says):
    box = water_box()
    box.calc = Calculator(model)
    good = box.get_potential_energy()
    kept = box.copy()
    change(box)
    with pytest.raises(LamellaError, match=says):
        box.get_potential_energy()
    with pytest.raises(LamellaError, match=says):
        box.get_potential_energy()
    kept.calc = box.calc
    assert kept.get_potential_energy() == good


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="dict"):
        Calculator({})
    with pytest.raises(LamellaError, match="no such file"):
        Calculator(tmp_path / "missing.pt")
    with pytest.raises(InputError, match="float33"):
        Calculator(small_model(), dtype="float33")


def test_a_structure_without_neighbours_is_recognised(model):
    calculator = Calculator(model)
    calculator.require_neighbors(dimer())
    with pytest.raises(StructureError, match=r"4\.5 Å"):
        calculator.require_neighbors(Atoms("H2", positions=[[0, 0, 0], [0, 0, 9.0]]))
