"""Lint finds what was broken on purpose, says which frame of which file, and leaves good data alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from typer.testing import CliRunner

from lamella import datasets
from lamella.cli import app
from lamella.data.convert import frame_from_atoms
from lamella.data.extxyz import write_frames
from lamella.data.lint import LintReport, lint
from lamella.data.source import open_frames
from lamella.data.store import write_store
from lamella.types import Frame


def crystals(n: int = 24) -> list[Frame]:
    """Rattled, strained copper with EMT labels."""
    frames = []
    rng = np.random.default_rng(0)
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(frame_from_atoms(atoms))
    return frames


def check(tmp_path, frames: list[Frame], name: str = "cu.extxyz") -> LintReport:
    write_frames(tmp_path / name, frames)
    return lint([tmp_path / name])


def found(report: LintReport) -> list[tuple[int | None, str]]:
    return [(item.frame, item.kind) for item in report.problems]


def relabel(frame: Frame, **labels: np.ndarray) -> Frame:
    return replace(frame, labels={**frame.labels, **labels})


def test_good_data_have_no_findings(tmp_path):
    report = check(tmp_path, crystals())
    assert report.findings == ()
    assert list(report.frames.values()) == [24]


@pytest.mark.parametrize("name", datasets.names())
def test_embedded_data_have_no_problems(name):
    report = lint([datasets.path(name)])
    assert report.problems == ()
    assert sum(report.frames.values()) == len(datasets.load(name))


def test_frames_the_reader_refuses_are_reported_and_the_rest_is_read(tmp_path):
    write_frames(tmp_path / "a.xyz", crystals(6))
    blocks = (tmp_path / "a.xyz").read_text().split("4\nLattice")[1:]
    blocks[1] = blocks[1].replace("energy=", "energy=nan was=")
    blocks[2] = blocks[2].replace(' virial="', ' virial="9')
    blocks[4] = blocks[4].replace(' stress="', ' stress="0 ')
    (tmp_path / "a.xyz").write_text("".join("4\nLattice" + block for block in blocks) + "4\nenergy=1\nCu 0 0 0\n")
    report = lint([tmp_path / "a.xyz"])
    assert list(found(report)) == [
        (1, "not finite"),
        (2, "stress against virial"),
        (4, "wrong shape"),
        (6, "truncated"),
    ]
    assert report.frames[str(tmp_path / "a.xyz")] == 3


def test_wrong_shape_of_a_deepmd_array_is_reported_with_its_file(tmp_path):
    (tmp_path / "s/set.000").mkdir(parents=True)
    (tmp_path / "s/type.raw").write_text("0 0")
    (tmp_path / "s/type_map.raw").write_text("H")
    np.save(tmp_path / "s/set.000/coord.npy", np.zeros((2, 7)))
    np.save(tmp_path / "s/set.000/box.npy", np.zeros((2, 9)))
    (finding, empty) = lint([tmp_path / "s"]).problems
    assert finding.kind == "wrong shape"
    assert "coord.npy has shape (2, 7)" in finding.message
    assert empty.kind == "empty"


def test_damaged_frame_of_a_store_and_damaged_systems_do_not_stop_lint(tmp_path):
    store = write_store(tmp_path / "s", crystals(8))
    energy = tmp_path / "s" / "energy.bin"
    energy.write_bytes(b"\x01" + energy.read_bytes()[1:])
    report = lint([tmp_path / "s"])
    assert report.frames[str(tmp_path / "s")] == len(store) - 1
    assert [item.kind for item in report.problems] == ["unreadable"]
    for name in ("a", "b"):
        (tmp_path / f"all/{name}/set.000").mkdir(parents=True)
        (tmp_path / f"all/{name}/type.raw").write_text("0")
    report = lint([tmp_path / "all"])
    assert ["type_map.raw is missing" in item.message for item in report.problems[:2]] == [True, True]


def test_net_force_is_found(tmp_path):
    frames = crystals()
    frames[5] = relabel(frames[5], forces=frames[5].labels["forces"] + 0.05)
    assert found(check(tmp_path, frames)) == [(5, "net force")]


def test_duplicates_are_found_within_and_across_files(tmp_path):
    frames = crystals()
    frames[20] = frames[3]
    frames[21] = relabel(frames[4], energy=frames[4].labels["energy"] + 0.01)
    write_frames(tmp_path / "valid.extxyz", frames[:1])
    write_frames(tmp_path / "train.extxyz", frames)
    report = lint([tmp_path / "train.extxyz", tmp_path / "valid.extxyz"])
    assert found(report) == [(20, "duplicate"), (21, "duplicate"), (0, "duplicate")]
    assert "and labels as" in report.problems[0].message
    assert "but other labels as" in report.problems[1].message
    assert report.problems[2].file.endswith("valid.extxyz")
    assert "train.extxyz#0" in report.problems[2].message


@pytest.mark.parametrize("distance", [0.3, 0.0])
def test_close_atoms_are_found_also_through_the_boundary(tmp_path, distance):
    frames = crystals()
    positions = frames[7].positions.copy()
    positions[1] = positions[0] + frames[7].cell[1] + [0.0, 0.0, distance]
    frames[7] = replace(frames[7], positions=positions, labels={})
    report = check(tmp_path, frames)
    assert (7, "close atoms") in found(report)
    assert "atoms 0 and 1" in next(item.message for item in report.problems if item.kind == "close atoms")


@pytest.mark.parametrize("shift", [3.0, -3.0, 26.2 * 4])
def test_energy_off_the_fit_is_found(tmp_path, shift):
    frames = crystals()
    frames[11] = relabel(frames[11], energy=frames[11].labels["energy"] + shift)
    assert found(check(tmp_path, frames)) == [(11, "energy off the fit")]


def test_many_energies_in_another_unit_are_found(tmp_path):
    frames = crystals()
    shifted = [relabel(item, energy=item.labels["energy"] - 1000.0) for item in frames]
    mixed = [shifted[k] if k % 4 == 0 else frames[k] for k in range(24)]
    assert found(check(tmp_path, mixed)) == [(k, "energy off the fit") for k in range(0, 24, 4)]


def test_strained_structure_of_high_energy_is_a_note(tmp_path):
    frames = crystals()
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.45, seed=1)
    atoms.calc = EMT()
    atoms.get_stress()
    frames[11] = frame_from_atoms(atoms)
    report = check(tmp_path, frames)
    assert report.problems == ()
    assert [(item.frame, item.kind) for item in report.findings] == [(11, "energy off the fit")]
    assert "strained structure" in report.findings[0].message


@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False)])
def test_frame_that_lost_its_periodicity_is_found(tmp_path, pbc):
    frames = crystals()
    labels = {name: frames[9].labels[name] for name in ("energy", "forces")}
    frames[9] = replace(frames[9], pbc=np.array(pbc), labels=labels)
    report = check(tmp_path, frames)
    assert found(report) == [(9, "mixed periodicity")]
    assert "Cu4" in report.problems[0].message


def test_periodic_frame_without_a_cell_is_found(tmp_path):
    frames = crystals()
    frames[9] = replace(frames[9], cell=np.zeros((3, 3)), labels={})
    assert found(check(tmp_path, frames)) == [(9, "structure")]


def test_positions_far_apart_suggest_wrong_units(tmp_path):
    frames = [replace(item, positions=10 * item.positions, cell=10 * item.cell, labels={}) for item in crystals(3)]
    report = check(tmp_path, frames)
    assert found(report) == [(None, "no neighbours")]
    assert "units" in report.problems[0].message


def test_wrong_sign_of_the_stress_shows_from_the_forces(tmp_path):
    wrong = [relabel(item, virial=-item.labels["virial"]) for item in crystals()]
    report = check(tmp_path, wrong)
    assert found(report) == [(None, "stress sign")]
    assert "wrong sign" in report.problems[0].message


def test_single_frame_with_the_wrong_sign_of_the_stress_is_found(tmp_path):
    frames = [frame_from_atoms(_rattled(seed)) for seed in range(24)]
    assert found(check(tmp_path, frames, "a.extxyz")) == []
    frames[13] = relabel(frames[13], virial=-frames[13].labels["virial"])
    assert found(check(tmp_path, frames, "b.extxyz")) == [(13, "stress sign")]


def _rattled(seed: int):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
    atoms.get_stress()
    return atoms


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_wrong_sign_of_the_stress_shows_from_strained_perfect_crystals(tmp_path, sign):
    frames = []
    for scale in np.linspace(0.95, 1.05, 8):
        atoms = bulk("Cu", a=3.6 * scale)
        atoms.calc = EMT()
        atoms.get_stress()
        frame = frame_from_atoms(atoms)
        assert np.abs(frame.labels["forces"]).max() < 1e-8
        frames.append(relabel(frame, virial=sign * frame.labels["virial"]))
    expected = [] if sign > 0 else [(None, "stress sign")]
    assert found(check(tmp_path, frames)) == expected


def test_virial_of_a_molecule_is_checked_against_its_forces(tmp_path):
    frames = []
    for seed in range(12):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        frame = frame_from_atoms(atoms)
        forces = atoms.get_forces()
        virial = atoms.positions.T @ forces
        frames.append(
            replace(frame, labels={"energy": np.array(atoms.get_potential_energy()), "forces": forces, "virial": virial})
        )
    assert found(check(tmp_path, frames)) == []
    frames[4] = relabel(frames[4], virial=-frames[4].labels["virial"])
    frames[6] = relabel(frames[6], virial=3.0 * frames[6].labels["virial"])
    report = check(tmp_path, frames)
    assert found(report) == [(4, "stress sign"), (6, "stress sign")]
    assert "negative" in report.problems[0].message


@pytest.mark.parametrize("file", ["mlearn/Li_test", "hfo2_pbe/test", "water_pbe_dplr/test", "nbmotaw/test", "ti_pbe/test"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sign_of_the_stress_is_judged_right_on_real_sets(shared, tmp_path, file, sign):
    frames = open_frames([shared / f"data/{file}.extxyz"])
    signed = [frames[i] for i in range(len(frames))]
    signed = [relabel(f, virial=sign * f.labels["virial"]) if "virial" in f.labels else f for f in signed]
    kinds = [kind for _, kind in found(check(tmp_path, signed))]
    assert kinds.count("stress sign") == (0 if sign > 0 else 1)


def run(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_lint_command_exits_with_1_and_names_file_and_frame(tmp_path):
    frames = crystals()
    write_frames(tmp_path / "good.extxyz", frames)
    assert run("lint", tmp_path / "good.extxyz").exit_code == 0
    bad = [*frames[:3], relabel(frames[3], energy=np.array(np.nan)), *frames[4:]]
    write_frames(tmp_path / "bad.extxyz", bad)
    result = run("lint", tmp_path / "bad.extxyz", tmp_path / "good.extxyz", tmp_path / "gone.extxyz", "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    kinds = {(item["file"].rpartition("/")[2], item["frame"], item["kind"]) for item in content["findings"]}
    assert ("bad.extxyz", 3, "not finite") in kinds
    assert ("gone.extxyz", None, "unreadable") in kinds
    assert content["frames"][str(tmp_path / "good.extxyz")] == 24
    text = run("lint", tmp_path / "bad.extxyz").stdout
    assert "bad.extxyz" in text
    assert "not finite" in text


def test_info_command_describes_a_file(tmp_path):
    write_frames(tmp_path / "cu.extxyz", crystals())
    (content,) = json.loads(run("info", tmp_path / "cu.extxyz", "--json").stdout)
    assert content["frames"] == 24
    assert content["atoms"] == [4, 4.0, 4]
    assert content["elements"] == {"Cu": 24}
    assert content["labels"] == {"energy": 24, "forces": 24, "virial": 24}
    assert content["std"]["forces"] > 0.1
    assert content["content_hash"] == open_frames([tmp_path / "cu.extxyz"]).content_hash
    assert "Cu (24)" in run("info", tmp_path / "cu.extxyz").stdout


def test_convert_command_keeps_every_frame_and_digit(tmp_path):
    write_frames(tmp_path / "cu.extxyz", crystals())
    expected = open_frames([tmp_path / "cu.extxyz"]).content_hash
    assert run("convert", tmp_path / "cu.extxyz", "--out", tmp_path / "cu.store").exit_code == 0
    assert open_frames([tmp_path / "cu.store"]).content_hash == expected
    assert run("convert", tmp_path / "cu.store", "-o", tmp_path / "again.extxyz").exit_code == 0
    assert open_frames([tmp_path / "again.extxyz"]).content_hash == expected
    assert run("convert", tmp_path / "cu.store", "-o", tmp_path / "again.extxyz").exit_code != 0
