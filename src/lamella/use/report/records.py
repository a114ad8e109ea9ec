"""The files beside a run that other commands write, as far as the report reads them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Dynamics", "DynamicsSamples", "Evaluated", "LawRow", "Laws", "Spread"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Spread(_Record):
    """Mean and standard deviation."""

    mean: float
    std: float


class DynamicsSettings(_Record):
    """Of a run of molecular dynamics."""

    ensemble: str
    temperature: float
    timestep: float
    """fs"""


class DynamicsSamples(_Record):
    """What was sampled, in order."""

    time: tuple[float, ...]
    """ps"""
    energy: tuple[float, ...]
    """eV, total"""
    temperature: tuple[float, ...]
    """K"""


class Dynamics(_Record):
    """``md.json``: what ``lamella md`` writes beside a trajectory."""

    n_atoms: int
    steps: int
    stopped: str | None = None
    drift: float | None = None
    """eV/atom/ps"""
    fluctuation: float | None = None
    """eV/atom"""
    temperature: Spread | None = None
    pressure: Spread | None = None
    volume: Spread | None = None
    steps_per_second: float | None = None
    config: DynamicsSettings
    samples: DynamicsSamples

    @property
    def time(self) -> float:
        """Length of the run, ps."""
        return self.steps * self.config.timestep / 1000.0


class LawRow(_Record):
    """One law of ``check.json``."""

    law: str
    passed: bool
    violation: float | None
    """``None`` where it was not a number."""
    bound: float
    sentence: str = ""


class Laws(_Record):
    """``check.json``: the rows of ``lamella check``."""

    rows: tuple[LawRow, ...]


class Evaluated(_Record):
    """``eval.json``: which data ``lamella eval --json`` was given."""

    data: tuple[str, ...]
    task: str | None = None
