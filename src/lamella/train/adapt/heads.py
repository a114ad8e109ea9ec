"""Which task of a model suits labelled frames best (DPA-2 paper, Sec. S5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lamella.data.source import Frames
from lamella.errors import DataError
from lamella.models.potential import Potential
from lamella.train.adapt.judge import Judged, judge, of_known_elements
from lamella.train.adapt.refit import Refit

__all__ = ["HeadErrors", "head_errors", "rank_heads"]

_NOTHING: Final = 1e-6
"""Labels that energies per element explain to this many eV/atom or eV/Å say nothing about a head."""


@dataclass(frozen=True)
class HeadErrors:
    """Errors of one task, its energies per element refitted to the frames.

    Attributes:
        task: name.
        score: geometric mean over the labels of RMSE divided by that of a model without a network: 0 perfect, 1 learned
            nothing (a half in one label makes good for a double in another).
        errors: RMSE by label: energy and virial in eV/atom, forces in eV/Å.
        refit: change of its energies per element.
        judged: what all that was taken from.
    """

    task: str
    score: float
    errors: dict[str, float]
    refit: Refit
    judged: Judged


def rank_heads(
    potential: Potential, frames: Frames, on_head: Callable[[HeadErrors], None] | None = None
) -> list[HeadErrors]:
    """Every task of the model on the same frames, the best first.

    Args:
        potential: not changed.
        frames: labelled; those with an element that the model does not know are passed over.
        on_head: called with each task as it is known, to show progress.

    Raises:
        DataError: no frame of known elements, or none with a label.
    """
    usable = of_known_elements(frames, potential.numbers)
    if not len(usable):
        raise DataError(
            f"none of the {len(frames)} frames is made of elements of the model ({' '.join(potential.elements)})."
        )
    found = []
    for task in potential.tasks:
        found.append(head_errors(potential, usable, task))
        if on_head is not None:
            on_head(found[-1])
    return sorted(found, key=lambda head: head.score)


def head_errors(potential: Potential, frames: Frames, task: str) -> HeadErrors:
    """One task on frames.

    Raises:
        DataError: no frame carries a label.
    """
    judged = judge(potential, frames, task)
    fit = judged.refit()
    errors, scale = judged.errors(fit.shift), judged.scale()
    if not errors:
        raise DataError(
            f"none of the {len(frames)} frames carries an energy, forces or virial; name the keys of the labels."
        )
    fitted = len(errors) > 1 and fit.frames < 2 * fit.rank  # energies per element alone come close to so few energies
    counted = [name for name in errors if scale[name] > _NOTHING and not (name == "energy" and fitted)]
    shares = [errors[name] / scale[name] for name in counted]
    score = math.prod(shares) ** (1 / len(shares)) if shares else math.inf
    return HeadErrors(task, score, errors, fit, judged)
