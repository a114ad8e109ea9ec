"""Going on with a run: its last model, if data and recipe are still those it was begun with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lamella.errors import CheckpointError, DataError, RecipeError
from lamella.models.bundle import load_model
from lamella.models.potential import Potential
from lamella.train.adapt.start import rearmed
from lamella.train.recipe import Recipe
from lamella.train.task_data import TaskData, data_record

__all__ = ["resumed_potential"]

_FIXED: Final = {
    ("seed",),
    ("dtype",),
    ("elements",),
    ("model",),
    ("optimizer", "kind"),
    ("optimizer", "betas"),
    ("optimizer", "weight_decay"),
    ("training", "ema"),
    ("start",),
}
"""Settings that a checkpoint contains: another value in the recipe would have no effect."""

Change = tuple[tuple[str, ...], Any, Any]
"""Where two recipes differ: key, old value, new value."""


def resumed_potential(folder: Path, recipe: Recipe, data: Mapping[str, TaskData]) -> tuple[Potential, list[str]]:
    """The model of a step folder, and a line for each setting that was changed since it was written.

    Raises:
        RecipeError: a setting was changed that a checkpoint contains.
        DataError: the data is no longer what the model was trained on.
        CheckpointError: the folder does not say what it was trained on.
    """
    potential = load_model(folder)
    now = recipe.model_dump(mode="json")
    changes = list(_changes(_recorded(potential, "recipe", folder), now))
    for key, old, new in changes:
        if _is_fixed(key):
            raise RecipeError(
                f"{folder.parent}: {'.'.join(key)} was {_shown(old)} when the run began and is {_shown(new)} in its recipe "
                "now, which a checkpoint cannot follow; put it back, or start a new run."
            )
    _check_data(_recorded(potential, "data", folder), data_record(data))
    potential.metadata["recipe"] = now
    return rearmed(potential, recipe), [
        f"changed   {'.'.join(key)}: {_shown(old)} to {_shown(new)}" for key, old, new in changes
    ]


def _recorded(potential: Potential, name: str, folder: Path) -> Mapping[str, Any]:
    record = potential.metadata.get(name)
    if not isinstance(record, dict):
        raise CheckpointError(f"{folder}: its model.json does not say what it was trained on; choose another step folder.")
    return record


def _changes(old: Any, new: Any, key: tuple[str, ...] = ()) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from _changes(old.get(name), new.get(name), (*key, name))
    elif old != new:
        yield key, old, new


def _is_fixed(key: tuple[str, ...]) -> bool:
    """Whether a checkpoint contains this setting; tasks that come or go, their baselines and elements too."""
    if key[0] == "tasks":
        return len(key) == 2 or key[2] in ("baseline", "elements")
    return any(key[: len(fixed)] == fixed for fixed in _FIXED)


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_data(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, record in now.items():
        for part in ("train", "valid"):
            old, new = then.get(name, {}).get(part), record[part]
            if (old and old["hash"]) != (new and new["hash"]):
                raise DataError(
                    f"tasks.{name}.{part}: the data changed since the run began ({', '.join((new or old)['paths'])}); "
                    "put the old files back, or start a new run."
                )
