"""Energies per element: exact where the data determine them, and a clear message where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.data.baseline import fit_baseline, given_baseline, isolated_atom_baseline
from lamella.data.source import open_frames
from lamella.data.statistics import environment_statistics, label_std
from lamella.errors import DataError, RecipeError
from lamella.geometry.neighbors import neighbor_edges
from lamella.geometry.switch import Shell
from lamella.types import Frame

TRUE = {1: -13.6, 6: -1030.5, 8: -2042.25}


def frame(numbers, energy=None, cell=None, source="f#0") -> Frame:
    numbers = np.array(numbers)
    positions = np.arange(len(numbers))[:, None] * np.array([[1.5, 0.3, 0.0]])
    labels = {} if energy is None else {"energy": np.array(float(energy))}
    box = np.zeros((3, 3)) if cell is None else cell * np.eye(3)
    return Frame(numbers, positions, box, np.full(3, cell is not None), labels, source)


def exact(numbers) -> Frame:
    return frame(numbers, sum(TRUE[z] for z in numbers))


def test_least_squares_recovers_energies_that_the_data_determine():
    frames = [exact(numbers) for numbers in ([1, 1, 8], [1, 1], [6, 1, 1, 1, 1], [6, 8, 8], [6, 8])]
    fit = fit_baseline(iter(frames), ["O", "H", "C"])
    assert fit.energies == pytest.approx({"O": TRUE[8], "H": TRUE[1], "C": TRUE[6]}, abs=1e-9)
    assert (fit.rank, fit.frames, fit.message) == (3, 5, "")
    assert fit.rms < 1e-9
    assert list(fit.energies) == ["O", "H", "C"]


def test_solution_and_residual_agree_with_numpy_over_many_chunks():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(9000):
        numbers = rng.choice([1, 6, 8], rng.integers(1, 9))
        frames.append(frame(numbers, sum(TRUE[z] for z in numbers.tolist()) + rng.normal(scale=0.1)))
    fit = fit_baseline(frames, ["H", "C", "O"])
    counts = np.array([[(f.numbers == z).sum() for z in (1, 6, 8)] for f in frames], dtype=float)
    energies = np.array([float(f.labels["energy"]) for f in frames])
    solution, _, rank, singular = np.linalg.lstsq(counts, energies, rcond=None)
    np.testing.assert_allclose(list(fit.energies.values()), solution, atol=1e-9)
    assert fit.rms == pytest.approx(np.sqrt((((energies - counts @ solution) / counts.sum(axis=1)) ** 2).mean()), rel=1e-9)
    assert fit.rank == rank
    assert fit.condition == pytest.approx(singular[0] / singular[-1])


def test_fixed_composition_gives_least_norm_and_names_the_ratio():
    fit = fit_baseline([exact([8, 1, 1]), exact([8, 1, 1] * 4)], ["H", "O"])
    assert 2 * fit.energies["H"] + fit.energies["O"] == pytest.approx(2 * TRUE[1] + TRUE[8])
    assert fit.energies["H"] == pytest.approx(2 * fit.energies["O"])
    assert fit.rank == 1
    assert "H and O always occur in the ratio 2:1" in fit.message
    assert "isolated atoms" in fit.message


def test_linear_dependence_between_more_elements_is_named():
    # counts of O are the sum of those of H and C in every frame
    fit = fit_baseline([exact([1, 8]), exact([6, 8]), exact([1, 6, 8, 8])], ["H", "C", "O"])
    assert fit.rank == 2
    assert "H, C, O cannot be told apart (1 of 3 energies open" in fit.message


def test_independent_ambiguities_are_told_one_by_one_and_absent_elements_too():
    frames = [frame([1, 1, 8], -30.0), frame([11, 17], -9.0), frame([2], -2.0)]
    fit = fit_baseline(frames, ["H", "O", "Na", "Cl", "He", "Xe"])
    assert "Xe does not occur" in fit.message
    assert "H and O always occur in the ratio 2:1" in fit.message
    assert "Na and Cl always occur in the ratio 1:1" in fit.message
    assert "He" not in fit.message
    assert fit.energies["He"] == pytest.approx(-2.0)
    assert fit.energies["Xe"] == 0.0


def test_fit_refuses_data_without_energies_and_unknown_elements():
    with pytest.raises(DataError, match="no frame has an energy"):
        fit_baseline([frame([1, 1])], ["H"])
    with pytest.raises(DataError, match="f#0: the element O is not among"):
        fit_baseline([exact([1, 8])], ["H"])


def test_isolated_atoms_are_single_atoms_without_images():
    frames = [frame([1], -13.6), frame([8], -2042.25, cell=12.0), frame([8], -2049.0, cell=2.5), exact([8, 1, 1])]
    assert isolated_atom_baseline(frames, ["O", "H"]) == {"O": -2042.25, "H": -13.6}
    with pytest.raises(DataError, match="no isolated-atom frame for C"):
        isolated_atom_baseline(frames, ["O", "C"])
    with pytest.raises(DataError, match="a#1 and b#2 are both an isolated H atom"):
        isolated_atom_baseline([frame([1], -13.6, source="a#1"), frame([1], -12.0, source="b#2")], ["H"])


def test_given_numbers_must_cover_every_element():
    assert given_baseline({"H": -1, "O": -2.5}, ["O", "H"]) == {"O": -2.5, "H": -1.0}
    with pytest.raises(RecipeError, match="no energy for O"):
        given_baseline({"H": -1.0}, ["H", "O"])
    with pytest.raises(RecipeError, match="'Hh' is no chemical symbol"):
        given_baseline({"Hh": -1.0}, ["H"])
    with pytest.raises(RecipeError, match="energy of H is nan"):
        given_baseline({"H": float("nan")}, ["H"])


def test_baseline_of_real_water_matches_the_published_residual(shared):
    frames = open_frames([shared / "data/water_pbe0ts_npy"])
    fit = fit_baseline((frames[i] for i in range(len(frames))), ["H", "O"])
    assert fit.rms == pytest.approx(3.4e-3, abs=1e-4)  # README of the sets: 3.4 meV/atom
    assert fit.energies["O"] == pytest.approx(-93.574, abs=1e-3)


def test_isolated_atoms_of_a_real_set(shared):
    frames = open_frames([shared / "data/bpa3/isolated_atoms.extxyz"])
    energies = isolated_atom_baseline((frames[i] for i in range(len(frames))), ["H", "C", "N", "O"])
    assert all(value < -1.0 for value in energies.values())


def test_label_std_is_of_energy_per_atom_and_force_components():
    rng = np.random.default_rng(0)
    frames = []
    for n in (2, 3, 5, 8):
        forces = rng.normal(size=(n, 3)) + 5.0
        labels = {"energy": np.array(n * rng.normal()), "forces": forces}
        frames.append(Frame(np.ones(n, int), np.zeros((n, 3)), np.zeros((3, 3)), np.zeros(3, bool), labels))
    std = label_std(frames)
    assert std["energy"] == pytest.approx(np.std([float(f.labels["energy"]) / len(f) for f in frames]))
    assert std["forces"] == pytest.approx(np.concatenate([f.labels["forces"].ravel() for f in frames]).std())
    assert "virial" not in std
    with pytest.raises(DataError, match="no frame carries a label"):
        label_std([frame([1])])


def test_environment_statistics_match_loops():
    rng = np.random.default_rng(2)
    frames = [frame([8, 1, 1, 6]), frame(rng.choice([1, 8], 5).tolist(), cell=8.0)]
    mean, std = environment_statistics(frames, ["H", "O", "Xe", "C"], Shell("cutoff", 3.0, 5.0), slots=20)
    values: dict[int, list[list[float]]] = {1: [], 8: [], 6: []}
    for item in frames:
        src, _, vec = neighbor_edges(item.positions, item.cell, item.pbc, 5.0)
        for atom, number in enumerate(item.numbers.tolist()):
            rows = [_row(v) for s, v in zip(src, vec, strict=True) if s == atom]
            values[number] += rows + [[0.0] * 4] * (20 - len(rows))
    for index, number in ((0, 1), (1, 8), (3, 6)):
        table = np.array(values[number])
        assert mean[index] == pytest.approx(table[:, 0].mean())
        assert std[index] == pytest.approx([max(table[:, 0].std(), 0.01), max(table[:, 1:].std(), 0.01)])
    assert (mean[2], std[2].tolist()) == (0.0, [0.1, 0.1])


def _row(vec: np.ndarray) -> list[float]:
    r = float(np.linalg.norm(vec))
    u = min(max((r - 3.0) / 2.0, 0.0), 1.0)
    w = u**3 * (-6 * u**2 + 15 * u - 10) + 1
    return [w / r, *(w * vec / r**2)]
