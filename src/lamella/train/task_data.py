"""The data of every task of a recipe, surveyed: which labels and elements it has, and which elements no task teaches."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lamella.data.source import Frames, split_fraction
from lamella.errors import DataError, RecipeError
from lamella.fields import INPUTS, LABELS
from lamella.train.paths import open_data
from lamella.train.recipe import Recipe, TaskConfig
from lamella.types import Frame

__all__ = ["Survey", "TaskData", "data_record", "each", "elements_of", "open_tasks", "task_seed"]


@dataclass(frozen=True)
class Survey:
    """What one pass over frames finds.

    Attributes:
        numbers: atomic numbers that occur, sorted.
        carries: number of frames that carry each label.
        atoms: total number.
    """

    numbers: tuple[int, ...]
    carries: Mapping[str, int]
    atoms: int


@dataclass(frozen=True)
class TaskData:
    """The data of one task.

    Attributes:
        config: its part of the recipe.
        train: frames to train on.
        valid: frames to validate on; None for none.
        survey: of the training frames.
        held_out: of the validation frames.
    """

    config: TaskConfig
    train: Frames
    valid: Frames | None
    survey: Survey
    held_out: Survey

    @property
    def numbers(self) -> set[int]:
        """Atomic numbers that occur in training or validation."""
        return {*self.survey.numbers, *self.held_out.numbers}


def each(frames: Frames) -> Iterator[Frame]:
    """The frames, one after the other."""
    return (frames[index] for index in range(len(frames)))


def task_seed(seed: int, task: str) -> int:
    """A seed of the task's own: it depends on its name, not on which other tasks there are."""
    return int(np.random.SeedSequence([seed, zlib.crc32(task.encode())]).generate_state(1, np.uint32)[0])


def open_tasks(recipe: Recipe) -> dict[str, TaskData]:
    """Open and survey the data of every task.

    Raises:
        DataError: data that cannot be read, or that carries no label the task's loss asks for; one frame alone to start
            from a model with.
    """
    starts = recipe.start is not None
    return {name: _open_task(name, task, recipe.seed, starts) for name, task in recipe.tasks.items()}


def data_record(data: Mapping[str, TaskData]) -> dict[str, Any]:
    """Paths, content hashes and numbers of frames: what must not change between sessions of a run."""
    return {
        name: {
            "train": {"paths": list(task.config.train), "hash": task.train.content_hash, "frames": len(task.train)},
            "valid": None
            if task.valid is None
            else {
                "paths": list(task.config.valid or task.config.train),
                "hash": task.valid.content_hash,
                "frames": len(task.valid),
            },
        }
        for name, task in data.items()
    }


def elements_of(recipe: Recipe, data: Mapping[str, TaskData]) -> tuple[str, ...]:
    """Chemical symbols of the model: those that the recipe lists, else all that tasks which are trained list or hold.

    A task of weight 0 adds none: it must not change the others' model. An element that nothing is learned of must be listed.

    Raises:
        RecipeError: data with an element that the model would not have.
        DataError: an element that occurs in validation frames alone.
    """
    trained = {name: task for name, task in data.items() if task.config.weight > 0}
    listed = {symbol for task in trained.values() for symbol in task.config.elements or ()} | {*(recipe.elements or ())}
    held = {chemical_symbols[z] for task in trained.values() for z in task.numbers}
    elements = recipe.elements or tuple(sorted(listed | held, key=atomic_numbers.__getitem__))
    for name, task in data.items():
        _check_known(name, task, elements)
    taught = {chemical_symbols[z] for task in trained.values() for z in task.survey.numbers}
    for name, task in trained.items():
        untaught = [symbol for symbol in _symbols(task.held_out.numbers) if symbol not in taught | listed]
        if untaught:
            raise DataError(
                f"tasks.{name}: {', '.join(untaught)} occurs in its validation frames but in no training frame of any task, "
                "so that errors that mean nothing would choose the best step; add training frames, leave those validation "
                "frames out, or list all elements (elements: [...]) to have a model that knows it untrained."
            )
    return elements


