"""Molecular dynamics with ASE's integrators, watched: conservation, temperature, speed, explosions."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.trajectory import Trajectory
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from lamella.errors import InputError
from lamella.units import FS, GPA
from lamella.use.calculator import Calculator
from lamella.use.settings import Ensemble, MDConfig

__all__ = ["INTEGRATORS", "MDResult", "MDSample", "run_md", "snapshot"]


class MDSample(NamedTuple):
    """The state at one moment; volume and pressure only for a structure periodic in three directions."""

    step: int
    time: float
    """ps"""
    energy: float
    """eV, kinetic and potential"""
    temperature: float
    """K"""
    volume: float | None
    """Å³"""
    pressure: float | None
    """GPa, the atoms' motion included"""


@dataclass(frozen=True)
class MDResult:
    """A finished or stopped run.

    Attributes:
        config: its settings.
        n_atoms: number of atoms N.
        steps: steps done.
        stopped: why it ended early; ``None`` where it did not.
        drift: slope of the least-squares line through E_total/N over every step, eV/atom/ps; NVE only.
        fluctuation: root mean square deviation of E_total/N from that line, eV/atom; NVE only.
        temperature: mean and standard deviation over every step, K.
        volume: mean and standard deviation over the samples, Å³, where there is one.
        pressure: mean and standard deviation over the samples, GPa, where there is one.
        wall_time: s, without the first evaluation.
        samples: every ``config.every`` steps, and the first and last.
        atoms: final structure with velocities, without a calculator.
    """

    config: MDConfig
    n_atoms: int
    steps: int
    stopped: str | None
    drift: float | None
    fluctuation: float | None
    temperature: tuple[float, float] | None
    volume: tuple[float, float] | None
    pressure: tuple[float, float] | None
    wall_time: float
    samples: tuple[MDSample, ...]
    atoms: Atoms

    @property
    def steps_per_second(self) -> float:
        """Speed."""
        return self.steps / self.wall_time if self.wall_time > 0 else 0.0

    @property
    def us_per_atom_step(self) -> float:
        """Wall time per atom and step, µs."""
        return 1e6 * self.wall_time / (self.n_atoms * self.steps) if self.steps else 0.0

    def summary(self) -> dict[str, Any]:
        """All but the structure, for JSON."""
        values = {name: getattr(self, name) for name in ("n_atoms", "steps", "stopped", "drift", "fluctuation", "wall_time")}
        for name, unit in (("temperature", "K"), ("volume", "Å³"), ("pressure", "GPa")):
            pair = getattr(self, name)
            values[name] = None if pair is None else {"mean": pair[0], "std": pair[1], "unit": unit}
        values |= {"steps_per_second": self.steps_per_second, "us_per_atom_step": self.us_per_atom_step}
        units = {"drift": "eV/atom/ps", "fluctuation": "eV/atom", "wall_time": "s", "time": "ps", "energy": "eV"}
        samples = {name: [getattr(sample, name) for sample in self.samples] for name in MDSample._fields}
        config = self.config.model_dump()
        return {"completed": self.stopped is None, **values, "units": units, "config": config, "samples": samples}


def run_md(
    atoms: Atoms,
    calculator: BaseCalculator,
    config: MDConfig,
    trajectory: Path | None = None,
    on_sample: Callable[[MDSample], None] | None = None,
) -> MDResult:
    """Run molecular dynamics from a copy of ``atoms``.

    A run that explodes (energy or forces not finite, temperature above ``config.max_temperature``, atoms on top of each
    other) or is interrupted (Ctrl-C) stops; what it has sampled is kept and ``stopped`` says why.

    Args:
        atoms: initial structure; not mutated. Constraints are honoured.
        calculator: of a model, or any of ASE's; keeps the results of the last structure.
        config: settings.
        trajectory: an ``.extxyz``, ``.xyz`` or ``.traj`` file to write; replaced where it exists.
        on_sample: called with each sample as it is taken, to show progress.

    Raises:
        StructureError: no atom has a neighbour, or the structure has no energy.
        InputError: a barostat without three periodic directions or with constraints, velocities to keep where there are
            none, a trajectory of unknown kind.
    """
    system = atoms.copy()
    if isinstance(calculator, Calculator):
        calculator.require_neighbors(system)
    system.calc = calculator
    rng = np.random.default_rng(config.seed)
    _set_velocities(system, config, rng)
    dynamics = INTEGRATORS[config.ensemble](system, config, rng)
    system.get_forces()
    record = _Record(system, config, on_sample)
    stopped: str | None = None
    try:
        with _writer(trajectory) as save:
            stopped = _advance(dynamics, record, save)
    except OSError as error:  # closing tries once more to write what is left
        stopped = stopped or _unwritten(error, record)
    return record.close(stopped)


