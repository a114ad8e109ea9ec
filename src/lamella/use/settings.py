"""Settings of molecular dynamics and relaxation, in the units people use: K, GPa, ps, fs, eV/Å."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Ensemble", "MDConfig", "OptimizerName", "RelaxConfig", "Velocities"]

Ensemble = Literal["nve", "nvt", "nvt-langevin", "nvt-nose-hoover", "npt"]
"""Keys of :data:`lamella.use.dynamics.INTEGRATORS`."""

Velocities = Literal["draw", "keep"]
"""Draw them from the Maxwell-Boltzmann distribution, or keep those of the structure."""

OptimizerName = Literal["fire", "bfgs"]
"""Keys of :data:`lamella.use.relax.OPTIMIZERS`."""


class MDConfig(BaseModel):
    """Settings of a run of molecular dynamics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ensemble: Ensemble = "nve"
    temperature: float = Field(300.0, ge=0, allow_inf_nan=False)
    """K, of the initial velocities and of the thermostat; as in ASE 2 E_kin / (k_B × unconstrained degrees of freedom)."""
    pressure: float = Field(0.0, allow_inf_nan=False)
    """GPa, of the barostat."""
    time: float = Field(1.0, gt=0, allow_inf_nan=False)
    """ps."""
    timestep: float = Field(0.5, gt=0, allow_inf_nan=False)
    """fs."""
    seed: int = Field(0, ge=0)
    """Of the initial velocities and of a stochastic thermostat."""
    every: int = Field(20, ge=1)
    """Steps between samples, which are also the frames of the trajectory."""
    velocities: Velocities = "draw"
    thermostat_time: float = Field(100.0, gt=0, allow_inf_nan=False)
    """fs; 1/friction of Langevin, relaxation time of the others."""
    barostat_time: float = Field(1000.0, gt=0, allow_inf_nan=False)
    """fs."""
    max_temperature: float = Field(20_000.0, gt=0)
    """K; above it the run has exploded and stops."""

    @property
    def steps(self) -> int:
        """Number of steps, at least one."""
        return max(1, round(self.time * 1000.0 / self.timestep))

    @model_validator(mode="after")
    def _consistent(self) -> MDConfig:
        if self.ensemble != "nve" and self.temperature == 0.0:
            raise ValueError(f"temperature: ensemble {self.ensemble} needs one above 0 K")
        if self.pressure and self.ensemble != "npt":
            raise ValueError(f"pressure: ensemble {self.ensemble} keeps the cell; choose npt, or leave the pressure out")
        return self


class RelaxConfig(BaseModel):
    """Settings of a relaxation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: OptimizerName = "fire"
    """FIRE is robust; BFGS takes fewer steps, and memory and time that grow with the square and the cube of the size."""
    fmax: float = Field(0.02, gt=0, allow_inf_nan=False)
    """eV/Å: converged when no atom's force is longer; with ``cell`` also eV: no row of (virial - p V)/N is longer."""
    steps: int = Field(500, ge=0)
    """At most so many."""
    cell: bool = False
    """Relax the cell too, shape and volume."""
    pressure: float = Field(0.0, allow_inf_nan=False)
    """GPa, on the cell."""

    @model_validator(mode="after")
    def _consistent(self) -> RelaxConfig:
        if self.pressure and not self.cell:
            raise ValueError("pressure: it acts on the cell, which is kept; relax the cell too, or leave it out")
        return self