def _check_known(name: str, task: TaskData, elements: Sequence[str]) -> None:
    missing = [symbol for symbol in _symbols(sorted(task.numbers)) if symbol not in elements]
    if missing and task.config.weight == 0:
        raise RecipeError(
            f"tasks.{name}: {', '.join(missing)} occurs in no task that is trained, and this one has weight 0; give it "
            "a weight, leave it out, or list all elements (elements: [...]) to have a model that knows them untrained."
        )
    if missing:
        raise RecipeError(
            f"elements: {', '.join(missing)} occurs in the data of task {name} but is not listed; add it, or set "
            "elements to null to take all that occur."
        )


def _open_task(name: str, task: TaskConfig, seed: int, starts: bool) -> TaskData:
    train = _opened(task.train, task, f"tasks.{name}.train")
    if starts and len(train) == 1:  # before the split asks for a validation file, which would not help
        raise DataError(
            f"tasks.{name}: one training frame is too little to start from a model with: its energy says nothing once the "
            "energies per element are fitted to it; give at least two frames."
        )
    valid: Frames | None = None
    if task.valid is not None:
        valid = _opened(task.valid, task, f"tasks.{name}.valid")
    elif task.valid_fraction > 0.0:
        try:
            train, valid = split_fraction(train, task.valid_fraction, task_seed(seed, name))
        except DataError as error:
            raise DataError(f"tasks.{name}: {error}") from None
    survey = _survey(train)
    wanted = [label for label, prefactors in task.loss.prefactors().items() if any(prefactors)]
    if not any(survey.carries[label] for label in wanted):
        raise DataError(
            f"tasks.{name}: the loss is of {', '.join(wanted) or 'nothing'}, but the training frames carry "
            f"{_found(survey)}; name the keys of the labels (tasks.{name}.keys) or change the prefactors "
            f"(tasks.{name}.loss)."
        )
    held_out = Survey((), {}, 0) if valid is None else _survey(valid)
    judged = [label for label, prefactor in task.loss.judging().items() if prefactor]
    if valid is not None and not any(held_out.carries[label] for label in judged):  # every step would score 0
        raise DataError(
            f"tasks.{name}: steps are judged by {', '.join(judged)}, but the {len(valid)} validation frames carry "
            f"{_found(held_out)}; name the keys of the labels (tasks.{name}.keys), give other data (tasks.{name}.valid), or "
            f"set tasks.{name}.valid_fraction to 0 for no validation."
        )
    opened = TaskData(task, train, valid, survey, held_out)
    strange = [symbol for symbol in _symbols(sorted(opened.numbers)) if symbol not in (task.elements or symbol)]
    if strange:
        raise DataError(
            f"tasks.{name}.elements: {', '.join(strange)} occurs in the data of the task but is not listed; add it, or take "
            "the frames out."
        )
    return opened


def _symbols(numbers: Iterable[int]) -> list[str]:
    return [chemical_symbols[number] for number in numbers]


def _opened(paths: Sequence[str], task: TaskConfig, key: str) -> Frames:
    """Frames by their paths; a message names the key that the paths stand under."""
    try:
        return open_data(paths, task.keys)
    except DataError as error:
        raise DataError(f"{key}: {error}") from None


def _found(survey: Survey) -> str:
    return ", ".join(label for label in LABELS if survey.carries[label]) or "no label"


def _survey(frames: Frames) -> Survey:
    numbers: set[int] = set()
    carries: Counter[str] = Counter(dict.fromkeys(LABELS, 0))
    atoms = 0
    for frame in each(frames):
        numbers.update(np.unique(frame.numbers).tolist())
        carries.update(name for name in (*LABELS, *INPUTS) if name in frame.labels)
        atoms += len(frame)
    return Survey(tuple(sorted(numbers)), dict(carries), atoms)
