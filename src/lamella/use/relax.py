"""Relaxation of atoms, and of the cell where asked, with ASE's optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from ase.optimize.optimize import Optimizer

from lamella.errors import InputError
from lamella.units import GPA
from lamella.use.calculator import Calculator
from lamella.use.dynamics import snapshot
from lamella.use.settings import OptimizerName, RelaxConfig

__all__ = ["OPTIMIZERS", "RelaxResult", "RelaxStep", "relax"]

OPTIMIZERS: Final[dict[OptimizerName, type[Optimizer]]] = {"fire": FIRE, "bfgs": BFGS}
"""ASE's optimizer by name."""


class RelaxStep(NamedTuple):
    """The state after one step; the pressure only for a structure periodic in three directions."""

    step: int
    energy: float
    """eV"""
    fmax: float
    """eV/Å, the largest force on an atom that is free to move"""
    volume: float | None
    """Å³"""
    pressure: float | None
    """GPa, a third of minus the trace of the stress"""


@dataclass(frozen=True)
class RelaxResult:
    """What a relaxation reached.

    Attributes:
        config: its settings.
        converged: whether the criterion was met; never taken for granted.
        stopped: why it ended before that, where it was not for the number of steps.
        initial: first state.
        final: last state.
        atoms: last structure, with its energy and forces.
    """

    config: RelaxConfig
    converged: bool
    stopped: str | None
    initial: RelaxStep
    final: RelaxStep
    atoms: Atoms

    def summary(self) -> dict[str, Any]:
        """All but the structure, for JSON: eV, eV/Å, Å³, GPa."""
        return {
            "converged": self.converged,
            "stopped": self.stopped,
            "initial": self.initial._asdict(),
            "final": self.final._asdict(),
            "config": self.config.model_dump(),
        }


def relax(
    atoms: Atoms,
    calculator: Calculator,
    config: RelaxConfig,
    on_step: Callable[[RelaxStep], None] | None = None,
) -> RelaxResult:
    """Relax a copy of ``atoms``.

    Args:
        atoms: initial structure; not mutated. Constraints are honoured.
        calculator: of the model.
        config: settings.
        on_step: called with every state, to show progress.

    Raises:
        StructureError: no atom has a neighbour, or the structure has no energy.
        InputError: ``config.cell`` for a structure that is not periodic in three directions.
    """
    system = atoms.copy()
    calculator.require_neighbors(system)
    if config.cell and not system.pbc.all():
        raise InputError(
            "cell: the structure is not periodic in three directions, so it has no cell to relax; leave it out."
        )
    system.calc = calculator
    system.get_forces()
    target: Any = FrechetCellFilter(system, scalar_pressure=config.pressure * GPA) if config.cell else system
    optimizer = OPTIMIZERS[config.optimizer](target, logfile=None)
    states, last = [_state(system, 0)], snapshot(system)
    converged, stopped = False, None
    try:
        for reached in optimizer.irun(fmax=config.fmax, steps=config.steps):
            state = _state(system, optimizer.nsteps)
            if not (np.isfinite(state.energy) and np.isfinite(state.fmax)):
                stopped = f"energy or forces are not finite at step {state.step}"
                break
            states.append(state)
            converged, last = bool(reached), snapshot(system)
            if on_step is not None:
                on_step(state)
    except InputError as error:
        stopped = str(error).rstrip(".")  # atoms came onto each other
    except KeyboardInterrupt:
        stopped = f"interrupted after step {states[-1].step}"
    return RelaxResult(config, converged, stopped, states[0], states[-1], last)


def _state(system: Atoms, step: int) -> RelaxStep:
    forces = system.get_forces()
    volume = pressure = None
    if system.pbc.all():
        volume = float(system.get_volume())
        pressure = float(-system.get_stress(apply_constraint=False)[:3].mean() / GPA)
    energy = float(system.get_potential_energy())
    return RelaxStep(step, energy, float(np.sqrt((forces**2).sum(axis=1).max())), volume, pressure)
