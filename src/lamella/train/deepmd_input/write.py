"""From a recipe to an ``input.json``."""

from __future__ import annotations

from typing import Any

from lamella.errors import RecipeError
from lamella.train.deepmd_input.data import write_task_data
from lamella.train.deepmd_input.learning import write_learning_rate, write_optimizer
from lamella.train.deepmd_input.loss import write_loss
from lamella.train.deepmd_input.model import DEFAULT_TASK, write_model
from lamella.train.deepmd_input.section import Notes
from lamella.train.deepmd_input.training import write_training
from lamella.train.recipe import Recipe

__all__ = ["write_input"]


def write_input(recipe: Recipe) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What ``dp --pt train`` of deepmd-kit 3.2 trains the same with, and notes on what it does differently.

    Raises:
        RecipeError: the recipe asks for something deepmd-kit does not have; the message names the key.
    """
    if recipe.elements is None:
        raise RecipeError(
            "elements: null takes those of the data, and an input.json must list them; give them: elements=[H,O]."
        )
    if recipe.start is not None:
        raise RecipeError(
            "start: deepmd-kit is told on its command line which model it starts from (dp --pt train input.json --finetune "
            "MODEL.pt); convert that model with `lamella convert`, and take `start` out of the recipe."
        )
    if recipe.optimizer.backbone_lr != 1.0:
        raise RecipeError("optimizer.backbone_lr: deepmd-kit has one learning rate for all; set it to 1.")
    notes = Notes()
    training = write_training(recipe)
    model = write_model(recipe, recipe.elements)
    data, losses = {}, {}
    for name, task in recipe.tasks.items():
        where = f"tasks.{name}"
        data[name] = write_task_data(task, task.batch or recipe.batch, where, notes)
        losses[name] = write_loss(task.loss, f"{where}.loss")
    content: dict[str, Any] = {
        "model": model,
        "learning_rate": write_learning_rate(recipe.schedule, recipe.optimizer.lr),
        "optimizer": write_optimizer(recipe.optimizer),
    }
    if "model_dict" in model:
        weights = {name: task.weight for name, task in recipe.tasks.items()}
        content |= {"loss_dict": losses, "training": {"model_prob": weights, "data_dict": data, **training}}
    else:
        (name,) = recipe.tasks
        if name != DEFAULT_TASK:
            notes.add(f"tasks.{name}", "deepmd-kit has no name for the task of a model with one")
        content |= {"loss": losses[name], "training": {**data[name], **training}}
    _add_validation(content, recipe, notes)
    _note_differences(recipe, notes)
    return content, tuple(notes.lines)


def _add_validation(content: dict[str, Any], recipe: Recipe, notes: Notes) -> None:
    """Validation on all frames, which deepmd-kit has for one task alone."""
    every = recipe.training.valid_every
    if not any(task.valid for task in recipe.tasks.values()):
        return
    if "validation_data" in content["training"]:
        metric = next((name for name in _METRICS if all(content["loss"][key] for key in _METRICS[name])), None)
        if metric is not None:
            validating = {
                "full_validation": True,
                "validation_freq": every,
                "full_val_start": 0.0,
                "validation_metric": metric,
            }
            content["validating"] = validating
            return
    notes.add(
        "training.valid_every", f"deepmd-kit prints the errors of one batch every disp_freq steps, not of all every {every}"
    )


_METRICS = {"F:MAE": ("start_pref_f", "limit_pref_f"), "E:MAE": ("start_pref_e", "limit_pref_e")}
"""Measure of deepmd-kit for the best step -> prefactors that it needs."""


def _note_differences(recipe: Recipe, notes: Notes) -> None:
    if recipe.schedule.warmup_steps:
        notes.add(
            "schedule.warmup_steps", "in deepmd-kit loss prefactors follow the warm-up too: they begin at their limits"
        )
    if recipe.training.ema is not None:
        notes.add(
            "training.ema", "deepmd-kit saves the averaged weights beside the others, and averages from the first step on"
        )
    if recipe.device != "auto":
        notes.add("device", "left out: deepmd-kit takes the first GPU there is")
    if recipe.training.workers:
        notes.add("training.workers", "left out: how it is computed, not what")
