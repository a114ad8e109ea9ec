"""Molecular dynamics: conservation, ensembles, reproducibility, what stops a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read
from pydantic import ValidationError

from lamella.errors import InputError, StructureError
from lamella.use.calculator import Calculator
from lamella.use.dynamics import INTEGRATORS, run_md
from lamella.use.settings import MDConfig
from use.small import dimer, small_model, water_box


@pytest.fixture(scope="module")
def calculator() -> Calculator:
    return Calculator(small_model())


def config(**changes) -> MDConfig:
    return MDConfig(**{"temperature": 30.0, "time": 0.01, "every": 5} | changes)


def test_nve_conserves_energy_to_second_order_in_the_time_step(calculator):
    coarse, fine = (run_md(water_box(), calculator, config(timestep=dt, time=0.02)) for dt in (1.0, 0.5))
    assert abs(fine.drift) < 1e-3
    assert fine.fluctuation < 1e-5
    assert 3.0 < coarse.fluctuation / fine.fluctuation < 5.5
    kinetic = fine.atoms.get_kinetic_energy() / len(fine.atoms)
    assert fine.fluctuation < 1e-2 * kinetic


def test_drift_is_the_slope_of_a_least_squares_line(calculator):
    result = run_md(water_box(), calculator, config(every=1))
    times = np.array([sample.time for sample in result.samples])
    energies = np.array([sample.energy for sample in result.samples]) / result.n_atoms
    slope, offset = np.polyfit(times, energies, 1)
    assert result.drift == pytest.approx(slope, rel=1e-5, abs=1e-12)
    assert result.fluctuation == pytest.approx(np.std(energies - slope * times - offset), rel=1e-5, abs=1e-12)
    assert times[-1] == pytest.approx(0.01)
    assert result.steps == 20


@pytest.mark.parametrize("ensemble", INTEGRATORS)
def test_same_seed_same_run_other_seed_other_run(calculator, ensemble):
    settings = config(ensemble=ensemble, time=0.005, barostat_time=50.0)
    one, two = (run_md(water_box(), calculator, settings) for _ in range(2))
    other = run_md(water_box(), calculator, settings.model_copy(update={"seed": 1}))
    assert one.samples == two.samples
    np.testing.assert_array_equal(one.atoms.positions, two.atoms.positions)
    assert one.samples[-1].energy != other.samples[-1].energy
    assert one.stopped is None
    assert (one.drift is None) == (ensemble != "nve")
    moved = one.samples[-1].volume != one.samples[0].volume
    assert moved == (ensemble == "npt")


@pytest.mark.parametrize("ensemble", ["nvt", "nvt-langevin", "nvt-nose-hoover"])
def test_a_thermostat_heats_towards_its_temperature(calculator, ensemble):
    cold = run_md(water_box(), calculator, config(temperature=1.0, time=0.001)).atoms
    settings = config(ensemble=ensemble, temperature=300.0, velocities="keep", thermostat_time=5.0, time=0.02)
    temperatures = [sample.temperature for sample in run_md(cold, calculator, settings).samples]
    assert temperatures[0] < 20.0
    assert temperatures[-1] > 60.0


def test_initial_velocities_have_the_temperature_and_no_total_momentum(calculator):
    result = run_md(water_box(3), calculator, config(temperature=300.0, time=1e-9, timestep=1e-6))
    assert result.samples[0].temperature == pytest.approx(300.0, rel=0.25)
    np.testing.assert_allclose(result.atoms.get_momenta().sum(axis=0), 0.0, atol=1e-9)
    molecule = run_md(dimer(), calculator, config(temperature=300.0, time=1e-9, timestep=1e-6)).atoms
    np.testing.assert_allclose(molecule.get_angular_momentum(), 0.0, atol=1e-3)


def test_velocities_can_be_kept(calculator):
    first = run_md(water_box(), calculator, config()).atoms
    second = run_md(first, calculator, config(velocities="keep", time=1e-12, timestep=1e-9)).atoms
    np.testing.assert_allclose(second.get_momenta(), first.get_momenta(), atol=1e-8)
    with pytest.raises(InputError, match="no velocities"):
        run_md(water_box(), calculator, config(velocities="keep"))


def test_pressure_is_that_of_ase_with_the_motion_of_the_atoms(calculator):
    result = run_md(water_box(), calculator, config(temperature=300.0))
    box = result.atoms.copy()
    box.calc = calculator
    stress = box.get_stress(include_ideal_gas=True)
    assert result.samples[-1].pressure == pytest.approx(-stress[:3].mean() / 0.0062415091, rel=1e-6)
    assert run_md(dimer(), calculator, config()).pressure is None


@pytest.mark.parametrize("name", ["run.extxyz", "run.traj"])
def test_the_trajectory_holds_every_sample(calculator, tmp_path, name):
    path = tmp_path / name
    seen = []
    result = run_md(water_box(), calculator, config(), path, seen.append)
    frames = read(path, index=":")
    assert tuple(seen) == result.samples
    assert len(frames) == len(result.samples) == 5
    assert [frame.info["step"] for frame in frames] == [0, 5, 10, 15, 20]
    for frame, sample in zip(frames, result.samples, strict=True):
        total = frame.get_potential_energy() + frame.get_kinetic_energy()
        assert total == pytest.approx(sample.energy, abs=1e-5)
    frames[-1].calc = calculator
    assert np.abs(frames[-1].get_forces() - read(path).get_forces()).max() < 1e-6


def test_input_is_not_mutated_and_constraints_hold(calculator):
    box = water_box()
    box.set_constraint(FixAtoms([0, 1]))
    before = box.copy()
    result = run_md(box, calculator, config())
    assert box == before
    assert box.calc is None
    assert not box.has("momenta")
    np.testing.assert_array_equal(result.atoms.positions[:2], box.positions[:2])
    assert np.abs(result.atoms.positions[2:] - box.positions[2:]).max() > 1e-4


def test_an_explosion_stops_the_run_and_keeps_the_trajectory(calculator, tmp_path):
    path = tmp_path / "run.extxyz"
    result = run_md(water_box(), calculator, config(temperature=300.0, max_temperature=299.0, time=1.0, every=1), path)
    if result.steps == 0:
        assert "at step 0" in result.stopped
    assert "exploded" in result.stopped
    assert "time step than 0.5 fs" in result.stopped
    assert result.steps < 2000
    assert len(result.samples) == (len(read(path, index=":")) if result.samples else 0)
    json.dumps(result.summary(), allow_nan=False)


def test_energies_that_are_not_finite_stop_the_run(calculator):
    broken = Calculator(small_model())
    kept = broken.model.forward
    calls = []

    def forward(graph, task):
        calls.append(1)
        prediction = kept(graph, task)
        return prediction if len(calls) < 8 else prediction._replace(forces=prediction.forces * float("nan"))

    broken.model.forward = forward
    result = run_md(water_box(), broken, config(every=1))
    assert "not finite at step" in result.stopped
    assert np.isfinite([sample.energy for sample in result.samples]).all()


def test_atoms_that_meet_stop_the_run():
    blind = Calculator(small_model())
    kept = blind.model.forward

    def without_forces(graph, task):
        prediction = kept(graph, task)
        return prediction._replace(forces=0.0 * prediction.forces)

    blind.model.forward = without_forces
    pair = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.5]])
    pair.set_velocities([[0, 0, 0], [0, 0, -2.0]])
    result = run_md(pair, blind, config(velocities="keep", max_temperature=1e9, every=1, time=0.005, timestep=0.1))
    assert "on top of each" in result.stopped
    assert 20 < result.steps < 30
    assert len(result.samples) == result.steps + 1


def test_an_interrupt_keeps_what_was_sampled(calculator, tmp_path):
    def on_sample(sample) -> None:
        if sample.step == 10:
            raise KeyboardInterrupt

    path = tmp_path / "run.extxyz"
    result = run_md(water_box(), calculator, config(), path, on_sample)
    assert result.stopped == "interrupted after step 10"
    assert len(read(path, index=":")) == 2
    assert result.steps == 10


def test_runs_that_cannot_mean_anything_are_refused(calculator, tmp_path):
    far = Atoms("H2", positions=[[0, 0, 0], [0, 0, 9.0]])
    with pytest.raises(StructureError, match="no atom has a neighbour"):
        run_md(far, calculator, config())
    with pytest.raises(InputError, match="npt"):
        run_md(dimer(), calculator, config(ensemble="npt"))
    fixed = water_box()
    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="constraints"):
        run_md(fixed, calculator, config(ensemble="npt"))
    with pytest.raises(InputError, match=r"run\.dcd"):
        run_md(dimer(), calculator, config(), tmp_path / "run.dcd")
    with pytest.raises(InputError, match="cannot be written"):
        run_md(dimer(), calculator, config(), tmp_path / "no" / "run.extxyz")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ensemble": "nvee"},
        {"time": 0.0},
        {"timestep": float("nan")},
        {"every": 0},
        {"temperature": -1.0},
        {"ensemble": "nvt", "temperature": 0.0},
        {"pressure": 1.0},
        {"preasure": 1.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        MDConfig(**wrong)


def test_summary_is_json_with_every_figure(calculator):
    result = run_md(water_box(), calculator, config())
    content = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert content["completed"] is True
    assert content["drift"] == result.drift
    assert content["temperature"]["mean"] == pytest.approx(result.temperature[0])
    assert content["config"]["seed"] == 0
    assert len(content["samples"]["energy"]) == len(result.samples)
    assert content["us_per_atom_step"] == pytest.approx(1e6 / (content["steps_per_second"] * 24))


@pytest.mark.parametrize("name", ["md.extxyz", "md.traj"])
def test_full_disk_stops_the_run_with_one_sentence_and_keeps_its_results(tmp_path, monkeypatch, calculator, name):
    written = []

    def full(*_: object, **__: object) -> None:
        written.append(1)
        if len(written) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("lamella.use.dynamics.snapshot", full)
    monkeypatch.setattr("lamella.use.dynamics.write", lambda *_, **__: None)
    monkeypatch.setattr("lamella.use.dynamics.Trajectory", _FullFile)
    result = run_md(water_box(), calculator, config(every=1), tmp_path / name)
    assert "cannot be written (No space left on device) after step 2" in result.stopped
    assert len(result.samples) == 3


class _FullFile:
    """A file that fails once more when it is closed, as a real one does on a full disk."""

    def __init__(self, *_: object) -> None: ...

    def write(self, *_: object) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        raise OSError(28, "No space left on device")