def snapshot(atoms: Atoms, **info: float) -> Atoms:
    """A copy that keeps energy and forces of the calculator as plain results, with ``info`` beside them."""
    copied = atoms.copy()
    copied.info |= info
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    copied.calc = SinglePointCalculator(copied, energy=energy, forces=forces)
    return copied


class _Record:
    """What is kept of a run while it goes on."""

    def __init__(self, system: Atoms, config: MDConfig, on_sample: Callable[[MDSample], None] | None) -> None:
        self.system, self.config, self.on_sample = system, config, on_sample
        self.energy, self.temperature = array("d"), array("d")
        self.samples: list[MDSample] = []
        self.start = self.end = time.perf_counter()

    def add(self) -> str | None:
        """Look at the state after a step; says what is wrong with it, if anything."""
        system, step = self.system, len(self.energy)
        energy = float(system.get_potential_energy() + system.get_kinetic_energy())
        temperature = float(system.get_temperature())
        self.end = time.perf_counter()
        if not (np.isfinite(energy) and np.isfinite(system.get_forces(apply_constraint=False)).all()):
            return f"energy or forces are not finite at step {step}"
        if temperature > self.config.max_temperature:
            return f"the temperature reached {temperature:.3g} K at step {step}"
        self.energy.append(energy)
        self.temperature.append(temperature)
        return None

    def sample(self) -> MDSample:
        """Keep and announce the present state."""
        step = len(self.energy) - 1
        volume = pressure = None
        if self.system.pbc.all():
            volume = float(self.system.get_volume())
            try:
                tensor = self.system.get_stress(voigt=False, include_ideal_gas=True, apply_constraint=False)
                pressure = float(-np.trace(tensor) / 3.0 / GPA)
            except PropertyNotImplementedError:  # a calculator of somebody else's without stress
                pass
        elapsed = step * self.config.timestep / 1000.0
        sample = MDSample(step, elapsed, self.energy[-1], self.temperature[-1], volume, pressure)
        self.samples.append(sample)
        if self.on_sample is not None:
            self.on_sample(sample)
        return sample

    def close(self, stopped: str | None) -> MDResult:
        n_atoms = len(self.system)
        drift, fluctuation = None, None
        if self.config.ensemble == "nve" and len(self.energy) > 2:
            drift, fluctuation = _line(np.array(self.energy) / n_atoms, self.config.timestep / 1000.0)
        final = self.system.copy()
        return MDResult(
            config=self.config,
            n_atoms=n_atoms,
            steps=max(0, len(self.energy) - 1),
            stopped=stopped,
            drift=drift,
            fluctuation=fluctuation,
            temperature=_mean_std(self.temperature),
            volume=_mean_std([s.volume for s in self.samples]) if self.system.pbc.all() else None,
            pressure=_mean_std([s.pressure for s in self.samples if s.pressure is not None]),
            wall_time=self.end - self.start,
            samples=tuple(self.samples),
            atoms=final,
        )


def _advance(dynamics: MolecularDynamics, record: _Record, save: Callable[[Atoms, MDSample], None]) -> str | None:
    """Step to the end; says why it stopped before, if it did."""
    config = record.config
    trouble: str | None = None
    try:
        for _ in dynamics.irun(config.steps):
            trouble = record.add()
            if trouble:
                break
            step = len(record.energy) - 1
            if step % config.every == 0 or step == config.steps:
                save(record.system, record.sample())
    except InputError as error:
        trouble = str(error)  # atoms flew apart or onto each other
    except OSError as error:
        return _unwritten(error, record)
    except KeyboardInterrupt:
        return f"interrupted after step {len(record.energy) - 1}"
    if trouble is None:
        return None
    return (
        f"the run exploded: {trouble.rstrip('.')}; take a shorter time step than {config.timestep:g} fs, relax the "
        "structure first (lamella relax), and check that the model was trained on structures like it"
    )


