"""From a recipe that starts from a model to the potential that its first step trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from ase.data import chemical_symbols

from lamella.data.source import Frames
from lamella.data.statistics import environment_statistics
from lamella.errors import RecipeError, nearest
from lamella.formats.load import as_device, load
from lamella.models.extend import only_tasks, with_elements, with_tasks
from lamella.models.heads import EnergyHead
from lamella.models.potential import Potential
from lamella.train.adapt.config import BEST, RANDOM, StartConfig
from lamella.train.adapt.gate import JumpError, jumps
from lamella.train.adapt.heads import HeadErrors, head_errors, rank_heads
from lamella.train.adapt.judge import Judged, judge, of_known_elements, some_frames, source_frames
from lamella.train.adapt.kinship import likened
from lamella.train.adapt.tensors import fates
from lamella.train.adapt.trainable import arm, trainable_parts
from lamella.train.adapt.words import plan
from lamella.train.paths import open_data

if TYPE_CHECKING:
    from lamella.train.prepare import TaskData
    from lamella.train.recipe import Recipe

__all__ = ["rearmed", "started_potential"]

_PER_ELEMENT: Final = 8
"""Energies per element are fitted to at least so many frames for each, where there are so many."""

_RANKED: Final = 64
"""Tasks of the model are compared on at most so many frames."""

SetBaseline = Callable[[Potential, str, "TaskData"], str]
"""Sets a task's energies per element as its recipe says, and says how in a sentence."""


@dataclass
class Start:
    """What is found on the way; becomes ``metadata["start"]``.

    Attributes:
        source: the model as it was loaded.
        config: what the recipe says.
        frames: by task, those on which errors are taken.
        chosen: by task, the head that zero-shot errors are taken with; absent where no frame is of known elements.
        ranking: by task, every head, the best first; only where they were ranked.
        errors: by task, ``frames``, ``zero_shot`` and ``before`` (RMSE by label), ``scale``, and ``valid`` with the same.
        baseline: by task, how the energies per element were found.
        sources: errors of tasks of the model on their own frames, before.
    """

    source: Potential
    config: StartConfig
    frames: dict[str, Frames] = field(default_factory=dict)
    chosen: dict[str, HeadErrors] = field(default_factory=dict)
    ranking: dict[str, list[HeadErrors]] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    baseline: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        """The task of the model that a new task begins as a copy of."""
        if name in self.chosen:
            return self.chosen[name].task
        return self.config.head if self.config.head in self.source.tasks else self.source.tasks[0]


def started_potential(
    recipe: Recipe, data: Mapping[str, TaskData], set_baseline: SetBaseline
) -> tuple[Potential, dict[str, str]]:
    """The potential, armed for training, and by task how its energies per element were found.

    Its ``metadata["start"]`` holds the plan in words, the errors before step 0 and where everything came from.

    Args:
        recipe: with ``start``.
        data: of its tasks.
        set_baseline: for tasks whose energies per element are neither fitted nor kept.

    Raises:
        JumpError: errors before step 0 are above zero-shot, and ``start.allow_jump`` does not accept that.
        RecipeError: a head, layers or elements that the model does not have, or a model section of the recipe's own.
        DataError: no frame to judge a head by.
    """
    config = recipe.start
    assert config is not None
    place = as_device(("cuda" if torch.cuda.is_available() else "cpu") if recipe.device == "auto" else recipe.device)
    start = Start(load(config.model, place), config)
    _check(recipe, start.source, data)
    for name, task in data.items():
        if task.config.weight > 0.0 and task.config.baseline != "keep":
            limit = max(config.frames, _PER_ELEMENT * len(task.survey.numbers))
            start.frames[name] = some_frames(task.train, limit, recipe.seed)
            _choose_head(start, name)
    potential = _grown(start, recipe, data)
    trained = [name for name, task in data.items() if task.config.weight > 0.0]
    known = len(start.source.elements)
    fate = fates(potential, start.source, recipe.dtype)
    arm(potential.to(place), config, trained, known, recipe.seed)
    for name, task in data.items():
        judged = _set_baseline(start, potential, name, task, set_baseline)
        if judged is not None:
            _compare(start, potential, name, task, judged)
    start.sources = _source_errors(start, potential)
    lines = plan(recipe, start, potential, fate, trainable_parts(potential))
    potential.metadata = {"start": _record(start, potential, lines)}
    found = {name: worse for name, entry in start.errors.items() if (worse := jumps(entry["zero_shot"], entry["before"]))}
    if found and not config.allow_jump:
        raise JumpError(found, {name: _cause(start, recipe, name) for name in found}, lines)
    return potential.cpu(), start.baseline


