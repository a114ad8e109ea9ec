"""Every format gives back the frames it was given, to the last bit, or says what it cannot hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import dpdata
import numpy as np
import pytest
from typer.testing import CliRunner

from lamella.cli import app
from lamella.data import systems_write
from lamella.data.digest import frame_digest
from lamella.data.extxyz import write_frames as write_xyz
from lamella.data.keys import LabelKeys
from lamella.data.read import iter_frames
from lamella.data.store import write_store
from lamella.data.write import FORMATS, write_frames
from lamella.errors import DataError, InputError
from lamella.types import Frame

TARGETS = {"store": "t", "extxyz": "t.extxyz", "deepmd/npy": "t", "deepmd/npy/mixed": "t", "deepmd/hdf5": "t.hdf5"}


def a_frame(seed: int, numbers: list[int], labels: str = "efv", periodic: bool = True) -> Frame:
    rng = np.random.default_rng(seed)
    n = len(numbers)
    values = {"e": ("energy", ()), "f": ("forces", (n, 3)), "v": ("virial", (3, 3)), "a": ("atom_energy", (n,)),
              "p": ("frame_params", (2,)), "c": ("charge", ()), "s": ("spin", ())}  # fmt: skip
    cell = np.diag([9.0, 8.0, 7.0]) + rng.normal(size=(3, 3)) if periodic else np.zeros((3, 3))
    carried = {values[key][0]: np.asarray(rng.normal(size=values[key][1])) for key in labels}
    return Frame(np.array(numbers), rng.normal(size=(n, 3)), cell, np.full(3, periodic), carried, f"x#{seed}")


FRAMES = [
    a_frame(0, [8, 1, 1]),
    a_frame(1, [1, 8, 1]),
    a_frame(2, [8, 1, 1]),
    a_frame(3, [8, 1, 1], "e"),
    a_frame(4, [6], "efp"),
    a_frame(5, [6, 14, 6, 14], ""),
    a_frame(6, [8, 1, 1], "ef", periodic=False),
    a_frame(7, [29], "efvapcs"),
    a_frame(8, [6, 14, 14, 6], "ef"),
]


def digests(frames: list[Frame]) -> Counter[bytes]:
    return Counter(frame_digest(frame) for frame in frames)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path, format):
    write_store(tmp_path / "s", FRAMES)
    frames = [frame for frame in FRAMES if format != "extxyz" or "atom_energy" not in frame.labels]
    write_store(tmp_path / "s2", frames)
    written = write_frames([tmp_path / "s2"], tmp_path / TARGETS[format], format=format)
    assert (written.format, written.frames, dict(written.lost)) == (format, len(frames), {})
    assert written.atoms == (1, 4, sum(map(len, frames)))
    assert written.elements["H"] == 5
    back = list(iter_frames(tmp_path / TARGETS[format]))
    assert digests(back) == digests(frames)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["s", "s2", TARGETS[format]])


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_any_format_becomes_any_other_and_nothing_changes(tmp_path, first, second):
    frames = [a_frame(seed, numbers) for seed, numbers in enumerate([[8, 1, 1], [1, 8, 1], [26, 26]])]
    write_store(tmp_path / "s", frames)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, two = tmp_path / "1" / TARGETS[first], tmp_path / "2" / TARGETS[second]
    write_frames([tmp_path / "s"], one, format=first)
    write_frames([one], two, format=second)
    assert digests(list(iter_frames(two))) == digests(frames)


@pytest.mark.parametrize("format", ["deepmd/npy", "deepmd/npy/mixed"])
def test_dpdata_reads_the_same_numbers_with_the_same_signs(tmp_path, format):
    frames = [a_frame(seed, [8, 1, 1]) for seed in range(3)]
    write_xyz(tmp_path / "a.extxyz", frames)
    write_frames([tmp_path / "a.extxyz"], tmp_path / "t", format=format)
    (folder,) = (path.parent for path in (tmp_path / "t").rglob("type.raw"))
    if format == "deepmd/npy":
        system = dpdata.LabeledSystem(str(folder), fmt=format)
    else:
        (system,) = dpdata.MultiSystems().load_systems_from_file(str(tmp_path / "t"), fmt=format).systems.values()
    np.testing.assert_array_equal(system["energies"], [float(frame.labels["energy"]) for frame in frames])
    np.testing.assert_array_equal(system["virials"], [frame.labels["virial"] for frame in frames])
    np.testing.assert_array_equal(system["cells"], [frame.cell for frame in frames])
    order = np.array([system["atom_names"][kind] for kind in system["atom_types"]])
    assert sorted(order) == ["H", "H", "O"]
    np.testing.assert_array_equal(system["forces"][0][order == "O"], frames[0].labels["forces"][:1])
    np.testing.assert_array_equal(system["coords"][1][order == "O"], frames[1].positions[:1])


def test_frames_of_one_composition_share_a_system_only_where_order_and_labels_agree(tmp_path):
    write_store(tmp_path / "s", FRAMES)
    write_frames([tmp_path / "s"], tmp_path / "npy", format="deepmd/npy")
    names = sorted(path.name for path in (tmp_path / "npy").iterdir())
    assert names == ["C1", "C2Si2", "C2Si2.2", "Cu1", "H2O1", "H2O1.2", "H2O1.3", "H2O1.4"]
    assert np.load(tmp_path / "npy" / "H2O1" / "set.000" / "energy.npy").shape == (2,)
    assert (tmp_path / "npy" / "H2O1" / "type_map.raw").read_text().split() == ["H", "O"]
    assert (tmp_path / "npy" / "H2O1" / "type.raw").read_text().split() == ["1", "0", "0"]
    assert [path.parent.name for path in (tmp_path / "npy").rglob("nopbc")] == ["H2O1.4"]
    write_frames([tmp_path / "s"], tmp_path / "mixed", format="deepmd/npy/mixed")
    assert sum(path.is_dir() for path in (tmp_path / "mixed").iterdir()) < len(names)


@pytest.mark.parametrize("limits", [{"SET_FRAMES": 2}, {"BUFFERED_ATOMS": 5}])
@pytest.mark.parametrize("format", ["deepmd/npy", "deepmd/npy/mixed", "deepmd/hdf5"])
def test_long_systems_are_written_in_sets_of_bounded_memory(tmp_path, monkeypatch, format, limits):
    for name, value in limits.items():
        monkeypatch.setattr(systems_write, name, value)
    frames = [a_frame(seed, [8, 1, 1] if seed % 2 else [26]) for seed in range(9)]
    write_store(tmp_path / "s", frames)
    write_frames([tmp_path / "s"], tmp_path / "t.hdf5", format=format)
    assert digests(list(iter_frames(tmp_path / "t.hdf5"))) == digests(frames)


def test_what_deepmd_cannot_hold_is_refused_or_counted(tmp_path):
    slab = replace(a_frame(0, [8]), pbc=np.array([True, True, False]))
    write_store(tmp_path / "slab", [slab])
    for format in ("deepmd/npy", "deepmd/npy/mixed", "deepmd/hdf5"):
        with pytest.raises(DataError, match=r"x#0: it is periodic in some directions only"):
            write_frames([tmp_path / "slab"], tmp_path / "t.x", format=format)
        assert not (tmp_path / "t.x").exists()
    boxed = replace(a_frame(1, [8], "e", periodic=False), cell=np.eye(3))
    charged = a_frame(2, [8], "ec")
    write_store(tmp_path / "rest", [boxed, charged])
    written = write_frames([tmp_path / "rest"], tmp_path / "t", format="deepmd/npy")
    assert written.lost == {
        "the cell of a frame without periodicity": 1,
        "a charge without a spin, or a spin without a charge": 1,
    }
    assert next(line for line in written.lines() if line.startswith("not kept")).endswith("(1 frames)")


@pytest.mark.parametrize("format", FORMATS)
def test_key_that_no_frame_has_leaves_nothing_behind(tmp_path, format):
    (tmp_path / "a.xyz").write_text('1\nProperties=species:S:1:pos:R:3 energy=-1 pbc="F F F"\nH 0 0 0\n')
    with pytest.raises(DataError, match=r"keys\.energy: no frame of .* has a key 'enrgy' \(did you mean 'energy'\?\)"):
        write_frames([tmp_path / "a.xyz"], tmp_path / "t.x", LabelKeys(energy="enrgy"), format=format)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.xyz"]


@pytest.mark.parametrize("format", FORMATS)
def test_broken_frame_leaves_nothing_behind(tmp_path, format):
    write_xyz(tmp_path / "good.xyz", FRAMES[:3])
    (tmp_path / "bad.xyz").write_text("2\nenergy=1\nH 0 0 0\n")
    with pytest.raises(DataError, match=r"bad\.xyz#0"):
        write_frames([tmp_path / "good.xyz", tmp_path / "bad.xyz"], tmp_path / "t.x", format=format)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad.xyz", "good.xyz"]


@pytest.mark.parametrize("format", ["store", "deepmd/npy", "deepmd/npy/mixed"])
def test_folder_that_exists_is_not_written_into(tmp_path, format):
    write_xyz(tmp_path / "a.xyz", FRAMES[:1])
    (tmp_path / "t").mkdir()
    with pytest.raises(DataError, match="t exists already"):
        write_frames([tmp_path / "a.xyz"], tmp_path / "t", format=format)


def test_unknown_format_lists_those_there_are(tmp_path):
    with pytest.raises(InputError, match="does not write 'lmdb'; choose one of store, extxyz"):
        write_frames([tmp_path / "a.xyz"], tmp_path / "t", format="lmdb")


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["data", "convert", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_command_takes_its_target_last_or_by_name_and_sums_up(tmp_path):
    write_xyz(tmp_path / "a.xyz", FRAMES[:3])
    said = run(tmp_path / "a.xyz", tmp_path / "t.hdf5")
    assert f"wrote 3 frames to {tmp_path / 't.hdf5'} (deepmd/hdf5)" in said
    for words in ("9 atoms, 3 to 3 in a frame", "elements: H (3), O (3)", "labels: energy (3), forces (3), virial (3)"):
        assert words in said
    assert "wrote 6 frames" in run(
        tmp_path / "a.xyz", tmp_path / "t.hdf5", "-o", tmp_path / "both", "--format", "deepmd/npy"
    )
    assert digests(list(iter_frames(tmp_path / "both"))) == digests(FRAMES[:3] * 2)
    with pytest.raises(InputError, match="a target is missing"):
        run(tmp_path / "a.xyz")
    with pytest.raises(InputError, match="the file exists"):
        run(tmp_path / "a.xyz", tmp_path / "t.hdf5")
