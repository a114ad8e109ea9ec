"""The loop: one trainer for one task or many, from the first step or from a checkpoint."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from lamella.allocator import keep_freed_memory
from lamella.data.load import Plan, Share, batches
from lamella.data.sample import Sampler
from lamella.data.source import Frames
from lamella.errors import CheckpointError, TrainingError
from lamella.models.potential import Potential
from lamella.train.draw import TaskDraw
from lamella.train.log import RunLog
from lamella.train.metrics import ErrorSums
from lamella.train.optim import MovingAverage, build_optimizer
from lamella.train.parallel.division import TrainingPlan, ValidationPlan
from lamella.train.parallel.ranks import Ranks, joined
from lamella.train.plan import plan_lines
from lamella.train.prepare import build_potential, count_sel, make_sampler
from lamella.train.progress import Display, Silent, make_display
from lamella.train.recipe import Recipe, dump_recipe
from lamella.train.resume import resumed_potential
from lamella.train.room import Room
from lamella.train.schedule import decay, learning_rate
from lamella.train.state import (
    Progress,
    load_trainer,
    point,
    pointed,
    prune,
    save_checkpoint,
    step_name,
    write_file,
)
from lamella.train.step import Outcome, StepSetting, train_step
from lamella.train.stop import Interrupted, StopRequest, listen
from lamella.train.task_data import TaskData, open_tasks, task_seed
from lamella.train.validate import validate

__all__ = ["CONFIG", "fit"]

CONFIG = "config.yaml"


def fit(recipe: Recipe, run: str | Path, resume: bool = False) -> Path:
    """Train a model: in this process, or together with the others that torchrun started.

    Args:
        recipe: what to train on what; on resuming, that of ``run/config.yaml``, in which what a checkpoint does not
            contain (lengths, learning rate, loss, batches) may have been changed: the plan names each change.
        run: folder for everything the run writes; must be empty or absent unless resuming.
        resume: go on from the last checkpoint of ``run`` (from the start where it has none).

    Returns:
        The run folder.

    Raises:
        CheckpointError: nothing to resume from, or it is damaged.
        TrainingError: the folder is taken, the loss is not finite, the disk is full, another process ended.
        Interrupted: SIGINT or SIGTERM; everything is saved.
        InputError: data or recipe cannot be used, or on resuming, are not those that the run began with.
    """
    folder = Path(run)
    keep_freed_memory()
    with joined(recipe.device) as ranks:
        if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TrainingError(
                f"{folder} is not empty: go on with `lamella train --resume {folder}`, or choose another folder with --run."
            )
        last = pointed(folder, "last") if resume else None
        if resume and last is None and (folder / "last").exists():
            steps = ", ".join(sorted(path.name for path in folder.glob("step_*"))) or "none"
            raise CheckpointError(
                f"{folder / 'last'}: names no step folder of this run (there are: {steps}); write the name of one into it."
            )
        display = make_display(recipe.training.steps, tuple(recipe.tasks)) if ranks.first else Silent()
        with torch.random.fork_rng(), _deterministic(ranks.device):
            torch.manual_seed(recipe.seed)
            _train(recipe, folder, last, display, ranks)
    return folder


def _train(recipe: Recipe, folder: Path, last: Path | None, display: Display, ranks: Ranks) -> None:
    """Read, prepare, say what will be done, and do it."""
    display.line(
        "reading   " + ", ".join(path for task in recipe.tasks.values() for path in (*task.train, *(task.valid or ())))
    )
    data = open_tasks(recipe)
    recipe, counted = count_sel(recipe, data)
    potential, changes = resumed_potential(last, recipe, data) if last else (build_potential(recipe, data), [])
    potential.to(ranks.device)
    ranks.as_the_first([*potential.parameters(), *potential.buffers()])
    trainer = _Trainer(recipe, folder, data, potential, ranks)
    if last is not None:
        trainer.restore(last)
    for line in (*plan_lines(recipe, data, potential, trainer.plan.samplers), *trainer.plan.lines(), *counted, *changes):
        display.line(line)
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)  # only now: a run that cannot begin leaves nothing behind
        if not (folder / CONFIG).exists():
            write_file(folder / CONFIG, dump_recipe(recipe))
    ranks.advise(f"what was saved is intact: go on with `lamella train --resume {folder}`, in any number of processes.")
    trainer.train(display)


class _Trainer:
    """State of a run, and the loop over its steps."""

    def __init__(self, recipe: Recipe, run: Path, data: Mapping[str, TaskData], potential: Potential, ranks: Ranks) -> None:
        self.recipe, self.run, self.data, self.potential, self.ranks = recipe, run, data, potential, ranks
        self.optimizer = build_optimizer(recipe.optimizer, potential)
        ema = recipe.training.ema
        self.average = None if ema is None else MovingAverage(potential, ema)
        self.progress = Progress()
        self.room = Room(potential)
        self._losses = {name: task.config.loss for name, task in data.items()}
        weights = {name: task.config.weight for name, task in data.items()}
        draw = TaskDraw(weights, recipe.training.steps, recipe.seed, recipe.training.tasks_per_step)
        samplers = {name: self._sampler(name, task.train, task_seed(recipe.seed, name)) for name, task in data.items()}
        self.plan = TrainingPlan(draw, samplers, ranks.rank, ranks.world)
        self._valid = {name: task.valid for name, task in data.items() if task.valid is not None}
        judging = {name: self._sampler(name, frames, 0) for name, frames in self._valid.items()}
        self._valid_plan = ValidationPlan(judging, ranks.rank, ranks.world)
        self._began = time.perf_counter()

    def _sampler(self, task: str, frames: Frames, seed: int) -> Sampler:
        recipe = self.recipe
        spec = recipe.tasks[task].batch or recipe.batch
        return make_sampler(frames, spec, self.potential, seed, recipe.training.workers, self.ranks)

    def restore(self, folder: Path) -> None:
        """Take up the state of a step folder, whose model is ``self.potential``."""
        self.progress = load_trainer(folder, self.potential, self.optimizer, self.average)
        if self.progress.drawn:
            self.plan.draw.go_on(self.progress.step, self.progress.drawn)
        if self.ranks.first and (self.run / step_name(self.progress.best_step)).is_dir():
            point(self.run, "best", self.progress.best_step)

    def train(self, display: Display) -> None:
        """Make the remaining steps."""
        settings, first = self.recipe.training, self.progress.step
        frames = {name: task.train for name, task in self.data.items()}
        with (
            listen() as stop,
            RunLog(self.run, first, settings.tensorboard, self.ranks.first) as log,
            display,
            closing(self._batches(frames, self.plan, range(first, settings.steps))) as stream,
        ):
            self._clock(restart=True)
            if first:
                display.line(f"resuming after step {first} of {settings.steps}")
                if self._validation_due() and self.progress.validated < first:  # the stop cut it short
                    self._after_step(log, display, stop)
            for shares in stream:
                self._one_step(shares, log, display)
                self._after_step(log, display, stop)
            display.line(f"done: {self.run}")

    def _one_step(self, shares: Sequence[Share], log: RunLog, display: Display) -> None:
        recipe, step = self.recipe, self.progress.step
        steps, lr = recipe.training.steps, recipe.optimizer.lr
        rate = learning_rate(recipe.schedule, step, steps, lr)
        setting = StepSetting(step + 1, rate, decay(recipe.schedule, step, steps, lr))
        placed = [share._replace(batch=share.batch and share.batch.to(self.potential.device)) for share in shares]
        outcome = train_step(
            self.potential, self.optimizer, placed, self._losses, recipe.optimizer, setting, self.ranks, self.room
        )
        if self.average is not None:
            self.average.update(self.potential, step + 1)
        self.progress.step = step + 1
        display.step(step + 1)
        for task in self._due(step):
            record = self._training_record(task, placed, outcome, rate)
            log.write(record)
            display.record(record)

    def _due(self, step: int) -> list[str]:
        """Tasks of a step that the log gets: each about once in ``log_every`` steps, a rarer one whenever it is drawn."""
        settings, draw = self.recipe.training, self.plan.draw
        due = []
        for task, number in draw.draws(step):
            every = max(round(settings.log_every * settings.tasks_per_step * draw.shares[task]), 1)
            if (number + 1) % every == 0 or step + 1 == settings.steps:
                due.append(task)
        return list(dict.fromkeys(due))

    def _training_record(self, task: str, shares: Sequence[Share], outcome: Outcome, rate: float) -> dict[str, Any]:
        """What all processes saw of a task in this step."""
        errors = ErrorSums()
        losses = [loss for share, loss in zip(shares, outcome.losses, strict=True) if share.task == task]
        for share, prediction in zip(shares, outcome.predictions, strict=True):
            if share.task == task and share.batch is not None and prediction is not None:
                errors.add(prediction, share.batch)
        loss = self.ranks.sum(torch.tensor(losses, dtype=torch.float64)).mean()
        errors.pooled(self.ranks)
        return {
            "event": "train",
            "step": self.progress.step,
            "task": task,
            "loss": loss.item(),
            "lr": rate,
            "gradient_norm": outcome.gradient_norm,
            "seconds": self._clock(),
            "frames": errors.frames,
            **errors.result(),
        }

    def _after_step(self, log: RunLog, display: Display, stop: StopRequest) -> None:
        """Validate and save where it is time; stop where one of the processes was asked to."""
        settings, step = self.recipe.training, self.progress.step
        asked = self.ranks.largest(stop.signal or 0)
        better = False
        if not asked and self._validation_due():
            better, asked = self._validate(log, display, stop)
        complete = step == settings.steps and self.progress.validated == step
        if better or complete or step % settings.save_every == 0 or asked:
            self._save(log)
        if asked and not complete:
            raise Interrupted(
                f"stopped by {signal.Signals(asked).name} after step {step} of {settings.steps}; "
                f"go on with `lamella train --resume {self.run}`.",
                128 + asked,
            )

    def _validation_due(self) -> bool:
        settings, step = self.recipe.training, self.progress.step
        return step % settings.valid_every == 0 or step == settings.steps

    def _validate(self, log: RunLog, display: Display, stop: StopRequest) -> tuple[bool, int]:
        """Judge the (averaged) weights on every task: whether they are the best so far, and the signal to stop by, or 0.

        A stop cuts it short, with no trace: it is made anew on resuming.
        """
        stream = self._batches(self._valid, self._valid_plan, self._valid_plan.mine)
        losses = {name: self._losses[name] for name in self._valid}
        averaged = self.average.applied(self.potential) if self.average is not None else nullcontext()
        with averaged, closing(stream):
            unasked = itertools.takewhile(lambda _: stop.signal is None, stream)
            results = validate(self.potential, unasked, losses, self.ranks)
        asked = self.ranks.largest(stop.signal or 0)
        if asked:
            return False, asked
        self.progress.validated = self.progress.step
        for name, result in results.items():
            record = {"event": "valid", "step": self.progress.step, "task": name, **result, "seconds": self._clock()}
            log.write(record)
            display.record(record)
        weights = {name: self.data[name].config.weight for name in results}
        if not any(weights.values()):
            return False, 0
        score = sum(weights[name] * result["score"] for name, result in results.items()) / sum(weights.values())
        if not score < self.progress.best_score:
            return False, 0
        self.progress.best_step, self.progress.best_score = self.progress.step, score
        best = {"event": "best", "step": self.progress.step, "score": score}
        log.write(best)
        display.record(best)
        return True, 0

    def _batches(self, frames: Mapping[str, Frames], plan: Plan, steps: range) -> Generator[list[Share]]:
        return batches(frames, plan, self.potential.graph_spec, steps, self.recipe.training.workers)

    def _save(self, log: RunLog) -> None:
        """A checkpoint of this step, then the pointers to it, then old ones go; the other processes need none."""
        progress = self.progress
        progress.seconds = self._clock()
        progress.drawn = self.plan.draw.drawn(progress.step)
        if not self.ranks.first:
            return
        self.potential.metadata["step"] = progress.step
        self.potential.metadata["score"] = progress.best_score if progress.best_step == progress.step else None
        log.sync()
        save_checkpoint(self.run, self.potential, self.optimizer, self.average, progress)
        point(self.run, "last", progress.step)
        if progress.best_step == progress.step:
            point(self.run, "best", progress.step)
        prune(self.run, self.recipe.training.keep, progress.best_step)

    def _clock(self, restart: bool = False) -> float:
        """Seconds of training over all sessions; a session begins when its data is ready."""
        if restart:
            self._began = time.perf_counter() - self.progress.seconds
        return time.perf_counter() - self._began


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Inside the block CUDA uses deterministic kernels; on a CPU they are deterministic for a given number of threads."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
