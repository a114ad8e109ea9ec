"""Train what a study asks for: one run after the other or several at a time; finished runs are kept, others go on."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch

from lamella.errors import RecipeError, TrainingError
from lamella.train.fit import CONFIG, fit
from lamella.train.recipe import dump_recipe, load_recipe
from lamella.train.state import pointed, step_name, write_file
from lamella.train.stop import Interrupted
from lamella.use.study.trial import Trial

__all__ = ["checkpoint", "recipe_path", "run_path", "train_all", "write_recipes"]

Say = Callable[[str], None]


class _Job(NamedTuple):
    """One training, in words that another process understands."""

    name: str
    recipe: Path
    run: Path
    log: Path | None
    threads: int


class _Ended(NamedTuple):
    """How it ended: empty where well, else why not; ``status`` is the exit status of an interrupted one."""

    name: str
    trouble: str
    status: int | None


def recipe_path(folder: Path, trial: Trial) -> Path:
    """Where the recipe of a trial stands."""
    return folder / "recipes" / f"{trial.training}.yaml"


def run_path(folder: Path, trial: Trial) -> Path:
    """Where its run does."""
    return folder / "runs" / trial.training


def checkpoint(run: Path, steps: int) -> str | None:
    """Name of the last step folder of a finished run; ``None`` where it is not finished."""
    last = pointed(run, "last") if run.is_dir() else None
    return last.name if last is not None and last.name == step_name(steps) else None


def train_all(trials: Sequence[Trial], folder: Path, jobs: int, say: Say) -> dict[str, str]:
    """Write every recipe, then train what is not finished.

    Args:
        trials: those without a recipe are passed over.
        folder: of the study.
        jobs: how many at a time; each on its share of the cores, its words in ``logs/``.
        say: a line for people.

    Returns:
        By name of the training, why it could not be trained: not finite, out of memory, ...

    Raises:
        RecipeError: the folder holds a run of another recipe.
        Interrupted: asked to stop; the same command goes on.
        LamellaError: data or a recipe that cannot be used.
    """
    wanted = write_recipes(trials, folder)
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
        if trial.recipe is not None and checkpoint(run_path(folder, trial), trial.recipe.training.steps) is None
    ]
    if len(left) < len(wanted):
        say(f"{len(wanted) - len(left)} of {len(wanted)} trainings are finished and kept")
    failed: dict[str, str] = {}
    for count, ended in enumerate(_alone(left, say) if jobs == 1 else _together(left, jobs, folder), start=1):
        if ended.status is not None:
            raise Interrupted(f"{ended.trouble} The same command goes on with the study.", ended.status)
        if ended.trouble:
            failed[ended.name] = ended.trouble
        say(f"[{count}/{len(left)}] {ended.name}: {ended.trouble or 'trained'}")
    return failed


def write_recipes(trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """Write the recipe of every training; gives one trial of each.

    Raises:
        RecipeError: the folder holds a run of another recipe.
    """
    wanted = list({trial.training: trial for trial in trials if trial.recipe is not None}.values())
    for trial in wanted:
        _write_recipe(folder, trial)
    return wanted


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


def _together(jobs: Sequence[_Job], workers: int, folder: Path) -> Iterator[_Ended]:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running: set[Future[_Ended]] = {pool.submit(_train_apart, job) for job in jobs}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:  # whatever ends the study, runs that have not begun do not begin
            for future in running:
                future.cancel()
            raise


def _train_apart(job: _Job) -> _Ended:
    """In a process of its own."""
    assert job.log is not None
    torch.set_num_threads(job.threads)
    with job.log.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        return _train(job)


def _train(job: _Job) -> _Ended:
    resume = (job.run / CONFIG).is_file()
    recipe = load_recipe(job.run / CONFIG if resume else job.recipe)
    try:
        fit(recipe, job.run, resume)
    except Interrupted as stopped:
        return _Ended(job.name, str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        return _Ended(job.name, f"interrupted during {job.name}.", 128 + signal.SIGINT)
    except TrainingError as error:
        return _Ended(job.name, str(error), None)
    except torch.OutOfMemoryError:
        return _Ended(job.name, "out of memory", None)
    return _Ended(job.name, "", None)
