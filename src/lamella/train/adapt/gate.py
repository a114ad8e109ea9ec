"""The gate before step 0: what is about to be trained must be as good as the loaded model, its baseline refitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lamella.errors import TrainingError
from lamella.train.adapt.tables import one_error

__all__ = ["JumpError", "jumps"]

_RATIO: Final = 1.05
"""Errors so many times those of zero-shot are a jump; rounding to float32 changes them by far less."""

_FLOOR: Final = 1e-5
"""eV/atom and eV/Å: below this nothing is a jump."""


class JumpError(TrainingError):
    """Errors before step 0 are above zero-shot.

    Attributes:
        plan: lines that say what would have been trained.
    """

    def __init__(
        self, found: Mapping[str, Mapping[str, tuple[float, float]]], causes: Mapping[str, str], plan: Sequence[str]
    ) -> None:
        self.plan = tuple(plan)
        parts = [
            f"task {task}: "
            + ", ".join(
                f"{label} {one_error(label, before)} instead of {one_error(label, zero)}"
                for label, (zero, before) in worse.items()
            )
            + f" ({causes[task]})"
            for task, worse in found.items()
        ]
        super().__init__(
            f"training would begin with larger errors than the loaded model has: {'; '.join(parts)}. Nothing was written; "
            "mend the cause, or say --allow-jump (start.allow_jump: true) to train all the same."
        )


def jumps(zero_shot: Mapping[str, float], before: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """(zero-shot, before step 0) of each label whose error jumped."""
    return {
        label: (value, before[label])
        for label, value in zero_shot.items()
        if label in before and not before[label] <= _RATIO * value + _FLOOR
    }
