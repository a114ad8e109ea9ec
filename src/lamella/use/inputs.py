"""What a model makes nothing of: inputs that it does not read, elements that its task never saw. Said once."""

from __future__ import annotations

import warnings

from ase.data import chemical_symbols

from lamella.fields import INPUTS
from lamella.models.potential import Potential
from lamella.types import Frame, GraphSpec

__all__ = ["warn_of_ignored_inputs", "warn_of_unseen_elements"]

_NEUTRAL = {"charge": (0.0,), "spin": (0.0, 1.0)}
"""Values that say nothing special: a neutral frame, a closed shell counted as 2S or as 2S + 1."""


def warn_of_ignored_inputs(frame: Frame, spec: GraphSpec, said: set[str]) -> None:
    """Warn of charge, spin or parameters of a frame that the model does not read; not of a neutral closed shell.

    Args:
        frame: any structure.
        spec: what the model reads.
        said: names warned of before; those warned of now are added.
    """
    if not frame.labels:
        return
    read = {wanted.name for wanted in spec.inputs}
    for name in INPUTS:
        if name in frame.labels and name not in read and name not in said and not _neutral(frame, name):
            said.add(name)
            warnings.warn(
                f"{frame.source} carries {name}, which the model does not read: energies and forces do not depend on it.",
                stacklevel=3,
            )


def warn_of_unseen_elements(frame: Frame, model: Potential, task: str, said: set[str]) -> None:
    """Warn of elements that the model knows from other tasks alone: their energies in this one mean nothing.

    Such an element has no energy in the task's baseline, while others have one.

    Args:
        frame: any structure.
        model: its baseline is looked at.
        task: which one answers.
        said: symbols warned of before; those warned of now are added.
    """
    if len(model.tasks) == 1:
        return
    energies = dict(zip(model.elements, model.baseline[model.task_index(task)].tolist(), strict=True))
    present = {chemical_symbols[number] for number in frame.numbers.tolist()}
    unseen = sorted(symbol for symbol in present - said if energies.get(symbol) == 0.0)
    if unseen and any(energies.values()):
        said.update(unseen)
        warnings.warn(
            f"task {task} never saw {', '.join(unseen)}: energies of {frame.source} mean nothing, and forces are a guess "
            "from other tasks; `lamella show` has the elements of each task.",
            stacklevel=3,
        )


def _neutral(frame: Frame, name: str) -> bool:
    return name in _NEUTRAL and float(frame.labels[name]) in _NEUTRAL[name]
