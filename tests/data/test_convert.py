"""Signs, shapes and keys of labels, between ASE and frames."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from lamella.data.convert import (
    atoms_from_frame,
    frame_from_atoms,
    stress_from_virial,
    structure_from_atoms,
    virial_from_stress,
)
from lamella.data.keys import LabelKeys, ReadReport
from lamella.errors import DataError

STRAIN = np.array([[0.02, 0.03, 0.0], [0.0, -0.01, 0.02], [0.01, 0.0, 0.03]])


def crystal(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + STRAIN), scale_atoms=True)
    return atoms


def water(**info: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def finite_strain_virial(atoms: Atoms, calculator: object, step: float = 1e-5) -> np.ndarray:
    """-∂E/∂ε by central differences of r -> r (1 + ε)."""
    virial = np.zeros((3, 3))
    for row in range(3):
        for column in range(3):
            energies = []
            for sign in (1.0, -1.0):
                strain = np.eye(3)
                strain[row, column] += sign * step
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ strain)
                moved.set_positions(atoms.positions @ strain)
                moved.calc = calculator
                energies.append(moved.get_potential_energy())
            virial[row, column] = -(energies[0] - energies[1]) / (2.0 * step)
    return virial


@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("calculator", [EMT(), LennardJones(sigma=2.2, epsilon=0.3, rc=6.0, smooth=True)], ids=["EMT", "LJ"])
def test_virial_read_from_ase_stress_matches_finite_strain(calculator, left_handed):
    atoms = crystal()
    if left_handed:
        atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    atoms.calc = calculator
    atoms.get_potential_energy()
    stress = atoms.get_stress()
    frame = frame_from_atoms(atoms)
    expected = finite_strain_virial(atoms, calculator)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(frame.labels["virial"], expected, atol=2e-5)
    np.testing.assert_allclose(stress_from_virial(frame.labels["virial"], frame.cell), stress, atol=1e-12)


def test_stress_is_understood_as_matrix_as_nine_numbers_and_in_voigt_order():
    cell = np.diag([2.0, 3.0, 4.0])
    matrix = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    for stress in (matrix, matrix.ravel(), np.arange(1.0, 7.0)):
        np.testing.assert_allclose(virial_from_stress(stress, cell), -24.0 * matrix, rtol=1e-14)


def test_virial_of_a_molecule_is_kept_though_it_has_no_stress():
    frame = frame_from_atoms(water(virial=np.eye(3)))
    np.testing.assert_array_equal(frame.labels["virial"], np.eye(3))
    back = atoms_from_frame(frame)
    np.testing.assert_array_equal(back.info["virial"], np.eye(3))


def test_stress_without_three_cell_vectors_is_ignored_and_reported():
    atoms = water(energy=-1.0)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=np.zeros(6))
    report = ReadReport()
    frame = frame_from_atoms(atoms, report=report)
    assert set(frame.labels) == {"energy"}
    assert "three cell vectors" in " ".join(report.lines())


@pytest.mark.parametrize("factor", [-1.0, 160.2, 0.9])
def test_contradictory_stress_and_virial_refuse_the_frame_by_name(factor):
    atoms = crystal()
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    atoms = atoms.copy()
    atoms.info = {"stress": stress, "virial": -atoms.get_volume() * stress * factor}
    with pytest.raises(DataError, match=r"cu\.xyz#3: stress and virial contradict") as caught:
        frame_from_atoms(atoms, source="cu.xyz#3")
    assert ("opposite signs" in str(caught.value)) == (factor == -1.0)
    for keys in (LabelKeys(stress="stress"), LabelKeys(virial="virial")):
        trusted = frame_from_atoms(atoms, keys).labels["virial"]
        np.testing.assert_allclose(trusted, -atoms.get_volume() * stress * (1.0 if keys.stress else factor))


def test_stress_and_virial_may_differ_by_rounding():
    atoms = crystal()
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    atoms = atoms.copy()
    atoms.info = {"stress": np.round(stress, 5), "virial": np.round(-atoms.get_volume() * stress, 3)}
    np.testing.assert_array_equal(frame_from_atoms(atoms).labels["virial"], atoms.info["virial"])


@pytest.mark.parametrize(
    "energy", ["energy", "Energy", "REF_energy", "dft_energy", "energy_qm", "TotEnergy", "label-energy"]
)
@pytest.mark.parametrize("forces", ["forces", "force", "DFT_forces", "REF_force"])
def test_usual_spellings_of_reference_labels_are_guessed_and_reported(energy, forces):
    atoms = water(**{energy: -2.5})
    atoms.arrays[forces] = np.ones((3, 3))
    report = ReadReport()
    frame = frame_from_atoms(atoms, report=report)
    assert float(frame.labels["energy"]) == -2.5
    np.testing.assert_array_equal(frame.labels["forces"], np.ones((3, 3)))
    assert report.used == {("energy", energy): 1, ("forces", forces): 1}


@pytest.mark.parametrize("key", ["mace_energy", "kinetic_energy", "energy_per_atom", "formation_energy", "pbe_energy"])
def test_keys_that_may_mean_something_else_are_not_used_but_reported(key):
    report = ReadReport()
    frame = frame_from_atoms(water(**{key: -2.5}), report=report)
    assert not frame.labels
    assert report.guessed
    assert key in report.lines()[0]
    assert float(frame_from_atoms(water(**{key: -2.5}), LabelKeys(energy=key)).labels["energy"]) == -2.5


def test_two_candidates_that_differ_are_refused_naming_both():
    with pytest.raises(DataError, match=r"x#1: several keys could be the energy.*'REF_energy'.*'dft_energy'"):
        frame_from_atoms(water(REF_energy=1.0, dft_energy=2.0), source="x#1")
    same = frame_from_atoms(water(REF_energy=1.0, dft_energy=1.0))
    assert float(same.labels["energy"]) == 1.0


def test_free_energy_is_not_the_energy_where_there_is_one():
    atoms = water()
    report = ReadReport()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.5, energies=np.zeros(3))
    assert float(frame_from_atoms(atoms, report=report).labels["energy"]) == -1.0
    assert "not used: 'free_energy'" in "; ".join(report.lines())
    assert not report.guessed
    atoms.calc = SinglePointCalculator(atoms, free_energy=-1.5)
    assert float(frame_from_atoms(atoms).labels["energy"]) == -1.5


def test_results_of_a_calculator_are_stale_once_the_atoms_move():
    atoms = crystal()
    atoms.calc = EMT()
    atoms.get_forces()
    assert {"energy", "forces"} <= set(frame_from_atoms(atoms).labels)
    atoms.positions[0, 0] += 0.1
    assert not frame_from_atoms(atoms).labels


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("label", ["energy", "forces", "virial"])
def test_label_that_is_not_finite_is_refused_with_frame_and_label(bad, label):
    atoms = water(energy=1.0, virial=np.eye(3))
    atoms.arrays["forces"] = np.zeros((3, 3))
    if label == "energy":
        atoms.info["energy"] = bad
    elif label == "forces":
        atoms.arrays["forces"][1, 2] = bad
    else:
        atoms.info["virial"] = np.full((3, 3), bad)
    with pytest.raises(DataError, match=rf"w\.xyz#7: '{label}'.*NaN or infinity"):
        frame_from_atoms(atoms, source="w.xyz#7")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"energy": "n/a"}, "not a number"),
        ({"energy": np.zeros(2)}, r"shape \(2,\)"),
        ({"virial": np.zeros(6)}, r"shape \(6,\)"),
        ({"stress": np.zeros(5)}, r"shape \(5,\)"),
        ({"forces": np.zeros((2, 3))}, r"shape \(2, 3\), expected \(3, 3\)"),
    ],
)
def test_label_of_wrong_shape_is_refused(info, message):
    with pytest.raises(DataError, match=message):
        frame_from_atoms(water(**info))


def test_positions_that_are_not_finite_and_unknown_elements_are_refused():
    atoms = water()
    atoms.positions[0, 0] = np.nan
    with pytest.raises(DataError, match="a#0: positions or cell contain NaN"):
        structure_from_atoms(atoms, "a#0")
    with pytest.raises(DataError, match="atom 1 is of no known element"):
        structure_from_atoms(Atoms("HX", positions=[[0, 0, 0], [0, 0, 1]]))
    with pytest.raises(DataError, match="no atoms"):
        structure_from_atoms(Atoms())


def test_atoms_to_frame_and_back_loses_nothing_and_shares_no_memory():
    atoms = crystal()
    atoms.calc = EMT()
    atoms.get_stress()
    frame = frame_from_atoms(atoms)
    again = frame_from_atoms(atoms_from_frame(frame))
    assert set(again.labels) == {"energy", "forces", "virial"}
    for name, value in frame.labels.items():
        np.testing.assert_allclose(again.labels[name], value, rtol=0, atol=1e-12)
    frame.positions[0] += 1.0
    frame.labels["forces"][0] += 1.0
    assert not np.allclose(frame.positions, atoms.positions)
    assert not np.allclose(frame.labels["forces"], atoms.calc.results["forces"])


def test_structure_without_labels_ignores_ambiguous_ones():
    frame = structure_from_atoms(water(REF_energy=1.0, energy=2.0))
    assert not frame.labels
