"""Drift of the total energy in molecular dynamics without thermostat (DPA-2 paper, Fig. S3).

The drift is the slope of a line through the total energy per atom after the first fifth of the run, in which what was at
rest comes to its temperature. The score beside it is LAMBench's instability, max(0, log10(|slope| / 5e-4 eV/atom/ps)) but
not above 5, and 5 for a run that ended early.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols
from ase.formula import Formula
from pydantic import BaseModel, Field, model_validator

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
from lamella.use.study.config import STRICT, Reference
from lamella.use.study.identity import of_respondent
from lamella.use.study.report import Report
from lamella.use.study.trial import Work, slug
from lamella.use.table.answer import Calculated, Learned, Respondent
from lamella.use.table.reference import respondents

__all__ = ["DriftConfig", "drift", "plan_drift"]

_TOLERANCE: Final = 5e-4
"""eV/atom/ps: a smaller slope is no drift (LAMBench)."""

_FAILED: Final = 5.0
"""Instability of a run that did not reach its end, and the largest there is."""

_SETTLING: Final = 0.2
"""Share of a run before the line begins (LAMBench)."""

_ABREAST: Final = 3
"""Pictures in a row."""

_FEWEST: Final = 10
"""Points of a run, the first among them, that a line wants."""


class DriftConfig(BaseModel):
    """``lamella study drift``."""

    model_config = STRICT

    models: dict[str, Reference] = Field(min_length=1)
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

    @model_validator(mode="after")
    def _enough(self) -> DriftConfig:
        steps = round(1000.0 * self.time / self.timestep)
        if steps // self.every + 1 < _FEWEST:
            raise ValueError(
                f"{self.time:g} ps are {steps} steps of {self.timestep:g} fs; a point at every {self.every} makes "
                f"fewer than the {_FEWEST} that a line wants; give a longer time or a smaller every"
            )
        return self

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
    """One model on one structure: ps, energies per atom above the first one in eV, and why it ended early."""

    time: list[float]
    energy: list[float]
    stopped: str | None

    @property
    def drift(self) -> float | None:
        """Slope of the line, eV/atom/ps; ``None`` where there are too few points."""
        time, energy = np.array(self.time), np.array(self.energy)
        later = time >= _SETTLING * time[-1] if len(time) else np.zeros(0, bool)
        if later.sum() < 2:
            return None
        centred = time[later] - time[later].mean()
        return float(centred @ energy[later] / (centred @ centred))

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
    chosen = _drawn(config, len(frames))
    models = respondents(config.models, config.dtype, functions=True)
    calculators = {model.name: _calculator(model) for model in models}
    found: dict[tuple[str, int], _Run] = {}
    for model in models:
        for index in chosen:
            found[model.name, index] = _kept_or_run(config, folder, model, calculators[model.name], frames[index], index)
            run = found[model.name, index]
            said = run.stopped or ("" if run.drift is None else f"drift {1000.0 * run.drift:.3g} meV/atom/ps")
            work.say(f"{model.name} on {frames[index].source}: {said}")
    names = {index: f"{Formula.from_list(_symbols(frames[index])).format('hill')} (#{index})" for index in chosen}
    return _report(config, found, names)


def plan_drift(config: DriftConfig) -> list[str]:
    """What would be run, in words.

    Raises:
        InputError: a model or structures that cannot be read.
    """
    frames = open_data(config.data, None)
    for model in respondents(config.models, config.dtype, functions=True):
        _calculator(model)
    chosen = _drawn(config, len(frames))
    steps = round(1000.0 * config.time / config.timestep)
    runs = len(config.models) * len(chosen)
    return [f"{runs} runs of {config.time:g} ps ({steps} steps): {', '.join(config.models)} on"] + [
        f"{frames[index].source} ({len(frames[index])} atoms)" for index in chosen
    ]


def _symbols(frame: Frame) -> list[str]:
    return [chemical_symbols[number] for number in frame.numbers.tolist()]


def _drawn(config: DriftConfig, count: int) -> list[int]:
    """Indices of the structures."""
    return sorted(np.random.default_rng(config.seed).permutation(count)[: config.draw].tolist())


def _kept_or_run(
    config: DriftConfig, folder: Path, model: Respondent, calculator: BaseCalculator, frame: Frame, index: int
) -> _Run:
    path = folder / "errors" / f"{slug(model.name)}-{index}.json"
    settings = config.model_dump(mode="json", exclude={"models", "data", "draw"})
    identity = {"model": of_respondent(model), "structure": frame_digest(frame).hex(), "settings": settings}
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["of"] == identity:
            return _Run(*content["run"])
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _simulate(config, calculator, frame)
    if run.time:  # what never began may have had a reason that is gone
        write_file(path, json.dumps({"of": identity, "run": list(run)}, ensure_ascii=False) + "\n")
    return run


def _simulate(config: DriftConfig, calculator: BaseCalculator, frame: Frame) -> _Run:
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    try:
        result = run_md(atoms, calculator, config.dynamics())
    except LamellaError as error:
        return _Run([], [], str(error))
    except Exception as error:  # a calculator of somebody else's
        return _Run([], [], f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    first = result.samples[0].energy if result.samples else 0.0
    energy = [(sample.energy - first) / result.n_atoms for sample in result.samples]
    return _Run([sample.time for sample in result.samples], energy, result.stopped)


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
    for place, (index, name) in enumerate(names.items()):
        lines = [
            Line(model, run.time, [1000.0 * energy for energy in run.energy], style="line")
            for (model, at), run in found.items()
            if at == index and run.time
        ]
        panels.append(Panel(name, "time, ps", "E - E(0), meV/atom", lines, place // _ABREAST, log_x=False, log_y=False))
    means = {
        model: sum(run.instability for (name, _), run in found.items() if name == model) / len(names)
        for model in config.models
    }
    said = [
        f"NVE, velocities drawn at {config.temperature:g} K, {config.time:g} ps in steps of {config.timestep:g} fs.",
        "Drift is the slope of a line through the total energy per atom after the first fifth of the run. Instability is "
        "LAMBench's: 0 below 0.5 meV/atom/ps, 1 a decade above it, 5 for a run that ended early; means: "
        + ", ".join(f"{m} {v:.2f}" for m, v in means.items())
        + ".",
    ]
    return Report("Energy conservation", rows, panels, said)
