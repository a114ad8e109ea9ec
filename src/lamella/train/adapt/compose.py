"""From a model, data and a few choices to the recipe of a fine-tuning run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from lamella.data.keys import LabelKeys
from lamella.errors import RecipeError, nearest
from lamella.models.potential import Potential
from lamella.train.adapt.config import StartConfig
from lamella.train.adapt.settle import from_model
from lamella.train.paths import EMBEDDED, absolute
from lamella.train.recipe import Recipe, checked_recipe, set_key

__all__ = ["ALL", "FinetuneConfig", "finetune_recipe", "source_tasks", "task_name"]

ALL: Final = "all"

DEFAULTS: Final[dict[str, Any]] = {
    "optimizer": {"kind": "adam", "lr": 1e-3},
    "schedule": {"kind": "cosine", "stop_lr": 1e-5},
    "batch": {"full_atoms": 128},
    "training": {"steps": 2000, "valid_every": 200, "log_every": 50, "save_every": 500, "keep": 2, "ema": 0.99},
}
"""Settings of a fine-tuning run that nobody sets otherwise (docs/finetuning.md has measurements); with such a batch a step
costs about the same for molecules as for large cells."""


LOSS: Final[dict[str, Any]] = {"energy": 20.0, "forces": 60.0, "virial": 1.0}
"""Prefactors of the new task: those at which pre-training ends, from the first step on, since energies are right already."""

_GENERIC: Final = {"train", "training", "data", "dataset", "frames", "all"}
"""Names of files that say nothing about what is in them."""

_WARMUP: Final = 100
"""Steps of warm-up, or a tenth of a run that is shorter: moments of the gradient are not known at the start."""


class FinetuneConfig(BaseModel):
    """Choices of ``lamella finetune`` beside the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: tuple[str, ...] = Field(min_length=1)
    valid: tuple[str, ...] = ()
    task: str | None = None
    """Name of the task; that of the first data file where not given. One of the model goes on, another one is new."""
    keys: LabelKeys = LabelKeys()
    replay: tuple[str, ...] = ()
    """Tasks of the model to train along: ``NAME``, ``NAME=PATH[,PATH...]``, or ``all`` whose data are where they were."""
    replay_share: float = Field(0.25, gt=0, lt=1)
    """Share of the steps that replayed tasks get together."""
    sources: tuple[str, ...] = ()
    """Frames for the report on forgetting, ``NAME=PATH[,PATH...]``, instead of those the model was trained on."""


