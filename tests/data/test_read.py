"""Files of every kind become the same frames, or a sentence that names file and frame."""

from __future__ import annotations

import gzip
import logging
import shutil

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from lamella.data.digest import frame_digest
from lamella.data.extxyz import read_atoms, write_frames
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.read import iter_frames
from lamella.data.source import open_frames
from lamella.errors import DataError


def crystals(n: int = 3) -> list[Atoms]:
    images = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.get_stress()
        images.append(atoms)
    return images


def read(path, **keys) -> list:
    return list(iter_frames(path, LabelKeys(**keys) if keys else None))


def lines(path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


ATOM = "H 0.0 0.0 0.0\nH 0.0 0.0 0.7\n"


def test_extxyz_written_by_ase_gives_energy_forces_and_virial(tmp_path):
    images = crystals()
    write(tmp_path / "cu.extxyz", images)
    frames = read(tmp_path / "cu.extxyz")
    assert len(frames) == 3
    for frame, atoms in zip(frames, images, strict=True):
        assert float(frame.labels["energy"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(frame.labels["forces"], atoms.get_forces(), atol=1e-8)
        np.testing.assert_allclose(frame.labels["virial"], -atoms.get_volume() * atoms.get_stress(voigt=False), atol=1e-12)
        assert frame.pbc.all()
    assert frames[2].source == f"{tmp_path / 'cu.extxyz'}#2"


def test_extxyz_written_by_lamella_keeps_every_digit(tmp_path):
    write(tmp_path / "a.traj", crystals())
    frames = read(tmp_path / "a.traj")
    write_frames(tmp_path / "b.extxyz", frames)
    again = read(tmp_path / "b.extxyz")
    for a, b in zip(frames, again, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.labels["forces"], b.labels["forces"])
        assert frame_digest(a) == frame_digest(b)


def test_gzipped_files_and_blank_lines_between_frames_are_read_whole(tmp_path):
    text = f'2\nenergy=1.0 pbc="F F F"\n{ATOM}\n\n2\nenergy=2.0\n{ATOM}\n'
    lines(tmp_path / "a.xyz", text)
    with gzip.open(tmp_path / "b.xyz.gz", "wt") as handle:
        handle.write(text)
    for name in ("a.xyz", "b.xyz.gz"):
        assert [float(frame.labels["energy"]) for frame in read(tmp_path / name)] == [1.0, 2.0]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    text = f"2\nenergy=1.0\n{ATOM}" * 2
    (tmp_path / "a.xyz").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert [float(frame.labels["energy"]) for frame in read(tmp_path / "a.xyz")] == [1.0, 1.0]


def test_a_last_line_without_its_end_is_whole_where_it_has_all_columns(tmp_path):
    assert len(read(lines(tmp_path / "a.xyz", f"2\nenergy=1.0\n{ATOM}".rstrip()))) == 1
    assert len(read(lines(tmp_path / "b.xyz", "1\nenergy=1.0 a=1 b=2 c=3 d=4 e=5\nH 0 0 0"))) == 1


def test_bytes_that_are_no_text_and_broken_compression_are_refused_by_name(tmp_path):
    text = f"2\nenergy=1.0\n{ATOM}" * 200
    (tmp_path / "latin.xyz").write_bytes(text.replace("energy", 'note="caf\xe9" energy').encode("latin-1"))
    (tmp_path / "cut.xyz.gz").write_bytes(gzip.compress(text.encode())[:-40])
    (tmp_path / "plain.xyz.gz").write_text(text)
    for name, message in (("latin.xyz", "no text in UTF-8"), ("cut.xyz.gz", "cut short"), ("plain.xyz.gz", "damaged")):
        with pytest.raises(DataError, match=f"{name}: .*{message}"):
            read(tmp_path / name)


def test_one_frame_is_found_by_its_index_without_reading_what_follows(tmp_path):
    path = tmp_path / "a.xyz"
    lines(path, f"2\nenergy=0\n{ATOM}\n\n2\nenergy=1\n{ATOM}2\nenergy=2\n{ATOM}")
    for index, energy in ((0, 0.0), (2, 2.0), (-1, 2.0), (-3, 0.0)):
        assert read_atoms(path, index).get_potential_energy() == energy
    for index in (3, -4):
        with pytest.raises(DataError, match=rf"it has 3 frames, so none of index {index};"):
            read_atoms(path, index)
    path.write_text(path.read_text().rstrip()[:-4])
    assert read_atoms(path, 1).get_potential_energy() == 1.0
    with pytest.raises(DataError, match="#2: the file ends in the middle"):
        read_atoms(path, -1)


def test_six_component_stress_in_a_comment_line_is_voigt(tmp_path):
    path = lines(tmp_path / "a.xyz", f'2\nLattice="2 0 0 0 2 0 0 0 2" stress="1 2 3 4 5 6" energy=0\n{ATOM}')
    (frame,) = read(path)
    np.testing.assert_allclose(frame.labels["virial"], -8.0 * np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.xyz", "", "the file is empty"),
        ("blank.xyz", "\n\n", "holds no frames"),
        (
            "short.xyz",
            f"2\nenergy=1\n{ATOM}2\nenergy=2\nH 0 0 0\n",
            r"short.xyz#1: the frame announces 2 atoms but .* after 1",
        ),
        ("header.xyz", f"2\nenergy=1\n{ATOM}2\n", r"header.xyz#1: the frame announces 2 atoms but .* after 0"),
        ("few.xyz", f"1\nenergy=1\n{ATOM}", r"few.xyz#1: line 4 should be the number of atoms"),
        ("row.xyz", "2\nenergy=1\nH 0 0 0\nH 0 0\n", r"row.xyz#0: the frame cannot be read"),
        (
            "cut.xyz",
            f"2\nenergy=1\n{ATOM}2\nenergy=2\nH 0 0 0\nH 0 0",
            r"cut.xyz#1: the file ends in the middle of the last atom's line \('H 0 0'\)",
        ),
        ("digit.xyz", "²\nenergy=1\nH 0 0 0\n", r"digit.xyz#0: line 1 should be the number of atoms"),
        ("true.xyz", f"2\nenergy=T\n{ATOM}", r"true.xyz#0: 'energy' \(read as energy\) is not a number but 'True'"),
        ("far.xyz", "2\nenergy=1\nH 0 0 0\nH 0 1e15 0\n", r"far.xyz#0: atom 1 is 1e\+15 Å from the origin"),
        ("none.xyz", "0\nenergy=1\n", r"none.xyz#0: the frame has no atoms"),
        ("element.xyz", "1\nenergy=1\nQq 0 0 0\n", r"element.xyz#0: the frame cannot be read"),
        ("nan.xyz", f"2\nenergy=nan\n{ATOM}", r"nan.xyz#0: 'energy'.*NaN"),
        ("noise.zzz", "hello\nworld\n", "noise.zzz: neither its name nor its content tells the format"),
    ],
)
def test_broken_file_gives_one_sentence_that_names_it(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read(lines(tmp_path / name, text))


def test_missing_file_suggests_the_nearest_name(tmp_path):
    lines(tmp_path / "water.xyz", f"2\nenergy=1\n{ATOM}")
    with pytest.raises(DataError, match=r"wator\.xyz: no such file or folder \(did you mean 'water\.xyz'\?\)"):
        read(tmp_path / "wator.xyz")


def test_what_was_guessed_is_logged_as_a_warning_and_what_is_plain_is_not(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="lamella"):
        read(lines(tmp_path / "plain.xyz", f"2\nenergy=1\n{ATOM}"))
        read(lines(tmp_path / "ref.xyz", f"2\nREF_energy=1 mace_energy=2\n{ATOM}"))
    plain, guessed = caplog.records
    assert plain.levelno == logging.INFO
    assert guessed.levelno == logging.WARNING
    assert "energy <- 'REF_energy' (1 frames)" in guessed.getMessage()
    assert "'mace_energy'" in guessed.getMessage()


def test_named_key_that_no_frame_has_is_an_error_with_the_nearest_name(tmp_path):
    path = lines(tmp_path / "a.xyz", f"2\nREF_energy=1\n{ATOM}")
    with pytest.raises(DataError, match=r"keys\.energy: no frame .* 'REF_enrgy' \(did you mean 'REF_energy'\?\)"):
        open_frames([path], LabelKeys(energy="REF_enrgy"))
    assert float(open_frames([path], LabelKeys(energy="REF_energy"))[0].labels["energy"]) == 1.0


def test_ase_trajectory_and_an_explicit_format_are_read(tmp_path):
    write(tmp_path / "cu.traj", crystals())
    assert set(read(tmp_path / "cu.traj")[0].labels) == {"energy", "forces", "virial"}
    shutil.copy(tmp_path / "cu.traj", tmp_path / "data.bin")
    assert len(read(f"traj:{tmp_path / 'data.bin'}")) == 3
    assert len(list(iter_frames(tmp_path / "data.bin", format="traj"))) == 3


def test_truncated_trajectory_names_the_file(tmp_path):
    write(tmp_path / "cu.traj", crystals())
    content = (tmp_path / "cu.traj").read_bytes()
    (tmp_path / "cut.traj").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.traj"):
        read(tmp_path / "cut.traj")


def system(folder, frames: int = 3, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """A deepmd system of ``frames`` frames of H2O; ``None`` leaves an array out."""
    rng = np.random.default_rng(1)
    arrays = {
        "coord": rng.normal(size=(frames, 9)) + np.tile([0, 0, 0, 3, 0, 0, 0, 3, 0], (frames, 1)),
        "box": np.tile(9.0 * np.eye(3).ravel(), (frames, 1)),
        "energy": rng.normal(size=frames),
        "force": rng.normal(size=(frames, 9)),
        "virial": rng.normal(size=(frames, 9)),
    }
    arrays |= {name: value for name, value in changes.items() if value is not None}
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0\n1\n1\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    for name, value in arrays.items():
        if name not in changes or changes[name] is not None:
            np.save(folder / "set.000" / f"{name}.npy", value)
    return arrays


def test_deepmd_npy_becomes_frames_with_its_signs(tmp_path):
    arrays = system(tmp_path / "a", energy=np.array([[1.0], [2.0], [3.0]]))
    frames = read(tmp_path / "a")
    assert [float(frame.labels["energy"]) for frame in frames] == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(frames[1].numbers, [8, 1, 1])
    np.testing.assert_array_equal(frames[1].positions, arrays["coord"][1].reshape(3, 3))
    np.testing.assert_array_equal(frames[1].labels["virial"], arrays["virial"][1].reshape(3, 3))
    np.testing.assert_array_equal(frames[1].labels["forces"], arrays["force"][1].reshape(3, 3))
    assert frames[1].pbc.all()
    assert frames[1].source == f"{tmp_path / 'a'}#1"


def test_deepmd_sets_are_joined_in_order_and_missing_labels_stay_absent(tmp_path):
    system(tmp_path / "b")
    system(tmp_path / "other", frames=2, force=None, virial=None)
    (tmp_path / "other" / "set.000").rename(tmp_path / "b" / "set.001")
    frames = read(tmp_path / "b")
    assert [set(frame.labels) for frame in frames] == [{"energy", "forces", "virial"}] * 3 + [{"energy"}] * 2
    assert [frame.source.rpartition("#")[2] for frame in frames] == list("01234")


def test_deepmd_without_periodicity_has_no_cell(tmp_path):
    system(tmp_path / "a", box=None)
    (tmp_path / "a" / "nopbc").touch()
    frame = read(tmp_path / "a")[0]
    assert not frame.pbc.any()
    assert not frame.cell.any()


def test_deepmd_mixed_drops_virtual_atoms(tmp_path):
    types = np.array([[0, 1, 1], [1, 1, -1], [1, -1, 0]])
    arrays = system(tmp_path / "a", real_atom_types=types)
    (tmp_path / "a" / "type.raw").write_text("0\n0\n0\n")
    frames = read(tmp_path / "a")
    assert [frame.numbers.tolist() for frame in frames] == [[8, 1, 1], [1, 1], [1, 8]]
    np.testing.assert_array_equal(frames[2].positions, arrays["coord"][2].reshape(3, 3)[[0, 2]])
    np.testing.assert_array_equal(frames[2].labels["forces"], arrays["force"][2].reshape(3, 3)[[0, 2]])


def test_folder_of_deepmd_systems_is_read_in_sorted_order(tmp_path):
    for name in ("b", "a"):
        system(tmp_path / "all" / name, frames=1)
    assert [frame.source for frame in read(tmp_path / "all")] == [f"{tmp_path}/all/a#0", f"{tmp_path}/all/b#0"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="neither a lamella store nor a deepmd system"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: (a / "type_map.raw").unlink(), "type_map.raw is missing"),
        (lambda a: (a / "type_map.raw").write_text("O\nType_1\n"), "'Type_1' is no chemical symbol"),
        (lambda a: (a / "type_map.raw").write_text("O\n"), "type 1 is not in type_map.raw"),
        (lambda a: (a / "type.raw").write_text("x\n"), "something else than integers"),
        (lambda a: (a / "set.000" / "coord.npy").unlink(), "coord.npy is missing"),
        (lambda a: (a / "set.000" / "box.npy").unlink(), "box.npy is missing"),
        (lambda a: np.save(a / "set.000" / "force.npy", np.zeros((2, 9))), "different numbers of frames"),
        (lambda a: np.save(a / "set.000" / "force.npy", np.zeros((3, 6))), r"force.npy has shape \(3, 6\)"),
        (lambda a: np.save(a / "set.000" / "energy.npy", [1.0, np.nan, 2.0]), r"a#1: the label energy is not finite"),
        (lambda a: np.save(a / "set.000" / "real_atom_types.npy", np.zeros((3, 2), int)), "real_atom_types.npy has shape"),
        (lambda a: cut(a / "set.000" / "force.npy"), "force.npy cannot be read"),
        (lambda a: (a / "set.000" / "force.npy").write_bytes(b""), "force.npy cannot be read"),
        (lambda a: shutil.rmtree(a / "set.000"), "has no sets"),
    ],
)
def test_damaged_deepmd_system_gives_one_sentence_that_names_the_file(tmp_path, damage, message):
    system(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a")


def cut(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 40])


def test_hdf5_holds_the_same_frames_as_the_folder(tmp_path):
    for name in ("one", "two"):
        system(tmp_path / name, frames=2)
    with h5py.File(tmp_path / "all.hdf5", "w") as handle:
        for name in ("one", "two"):
            group = handle.create_group(f"deep/{name}")
            group["type.raw"] = np.array([0, 1, 1])
            group["type_map.raw"] = np.array(["O", "H"], dtype="S")
            for file in (tmp_path / name / "set.000").iterdir():
                group[f"set.000/{file.name}"] = np.load(file)
    folder = [frame_digest(frame) for frame in read(tmp_path / "two")]
    path = tmp_path / "all.hdf5"
    assert [frame_digest(frame) for frame in read(f"{path}#/deep/two")] == folder
    assert len(read(path)) == 4
    assert read(f"{path}#/deep")[3].source == f"{path}#/deep/two#1"
    with pytest.raises(DataError, match=r"has no group '/deep/tow'.*deep/two"):
        read(f"{path}#/deep/tow")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be opened as HDF5"):
        read(path)


def test_systems_written_by_dpdata_are_read_alike(tmp_path):
    dpdata = pytest.importorskip("dpdata")
    images = crystals()
    write(tmp_path / "cu.extxyz", images)
    expected = read(tmp_path / "cu.extxyz")
    made = dpdata.LabeledSystem(images[0], fmt="ase/structure")
    for atoms in images[1:]:
        made.append(dpdata.LabeledSystem(atoms, fmt="ase/structure"))
    made.to("deepmd/npy", str(tmp_path / "npy"), prec=np.float64)
    made.to("deepmd/hdf5", str(tmp_path / "a.hdf5"), comp_prec=np.float64)
    for path in (tmp_path / "npy", tmp_path / "a.hdf5"):
        for frame, other in zip(read(path), expected, strict=True):
            np.testing.assert_allclose(frame.positions, other.positions, atol=1e-7)
            np.testing.assert_allclose(frame.labels["virial"], other.labels["virial"], atol=1e-6)


def outcar(path, images: list[Atoms], unconverged: int | None = None) -> str:
    """The lines of an OUTCAR that readers look at, with the labels of ``images``."""
    text = [" POSCAR: Cu4", "   TITEL  = PAW_PBE Cu 22Jun2005", "   NELM   =     60;   NELMIN=  2", "   ions per type =  4"]
    for index, atoms in enumerate(images):
        steps = 60 if index == unconverged else 5
        text += [f"--- Iteration      {index + 1}(  {steps})  ---"]
        kbar = -atoms.get_stress()[[0, 1, 2, 5, 3, 4]] / 6.241509e-4
        text += ["  FORCE on cell =-STRESS in cart. coord.  units (eV):", *["  x"] * 12]
        text += ["  Total 0 0 0 0 0 0", "  in kB " + " ".join(f"{value:.8f}" for value in kbar)]
        text += [" VOLUME and BASIS-vectors are now :", *["  x"] * 4]
        text += [" ".join(f"{value:.10f}" for value in row) + " 0 0 0" for row in atoms.cell.array]
        text += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " ---"]
        rows = np.hstack([atoms.positions, atoms.get_forces()])
        text += [" ".join(f"{value:.10f}" for value in row) for row in rows]
        text += [" ---", f"  free  energy   TOTEN  =     {atoms.get_potential_energy():.8f} eV"]
    return lines(path, "\n".join(text) + "\n")


def test_vasp_output_comes_through_dpdata_with_the_right_sign_of_the_virial(tmp_path):
    images = crystals(2)
    outcar(tmp_path / "OUTCAR", images)
    shutil.copy(tmp_path / "OUTCAR", tmp_path / "run.out")
    for path in (tmp_path / "OUTCAR", f"vasp/outcar:{tmp_path / 'run.out'}"):
        frames = read(path)
        assert len(frames) == 2
        for frame, atoms in zip(frames, images, strict=True):
            expected = -atoms.get_volume() * atoms.get_stress(voigt=False)
            assert np.abs(expected).max() > 0.01
            np.testing.assert_allclose(frame.labels["virial"], expected, atol=1e-5)
            np.testing.assert_allclose(frame.labels["forces"], atoms.get_forces(), atol=1e-8)
            assert float(frame.labels["energy"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-7)


def test_unconverged_steps_that_dpdata_drops_are_reported(tmp_path):
    outcar(tmp_path / "OUTCAR", crystals(3), unconverged=1)
    report = ReadReport()
    assert len(list(iter_frames(tmp_path / "OUTCAR", report=report))) == 2
    assert "unconverged" in " ".join(report.lines())
    assert report.guessed


def test_output_that_dpdata_cannot_read_names_file_and_format(tmp_path):
    path = lines(tmp_path / "OUTCAR", "nothing\n")
    with pytest.raises(DataError, match=r"OUTCAR: dpdata cannot read it as vasp/outcar"):
        read(path)
    with pytest.raises(DataError, match=r"no format 'vasp/outcra' \(did you mean 'vasp/outcar'\?\)"):
        read(f"vasp/outcra:{path}")


def test_real_sets_read_the_same_from_npy_and_extxyz(shared):
    xyz = open_frames([shared / "data/water_pbe0ts/valid.extxyz"])
    npy = open_frames([shared / "data/water_pbe0ts_npy/data_3"])
    assert len(xyz) == len(npy) == 80
    for index in (0, 41, 79):
        a, b = xyz[index], npy[index]
        np.testing.assert_array_equal(a.numbers, b.numbers)
        np.testing.assert_allclose(a.labels["forces"], b.labels["forces"], atol=1e-5)
        assert float(a.labels["energy"]) == pytest.approx(float(b.labels["energy"]), abs=1e-3)


def small_system(folder, **arrays):
    part = folder / "set.000"
    part.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n1\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    (folder / "nopbc").touch()
    given = {"coord": np.arange(12.0).reshape(2, 6), "energy": np.ones(2), "force": np.zeros((2, 6))} | arrays
    for name, array in given.items():
        np.save(part / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("energy", np.array(["1.0", "2.0"])),
        ("force", np.full((2, 6), "x")),
        ("energy", np.ones(2, dtype=complex)),
        ("real_atom_types", np.array([[0, 1], [0, np.nan]])),
    ],
)
def test_deepmd_arrays_that_are_no_real_numbers_are_refused_by_name(tmp_path, name, array):
    assert len(read(small_system(tmp_path / "good"))) == 2
    with pytest.raises(DataError, match=rf"bad/set.000/{name}.npy holds"):
        read(small_system(tmp_path / "bad", **{name: array}))


def test_a_type_map_that_is_no_text_is_refused_by_name(tmp_path):
    folder = small_system(tmp_path / "s")
    (folder / "type_map.raw").write_bytes(b"\x80\x81")
    with pytest.raises(DataError, match=r"type_map.raw cannot be read as text"):
        read(folder)


def test_hdf5_links_in_a_circle_are_not_followed_and_links_to_nowhere_are_refused(tmp_path):
    path = tmp_path / "a.hdf5"
    folder = small_system(tmp_path / "s")
    with h5py.File(path, "w") as handle:
        group = handle.create_group("a/water")
        group["type.raw"], group["type_map.raw"], group["nopbc"] = [0, 1], ["O", "H"], True
        for file in (folder / "set.000").iterdir():
            group[f"set.000/{file.name}"] = np.load(file)
        handle["a/circle"] = handle["a"]
    assert [frame.source for frame in read(path)] == [f"{path}#/a/water#{index}" for index in range(2)]
    with h5py.File(path, "a") as handle:
        handle["a/gone"] = h5py.SoftLink("/nowhere")
    with pytest.raises(DataError, match="a/gone: a link that leads nowhere"):
        read(path)
    with h5py.File(path, "a") as handle:
        del handle["a/gone"], handle["a/water/set.000"]
        handle["a/water/set.000"] = np.ones(3)
    with pytest.raises(DataError, match=r"a/water/set.000 is no group"):
        read(path)
