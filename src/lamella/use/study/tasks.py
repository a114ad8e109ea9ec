"""Single- against multi-task training at equal effective steps (DPA-2 paper, Table S3), and zero-shot (Table 2).

A multi-task training of S steps with n tasks a step draws a task of weight w about w/Σw × n × S times: so many steps its
single-task training gets, with the same batches, model and schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from ase.data import chemical_symbols
from pydantic import BaseModel, Field

from lamella.data.keys import LabelKeys
from lamella.errors import RecipeError, nearest
from lamella.train.paths import Paths
from lamella.train.prepare import open_tasks
from lamella.train.recipe import Recipe, checked_recipe, recipe_content, set_key
from lamella.use.study.config import STRICT, Distinct, Source, StudyConfig, content_of, finished, short_run
from lamella.use.study.errors import average_rows, averages_said, error_panel, error_rows, given
from lamella.use.study.report import Report, Value, failures
from lamella.use.study.trial import Outcome, Study, Trial, slug
from lamella.use.table.config import SetConfig

__all__ = ["TasksConfig", "report_tasks", "tasks_study"]

SINGLE = "single-task"


class Downstream(BaseModel):
    """Frames with labels of another source, for zero-shot errors."""

    model_config = STRICT

    data: Paths
    task: str
    """Task of the recipe that answers: of a multi-task model its head, of the single-task models the one of that task."""
    weight: float = Field(1.0, ge=0)
    keys: LabelKeys = LabelKeys()
    fit: Paths | None = None
    """Frames to which energies per element are refitted; null takes those of the set."""


class TasksConfig(StudyConfig):
    """``lamella study tasks``."""

    model_config = STRICT

    recipe: Source
    """Of the multi-task training, with all its tasks and weights."""
    test: dict[str, Paths] = Field(min_length=1)
    """Test frames by task."""
    variants: Annotated[dict[str, tuple[str, ...]], Distinct] = Field({"multi-task": ()}, min_length=1)
    """Multi-task models, and what sets each apart: ``dataset encoding: [model.head.task_dim=8]``."""
    single: bool = True
    """Whether each task is trained alone too."""
    downstream: Annotated[dict[str, Downstream], Distinct] = Field({})


def tasks_study(config: TasksConfig, folder: Path) -> Study:
    """The multi-task models, a single-task model per task, and what each is judged by."""
    variants = {name: _recipe(config, choices) for name, choices in config.variants.items()}
    first = next(iter(variants.values()))
    _check(config, first)
    sets = {name: _row(config, first, name) for name in config.test}
    for name, down in config.downstream.items():
        content = {"data": down.data, "weight": down.weight, "keys": down.keys, "task": down.task, "fit": down.fit}
        sets[name] = SetConfig.model_validate(content)
    trials = []
    for seed in config.seeds:
        for name, recipe in variants.items():
            trials += _trials(config, name, tuple(config.test), _seeded(recipe, seed), None)
        for task in config.test if config.single else ():
            if first.tasks[task].weight > 0:
                trials += _trials(config, SINGLE, (task,), alone(_seeded(first, seed), task), task)
    return Study(trials, sets)


def alone(recipe: Recipe, task: str) -> Recipe:
    """The single-task recipe of one task, with the steps that the multi-task training would give it."""
    content = recipe_content(recipe)
    total = sum(each.weight for each in recipe.tasks.values())
    share = recipe.tasks[task].weight / total
    steps = max(1, round(share * recipe.training.tasks_per_step * recipe.training.steps))
    content["tasks"] = {task: content["tasks"][task] | {"weight": 1.0}}
    content["training"] |= short_run(steps, content["training"]) | {"tasks_per_step": 1}
    content["schedule"]["warmup_steps"] = min(content["schedule"]["warmup_steps"], steps // 10)
    content["model"]["head"] |= {"task_dim": 0, "shared": False}
    return checked_recipe(content, f"single-task recipe of {task}")


def report_tasks(config: TasksConfig, outcomes: Sequence[Outcome]) -> Report:
    """Table S3, then Table 2."""
    series = list(dict.fromkeys(outcome.trial.series for outcome in outcomes))
    recipe = next(o.trial.recipe for o in outcomes if o.trial.recipe is not None and o.trial.series != SINGLE)
    steps: dict[str, Value] = {o.trial.sets[0]: o.facts.get("steps") for o in outcomes if o.trial.series == SINGLE}
    weights = {name: recipe.tasks[name].weight for name in config.test}
    down = {name: down.weight for name, down in config.downstream.items()}
    rows = error_rows(outcomes, weights, series, extra={"single-task steps": steps})
    said = averages_said(rows)
    rows += average_rows(rows)
    if down:
        zero_shot = error_rows(outcomes, down, series, ", zero-shot", {"single-task steps": {}})
        said += averages_said(zero_shot)
        rows += zero_shot + average_rows(zero_shot, ", zero-shot")
    panels = [
        error_panel(outcomes, list(names), series, quantity, title, row)
        for row, (names, title) in enumerate(((weights, "own test frames"), (down, "zero-shot")))
        if names
        for quantity in given(outcomes)[:2]
    ]
    said.insert(
        0, "Single-task trainings make weight/Σweights × tasks a step × steps of the multi-task one; last steps are judged."
    )
    sizes = {o.trial.series: o.facts["parameters"] for o in outcomes if "parameters" in o.facts}
    said.append("Parameters: " + ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items()) + ".")
    untested = [name for name in recipe.tasks if name not in config.test]
    if untested:
        said.append(f"Trained along but without test frames, and so in no average: {', '.join(untested)}.")
    if down:
        said.append(
            "Zero-shot errors are taken after energies per element are refitted; std is what these leave of the labels."
        )
    return Report("Single- and multi-task training", rows, panels, [*said, *failures(outcomes)])


def _recipe(config: TasksConfig, choices: Sequence[str]) -> Recipe:
    content = content_of(config.recipe)
    for override in choices:
        set_key(content, override)
    training = content.setdefault("training", {})
    training |= short_run(config.steps, training)
    recipe = finished(content, config, config.recipe.recipe)
    if recipe.elements is not None:
        return recipe
    # single-task models know all elements too, as in the paper: zero-shot they meet some they were not trained on
    numbers = {number for task in open_tasks(recipe).values() for number in task.numbers}
    content = recipe_content(recipe) | {"elements": [chemical_symbols[number] for number in sorted(numbers)]}
    return checked_recipe(content, config.recipe.recipe)


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"seed": seed})


def _check(config: TasksConfig, recipe: Recipe) -> None:
    for key, name in [
        *(("test", name) for name in config.test),
        *(("downstream", d.task) for d in config.downstream.values()),
    ]:
        if name not in recipe.tasks:
            raise RecipeError(f"{key}: the recipe has no task {name!r}{nearest(name, recipe.tasks)}; correct the name.")
    if slug(SINGLE) in map(slug, config.variants):
        raise RecipeError(f"variants.{SINGLE}: the models of single tasks are called so; choose another name.")
    both = set(config.test) & set(config.downstream)
    if both:
        raise RecipeError(f"downstream.{min(both)}: a task has that name; choose another for the set.")


def _row(config: TasksConfig, recipe: Recipe, name: str) -> SetConfig:
    task = recipe.tasks[name]
    return SetConfig(data=config.test[name], keys=task.keys, weight=task.weight, baseline="keep")


def _trials(config: TasksConfig, series: str, own: tuple[str, ...], recipe: Recipe, task: str | None) -> list[Trial]:
    """A training, judged by its own sets, and again zero-shot by those that its tasks answer for."""
    label = "-".join(slug(part) for part in (series, task, f"s{recipe.seed}") if part is not None)
    values = {"steps": recipe.training.steps, "seed": recipe.seed}
    found = [Trial(label, series, values, own, recipe)]
    for name, down in config.downstream.items():
        if task is None or down.task == task:
            on = f"{label}-on-{slug(name)}"
            found.append(Trial(on, series, values, (name,), recipe, task=down.task, zero_shot=True, run=label))
    return found
