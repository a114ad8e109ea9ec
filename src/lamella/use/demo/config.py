"""What the demo does and how it talks; the names of what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

from lamella.use.settings import MDConfig

__all__ = ["FEW", "FINETUNED", "PRETRAINED", "REPORT", "RESULTS", "SCRATCH", "SETTINGS", "Demo", "Show"]

PRETRAINED, FINETUNED, SCRATCH = "pretrained", "finetuned", "from_scratch"
"""Run folders."""

FEW: Final = "few.extxyz"
"""The water that is labelled."""

SETTINGS: Final = "demo.json"
"""What was asked for: a folder with the same and without a report holds an unfinished demo."""

REPORT: Final = "report.html"

RESULTS: Final = {
    "data": "data.json",
    "zero-shot": "zero_shot.json",
    "testing": "testing.json",
    "laws": "check.json",
    "dynamics": "md.json",
}
"""What a stage leaves when it is done; training goes on from its own checkpoints."""


class Show(NamedTuple):
    """How the demo talks: a line that stays, and a progress bar (title, total) that is told (steps done, what to say)."""

    line: Callable[[str], None]
    progress: Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]


@dataclass(frozen=True)
class Demo:
    """What the demo does.

    Attributes:
        pretraining: settings of its recipe, ``key=value``.
        tuning: settings of the recipes of fine-tuning and of training from scratch, the same for both.
        labelled: frames of water that both may learn from.
        warm_up: ps at constant temperature before the molecular dynamics that is recorded.
        dynamics: settings of the latter.
        laws: names of the laws to check; all where ``None``.
    """

    pretraining: tuple[str, ...] = ()
    tuning: tuple[str, ...] = ()
    labelled: int = 64
    warm_up: float = 0.1
    dynamics: MDConfig = MDConfig(time=0.5, velocities="keep")
    laws: tuple[str, ...] | None = None

    @property
    def words(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self) | {"dynamics": self.dynamics.model_dump(mode="json")}, indent=1) + "\n"
