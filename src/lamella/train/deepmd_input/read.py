"""From an ``input.json`` to a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lamella.errors import RecipeError
from lamella.train.deepmd_input.data import checked_weight, read_task_data, system_count
from lamella.train.deepmd_input.learning import read_optimizer, read_schedule
from lamella.train.deepmd_input.loss import read_loss
from lamella.train.deepmd_input.model import DEFAULT_TASK, Branch, read_branches
from lamella.train.deepmd_input.section import Notes, Section, without_comments
from lamella.train.deepmd_input.training import read_steps, read_training
from lamella.train.recipe import Recipe, checked_recipe, read_mapping, recipe_content
from lamella.train.sel import auto_text, place_auto

__all__ = ["Translation", "is_input", "read_input"]


class Translation(NamedTuple):
    """A recipe, and what to know of how it was made.

    Attributes:
        recipe: checked, its paths absolute.
        content: the same as plain mappings, its paths as they were written: relative ones are relative to where training is
            started, in either code.
        notes: one line for each key that is left out or means something else.
    """

    recipe: Recipe
    content: dict[str, Any]
    notes: tuple[str, ...]


def is_input(content: Mapping[str, Any]) -> bool:
    """Whether some content is an ``input.json`` of deepmd-kit rather than one of our recipes."""
    model = content.get("model")
    return "tasks" not in content and isinstance(model, Mapping) and not {"descriptor", "model_dict"}.isdisjoint(model)


def read_input(path: str | Path) -> Translation:
    """The recipe that trains what ``dp --pt train`` would train.

    Args:
        path: an ``input.json`` (or YAML) of deepmd-kit 2 or 3.

    Raises:
        RecipeError: the file cannot be read, or a key asks for something lamella does not do; the message names it.
    """
    file = Path(path)
    notes = Notes()
    whole = Section(without_comments(read_mapping(file)), "", notes, str(path))
    training = whole.inner("training")
    if "systems" in training or "model" not in whole:
        raise RecipeError(
            f"{path}: an input of deepmd-kit 0 or 1; `dp train` writes it anew as input_v2_compat.json when it starts: "
            "convert that file."
        )
    branches = read_branches(whole.take("model"), notes, str(path))
    steps = read_steps(training)
    lr, schedule = read_schedule(whole.inner("learning_rate"), training, steps)
    optimizer = {"lr": lr, **read_optimizer(whole.inner("optimizer"), training)}
    tasks = _read_tasks(whole, training, branches)
    seed = training.whole("seed", 1) % 2**32
    runs = {"steps": steps, **read_training(training, whole.inner("validating"))}
    whole.neutral("nvnmd", (), "lamella trains no NVNMD models", "remove it, or train with deepmd-kit")
    whole.end()
    content = {
        "seed": seed,
        **_model(next(iter(branches.values()))),
        "tasks": tasks,
        "optimizer": optimizer,
        "schedule": schedule,
        "training": runs,
    }
    _hoist_batch(content)
    recipe = checked_recipe(content, f"{path}, as a recipe")
    return Translation(recipe, _as_written(recipe, content), tuple(notes.lines))


def _model(branch: Branch) -> dict[str, Any]:
    """Our keys of the model."""
    model = branch.config.model_dump(mode="json")
    automatic = {field: auto_text(ratio) for field, ratio in branch.auto.items()}
    model["backbone"] = place_auto(model["backbone"], automatic)
    return {"dtype": branch.dtype, "elements": list(branch.elements), "model": model}


def _read_tasks(whole: Section, training: Section, branches: Mapping[str, Branch]) -> dict[str, Any]:
    """Our ``tasks``: data, weight, baseline and loss of each."""
    if list(branches) == [DEFAULT_TASK] and "data_dict" not in training:
        task = {**read_task_data(training), "loss": read_loss(whole.inner("loss"))}
        return {DEFAULT_TASK: task | _given_baseline(branches[DEFAULT_TASK])}
    data, losses, shares = training.inner("data_dict"), whole.inner("loss_dict"), training.take("model_prob", {})
    if shares == {}:
        shares = _shares_by_systems(training, data, branches)
    tasks = {}
    for name, branch in branches.items():
        own = data.inner(name)
        tasks[name] = {**read_task_data(own), "loss": read_loss(losses.inner(name)), **_given_baseline(branch)}
        own.end()
        if not isinstance(shares, Mapping) or name not in shares:
            raise RecipeError(f"{training.full('model_prob')}: no probability of {name}; give one for each task.")
        tasks[name]["weight"] = checked_weight(shares[name], training.full(f"model_prob.{name}"))
    strange = [name for name in shares if name not in branches]
    if strange:
        raise RecipeError(f"{training.full('model_prob')}: {strange[0]} is not in model.model_dict; remove it.")
    data.end()
    losses.end()
    return tasks


def _shares_by_systems(training: Section, data: Section, branches: Mapping[str, Branch]) -> dict[str, int]:
    """deepmd-kit draws tasks by their number of systems where no ``model_prob`` is given."""
    shares = {}
    for name in branches:
        systems = data.peek((name, "training_data")).get("systems")
        count = system_count([systems] if isinstance(systems, str) else systems) if systems else None
        if count is None:
            raise RecipeError(
                f"{training.full('model_prob')} is missing: tasks are then drawn by their numbers of systems, and those of "
                f"{name} cannot be counted from here; give model_prob, or convert where the paths lead to the data."
            )
        shares[name] = count
    listed = ", ".join(f"{name} {count}" for name, count in shares.items())
    training.notes.add(training.key("model_prob"), f"by the number of systems, as in deepmd-kit ({listed})")
    return shares


def _given_baseline(branch: Branch) -> dict[str, Any]:
    return {} if branch.baseline is None else {"baseline": dict(branch.baseline)}


def _hoist_batch(content: dict[str, Any]) -> None:
    """Batches that are the same for all tasks are the recipe's."""
    batches = [task["batch"] for task in content["tasks"].values()]
    if all(batch == batches[0] for batch in batches):
        content["batch"] = batches[0]
        for task in content["tasks"].values():
            del task["batch"]


def _as_written(recipe: Recipe, content: Mapping[str, Any]) -> dict[str, Any]:
    """The whole recipe with paths as they were given, without the keys that say nothing."""
    full = recipe_content(recipe)
    for name, task in full["tasks"].items():
        for part in ("train", "valid"):
            task[part] = content["tasks"][name].get(part)
        if task["batch"] is None:
            del task["batch"]
    return full
