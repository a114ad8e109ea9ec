"""Model deviation: against its definition, against deepmd-kit's numbers, and as files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from ase.data import atomic_numbers
from ase.io import read

from golden_models import GOLDEN
from lamella.data.convert import structure_from_atoms
from lamella.data.source import FrameList
from lamella.errors import DataError, InputError, StructureError
from lamella.formats.load import load
from lamella.types import Frame, Prediction
from lamella.use import predict as prediction
from lamella.use.deviation import COLUMNS, DeviationConfig, Member, deviation, deviations, summarise
from lamella.use.deviation_files import DeviationTable, require_suffix, write_deviations
from use.small import dimer, small_model, water_box


@pytest.fixture(scope="module")
def members():
    return [Member(small_model(seed=seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def frames():
    listed = [water_box(), dimer(), water_box(1), water_box(2, seed=3)]
    return FrameList(structure_from_atoms(atoms, f"x#{index}") for index, atoms in enumerate(listed))


@pytest.fixture(scope="module")
def found(members, frames):
    return list(deviations(members, frames))


def test_deviation_is_the_standard_deviation_written_out_in_loops(members, frames, found):
    for frame, each in zip(frames, found, strict=True):
        guesses = [next(iter(prediction.predict_frames(member.model, [frame])))[1] for member in members]
        for atom in range(len(frame)):
            variance = 0.0
            for axis in range(3):
                values = [float(guess.forces[atom, axis]) for guess in guesses]
                mean = sum(values) / 3
                variance += sum((value - mean) ** 2 for value in values) / 3
            assert each.forces[atom] == pytest.approx(variance**0.5, rel=1e-10)
        energies = [guess.energy / len(frame) for guess in guesses]
        mean = sum(energies) / 3
        assert each.energy == pytest.approx((sum((e - mean) ** 2 for e in energies) / 3) ** 0.5, rel=1e-10)
        spread = np.std([guess.virial / len(frame) for guess in guesses], axis=0)
        np.testing.assert_allclose(each.virial, spread, rtol=1e-10)
        row = each.row()
        assert row["virial_rms"] == pytest.approx(np.linalg.norm(spread) / 3)
        assert row["forces_max"] == each.forces[each.worst_atom] == max(each.forces)


def test_deviation_needs_no_batch_in_common(members, frames, found, monkeypatch):
    monkeypatch.setattr(prediction, "MAX_EDGES", 1)
    for one, other in zip(found, deviations(members, frames), strict=True):
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-12)


def test_equal_models_do_not_deviate(frames):
    for each in deviations([Member(small_model())] * 3, frames):
        assert max(value for value in each.row().values() if value is not None) < 1e-12


ORDER = ("virial_max", "virial_min", "virial_rms", "forces_max", "forces_min", "forces_mean", "energy")


def golden_frames(name: str) -> list[Frame]:
    with np.load(GOLDEN / "deviation.npz") as stored:
        cell = stored[f"{name}/cell"] if f"{name}/cell" in stored else np.zeros((3, 3))
        numbers = np.array([atomic_numbers[symbol] for symbol in stored[f"{name}/symbols"]])
        labels = [key for key in ("energy", "forces", "virial") if f"{name}/{key}" in stored]
        return [
            Frame(
                numbers,
                positions,
                cell,
                np.full(3, bool(cell.any())),
                {key: stored[f"{name}/{key}"][index] for key in labels},
                source=f"{name}#{index}",
            )
            for index, positions in enumerate(stored[f"{name}/positions"])
        ]


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("periodic/plain", {}),
        ("cluster/plain", {}),
        ("periodic/relative", {"relative": 0.7}),
        ("cluster/relative", {"relative": 0.7}),
        ("periodic_first/relative", {"relative": 0.7, "relative_virial": 0.3}),
        ("cluster_first/relative", {"relative": 0.7, "relative_virial": 0.3}),
        ("periodic/real", {"real_error": True}),
        ("periodic_first/real_relative", {"relative": 0.7, "relative_virial": 0.3, "real_error": True}),
    ],
)
def test_numbers_are_those_of_deepmd_kit(table, options, tmp_path):
    members = [Member(load(GOLDEN / f"dpa3_{name}.pt")) for name in ("static", "dynamic")]
    with np.load(GOLDEN / "deviation.npz") as stored:
        known = stored[table]
    name = table.partition("/")[0]
    frames = golden_frames(name.removesuffix("_first"))[: 1 if name.endswith("_first") else None]
    found = list(deviations(members, frames, DeviationConfig(**options)))
    got = np.array([[*(each.row()[column] for column in ORDER), *each.forces] for each in found])
    np.testing.assert_allclose(got, known[:, 1:], rtol=1e-6)  # the file has seven digits
    write_deviations(tmp_path / "devi.out", DeviationTable(found, FrameList(frames), frequency=5, atomic=True))
    np.testing.assert_allclose(np.loadtxt(tmp_path / "devi.out", ndmin=2), known, rtol=1e-6)


def guess(energy: float, forces: list[list[float]], virial: float) -> Prediction:
    return Prediction(energy, np.zeros(len(forces)), np.array(forces), np.full((3, 3), virial))


def test_real_error_without_a_label_is_absent():
    frame = Frame(
        np.array([1, 1]), np.zeros((2, 3)), np.zeros((3, 3)), np.full(3, False), {"energy": np.array(2.0)}, source="x"
    )
    config = DeviationConfig(real_error=True)
    each = deviation([guess(4.0, [[0, 0, 0]] * 2, 0), guess(2.0, [[0, 0, 0]] * 2, 0)], frame, config)
    assert (each.forces, each.virial, each.worst_atom) == (None, None, None)
    assert each.energy == pytest.approx((0.5 * 1.0**2) ** 0.5)
    assert list(summarise([each.row()])) == ["energy"]


def test_relative_deviation_of_an_atom_without_force_is_finite():
    frame = Frame(np.array([1]), np.zeros((1, 3)), np.zeros((3, 3)), np.full(3, False), source="x")
    pair = [guess(0.0, [[3.0, 0, 4.0]], 1.0), guess(0.0, [[-3.0, 0, -4.0]], -1.0)]
    each = deviation(pair, frame, DeviationConfig(relative=2.0, relative_virial=0.5))
    assert each.forces == pytest.approx([5.0 / 2.0])
    assert each.virial == pytest.approx(np.full((3, 3), 1.0 / 0.5))


def test_tasks_of_one_model_are_an_ensemble_too(frames):
    model = small_model(tasks=("pbe", "scan"))
    with pytest.raises(InputError, match="pbe, scan"):
        deviations([Member(model), Member(model, "scan")], frames)
    each = next(deviations([Member(model, "pbe"), Member(model, "scan")], frames))
    assert each.energy > 0.1


def test_too_few_models_are_refused(members, frames):
    with pytest.raises(InputError, match="between two or more"):
        deviations(members[:1], frames)
    labelled = Frame(
        frames[1].numbers,
        frames[1].positions,
        frames[1].cell,
        frames[1].pbc,
        {"forces": np.zeros((6, 3))},
        source="x",
    )
    (each,) = deviations(members[:1], [labelled], DeviationConfig(real_error=True))
    assert each.forces.max() > 0


def test_frames_that_cannot_be_predicted_are_named(members, frames):
    copper = Frame(np.array([29]), np.zeros((1, 3)), np.zeros((3, 3)), np.full(3, False), source="set#7")
    with pytest.raises(StructureError, match=r"set#7: .*Cu"):
        list(deviations(members, [frames[0], copper]))
    with pytest.raises(DataError, match="x#1: a model predicts NaN"):
        deviation([guess(np.nan, [[0, 0, 0]] * 6, 0)] * 2, frames[1], DeviationConfig())


@pytest.mark.parametrize("level", [0.0, -1.0, float("nan"), float("inf")])
def test_level_must_be_positive(level):
    with pytest.raises(ValueError, match="relative"):
        DeviationConfig(relative=level)


def test_summary_says_which_frame_deviates_most(found):
    summary = summarise([each.row() for each in found])
    values = [float(each.forces.max()) for each in found]
    assert list(summary) == list(COLUMNS)
    assert summary["forces_max"].largest == max(values)
    assert summary["forces_max"].frame == values.index(max(values))
    assert summary["forces_max"].mean == pytest.approx(np.mean(values))
    assert summary["forces_max"].median == pytest.approx(np.median(values))


@pytest.mark.parametrize("atomic", [False, True])
def test_every_kind_of_file_holds_the_same_numbers(found, frames, tmp_path, atomic):
    table = DeviationTable(found, frames, 10, atomic)
    for suffix in (".csv", ".npz", ".json", ".out", ".extxyz"):
        write_deviations(tmp_path / f"devi{suffix}", table)
    with (tmp_path / "devi.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    listed = json.loads((tmp_path / "devi.json").read_text())
    with np.load(tmp_path / "devi.npz") as stored:
        arrays = dict(stored)
    drawn = read(tmp_path / "devi.extxyz", index=":")
    plain = (tmp_path / "devi.out").read_text().splitlines()
    assert len(lines) == len(listed) == len(drawn) == len(plain) - 1 == len(found)
    for index, each in enumerate(found):
        assert int(lines[index]["step"]) == listed[index]["step"] == arrays["step"][index] == 10 * index
        assert lines[index]["source"] == listed[index]["source"] == arrays["source"][index] == f"x#{index}"
        for name, value in each.row().items():
            assert float(lines[index][name]) == listed[index][name] == arrays[name][index] == value
            assert drawn[index].info[f"lamella_deviation_{name}"] == pytest.approx(value, abs=1e-7)
        np.testing.assert_allclose(drawn[index].arrays["lamella_deviation_forces"], each.forces, atol=1e-7)
        numbers = [float(word) for word in plain[index + 1].split()]
        assert len(numbers) == 8 + atomic * each.atoms
        assert numbers[4] == pytest.approx(each.forces.max(), rel=1e-6)
        if atomic:
            cells = [lines[index][f"forces_{atom}"] for atom in range(24)]
            assert [float(cell) for cell in cells if cell] == listed[index]["forces"] == each.forces.tolist()
            start = int(arrays["atoms"][:index].sum())
            assert arrays["forces"][start : start + each.atoms].tolist() == each.forces.tolist()


def test_missing_labels_are_empty_in_every_file(tmp_path, frames):
    config = DeviationConfig(real_error=True)
    frame = Frame(np.array([1, 1]), np.eye(2, 3), np.zeros((3, 3)), np.full(3, False), {"energy": np.array(2.0)}, source="x")
    each = deviation([guess(4.0, [[0, 0, 0]] * 2, 0)], frame, config)
    table = DeviationTable([each], FrameList([frame]), atomic=True)
    for suffix in (".csv", ".npz", ".json", ".out", ".extxyz"):
        write_deviations(tmp_path / f"devi{suffix}", table)
    assert json.loads((tmp_path / "devi.json").read_text())[0]["forces_max"] is None
    assert (tmp_path / "devi.csv").read_text().splitlines()[1] == "0,x,2,,,,,,,1.0,,,"
    with np.load(tmp_path / "devi.npz") as stored:
        assert np.isnan(stored["forces_max"][0])
        assert stored["energy"][0] == 1.0


def test_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"devi.xlsx: deviations are written as \.csv, \.npz"):
        require_suffix(tmp_path / "devi.xlsx")
