"""``lamella demo``: from labelled structures to a model that runs molecular dynamics, and a report, in minutes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from lamella import datasets
from lamella.data.convert import frame_from_atoms
from lamella.data.lint import lint
from lamella.data.source import FrameList
from lamella.errors import LamellaError
from lamella.formats.load import load
from lamella.train.fit import CONFIG, fit
from lamella.train.recipe import Recipe, dump_recipe, load_recipe
from lamella.train.stop import Interrupted
from lamella.use.calculator import Calculator
from lamella.use.dynamics import MDSample, run_md
from lamella.use.evaluate import evaluate
from lamella.use.laws import LAWS, Checks, check_law, iter_checks
from lamella.use.report import write_report
from lamella.use.save import replacing
from lamella.use.settings import MDConfig

__all__ = ["RECIPE", "Demo", "Show", "free_folder", "run_demo"]

RECIPE: Final = "demo_water"
DATA: Final = "water_gfn2"


class Show(NamedTuple):
    """How the demo talks: a line that stays, and a progress bar (title, total) that is told (steps done, what to say)."""

    line: Callable[[str], None]
    progress: Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]


@dataclass(frozen=True)
class Demo:
    """What the demo does.

    Attributes:
        overrides: of the recipe, ``key=value``.
        warm_up: ps at constant temperature before the molecular dynamics that is recorded.
        dynamics: settings of the latter.
        laws: names of the laws to check; all where ``None``.
    """

    overrides: tuple[str, ...] = ()
    warm_up: float = 0.1
    dynamics: MDConfig = MDConfig(time=1.0, velocities="keep")
    laws: tuple[str, ...] | None = None


def run_demo(run: Path, show: Show, demo: Demo | None = None) -> Path:
    """Lint, train, evaluate, check, simulate, report.

    Args:
        run: folder to write; where it is taken, the next free one (``run-2``, ...); an unfinished demo in it is resumed.
        show: where words and progress go.
        demo: what to do.

    Returns:
        The report.

    Raises:
        Interrupted: training was asked to stop; the same command goes on with it.
        LamellaError: a stage failed; the message says which, and what was done is kept.
    """
    demo = demo or Demo()
    recipe = load_recipe(RECIPE, demo.overrides)
    folder, unfinished = free_folder(run, recipe)
    work = _Work(folder, show, demo, recipe, unfinished)
    failures: list[str] = []
    stages = {
        "data": work.data,
        "training": work.training,
        "testing": work.testing,
        "laws": work.laws,
        "dynamics": work.dynamics,
    }
    show.line(f"The demo writes everything to the folder {folder}/ and takes about six minutes on two CPU cores.")
    for number, (name, stage) in enumerate([*stages.items(), ("report", work.report)], start=1):
        try:
            with _one_thread():
                trouble = stage(f"[{number}/{len(stages) + 1}]")
        except Interrupted as stopped:
            raise Interrupted(
                f"{stopped} Or run `lamella demo` again: it goes on where it stopped.", stopped.exit_code
            ) from None
        except LamellaError as error:
            raise LamellaError(
                f"stage {number} ({name}) of the demo failed: {error} What was done is kept in {folder}/."
            ) from error
        failures += [f"stage {number} ({name}): {trouble}"] if trouble else []
    path = folder / "report.html"
    if failures:
        raise LamellaError(
            f"the demo ran to its end, but not all is well: {'; '.join(failures)}. The report, {path}, says more."
        )
    show.line(f"\nDone. Open the report in a browser: {path}")
    return path


def free_folder(run: Path, recipe: Recipe) -> tuple[Path, bool]:
    """The first of ``run``, ``run-2``, ``run-3``, ... that is free or holds this demo, unfinished; and whether it does.

    Nothing of anybody's is ever overwritten.
    """
    for number in itertools.count(1):
        folder = run if number == 1 else run.with_name(f"{run.name}-{number}")
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder, False
        config = folder / CONFIG
        if (
            config.is_file()
            and not (folder / "report.html").exists()
            and config.read_text(encoding="utf-8") == dump_recipe(recipe)
        ):
            return folder, True
    raise AssertionError("unreachable: counting has no end")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside the block torch computes on one core.

    For graphs this small more threads gain little, and on a busy machine they wait for each other (ten times slower was
    seen); and so the numbers do not depend on how many cores there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Work:
    """The stages; each says what it does and why, and returns what is not well, if anything."""

    def __init__(self, folder: Path, show: Show, demo: Demo, recipe: Recipe, unfinished: bool) -> None:
        self.folder, self.show, self.demo, self.recipe, self.unfinished = folder, show, demo, recipe, unfinished
        self.task = next(iter(recipe.tasks))

    def data(self, mark: str) -> str | None:
        """Look for labels that cannot be right."""
        structures = datasets.load(DATA)
        self.show.line(
            f"\n{mark} Looking at the data: {len(structures)} structures of water with energies and forces computed by a "
            "quantum-chemical method (GFN2-xTB). A wrong label would spoil everything after it, so the data is checked "
            "first."
        )
        report = lint([datasets.path(DATA)])
        for finding in report.findings:
            where = "" if finding.frame is None else f"structure {finding.frame}: "
            self.show.line(f"      {finding.severity}: {where}{finding.message}")
        if not report.problems:
            self.show.line(f"      {sum(report.frames.values())} structures read, no problems found.")
        return f"{len(report.problems)} problems in the data" if report.problems else None

    def training(self, mark: str) -> str | None:
        """Fit the model."""
        self.show.line(
            f"\n{mark} Training: a small DPA-3 model learns to give the same forces. F is the error of a force in meV/Å; "
            "on validation "
            "structures, which it does not fit, it should fall from about a thousand to below a hundred."
        )
        if self.unfinished:
            self.show.line(f"      {self.folder}/ holds an unfinished demo: going on with it.")
        fit(self.recipe, self.folder, resume=self.unfinished)
        return None

    def testing(self, mark: str) -> str | None:
        """Compare with labels that training never saw."""
        atoms = datasets.load(DATA, "test")
        path = f"embedded:{DATA}:test"
        frames = FrameList(frame_from_atoms(item, source=f"{path}#{index}") for index, item in enumerate(atoms))
        self.show.line(
            f"\n{mark} Testing: {len(frames)} further structures, which played no part in training, show how good the "
            "model really is."
        )
        with self.show.progress("testing", len(frames)) as advance:
            result = evaluate(load(self.folder), frames, self.task, lambda frame, prediction: advance(1, ""))
        self._write("eval.json", {"data": [path], **result.summary()})
        forces, energy = result.errors["forces"], result.errors["energy"]
        self.show.line(
            f"      force error {1000 * forces.rmse:.1f} meV/Å, {100 * forces.rmse / forces.label_std:.1f} % of the "
            "forces' own spread "
            f"({1000 * forces.label_std:.0f} meV/Å); energy error {1000 * energy.rmse:.2f} meV/atom"
        )
        return None

    def laws(self, mark: str) -> str | None:
        """Check what must hold whatever was learnt."""
        self.show.line(
            f"\n{mark} Laws of physics: turning, moving or renumbering a molecule must not change its energy, and forces "
            "must be the "
            "slope of the energy, to the last digit. Measured in double precision."
        )
        model, chosen, rows = load(self.folder), self.demo.laws, []
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
            "of forces and smoothness."
        )
        calculator = Calculator(load(self.folder), dtype="float64")
        warm_up = MDConfig(
            ensemble="nvt",
            temperature=config.temperature,
            time=self.demo.warm_up,
            timestep=config.timestep,
            thermostat_time=20.0,
        )
        trajectory = self.folder / "md.extxyz"
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
        write_report(self.folder)
        return None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        with replacing(self.folder / name) as file:
            json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
