"""Relaxation: it ends where it says, and says when it did not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from lamella.errors import InputError, StructureError
from lamella.units import GPA
from lamella.use.calculator import Calculator
from lamella.use.relax import relax
from lamella.use.settings import RelaxConfig
from use.small import dimer, small_model, water_box


@pytest.fixture(scope="module")
def calculator() -> Calculator:
    return Calculator(small_model())


@pytest.mark.parametrize("optimizer", ["fire", "bfgs"])
def test_a_converged_relaxation_has_small_forces_and_lower_energy(calculator, optimizer):
    start = dimer()
    start.calc = calculator
    force = np.linalg.norm(start.get_forces(), axis=1).max()
    seen = []
    result = relax(dimer(), calculator, RelaxConfig(optimizer=optimizer, fmax=0.6 * force, steps=300), seen.append)
    assert result.converged
    assert result.final.fmax <= 0.6 * force < result.initial.fmax
    assert result.final.energy < result.initial.energy
    assert [step.step for step in seen] == list(range(len(seen)))
    result.atoms.calc = calculator
    assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() == pytest.approx(result.final.fmax)


def test_a_relaxation_out_of_steps_says_so(calculator):
    result = relax(water_box(), calculator, RelaxConfig(fmax=1e-9, steps=3))
    assert not result.converged
    assert result.final.step == 3
    assert json.loads(json.dumps(result.summary()))["converged"] is False
    assert result.final.energy < result.initial.energy
    assert not relax(water_box(), calculator, RelaxConfig(fmax=1e-9, steps=0)).converged


def test_the_cell_is_relaxed_only_where_asked(calculator):
    kept = relax(water_box(), calculator, RelaxConfig(fmax=1e-9, steps=3))
    np.testing.assert_array_equal(kept.atoms.cell.array, water_box().cell.array)
    loose = relax(water_box(), calculator, RelaxConfig(fmax=1e-9, steps=3, cell=True))
    assert loose.final.volume != kept.final.volume
    assert loose.final.energy < loose.initial.energy


def test_pressure_moves_the_cell_against_its_own(calculator):
    box = water_box()
    box.calc = calculator
    own = -box.get_stress()[:3].mean() / GPA
    for applied, sign in ((own + 20.0, -1), (own - 20.0, 1)):
        result = relax(box, calculator, RelaxConfig(fmax=1e-9, steps=4, cell=True, pressure=applied))
        assert sign * (result.final.volume - result.initial.volume) > 0


def test_input_is_not_mutated_and_constraints_hold(calculator):
    box = water_box()
    box.set_constraint(FixAtoms([0]))
    before = box.copy()
    result = relax(box, calculator, RelaxConfig(fmax=1e-9, steps=3))
    assert box == before
    assert box.calc is None
    np.testing.assert_array_equal(result.atoms.positions[0], box.positions[0])


def test_what_cannot_be_relaxed_is_refused(calculator):
    with pytest.raises(InputError, match="cell"):
        relax(dimer(), calculator, RelaxConfig(cell=True))
    with pytest.raises(StructureError, match="no atom has a neighbour"):
        relax(Atoms("O"), calculator, RelaxConfig())


def test_an_interrupt_keeps_the_last_structure(calculator):
    def on_step(step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    result = relax(water_box(), calculator, RelaxConfig(fmax=1e-9), on_step)
    assert not result.converged
    assert result.stopped == "interrupted after step 2"
    assert result.atoms.get_potential_energy() == result.final.energy
