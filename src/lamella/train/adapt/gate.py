"""The gate before step 0: what is about to be trained must be as good as the loaded model, its baseline refitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lamella.errors import TrainingError

__all__ = ["SHOWN", "JumpError", "in_words", "jumps"]

_RATIO: Final = 1.05
"""Errors so many times those of zero-shot are a jump; rounding to float32 changes them by far less."""

_FLOOR: Final = 1e-5
"""eV/atom and eV/Å: below this nothing is a jump."""

SHOWN: Final = {"energy": ("E", "meV/atom"), "forces": ("F", "meV/Å"), "virial": ("V", "meV/atom")}
"""Letter and unit of each label's error, shown in thousandths."""


class JumpError(TrainingError):
    """Errors before step 0 are above zero-shot.

    Attributes:
        plan: lines that say what would have been trained.
    """

    def __init__(self, found: Mapping[str, Mapping[str, tuple[float, float]]], random: bool, plan: Sequence[str]) -> None:
        self.plan = tuple(plan)
        parts = [
            f"task {task}: "
            + ", ".join(
                f"{label} {_one(label, before)} against {_one(label, zero)}" for label, (zero, before) in worse.items()
            )
            for task, worse in found.items()
        ]
        cause = "the head is random" if random else "what predicts is not what was loaded (compare baseline, dtype and head)"
        super().__init__(
            f"errors before step 0 jumped above zero-shot ({'; '.join(parts)}): {cause}. Nothing was written; say "
            "--allow-jump (start.allow_jump: true) to train all the same."
        )


def jumps(zero_shot: Mapping[str, float], before: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """(zero-shot, before step 0) of each label whose error jumped."""
    return {
        label: (value, before[label])
        for label, value in zero_shot.items()
        if label in before and not before[label] <= _RATIO * value + _FLOOR
    }


def in_words(errors: Mapping[str, float]) -> str:
    """``E 1.23 meV/atom  F 45.6 meV/Å``."""
    return "  ".join(f"{SHOWN[label][0]} {_one(label, value)}" for label, value in errors.items())


def _one(label: str, value: float) -> str:
    return f"{1e3 * value:.4g} {SHOWN[label][1]}"