def finetune_recipe(
    potential: Potential, start: StartConfig, choices: FinetuneConfig, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe of a run that adapts a model to data.

    Args:
        potential: the loaded model that ``start.model`` names.
        start: what of it may change.
        choices: data and what is trained along.
        overrides: ``key=value`` settings of the recipe, which win.

    Raises:
        RecipeError: a task or setting that does not exist; replay of a task whose data are not known.
    """
    name = choices.task or task_name(choices.data[0])
    known = source_tasks(potential)
    tasks: dict[str, Any] = {
        name: {
            "train": list(choices.data),
            "valid": list(choices.valid) or None,
            "keys": choices.keys.model_dump(),
            "weight": 1.0 - choices.replay_share if choices.replay else 1.0,
            "loss": dict(LOSS),
        }
    }
    replayed = _replayed(potential, choices.replay, known)
    if name in replayed:
        raise RecipeError(
            f"--replay {name}: this is the task that is fine-tuned; give the new one another name with --task."
        )
    weights = {task: float(known.get(task, {}).get("weight") or 1.0) for task in replayed}
    for task, paths in replayed.items():
        share = choices.replay_share * weights[task] / sum(weights.values())
        before = known.get(task, {}) if paths is None else {}
        kept = {key: before[key] for key in ("train", "valid", "valid_fraction", "keys", "loss", "batch") if key in before}
        tasks[task] = {**kept, **({} if paths is None else {"train": paths}), "weight": share, "baseline": "keep"}
    content: dict[str, Any] = {
        **from_model(potential, start.add_elements),
        **{key: dict(value) for key, value in DEFAULTS.items()},
        "tasks": tasks,
        "start": start.model_dump(mode="json") | {"sources": _sources(potential, choices, known)},
    }
    for override in overrides:
        set_key(content, override)
    steps = content["training"].get("steps")
    if isinstance(steps, int) and "warmup_steps" not in content["schedule"]:
        content["schedule"]["warmup_steps"] = min(_WARMUP, steps // 10)
    return checked_recipe(content, "lamella finetune")


def task_name(path: str) -> str:
    """A name for the labels of a file: its stem, or that of its folder where the stem says nothing; or an embedded set's."""
    if path.startswith(EMBEDDED):
        stem = path.removeprefix(EMBEDDED).partition(":")[0]
    else:
        stem = Path(path).name.partition(".")[0]
        if stem.lower() in _GENERIC:
            stem = Path(path).absolute().parent.name
    return re.sub(r"[^A-Za-z0-9_+-]+", "_", stem).strip("_") or "finetuned"


def source_tasks(potential: Potential) -> dict[str, Mapping[str, Any]]:
    """By task of the model, its part of the recipe it was last trained with, as the model's metadata remember it."""
    found: dict[str, Mapping[str, Any]] = {}
    metadata: Any = potential.metadata
    while isinstance(metadata, Mapping):
        recipe = metadata.get("recipe")
        tasks = recipe.get("tasks") if isinstance(recipe, Mapping) else None
        for name, task in tasks.items() if isinstance(tasks, Mapping) else ():
            if name in potential.tasks and isinstance(task, Mapping):
                found.setdefault(name, task)
        start = metadata.get("start")
        metadata = start.get("before") if isinstance(start, Mapping) else None
    return found


def _replayed(
    potential: Potential, wanted: Sequence[str], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str] | None]:
    """By task, the paths given for it, or None for those of the model's recipe."""
    found: dict[str, list[str] | None] = {}
    for word in wanted:
        name, given, paths = word.partition("=")
        if word == ALL and ALL not in potential.tasks:
            present = [task for task, entry in known.items() if _there(entry)]
            if not present:
                raise RecipeError(
                    f"--replay all: none of the data of the tasks {', '.join(potential.tasks)} is where the model's "
                    "metadata say; give them: --replay NAME=PATH."
                )
            found |= dict.fromkeys(present)
            continue
        _check_task(potential, name, "--replay")
        if given:
            found[name] = _listed(paths)
        elif name not in known or not _there(known[name]):
            where = f" ({', '.join(map(str, known[name].get('train') or ()))})" if name in known else ""
            raise RecipeError(
                f"--replay {name}: its data are not where the model's metadata say{where}; give them: --replay {name}=PATH."
            )
        else:
            found[name] = None
    return found


def _sources(potential: Potential, choices: FinetuneConfig, known: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Frames of tasks of the model on which forgetting is measured: validation data where there are any."""
    found: dict[str, list[str]] = {}
    for name, entry in known.items():
        paths = entry.get("valid") or entry.get("train") or ()
        if _there(entry):
            found[name] = [str(path) for path in paths]
    for word in choices.sources:
        name, _, paths = word.partition("=")
        _check_task(potential, name, "--source")
        found[name] = _listed(paths)
    return found


def _check_task(potential: Potential, name: str, option: str) -> None:
    if name not in potential.tasks:
        raise RecipeError(
            f"{option} {name}: the model has no such task{nearest(name, potential.tasks)}; it has "
            f"{', '.join(potential.tasks)}."
        )


def _listed(paths: str) -> list[str]:
    listed = [absolute(path) for path in paths.split(",") if path]
    if not listed:
        raise RecipeError("give at least one path behind the =, as in --replay NAME=PATH.")
    return listed


def _there(entry: Mapping[str, Any]) -> bool:
    """Whether every path of a task is still there."""
    paths = [*(entry.get("train") or ()), *(entry.get("valid") or ())]
    return bool(paths) and all(str(path).startswith(EMBEDDED) or _exists(str(path)) for path in paths)


def _exists(path: str) -> bool:
    """Whether a path is there, also one with a format in front."""
    return Path(path).exists() or Path(path.rpartition(":")[2]).exists()
