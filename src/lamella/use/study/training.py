"""Train what a study asks for: one run after the other or several at a time; finished runs are kept, others go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, NamedTuple

import torch

from lamella.errors import InputError, LamellaError, RecipeError, TrainingError
from lamella.train.fit import CONFIG, fit
from lamella.train.recipe import dump_recipe, load_recipe
from lamella.train.state import pointed, step_name, write_file
from lamella.train.stop import Interrupted, listen
from lamella.use.study.trial import Trial

__all__ = ["recipe_path", "run_path", "train_all", "trainings", "write_recipes"]

_PATIENCE: Final = 0.5
"""s between two looks at whether somebody asked to stop."""

Say = Callable[[str], None]


class _Job(NamedTuple):
    """One training, in words that another process understands."""

    name: str
    recipe: Path
    run: Path
    log: Path | None
    threads: int


class _Ended(NamedTuple):
    """How it ended: no trouble where well; ``status`` is the exit status of an interrupted one, ``refused`` of bad input."""

    name: str
    trouble: str = ""
    status: int | None = None
    refused: bool = False


def recipe_path(folder: Path, trial: Trial) -> Path:
    """Where the recipe of a trial stands."""
    return folder / "recipes" / f"{trial.training}.yaml"


def run_path(folder: Path, trial: Trial) -> Path:
    """Where its run does."""
    return folder / "runs" / trial.training


def _finished(run: Path, steps: int) -> bool:
    last = pointed(run, "last") if run.is_dir() else None
    return last is not None and last.name == step_name(steps)


def train_all(trials: Sequence[Trial], folder: Path, jobs: int, say: Say) -> dict[str, str]:
    """Train what is not finished, by the recipes that :func:`write_recipes` wrote.

    Args:
        trials: those without a recipe are passed over.
        folder: of the study.
        jobs: how many at a time; each on its share of the cores, its words in ``logs/``.
        say: a line for people.

    Returns:
        By name of the training, why it could not be trained: not finite, out of memory, ...

    Raises:
        Interrupted: asked to stop; the same command goes on.
        LamellaError: data or a recipe that cannot be used.
    """
    wanted = trainings(trials)
    if jobs > 1:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    threads = max(1, torch.get_num_threads() // jobs)
    left = [
        _Job(
            trial.training,
            recipe_path(folder, trial),
            run_path(folder, trial),
            folder / "logs" / f"{trial.training}.log" if jobs > 1 else None,
            threads,
        )
        for trial in wanted
        if trial.recipe is not None and not _finished(run_path(folder, trial), trial.recipe.training.steps)
    ]
    if len(left) < len(wanted):
        say(f"{len(wanted) - len(left)} of {len(wanted)} trainings are finished and kept")
    failed: dict[str, str] = {}
    for count, ended in enumerate(_alone(left, say) if jobs == 1 else _together(left, jobs), start=1):
        if ended.status is not None:
            raise Interrupted(f"{ended.trouble} The same command goes on with the study.", ended.status)
        if ended.refused:
            raise InputError(f"{ended.name}: {ended.trouble}")
        if ended.trouble:
            failed[ended.name] = ended.trouble
        say(f"[{count}/{len(left)}] {ended.name}: {ended.trouble or 'trained'}")
    return failed


def trainings(trials: Sequence[Trial]) -> list[Trial]:
    """One trial of each training."""
    return list({trial.training: trial for trial in trials if trial.recipe is not None}.values())


def write_recipes(trials: Sequence[Trial], folder: Path) -> None:
    """Write the recipe of every training.

    Raises:
        RecipeError: the folder holds a run of another recipe.
    """
    for trial in trainings(trials):
        _write_recipe(folder, trial)


def _write_recipe(folder: Path, trial: Trial) -> None:
    assert trial.recipe is not None
    path, text = recipe_path(folder, trial), dump_recipe(trial.recipe)
    if path.exists() and path.read_text(encoding="utf-8") != text and run_path(folder, trial).exists():
        raise RecipeError(
            f"{run_path(folder, trial)}: it was begun with another recipe than this study has for it ({path}); choose "
            "another folder with --out, or remove the run."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)


def _alone(jobs: Sequence[_Job], say: Say) -> Iterator[_Ended]:
    for count, job in enumerate(jobs, start=1):
        say(f"[{count}/{len(jobs)}] {job.name}: training, {job.run}")
        yield _train(job)


def _together(jobs: Sequence[_Job], workers: int) -> Iterator[_Ended]:
    """Several at a time, each in a process; a signal to stop is passed on to them, and they save before they end."""
    running: dict[BaseProcess, tuple[_Job, Connection]] = {}
    waiting = list(reversed(jobs))
    with listen() as stop:
        try:
            while running or (waiting and stop.signal is None):
                while waiting and len(running) < workers and stop.signal is None:
                    job = waiting.pop()
                    running |= _started(job)
                ready = wait([process.sentinel for process in running], timeout=_PATIENCE)
                for process in [each for each in running if each.sentinel in ready]:
                    yield _result(process, *running.pop(process))
                if stop.signal is not None:
                    _end(running)
        finally:
            _end(running)
        if stop.signal is not None:
            yield _Ended("", f"stopped by {stop.name}.", 128 + stop.signal)


def _started(job: _Job) -> dict[BaseProcess, tuple[_Job, Connection]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_train_apart, args=(job, there), name=job.name)
    process.start()
    there.close()  # of this process alone: when the other ends, reading does too
    return {process: (job, here)}


def _result(process: BaseProcess, job: _Job, answer: Connection) -> _Ended:
    process.join()
    with answer:
        try:
            return answer.recv()  # type: ignore[no-any-return]
        except EOFError:
            pass
    if process.exitcode is not None and process.exitcode < 0:
        name = signal.Signals(-process.exitcode).name
        return _Ended(job.name, f"its process was ended by {name}; most often memory is short: fewer --jobs")
    return _Ended(job.name, f"its process failed, see {job.log}")


def _end(running: Mapping[BaseProcess, object]) -> None:
    """Ask every process to save and end, and wait."""
    for process in running:
        process.terminate()
    for process in running:
        process.join()


def _train_apart(job: _Job, answer: Connection) -> None:
    """In a process of its own."""
    assert job.log is not None
    os.setsid()  # Ctrl-C reaches the study alone, which passes one signal on: a second one would not let the run save
    torch.set_num_threads(job.threads)
    with job.log.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        ended = _train(job)
    answer.send(ended)


def _train(job: _Job) -> _Ended:
    resume = (job.run / CONFIG).is_file()
    try:
        recipe = load_recipe(job.run / CONFIG if resume else job.recipe)
        fit(recipe, job.run, resume)
    except Interrupted as stopped:
        return _Ended(job.name, str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        return _Ended(job.name, f"interrupted during {job.name}.", 128 + signal.SIGINT)
    except TrainingError as error:
        return _Ended(job.name, str(error))
    except torch.OutOfMemoryError:
        return _Ended(job.name, "out of memory")
    except LamellaError as error:
        return _Ended(job.name, str(error), refused=True)
    return _Ended(job.name)
