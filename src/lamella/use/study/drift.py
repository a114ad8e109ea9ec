"""Drift of the total energy in molecular dynamics without thermostat (DPA-2 paper, Fig. S3).

The score beside the drift is LAMBench's instability, max(0, log10(|slope| / 5e-4 eV/atom/ps)), and 5 for a run that ended
early.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from pydantic import BaseModel, ConfigDict, Field

from lamella.data.digest import frame_digest
from lamella.errors import InputError, LamellaError
from lamella.train.paths import Paths
from lamella.train.prepare import open_data
from lamella.train.state import write_file
from lamella.types import Frame
from lamella.use.calculator import Calculator
from lamella.use.dynamics import run_md
from lamella.use.settings import MDConfig
from lamella.use.study.chart import Line, Panel
from lamella.use.study.report import Report
from lamella.use.study.trial import Work, slug
from lamella.use.table.answer import Calculated, Learned, Respondent
from lamella.use.table.reference import respondents

__all__ = ["DriftConfig", "drift"]

_TOLERANCE: Final = 5e-4
"""eV/atom/ps: a smaller slope is no drift (LAMBench)."""

_FAILED: Final = 5.0
"""Instability of a run that did not reach its end."""


class DriftConfig(BaseModel):
    """``lamella study drift``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    models: dict[str, str] = Field(min_length=1)
    """As ``lamella table`` takes them: lamella models, MODEL@TASK, ASE calculators."""
    data: Paths
    """Structures; labels are not needed."""
    draw: int = Field(3, ge=1)
    """So many of them are drawn at random."""
    seed: int = Field(1, ge=0)
    """Of the draw and of the velocities."""
    temperature: float = Field(330.0, gt=0)
    """K, of the initial velocities."""
    time: float = Field(100.0, gt=0)
    """ps."""
    timestep: float = Field(0.5, gt=0)
    """fs."""
    every: int = Field(20, ge=1)
    """Steps between points of the picture."""
    dtype: Literal["float32", "float64"] | None = "float64"
    """Of lamella models; null for that of each."""

    def dynamics(self) -> MDConfig:
        """Without thermostat."""
        return MDConfig(
            ensemble="nve",
            temperature=self.temperature,
            time=self.time,
            timestep=self.timestep,
            seed=self.seed,
            every=self.every,
        )


class _Run(NamedTuple):
    """One model on one structure: energies per atom above the first one, over time; a slope; why it ended early."""

    time: list[float]
    energy: list[float]
    drift: float | None
    stopped: str | None

    @property
    def instability(self) -> float:
        """LAMBench's measure."""
        if self.stopped is not None or self.drift is None:
            return _FAILED
        return min(max(0.0, math.log10(max(abs(self.drift), 1e-300) / _TOLERANCE)), _FAILED)


def drift(config: DriftConfig, folder: Path, work: Work) -> Report:
    """Run every model on every structure; what was run before is kept in ``errors/``.

    Raises:
        InputError: a model or structures that cannot be read.
    """
    frames = open_data(config.data, None)
    chosen = np.sort(np.random.default_rng(config.seed).permutation(len(frames))[: config.draw]).tolist()
    models = respondents(config.models, config.dtype, functions=True)
    found: dict[tuple[str, int], _Run] = {}
    for model in models:
        for index in chosen:
            found[model.name, index] = _kept_or_run(config, folder, model, frames[index], index)
            slope = found[model.name, index].drift
            said = found[model.name, index].stopped or ("" if slope is None else f"drift {slope:.2e} eV/atom/ps")
            work.say(f"{model.name} on {frames[index].source}: {said}")
    names = {index: f"{frames[index].source.rpartition('/')[2]}" for index in chosen}
    return _report(config, found, names)


def _kept_or_run(config: DriftConfig, folder: Path, model: Respondent, frame: Frame, index: int) -> _Run:
    path = folder / "errors" / f"{slug(model.name)}-{index}.json"
    settings = config.model_dump(mode="json", exclude={"models", "data", "draw"})
    identity = {"model": model.origin, "structure": frame_digest(frame).hex(), "settings": settings}
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["of"] == identity:
            return _Run(*content["run"])
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _simulate(config, _calculator(model), frame)
    write_file(path, json.dumps({"of": identity, "run": list(run)}, ensure_ascii=False) + "\n")
    return run


def _simulate(config: DriftConfig, calculator: BaseCalculator, frame: Frame) -> _Run:
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    try:
        result = run_md(atoms, calculator, config.dynamics())
    except LamellaError as error:
        return _Run([], [], None, str(error))
    except Exception as error:  # a calculator of somebody else's
        return _Run([], [], None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    first = result.samples[0].energy if result.samples else 0.0
    energy = [(sample.energy - first) / result.n_atoms for sample in result.samples]
    return _Run([sample.time for sample in result.samples], energy, result.drift, result.stopped)


def _calculator(model: Respondent) -> BaseCalculator:
    if isinstance(model, Learned):
        return Calculator(model.potential, model.chosen)
    if isinstance(model, Calculated):
        return model.calculator
    raise InputError(f"{model.name}: a file of predictions cannot move atoms; name a model or a calculator.")


def _report(config: DriftConfig, found: dict[tuple[str, int], _Run], names: dict[int, str]) -> Report:
    rows: list[dict[str, Any]] = []
    for (model, index), run in found.items():
        row: dict[str, Any] = {"structure": names[index], "model": model}
        row["drift, meV/atom/ps"] = None if run.drift is None else 1000.0 * run.drift
        row["largest deviation, meV/atom"] = 1000.0 * max(map(abs, run.energy)) if run.energy else None
        rows.append(row | {"instability": run.instability, "ended early": run.stopped or ""})
    rows.sort(key=lambda row: list(names.values()).index(row["structure"]))
    panels = []
    for index, name in names.items():
        lines = [
            Line(model, run.time, [1000.0 * energy for energy in run.energy], style="line")
            for (model, at), run in found.items()
            if at == index and run.time
        ]
        panels.append(Panel(name, "time, ps", "E - E(0), meV/atom", lines, log_x=False, log_y=False))
    means = {
        model: sum(run.instability for (name, _), run in found.items() if name == model) / len(names)
        for model in config.models
    }
    said = [
        f"NVE, velocities drawn at {config.temperature:g} K, {config.time:g} ps in steps of {config.timestep:g} fs.",
        "Drift is the slope of a line through the total energy per atom. Instability is LAMBench's: 0 below 0.5 meV/atom/ps,"
        " 1 a decade above it, 5 for a run that ended early; means: "
        + ", ".join(f"{m} {v:.2f}" for m, v in means.items())
        + ".",
    ]
    return Report("Energy conservation", rows, panels, said)
