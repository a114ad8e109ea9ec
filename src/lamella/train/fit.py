"""The loop: one trainer for one task or many, from the first step or from a checkpoint."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from lamella.allocator import keep_freed_memory
from lamella.data.load import batches
from lamella.data.source import Frames
from lamella.errors import CheckpointError, TrainingError
from lamella.formats.load import as_device
from lamella.models.potential import Potential
from lamella.train.draw import TaskDraw
from lamella.train.log import RunLog
from lamella.train.metrics import ErrorSums
from lamella.train.optim import MovingAverage, build_optimizer
from lamella.train.plan import plan_lines
from lamella.train.prepare import TaskData, build_potential, count_sel, make_sampler, open_tasks, task_seed
from lamella.train.progress import Display, make_display
from lamella.train.recipe import Recipe, dump_recipe
from lamella.train.resume import resumed_potential
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
from lamella.train.validate import validate
from lamella.types import Batch

__all__ = ["CONFIG", "fit"]

CONFIG = "config.yaml"


def fit(recipe: Recipe, run: str | Path, resume: bool = False) -> Path:
    """Train a model.

    Args:
        recipe: what to train on what; on resuming, that of ``run/config.yaml``, in which what a checkpoint does not
            contain (lengths, learning rate, loss, batches) may have been changed: the plan names each change.
        run: folder for everything the run writes; must be empty or absent unless resuming.
        resume: go on from the last checkpoint of ``run`` (from the start where it has none).

    Returns:
        The run folder.

    Raises:
        CheckpointError: nothing to resume from, or it is damaged.
        TrainingError: the folder is taken, the loss is not finite, the disk is full.
        Interrupted: SIGINT or SIGTERM; everything is saved.
        InputError: data or recipe cannot be used, or on resuming, are not those that the run began with.
    """
    folder = Path(run)
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TrainingError(
            f"{folder} is not empty: go on with `lamella train --resume {folder}`, or choose another folder with --run."
        )
    keep_freed_memory()
    device = as_device(("cuda" if torch.cuda.is_available() else "cpu") if recipe.device == "auto" else recipe.device)
    last = pointed(folder, "last") if resume else None
    if resume and last is None and (folder / "last").exists():
        steps = ", ".join(sorted(path.name for path in folder.glob("step_*"))) or "none"
        raise CheckpointError(
            f"{folder / 'last'}: names no step folder of this run (there are: {steps}); write the name of one into it."
        )
    display = make_display(recipe.training.steps)
    with torch.random.fork_rng(), _deterministic(device):
        torch.manual_seed(recipe.seed)
        display.line(
            "reading   " + ", ".join(path for task in recipe.tasks.values() for path in (*task.train, *(task.valid or ())))
        )
        data = open_tasks(recipe)
        recipe, counted = count_sel(recipe, data)
        potential, changes = resumed_potential(last, recipe, data) if last else (build_potential(recipe, data), [])
        trainer = _Trainer(recipe, folder, data, potential.to(device))
        if last is not None:
            trainer.restore(last)
        for line in (*plan_lines(recipe, data, potential, trainer.samplers), *counted, *changes):
            display.line(line)
        folder.mkdir(parents=True, exist_ok=True)  # only now: a run that cannot begin leaves nothing behind
        if not (folder / CONFIG).exists():
            write_file(folder / CONFIG, dump_recipe(recipe))
        trainer.train(display)
    return folder


class _Trainer:
    """State of a run, and the loop over its steps."""

    def __init__(self, recipe: Recipe, run: Path, data: Mapping[str, TaskData], potential: Potential) -> None:
        self.recipe, self.run, self.data, self.potential = recipe, run, data, potential
        self.optimizer = build_optimizer(recipe.optimizer, potential)
        ema = recipe.training.ema
        self.average = None if ema is None else MovingAverage(potential, ema)
        self.progress = Progress()
        self._draw = TaskDraw({name: task.config.weight for name, task in data.items()}, recipe.training.steps, recipe.seed)
        self.samplers = {
            name: make_sampler(
                task.train,
                task.config.batch or recipe.batch,
                potential,
                task_seed(recipe.seed, name),
                recipe.training.workers,
            )
            for name, task in data.items()
        }
        self._valid_samplers = {
            name: make_sampler(task.valid, task.config.batch or recipe.batch, potential, 0, recipe.training.workers)
            for name, task in data.items()
            if task.valid is not None
        }
        self._began = time.perf_counter()

    def restore(self, folder: Path) -> None:
        """Take up the state of a step folder, whose model is ``self.potential``."""
        self.progress = load_trainer(folder, self.potential, self.optimizer, self.average)
        if (self.run / step_name(self.progress.best_step)).is_dir():
            point(self.run, "best", self.progress.best_step)

    def train(self, display: Display) -> None:
        """Make the remaining steps."""
        settings, first = self.recipe.training, self.progress.step
        with (
            listen() as stop,
            RunLog(self.run, first, settings.tensorboard) as log,
            display,
            self._batches(first) as stream,
        ):
            self._clock(restart=True)
            if first:
                display.line(f"resuming after step {first} of {settings.steps}")
                if self._validation_due() and self.progress.validated < first:  # the stop cut it short
                    self._after_step(log, display, stop)
            for step in range(first, settings.steps):
                task = self._draw.task(step)
                self._one_step(task, next(stream[task]), log, display)
                self._after_step(log, display, stop)
            display.line(f"done: {self.run}")

    def _one_step(self, task: str, batch: Batch, log: RunLog, display: Display) -> None:
        recipe, step = self.recipe, self.progress.step
        steps, lr = recipe.training.steps, recipe.optimizer.lr
        rate = learning_rate(recipe.schedule, step, steps, lr)
        setting = StepSetting(step + 1, rate, decay(recipe.schedule, step, steps, lr))
        placed = batch.to(self.potential.device)
        loss = recipe.tasks[task].loss
        outcome = train_step(self.potential, self.optimizer, placed, task, loss, recipe.optimizer, setting)
        if self.average is not None:
            self.average.update(self.potential, step + 1)
        self.progress.step = step + 1
        display.step(step + 1)
        if self.progress.step % recipe.training.log_every == 0 or self.progress.step == steps:
            record = self._training_record(task, placed, outcome, rate)
            log.write(record)
            display.record(record)

    def _training_record(self, task: str, batch: Batch, outcome: Outcome, rate: float) -> dict[str, Any]:
        errors = ErrorSums()
        errors.add(outcome.prediction, batch)
        return {
            "event": "train",
            "step": self.progress.step,
            "task": task,
            "loss": outcome.loss,
            "lr": rate,
            "gradient_norm": outcome.gradient_norm,
            "seconds": self._clock(),
            "frames": errors.frames,
            **errors.result(),
        }

    def _after_step(self, log: RunLog, display: Display, stop: StopRequest) -> None:
        """Validate and save where it is time; stop where asked to."""
        settings, step = self.recipe.training, self.progress.step
        better = self._validation_due() and self._validate(log, display, stop)
        complete = step == settings.steps and self.progress.validated == step
        if better or complete or step % settings.save_every == 0 or stop.signal is not None:
            self._save(log)
        if stop.signal is not None and not complete:
            raise Interrupted(
                f"stopped by {stop.name} after step {step} of {settings.steps}; "
                f"go on with `lamella train --resume {self.run}`.",
                128 + stop.signal,
            )

    def _validation_due(self) -> bool:
        settings, step = self.recipe.training, self.progress.step
        return step % settings.valid_every == 0 or step == settings.steps

    def _validate(self, log: RunLog, display: Display, stop: StopRequest) -> bool:
        """Judge the (averaged) weights on every task; whether they are the best so far.

        A stop cuts it short, with no trace: it is made anew on resuming.
        """
        records: list[dict[str, Any]] = []
        with self.average.applied(self.potential) if self.average is not None else nullcontext():
            for name, task in self.data.items():
                if task.valid is not None:
                    stream = self._validation_batches(name, task.valid, stop)
                    result = validate(self.potential, name, stream, task.config.loss)
                    records.append({"event": "valid", "step": self.progress.step, "task": name, **result})
        if stop.signal is not None:
            return False
        self.progress.validated = self.progress.step
        for record in records:
            log.write(record | {"seconds": self._clock()})
            display.record(record | {"seconds": self._clock()})
        shares = {name: task.config.weight for name, task in self.data.items() if task.valid is not None}
        if not any(shares.values()):
            return False
        score = sum(shares[record["task"]] * record["score"] for record in records) / sum(shares.values())
        if not score < self.progress.best_score:
            return False
        self.progress.best_step, self.progress.best_score = self.progress.step, score
        best = {"event": "best", "step": self.progress.step, "score": score}
        log.write(best)
        display.record(best)
        return True

    def _validation_batches(self, name: str, frames: Frames, stop: StopRequest) -> Iterator[Batch]:
        """Every validation frame of a task once, as long as nobody asks to stop."""
        potential, sampler = self.potential, self._valid_samplers[name]
        span = (0, len(sampler.batches(0)))
        workers = self.recipe.training.workers
        stream = batches(frames, sampler, potential.graph_spec, *span, workers)
        return itertools.takewhile(lambda _: stop.signal is None, stream)

    def _save(self, log: RunLog) -> None:
        """A checkpoint of this step, then the pointers to it, then old ones go."""
        progress = self.progress
        progress.seconds = self._clock()
        self.potential.metadata["step"] = progress.step
        self.potential.metadata["score"] = progress.best_score if progress.best_step == progress.step else None
        log.sync()
        save_checkpoint(self.run, self.potential, self.optimizer, self.average, progress)
        point(self.run, "last", progress.step)
        if progress.best_step == progress.step:
            point(self.run, "best", progress.step)
        prune(self.run, self.recipe.training.keep, progress.best_step)

    @contextmanager
    def _batches(self, first: int) -> Iterator[dict[str, Iterator[Batch]]]:
        """Endless-enough batches of every task that is trained, from where step ``first`` finds it; closed at the end."""
        potential, settings = self.potential, self.recipe.training
        with ExitStack() as stack:
            stream = {}
            for name in self._draw.names:
                span = (self._draw.count(name, first), self._draw.count(name, settings.steps))
                stream[name] = batches(
                    self.data[name].train,
                    self.samplers[name],
                    potential.graph_spec,
                    *span,
                    settings.workers,
                )
                stack.callback(_close, stream[name])
            yield stream

    def _clock(self, restart: bool = False) -> float:
        """Seconds of training over all sessions; a session begins when its data is ready."""
        if restart:
            self._began = time.perf_counter() - self.progress.seconds
        return time.perf_counter() - self._began


def _close(stream: Iterator[Batch]) -> None:
    """Let go of the worker processes behind a stream."""
    if isinstance(stream, Generator):
        stream.close()


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