def rearmed(potential: Potential, recipe: Recipe) -> Potential:
    """A model of such a run, read from a checkpoint, ready to go on: frozen and updated as when it began."""
    if recipe.start is not None:
        record = potential.metadata.get("start")
        if not isinstance(record, dict):
            raise RecipeError(
                "start: the checkpoint was not written by a run that started from a model; take `start` out of the recipe."
            )
        trained = [name for name, task in recipe.tasks.items() if task.weight > 0.0]
        arm(potential, recipe.start, trained, len(potential.elements) - len(record["added_elements"]), recipe.seed)
    else:
        potential.requires_grad_(True)
    return potential


def _check(recipe: Recipe, source: Potential, data: Mapping[str, TaskData]) -> None:
    """Refuse, before anything is computed, what cannot be started."""
    config = recipe.start
    assert config is not None
    if recipe.model != source.config:
        raise RecipeError(
            f"model: the recipe starts from {config.model}, whose architecture it keeps; leave the section `model` out (and "
            "read the recipe with load_recipe, which fills it in)."
        )
    wanted = (*source.elements, *config.add_elements)
    if recipe.elements is not None and set(recipe.elements) != set(wanted):
        raise RecipeError(
            "elements: those of the model are kept; name further ones in start.add_elements, and leave this out."
        )
    names = {chemical_symbols.index(symbol) for symbol in wanted if symbol in chemical_symbols}
    for name, task in data.items():
        strange = [chemical_symbols[number] for number in sorted(task.numbers) if number not in names]
        if strange:
            raise RecipeError(
                f"tasks.{name}: the data hold {', '.join(strange)}, which the model does not know (it knows "
                f"{' '.join(source.elements)}); add with --add-elements {','.join(strange)} (start.add_elements), or remove "
                "those frames."
            )
    if config.head not in (BEST, RANDOM, *source.tasks):
        raise RecipeError(
            f"start.head: the model has no task {config.head!r}{nearest(config.head, [*source.tasks, BEST, RANDOM])}; it "
            f"has {', '.join(source.tasks)}, and there are {BEST} and {RANDOM}."
        )
    for name in config.sources:
        if name not in source.tasks:
            raise RecipeError(f"start.sources: the model has no task {name!r}{nearest(name, source.tasks)}.")


def _choose_head(start: Start, name: str) -> None:
    """The head that the task begins with, or is compared with where it begins with a random one."""
    source, config = start.source, start.config
    usable = of_known_elements(start.frames[name], source.numbers)
    if not len(usable):
        if name not in source.tasks and config.head == BEST and len(source.tasks) > 1:
            raise RecipeError(
                f"start.head: best cannot be found, since no frame of task {name} is made of elements of the model alone; "
                f"name one of {', '.join(source.tasks)}."
            )
        return
    if name in source.tasks or config.head in source.tasks or len(source.tasks) == 1:
        known = name if name in source.tasks else config.head if config.head in source.tasks else source.tasks[0]
        start.chosen[name] = head_errors(source, usable, known)
        return
    start.ranking[name] = rank_heads(source, some_frames(usable, _RANKED, 0))
    start.chosen[name] = head_errors(source, usable, start.ranking[name][0].task)


def _grown(start: Start, recipe: Recipe, data: Mapping[str, TaskData]) -> Potential:
    """The loaded model with new elements and tasks, without those that are not wanted, in the recipe's dtype."""
    source, config = start.source, start.config
    potential = with_elements(source, likened(config.add_elements, source.elements), recipe.seed)
    new = [name for name in recipe.tasks if name not in source.tasks]
    origins = {name: start.origin(name) for name in new}
    alone = config.only and potential.config.head.serves_all and len(new) == len(recipe.tasks)
    random = config.head == RANDOM
    potential = with_tasks(potential, {name: None if random and not alone else origins[name] for name in new}, recipe.seed)
    if random:
        for name in new:  # a random network still starts its fit from energies of known size
            potential.baseline[potential.task_index(name)] = potential.baseline[potential.task_index(origins[name])]
    if config.only:
        potential = only_tasks(potential, tuple(recipe.tasks))
    if random and alone:
        _draw_head(potential, recipe.seed)
    potential.cast(torch.float32 if recipe.dtype == "float32" else torch.float64).train()
    _set_new_environments(potential, len(source.elements), data)
    return potential


def _draw_head(potential: Potential, seed: int) -> None:
    """A random head in place of the shared one; what it knows of frame parameters stays."""
    backbone = potential.config.backbone
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        fresh = EnergyHead(potential.config.head, backbone.output_dim, potential.elements, backbone.element_heads)
    kept = {name: value for name, value in potential.heads[0].state_dict().items() if name.startswith("frame_")}
    potential.heads[0].load_state_dict(fresh.state_dict() | kept)


