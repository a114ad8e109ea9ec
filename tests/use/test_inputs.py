"""Charge, spin and parameters of a structure reach the model, wherever a structure enters; where they cannot, it is said."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from ase.io import read, write
from typer.testing import CliRunner

from lamella.cli import app
from lamella.data.convert import frame_from_atoms
from lamella.errors import StructureError
from lamella.models.bundle import save_model
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.use.calculator import Calculator
from lamella.use.dynamics import MDConfig, run_md
from lamella.use.evaluate import evaluate
from lamella.use.predict import predict
from lamella.use.relax import RelaxConfig, relax
from use.small import BACKBONE, dimer, small_model

TAU = {"charge": 1, "spin": 2, "frame_params": [0.3, -0.4]}


def reading(default: bool = False) -> Potential:
    """A model that reads charge, spin and two parameters."""
    torch.manual_seed(3)
    defaults = {"default_charge_spin": (0.0, 1.0)} if default else {}
    backbone = DPA3Config(
        **BACKBONE.model_dump(exclude={"charge_spin", "default_charge_spin"}), charge_spin=True, **defaults
    )
    head = HeadConfig(hidden=(16,), frame_params=2, default_frame_params=(0.0, 0.0) if default else None)
    return Potential(ModelConfig(backbone=backbone, head=head), ("H", "O")).cast(torch.float64).eval()


def charged(**info):
    atoms = dimer()
    atoms.info |= {**TAU, **info}
    return atoms


@pytest.fixture(scope="module")
def model() -> Potential:
    return reading()


@pytest.mark.parametrize(("name", "other"), [("charge", -1), ("spin", 0), ("frame_params", [0.3, 0.4])])
def test_energy_depends_on_every_input_and_on_the_frame_s_own_only(model, name, other):
    first, second = predict(model, [charged(), charged(**{name: other})])
    assert abs(first.energy - second.energy) > 1e-6
    assert predict(model, [charged(**{name: other})])[0].energy == pytest.approx(second.energy, abs=1e-12)


def test_spellings_of_deepmd_kit_are_understood(model):
    atoms = dimer()
    atoms.info |= {"charge_spin": [1, 2], "fparam": np.array([0.3, -0.4])}
    assert predict(model, [atoms])[0].energy == predict(model, [charged()])[0].energy


@pytest.mark.parametrize("name", TAU)
def test_what_the_model_needs_and_the_structure_lacks_is_named(model, name):
    atoms = charged()
    del atoms.info[name]
    with pytest.raises(StructureError, match=rf"structure 0: the model reads {name} .*atoms\.info\['{name}'\]"):
        predict(model, [atoms])
    atoms.calc = Calculator(model)
    with pytest.raises(StructureError, match=rf"structure: the model reads {name}"):
        atoms.get_potential_energy()
    with pytest.raises(StructureError, match=rf"the model reads {name}"):
        evaluate(model, [frame_from_atoms(atoms, source="a#0")])


def test_defaults_of_the_model_stand_in(model):
    with_default = reading(default=True)
    said = charged(charge=0, spin=1, frame_params=[0.0, 0.0])
    assert predict(with_default, [dimer()])[0].energy == predict(with_default, [said])[0].energy


def test_calculator_sees_inputs_that_change_between_calls(model):
    atoms = charged()
    atoms.calc = Calculator(model)
    first = atoms.get_potential_energy()
    assert atoms.calc.check_state(atoms) == []
    atoms.info["charge"] = -1
    assert atoms.calc.check_state(atoms) == ["info"]
    second = atoms.get_potential_energy()
    assert second == pytest.approx(predict(model, [charged(charge=-1)])[0].energy, abs=1e-12)
    assert abs(first - second) > 1e-6
    atoms.info["remark"] = "anything"
    assert atoms.calc.check_state(atoms) == []


def test_inputs_go_along_through_dynamics_and_relaxation(model, tmp_path):
    atoms = charged()
    result = run_md(
        atoms, Calculator(model), MDConfig(ensemble="nve", time=0.002, timestep=0.5, every=1), tmp_path / "md.extxyz"
    )
    assert len(result.samples) > 1
    last = read(tmp_path / "md.extxyz", index=-1)
    kept = last.get_potential_energy()
    assert predict(model, [last])[0].energy == pytest.approx(kept, abs=1e-7), "the trajectory says what it was run with"
    relaxed = relax(atoms, Calculator(model), RelaxConfig(steps=2))
    assert relaxed.atoms.info["charge"] == 1


def test_ignored_inputs_are_said_once_and_neutral_ones_not_at_all():
    plain = small_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(plain, [charged(), charged(charge=2)])
    assert sorted(str(item.message).split(" carries ")[1].split(",")[0] for item in caught) == [
        "charge",
        "frame_params",
        "spin",
    ]
    calculator = Calculator(plain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for shift in (0.0, 0.1):
            atoms = charged(charge=-1, spin=1)
            del atoms.info["frame_params"]
            atoms.positions[0] += shift
            atoms.calc = calculator
            atoms.get_potential_energy()
    (said,) = caught
    assert "structure carries charge, which the model does not read" in str(said.message)
    neutral = charged(charge=0, spin=1)
    del neutral.info["frame_params"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(plain, [neutral, dimer()])


def test_eval_command_reads_inputs_from_the_file_and_refuses_files_without(model, tmp_path):
    (tmp_path / "model").mkdir()
    save_model(model, tmp_path / "model")
    atoms = charged()
    atoms.info["energy"] = predict(model, [atoms])[0].energy + 0.006
    write(tmp_path / "a.extxyz", [atoms])
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "model"), str(tmp_path / "a.extxyz"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["energy"]["rmse"] == pytest.approx(0.006 / len(atoms), rel=1e-5)
    del atoms.info["charge"]
    write(tmp_path / "b.extxyz", [atoms])
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "model"), str(tmp_path / "b.extxyz")])
    assert result.exit_code == 1
