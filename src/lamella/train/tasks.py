"""Tasks that come to a model or leave it, with what is written down of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamella.data.source import Frames
from lamella.errors import InputError
from lamella.models.extend import only_tasks, with_tasks
from lamella.models.potential import Potential
from lamella.train.adapt.judge import judge

__all__ = ["add_task", "drop_tasks"]


def add_task(
    potential: Potential, name: str, like: str | None = None, frames: Frames | None = None, seed: int = 1
) -> tuple[Potential, str]:
    """The model with one more task; what it predicts for the others stays the same, to the last bit where their head does.

    Args:
        potential: not changed.
        name: of the new task.
        like: task that it starts as a copy of: head, code and energies per element; None for a random head or code.
        frames: labelled; the energies per element are refitted to them.
        seed: of what is random.

    Returns:
        The new model, and a sentence on its energies per element.

    Raises:
        InputError: the task is there already, ``like`` is not, or the head cannot tell the tasks apart.
        StructureError: a frame that the model cannot read.
    """
    grown = with_tasks(potential, {name: like}, seed)
    said = f"those of {like}" if like is not None else "zero"
    if frames is not None:
        fit = judge(grown, frames, name).refit()
        row = grown.baseline[grown.task_index(name)].tolist()
        shifted = (energy + shift for energy, shift in zip(row, fit.shift.tolist(), strict=True))
        grown.set_baseline(name, dict(zip(grown.elements, shifted, strict=True)))
        said = fit.sentence
    statistics = grown.metadata.get("statistics")
    if isinstance(statistics, dict):
        grown.metadata["statistics"] = {**statistics, name: {"baseline": said, "like": like}}
    return grown, said


def drop_tasks(potential: Potential, names: Sequence[str]) -> Potential:
    """The model without some of its tasks, their heads and what is written down of them.

    Raises:
        InputError: a task that it does not have, or no task is left.
    """
    for name in names:
        potential.task_index(name)
    kept = [name for name in potential.tasks if name not in names]
    if not kept:
        raise InputError(f"{', '.join(names)}: no task would be left; a model needs one.")
    smaller = only_tasks(potential, kept)
    smaller.metadata = _without(smaller.metadata, names)
    return smaller


def _without(metadata: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What is known of the other tasks; the recipe stays, since it made the weights."""
    left = {key: _fewer(value, names) if key in ("data", "statistics") else value for key, value in metadata.items()}
    if isinstance(record := left.get("deepmd"), dict):
        params = record.get("model_params")
        if isinstance(params, dict) and isinstance(branches := params.get("model_dict"), dict):
            record = {**record, "model_params": {**params, "model_dict": _fewer(branches, names)}}
        left["deepmd"] = {key: _fewer(value, names) if key == "branches" else value for key, value in record.items()}
    return left


def _fewer(table: Any, names: Sequence[str]) -> Any:
    return {key: value for key, value in table.items() if key not in names} if isinstance(table, dict) else table