def _set_new_environments(potential: Potential, known: int, data: Mapping[str, TaskData]) -> None:
    """Means and scales of the environment matrices at new elements, of all tasks that are trained; others stay."""
    if known == len(potential.elements):
        return
    for environment in potential.backbone.environments():
        if not environment.from_data:
            continue
        parts = [task.train for task in data.values() if task.config.weight > 0.0]
        training = (frames[index] for frames in parts for index in range(len(frames)))
        mean, std = environment_statistics(
            training, potential.elements, environment.shell, environment.slots, environment.protection, environment.excluded
        )
        environment.std[known:] = torch.from_numpy(std[known:]).to(environment.std)
        if not environment.zero_mean:
            environment.mean[known:] = torch.from_numpy(mean[known:]).to(environment.mean)


def _set_baseline(start: Start, potential: Potential, name: str, task: TaskData, set_baseline: SetBaseline) -> Judged | None:
    """Set a task's energies per element; what it then makes of its frames, None for a task that is not compared."""
    choice, frames = task.config.baseline, start.frames.get(name)
    if choice == "keep":
        if name not in start.source.tasks:
            raise RecipeError(
                f"tasks.{name}.baseline: keep is for tasks of the model ({', '.join(start.source.tasks)}), and {name} is "
                "not one; say least_squares."
            )
        start.baseline[name] = "that of the model"
        return None
    if choice != "least_squares":
        start.baseline[name] = set_baseline(potential, name, task)
        return None if frames is None else judge(potential, frames, name)
    judged = judge(potential, some_frames(task.train, start.config.frames, 0) if frames is None else frames, name)
    fit = judged.refit()
    potential.baseline[potential.task_index(name)] += torch.from_numpy(fit.shift).to(potential.device)
    start.baseline[name] = fit.sentence
    return None if frames is None else judged.shifted(fit.shift)


def _compare(start: Start, potential: Potential, name: str, task: TaskData, judged: Judged) -> None:
    """Errors of the loaded model with its baseline refitted, and of what training starts with, on the same frames."""
    entry: dict[str, Any] = {"zero_shot": {}, "head": None}
    frames = start.frames[name]
    usable = of_known_elements(frames, start.source.numbers)
    chosen = start.chosen.get(name)
    if chosen is not None:
        entry |= {"zero_shot": chosen.errors, "head": chosen.task}
    if 0 < len(usable) < len(frames):
        entry["with_new_elements"] = {"frames": len(frames), "before": judged.errors()}
        judged = judge(potential, usable, name)
    entry |= {"frames": judged.frames, "before": judged.errors(), "scale": judged.scale()}
    if task.valid is not None:
        valid = some_frames(task.valid, start.config.frames, 0)
        entry["valid"] = {"frames": len(valid), "before": judge(potential, valid, name).errors()}
        known = of_known_elements(valid, start.source.numbers)
        if chosen is not None and len(known) == len(valid):
            entry["valid"]["zero_shot"] = judge(start.source, valid, chosen.task).errors(chosen.refit.shift)
    start.errors[name] = entry


def _source_errors(start: Start, potential: Potential) -> dict[str, dict[str, Any]]:
    """Errors of tasks of the model on their own frames, as loaded."""
    found = {}
    for name, paths in start.config.sources.items():
        if name not in potential.tasks:
            continue
        frames = source_frames(open_data(paths), start.source.numbers)
        if len(frames):
            judged = judge(start.source, frames, name)
            found[name] = {"frames": len(frames), "paths": list(paths), "before": judged.errors()}
    return found


def _cause(start: Start, recipe: Recipe, name: str) -> str:
    """Why a task may begin with larger errors than the loaded model has."""
    baseline = recipe.tasks[name].baseline
    causes = ["its head is random"] if start.config.head == RANDOM and name not in start.source.tasks else []
    if baseline != "least_squares":
        told = baseline if isinstance(baseline, str) else "given as numbers"
        causes.append(f"its baseline is {told}, which does not suit the network: say least_squares")
    if recipe.dtype != str(start.source.dtype).removeprefix("torch."):
        causes.append(f"the model is {str(start.source.dtype).removeprefix('torch.')} and the run {recipe.dtype}")
    return " and ".join(causes) or "what predicts is not what was loaded: a defect, please report it"


def _record(start: Start, potential: Potential, lines: list[str]) -> dict[str, Any]:
    """What the saved model remembers of its beginning."""
    before = {name: value for name, value in start.source.metadata.items() if name != "deepmd"}
    return {
        "model": start.config.model,
        "plan": lines,
        "tasks": list(start.source.tasks),
        "added_elements": list(start.config.add_elements),
        "heads": {
            name: RANDOM if start.config.head == RANDOM else start.chosen[name].task if name in start.chosen else None
            for name in start.errors
            if name not in start.source.tasks
        },
        "ranking": {
            name: [{"task": head.task, "score": head.score, "errors": head.errors} for head in heads]
            for name, heads in start.ranking.items()
        },
        "errors": start.errors,
        "sources": start.sources,
        "before": before,
    }
