"""The stages of the demo: each says what it does and why, and leaves its result in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.io import write

from lamella import datasets
from lamella.data.lint import lint
from lamella.errors import LamellaError
from lamella.formats.load import load
from lamella.train.adapt.compose import FinetuneConfig, finetune_recipe
from lamella.train.adapt.config import StartConfig
from lamella.train.fit import CONFIG, fit
from lamella.train.recipe import Recipe, load_recipe
from lamella.use.calculator import Calculator
from lamella.use.demo.config import FEW, FINETUNED, PRETRAINED, REPORT, SCRATCH, Demo, Show
from lamella.use.demo.page import lines_of, write_page
from lamella.use.dynamics import MDSample, run_md
from lamella.use.laws import LAWS, Checks, check_law, iter_checks
from lamella.use.save import replacing
from lamella.use.settings import MDConfig
from lamella.use.table.answer import Learned, Respondent
from lamella.use.table.config import SetConfig
from lamella.use.table.run import evaluate_sets

__all__ = ["Work"]

_TASKS = {"gfn2": "molecules_gfn2", "pbe": "molecules_pbe"}
"""Pre-training tasks: the same structures, labelled by two methods."""

_WATER: Final = "water_gfn2"

_MOVER: Final = ("lamella-mini", "gfn2")
"""Model and task of the dynamics: a model of a few structures seldom survives it."""

_TUNING: Final = (
    *("training.steps=300", "training.valid_every=50", "training.log_every=20", "training.save_every=150"),
    *("training.keep=1", "training.ema=0.995", "training.tensorboard=false", "tasks.water.valid_fraction=0.25"),
    *("tasks.water.loss={energy: [1, 100], forces: [100, 40], virial: [0.1, 2]}", "batch={edges: 2200}"),
    *("optimizer.lr=1e-2", "schedule.kind=cosine", "schedule.stop_lr=1e-4", "schedule.warmup_steps=30"),
    *("seed=1", "device=cpu"),
)
"""Of fine-tuning and of training from scratch alike: the comparison is of their starts."""


class Work:
    """What the stages share."""

    def __init__(self, folder: Path, show: Show, demo: Demo) -> None:
        self.folder, self.show, self.demo = folder, show, demo

    @property
    def stages(self) -> dict[str, Callable[[str], str | None]]:
        """By name, in order; each is given its number in words and returns what is not well, if anything."""
        return {
            "data": self.data,
            "pre-training": self.pretraining,
            "zero-shot": self.zero_shot,
            "fine-tuning": self.tuning,
            "testing": self.testing,
            "laws": self.laws,
            "dynamics": self.dynamics,
            "report": self.report,
        }

    def data(self, mark: str) -> str | None:
        """Look at the labels; put the few frames of water aside."""
        self.show.line(
            f"\n{mark} Data. Two sets hold the same molecules, labelled by two methods, GFN2-xTB (quick, approximate) and "
            "PBE (a density functional). A third set is water, of which only a little may be used. Labels that cannot be "
            "right would spoil everything after them, so they are looked at first."
        )
        names = (*_TASKS.values(), _WATER)
        problems = [finding for name in names for finding in lint([datasets.path(name)]).problems]
        for finding in problems:
            self.show.line(f"      {finding.severity}: {finding.file}, structure {finding.frame}: {finding.message}")
        clashes = len(lint([datasets.path(name) for name in _TASKS.values()]).problems)
        pairs = [datasets.load(name, "train") for name in _TASKS.values()]
        energies = [np.array([atoms.get_potential_energy() / len(atoms) for atoms in frames]) for frames in pairs]
        forces = [np.concatenate([atoms.get_forces().ravel() for atoms in frames]) for frames in pairs]
        water = datasets.load(_WATER, "train")
        few = water[:: max(1, len(water) // self.demo.labelled)][: self.demo.labelled]
        with replacing(self.folder / FEW) as file:
            write(file, few, format="extxyz")
        content: dict[str, Any] = {
            "frames": {name: len(datasets.load(name, "train")) for name in names},
            "few": len(few),
            "energy_gap": float(np.mean(energies[1] - energies[0])),
            "forces_rms_difference": float(np.sqrt(np.mean((forces[1] - forces[0]) ** 2))),
            "forces_std": float(forces[1].std()),
            "problems": len(problems),
            "clashes": clashes,
        }
        self._write("data.json", content)
        self.show.line(
            f"      The two methods disagree about the energy of the same structures by {abs(content['energy_gap']):.0f} eV "
            f"per atom and about forces by {1e3 * content['forces_rms_difference']:.0f} meV/Å. In one set these labels "
            f"would contradict each other: `lamella data lint` finds {clashes} clashes. {len(few)} structures of water go "
            f"to {self.folder / FEW}."
        )
        return f"{len(problems)} problems in the data" if problems else None

    def pretraining(self, mark: str) -> str | None:
        """One backbone, two tasks."""
        self.show.line(
            f"\n{mark} Pre-training. One network learns from both sets at once. What describes an atom's surroundings is "
            "shared; each task has a head and energies per element of its own, so that the methods need not agree. F is the "
            "error of a force; on validation structures, which it does not fit, it should fall from about a thousand to "
            "about a hundred meV/Å."
        )
        self._fit(load_recipe("demo_tasks", self.demo.pretraining), PRETRAINED)
        return None

    def zero_shot(self, mark: str) -> str | None:
        """The pre-trained model on its test sets, and on water, which it never saw."""
        self.show.line(
            f"\n{mark} Zero-shot. Both heads on structures that they did not train on, and on water, of which they saw "
            "single molecules but no liquid and no cluster. Nothing is trained; only energies per element are refitted, "
            "since each method has its own zero."
        )
        model = load(self.folder / PRETRAINED)
        heads = [Learned(f"head {task}", PRETRAINED, model, task) for task in _TASKS]
        sets = {
            name: SetConfig(data=(f"embedded:{name}:test",), fit=(f"embedded:{name}:train",)) for name in _TASKS.values()
        }
        self._table("zero_shot.json", {**sets, _WATER: self._water()}, heads)
        return None

    def tuning(self, mark: str) -> str | None:
        """The same frames and steps, from two starts."""
        few = str(self.folder / FEW)
        self.show.line(
            f"\n{mark} Fine-tuning, beside training from scratch: both learn from the same {self.demo.labelled} structures "
            "of water, in as many steps. One starts from the pre-trained network and its head for GFN2-xTB, the method "
            "of these labels; the other from random numbers. First the pre-trained one: what loads, what is new, and the "
            "errors before its first step."
        )
        start = StartConfig(model=str(self.folder / PRETRAINED), head="gfn2", only=True)
        settings = [*_TUNING, *self.demo.tuning]
        if not (self.folder / FINETUNED / CONFIG).exists():
            choices = FinetuneConfig(data=(few,), task="water")
            recipe = finetune_recipe(load(start.model), start, choices, settings)
        else:
            recipe = load_recipe(self.folder / FINETUNED / CONFIG)
        self._fit(recipe, FINETUNED)
        self.show.line(
            "\n      Now from scratch: architecture, data, loss, batches, learning rate and number of steps are the same."
        )
        scratch = load_recipe("demo_water", [f"tasks.water.train={few}", *settings])
        self._fit(scratch.model_copy(update={"model": load_recipe("demo_tasks", self.demo.pretraining).model}), SCRATCH)
        return None

    def testing(self, mark: str) -> str | None:
        """All three on water that none of them saw."""
        self.show.line(f"\n{mark} Testing: water from simulations of its own, which neither training nor fine-tuning saw.")
        pretrained = load(self.folder / PRETRAINED)
        learned: list[Respondent] = [Learned(f"zero-shot {task}", PRETRAINED, pretrained, task) for task in _TASKS]
        learned += [Learned("fine-tuned", FINETUNED, load(self.folder / FINETUNED))]
        learned += [Learned("from scratch", SCRATCH, load(self.folder / SCRATCH))]
        self._table("testing.json", {_WATER: self._water()}, learned)
        return None

    def laws(self, mark: str) -> str | None:
        """Check what must hold whatever was learnt."""
        self.show.line(
            f"\n{mark} Laws of physics: turning, moving or renumbering a molecule must not change its energy, and forces "
            "must be the slope of the energy, to the last digit. Measured on the fine-tuned model in double precision."
        )
        model, chosen, rows = load(self.folder / FINETUNED), self.demo.laws, []
        checked = iter_checks(model) if chosen is None else (check_law(law, model) for law in chosen)
        with self.show.progress("checking", len(LAWS if chosen is None else chosen)) as advance:
            for row in checked:
                rows.append(row)
                advance(1, row.law)
        checks = Checks(tuple(rows))
        self._write("check.json", {"passed": checks.passed, "rows": [row.as_dict() for row in checks.rows]})
        self.show.line(f"      {sum(row.passed for row in checks.rows)} of {len(checks.rows)} laws hold.")
        return None if checks.passed else f"these laws do not hold: {', '.join(checks.failed)}"

    def dynamics(self, mark: str) -> str | None:
        """Run water at room temperature."""
        config, atoms = self.demo.dynamics, datasets.water_box()
        self.show.line(
            f"\n{mark} Molecular dynamics: {len(atoms)} atoms of liquid water move for {config.time:g} ps, after a warm-up "
            f"to {config.temperature:g} K. Nothing heats or cools them then, so the total energy must stay the same: a test "
            f"of forces and smoothness. It takes {_MOVER[0]}, the model that comes with lamella, which learned from all of "
            f"the embedded water (task {_MOVER[1]}) and from eight other tasks: what {self.demo.labelled} structures teach "
            "in seconds is right where they are, and wrong where atoms come closer."
        )
        calculator = Calculator(_MOVER[0], task=_MOVER[1], dtype="float64")
        shared = {"temperature": config.temperature, "timestep": config.timestep}
        warm_up = MDConfig(ensemble="nvt", time=self.demo.warm_up, thermostat_time=20.0, **shared)
        trajectory = self.folder / "md.extxyz"
        trajectory.unlink(missing_ok=True)  # of a demo that was stopped in this stage
        with self.show.progress("dynamics", warm_up.steps + config.steps) as advance:
            done = 0

            def on_sample(sample: MDSample) -> None:
                nonlocal done
                advance(sample.step - done, f"{sample.temperature:.0f} K")
                done = sample.step

            result = run_md(atoms, calculator, warm_up, None, on_sample)
            if result.stopped is None:
                done = 0
                result = run_md(result.atoms, calculator, config, trajectory, on_sample)
        origin = f"embedded:water_box after {warm_up.time:g} ps at {warm_up.temperature:g} K"
        self._write("md.json", {"structure": origin, "trajectory": trajectory.name, **result.summary()})
        if result.stopped is not None:
            return result.stopped
        drift = "" if result.drift is None else f"total energy drifts by {abs(result.drift):.1e} eV/atom/ps; "
        mean = "" if result.temperature is None else f"mean temperature {result.temperature[0]:.0f} K; "
        self.show.line(f"      {drift}{mean}{result.steps_per_second:.0f} steps/s")
        return None

    def report(self, mark: str) -> str | None:
        """Put all of it on one page."""
        self.show.line(f"\n{mark} Report: everything above on one page, with figures.")
        for line in write_page(self.folder, self.folder / REPORT):
            self.show.line(f"      {line}")
        return None

    def _fit(self, recipe: Recipe, name: str) -> None:
        fit(recipe, self.folder / name, resume=(self.folder / name / CONFIG).exists())

    def _water(self) -> SetConfig:
        """Water that is tested on, energies per element being fitted to the few frames."""
        return SetConfig(data=(f"embedded:{_WATER}:test",), fit=(str(self.folder / FEW),))

    def _table(self, name: str, sets: Mapping[str, SetConfig], models: Sequence[Respondent]) -> None:
        """Errors of models on sets: into a file, and said."""
        found = evaluate_sets(sets, models, self.show.progress)
        names = [model.name for model in models]
        content = {
            quantity: {
                row.name: {"spread": row.labels.std[quantity]}
                | {model: _known(row.rmse(model, quantity)) for model in names}
                for row in found.rows
            }
            for quantity in ("energy", "forces")
        }
        self._write(name, content)
        for line in lines_of(content):
            self.show.line(f"      {line}")

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        with replacing(self.folder / name) as file:
            json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)


def _known(error: float | None) -> float:
    """An error that is there: every set and every model of the demo has energies and forces."""
    if error is None:
        raise LamellaError("a model of the demo gave no answer; please report this.")
    return error
