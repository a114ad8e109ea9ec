"""Charge, spin and parameters of a frame keep their values from any file to the graph of a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read as ase_read
from ase.io import write as ase_write

from lamella.data.convert import atoms_from_frame, frame_from_atoms, structure_from_atoms
from lamella.data.extxyz import write_frames
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.lint import lint
from lamella.data.load import check_inputs, make_batch
from lamella.data.read import iter_frames
from lamella.data.source import FrameList, open_frames
from lamella.data.statistics import label_std
from lamella.data.store import write_store
from lamella.data.summary import summarise
from lamella.errors import DataError, StructureError
from lamella.fields import FIELDS, INPUTS, LABELS, QUANTITIES
from lamella.geometry.graph import build_graph
from lamella.types import FrameInput, GraphSpec

NINE = np.arange(9.0) / 7.0


def water(**info: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= {"energy": -1.0, **info}
    return atoms


def inputs(frame) -> dict[str, list[float]]:
    return {name: np.ravel(value).tolist() for name, value in frame.labels.items() if name in INPUTS}


def test_inputs_are_no_labels():
    assert not set(INPUTS) & {*LABELS, *FIELDS}
    assert set(QUANTITIES) == {*FIELDS, *INPUTS}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"charge": -1}, {"charge": [-1.0]}),
        ({"charge": np.int64(2), "spin": 3.0}, {"charge": [2.0], "spin": [3.0]}),
        ({"fparam": 0.5}, {"frame_params": [0.5]}),
        ({"frame_params": [1, 2.5]}, {"frame_params": [1.0, 2.5]}),
        ({"fparam": NINE}, {"frame_params": NINE.tolist()}),
        ({"charge_spin": [1, 2]}, {"charge": [1.0], "spin": [2.0]}),
        ({"charge_spin": [1, 2], "charge": 1.0}, {"charge": [1.0], "spin": [2.0]}),
        ({"total_charge": 1, "mulliken_charge": 0.3, "spin_density": "x"}, {}),
    ],
)
def test_inputs_survive_atoms_files_and_stores(tmp_path, info, expected):
    frame = frame_from_atoms(water(**info))
    assert inputs(frame) == expected
    assert inputs(structure_from_atoms(water(**info))) == expected
    assert inputs(frame_from_atoms(atoms_from_frame(frame))) == expected
    ase_write(tmp_path / "ase.extxyz", water(**info))
    write_frames(tmp_path / "own.extxyz", [frame])
    write_store(tmp_path / "own.store", [frame])
    for name in ("ase.extxyz", "own.extxyz", "own.store"):
        report = ReadReport()
        (read,) = iter_frames(tmp_path / name, report=report)
        assert inputs(read) == expected, name
        assert not report.guessed, report.lines()
    assert open_frames(tmp_path / "own.store").content_hash == open_frames(tmp_path / "own.extxyz").content_hash
    assert inputs(frame_from_atoms(ase_read(tmp_path / "own.extxyz"))) == expected or "fparam" in info


def test_a_key_that_holds_nothing_is_absent():
    assert inputs(frame_from_atoms(water(charge=None, spin=0))) == {"spin": [0.0]}


def test_a_named_key_is_read_instead_of_the_usual_ones(tmp_path):
    atoms = water(charge=0, Q=-1, T=300.0)
    keys = LabelKeys(charge="Q", frame_params="T")
    assert inputs(frame_from_atoms(atoms, keys)) == {"frame_params": [300.0], "charge": [-1.0]}
    ase_write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(DataError, match=r"keys\.charge: no frame of .* has a key 'q'"):
        open_frames(tmp_path / "a.extxyz", LabelKeys(charge="q"))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": "neutral"}, r"'charge' \(read as charge\) is not a number but 'neutral'"),
        ({"charge": True}, "is not a number"),
        ({"charge": [1, 2]}, r"shape \(2,\), not one number"),
        ({"spin": np.nan}, "'spin' .* contains NaN"),
        ({"fparam": [1.0, np.inf]}, "'fparam' .* contains NaN or infinity"),
        ({"fparam": np.ones((2, 2))}, "not a list of numbers"),
        ({"fparam": np.zeros(0)}, "not a list of numbers"),
        ({"charge_spin": 1.0}, "not two numbers"),
        ({"charge": 1, "charge_spin": [2, 1]}, "'charge' and 'charge_spin' both give the charge and they differ"),
        ({"fparam": 1.0, "frame_params": 2.0}, "both give the frame_params"),
    ],
)
def test_inputs_that_make_no_sense_refuse_the_frame_by_name_and_key(info, message):
    with pytest.raises(DataError, match=message) as refused:
        frame_from_atoms(water(**info), source="a.xyz#3")
    assert str(refused.value).startswith("a.xyz#3: ")


def test_deepmd_arrays_fparam_and_charge_spin_are_read(tmp_path):
    part = tmp_path / "a" / "set.000"
    part.mkdir(parents=True)
    (part.parent / "type.raw").write_text("0\n1\n")
    (part.parent / "type_map.raw").write_text("O\nH\n")
    (part.parent / "nopbc").touch()
    given = {"coord": np.arange(12.0).reshape(2, 6), "energy": np.ones(2), "spin": np.zeros((2, 6))}
    given |= {"fparam": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "charge_spin": np.array([[0.0, 1.0], [-1.0, 2.0]])}
    for name, array in given.items():
        np.save(part / f"{name}.npy", array)
    report = ReadReport()
    first, second = iter_frames(tmp_path / "a", report=report)
    assert inputs(first) == {"frame_params": [1.0, 2.0, 3.0], "charge": [0.0], "spin": [1.0]}
    assert inputs(second) == {"frame_params": [4.0, 5.0, 6.0], "charge": [-1.0], "spin": [2.0]}
    assert report.used["frame_params", "fparam"] == report.used["charge", "charge_spin"] == 2
    assert [key for key, _ in report.ignored] == ["spin.npy"], "the spins of atoms are something else"
    np.save(part / "fparam.npy", np.array([7.0, 8.0]))
    assert [inputs(frame)["frame_params"] for frame in iter_frames(tmp_path / "a")] == [[7.0], [8.0]]
    np.save(part / "charge_spin.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"charge_spin\.npy has shape \(2, 3\), expected \(frames, 2\)"):
        list(iter_frames(tmp_path / "a"))


def test_a_store_keeps_which_frame_has_which_input_and_refuses_lists_of_two_lengths(tmp_path):
    frames = [
        frame_from_atoms(water(**info)) for info in ({}, {"fparam": [1.0, 2.0]}, {"charge": 1}, {"fparam": [3.0, 4.0]})
    ]
    store = write_store(tmp_path / "a", frames)
    assert [inputs(frame) for frame in store] == [inputs(frame) for frame in frames]
    with pytest.raises(DataError, match=r"frame_params is a list of 1, in the frames before of 2"):
        write_store(tmp_path / "b", [*frames, frame_from_atoms(water(fparam=[1.0]))])
    assert not (tmp_path / "b").exists()


def test_statistics_are_of_labels_and_a_summary_says_the_range_of_inputs(tmp_path):
    frames = [frame_from_atoms(water(charge=q, fparam=[t, 1.0])) for q, t in ((-1, 300.0), (2, 10.0))]
    assert set(label_std(frames)) == {"energy"}
    write_frames(tmp_path / "a.extxyz", frames)
    summary = summarise(tmp_path / "a.extxyz")
    assert set(summary.labels) == {"energy"}
    assert (summary.inputs["charge"].low, summary.inputs["charge"].high) == ([-1.0], [2.0])
    assert (summary.inputs["frame_params"].low, summary.inputs["frame_params"].high) == ([10.0, 1.0], [300.0, 1.0])


def test_lint_finds_inputs_that_are_missing_broken_or_of_different_length(tmp_path):
    infos = [{"charge": 1}, {"charge": 0.5}, {}, {"charge": 1, "fparam": [1.0]}, {"charge": 1, "fparam": [1.0, 2.0]}]
    frames = [frame_from_atoms(water(**info), source=f"a#{n}") for n, info in enumerate(infos)]
    write_frames(tmp_path / "a.extxyz", frames)
    findings = [item for item in lint([tmp_path / "a.extxyz"]).findings if item.kind == "inputs"]
    found = [(item.frame, item.severity, item.message) for item in findings]
    assert (1, "problem", "the charge is 0.5; it must be a whole number") in found
    assert any(severity == "note" and "1 of 5 frames lack charge" in text for _, severity, text in found)
    assert any(
        severity == "problem" and "different lengths (1 frames of 1, 1 frames of 2)" in text for _, severity, text in found
    )


def test_one_structure_in_two_charge_states_is_no_duplicate(tmp_path):
    frames = [frame_from_atoms(water(charge=q)) for q in (0, 1, 1)]
    write_frames(tmp_path / "a.extxyz", frames)
    assert [item.frame for item in lint([tmp_path / "a.extxyz"]).findings if item.kind == "duplicate"] == [2]


def spec(*wanted: FrameInput) -> GraphSpec:
    return GraphSpec((1, 8), 4.0, inputs=wanted)


def test_graphs_carry_inputs_and_defaults_frame_by_frame():
    frames = [frame_from_atoms(water(charge=-1, fparam=[1.0, 2.0])), frame_from_atoms(water(fparam=[3.0, 4.0]))]
    batch = make_batch(frames, spec(FrameInput("frame_params", 2), FrameInput("charge", 1, (0.0,))))
    assert batch.graph.inputs["frame_params"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert batch.graph.inputs["charge"].tolist() == [[-1.0], [0.0]]
    assert all(value.dtype == torch.float64 for value in batch.graph.inputs.values())
    assert set(batch.labels) == {"energy"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (FrameInput("spin", 1), r"a#0: the model reads spin \(one number a frame\), .*info\['spin'\]"),
        (FrameInput("frame_params", 3), r"a#0: frame_params is \[1\. 2\.\], the model reads 3 finite numbers"),
        (FrameInput("charge", 1, (0.0,)), r"a#0: the charge is 0\.5, which is no whole number"),
    ],
)
def test_what_a_model_cannot_read_is_refused_with_the_frame_before_training(wanted, message):
    frame = frame_from_atoms(water(charge=0.5, fparam=[1.0, 2.0]), source="a#0")
    with pytest.raises(StructureError, match=message):
        build_graph(frame, spec(wanted))
    with pytest.raises(StructureError, match=message):
        check_inputs(FrameList([frame]), spec(wanted))
    check_inputs(FrameList([frame]), spec())
