"""What is no answer to a set: predictions of other frames, of some, of none, or that are not finite."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from lamella.use.table.answer import Calculated, FromFile, Learned
from lamella.use.table.averages import normalised
from lamella.use.table.config import SetConfig
from lamella.use.table.run import evaluate_sets
from lamella.use.table.words import grids, summary
from use.small import dimer, labelled, small_model, water_box
from use.test_table import Constant


@pytest.fixture(scope="module")
def water(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "water.extxyz"
    structures = [water_box(), dimer(), water_box(1), water_box(2, seed=2), dimer(), water_box(seed=3)]
    write(path, labelled(small_model(tasks=("a",)), structures))
    return path


def predicted(water: Path, tmp_path: Path, change) -> str:
    """A file of the labels of ``water`` moved a little, changed once more; and why it is no answer, or nothing."""
    frames = read(water, ":")
    for atoms in frames:
        moved = {"energy": atoms.get_potential_energy() + 0.1, "forces": atoms.get_forces() + 0.1}
        atoms.calc = SinglePointCalculator(atoms, **moved)
    frames = change(frames) or frames
    write(tmp_path / "p.extxyz", frames)
    table = evaluate_sets(
        {"water": SetConfig(data=str(water), baseline="keep")}, [FromFile("p", str(tmp_path / "p.extxyz"))]
    )
    return table.rows[0].cells["p"].why_not or ""


def forget_forces(frames):
    del frames[2].calc.results["forces"]


def widen_cell(frames):
    frames[0].cell *= 1.1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda frames: None, ""),
        (lambda frames: frames[:-1], "ends before .*#5: a file of predictions holds every frame"),
        (lambda frames: frames[::-1], "is not the structure .*#0: a file of predictions holds every frame"),
        (lambda frames: [*frames, frames[0]], "goes on after the set's last frame"),
        (lambda frames: frames[1].calc.results.update(energy=math.nan), "#1"),
        (lambda frames: frames[3].calc.results["forces"].fill(math.inf), "#3"),
        (forget_forces, "it gives forces for some frames only"),
        (widen_cell, "is not the structure"),
    ],
)
def test_a_file_of_predictions_must_answer_every_frame(water, tmp_path, change, why):
    assert re.search(why, said := predicted(water, tmp_path, change)) and bool(said) == bool(why), said


def test_forces_of_another_shape_are_no_answer(water):
    class Flat(Constant):
        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            self.results["forces"] = np.zeros(3 * len(self.atoms))

    table = evaluate_sets({"water": SetConfig(data=str(water))}, [Calculated("c", "c", Flat())])
    assert "its forces have the shape" in table.rows[0].cells["c"].why_not


def test_all_of_weight_zero_has_no_average(water):
    table = evaluate_sets({"water": SetConfig(data=str(water), weight=0.0)}, [Learned("m", "m", small_model(tasks=("a",)))])
    assert grids(table)[0].rows[0][3:] == ["–", "–"] and normalised(table, "m") is None
    json.dumps(summary(table), allow_nan=False)