def _unwritten(error: OSError, record: _Record) -> str:
    return f"the trajectory cannot be written ({error.strerror}) after step {len(record.energy) - 1}; free space"


def _set_velocities(system: Atoms, config: MDConfig, rng: np.random.Generator) -> None:
    if config.velocities == "keep":
        if not system.has("momenta"):
            raise InputError("velocities=keep: the structure has no velocities; let them be drawn (velocities=draw).")
        return
    thermalize_momenta(system, config.temperature, rng=rng)
    Stationary(system)
    if not system.pbc.any():
        ZeroRotation(system)


def _nve(system: Atoms, config: MDConfig, rng: np.random.Generator) -> MolecularDynamics:
    return VelocityVerlet(system, config.timestep * FS)


def _bussi(system: Atoms, config: MDConfig, rng: np.random.Generator) -> MolecularDynamics:
    return Bussi(system, config.timestep * FS, config.temperature, config.thermostat_time * FS, rng=rng)


def _langevin(system: Atoms, config: MDConfig, rng: np.random.Generator) -> MolecularDynamics:
    # fixcm=True would not sample the canonical distribution exactly; the centre of mass may diffuse instead
    friction = 1.0 / (config.thermostat_time * FS)
    return Langevin(system, config.timestep * FS, temperature_K=config.temperature, friction=friction, fixcm=False, rng=rng)


def _nose_hoover(system: Atoms, config: MDConfig, rng: np.random.Generator) -> MolecularDynamics:
    return NoseHooverChainNVT(system, config.timestep * FS, config.temperature, config.thermostat_time * FS)


def _isotropic_npt(system: Atoms, config: MDConfig, rng: np.random.Generator) -> MolecularDynamics:
    if not system.pbc.all():
        raise InputError("ensemble npt: the structure is not periodic in three directions; use nvt.")
    if system.constraints:
        raise InputError("ensemble npt: the structure has constraints, which a barostat cannot keep; use nvt.")
    return IsotropicMTKNPT(
        system,
        config.timestep * FS,
        config.temperature,
        config.pressure * GPA,
        tdamp=config.thermostat_time * FS,
        pdamp=config.barostat_time * FS,
    )


INTEGRATORS: Final[dict[Ensemble, Callable[[Atoms, MDConfig, np.random.Generator], MolecularDynamics]]] = {
    "nve": _nve,
    "nvt": _bussi,
    "nvt-langevin": _langevin,
    "nvt-nose-hoover": _nose_hoover,
    "npt": _isotropic_npt,
}
"""Ensemble -> ASE integrator: velocity Verlet; Bussi-Donadio-Parrinello stochastic velocity rescaling; Langevin;
Nosé-Hoover chain; Martyna-Tobias-Klein with isotropic volume changes."""


@contextmanager
def _writer(path: Path | None) -> Iterator[Callable[[Atoms, MDSample], None]]:
    """A function that appends a frame, which is on disk when it returns."""
    if path is None:
        yield lambda atoms, sample: None
        return
    if path.suffix not in (".traj", ".extxyz", ".xyz"):
        raise InputError(f"{path}: a trajectory is written as .extxyz, .xyz or .traj; choose one of these endings.")
    try:
        handle: Any = Trajectory(path, "w") if path.suffix == ".traj" else path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None

    def save(atoms: Atoms, sample: MDSample) -> None:
        frame = snapshot(atoms, step=sample.step, time_ps=sample.time)
        if isinstance(handle, TextIOWrapper):
            write(handle, frame, format="extxyz")
            handle.flush()
        else:
            handle.write(frame)

    with handle:
        yield save


def _line(values: np.ndarray, spacing: float) -> tuple[float, float]:
    """Slope of the least-squares line through equidistant values, and the root mean square distance from it."""
    offset = np.arange(len(values)) * spacing
    offset -= offset.mean()
    centred = values - values.mean()
    slope = float(offset @ centred / (offset @ offset))
    return slope, float(np.sqrt(np.mean((centred - slope * offset) ** 2)))


def _mean_std(values: Any) -> tuple[float, float] | None:
    numbers = np.asarray(values, dtype=np.float64)
    return (float(numbers.mean()), float(numbers.std())) if len(numbers) else None
