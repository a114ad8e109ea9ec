"""A study: trainings and ready models, and the sets they are judged by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lamella.train.recipe import Recipe
from lamella.use.table.compare import Score
from lamella.use.table.config import SetConfig
from lamella.use.table.run import OnSet

__all__ = ["Outcome", "Study", "Trial", "Work", "slug"]


@dataclass(frozen=True)
class Trial:
    """One model of a study.

    Attributes:
        name: unique.
        series: which line or column it belongs to.
        values: where on it: sample size, steps, seed, ...
        sets: names of the sets that it is judged by.
        recipe: of its training; None for a model that is ready.
        model: for a ready one, as ``lamella table`` takes it.
        task: which of its tasks answers; None for the set's name, or the only one.
        zero_shot: whether its energies per element are refitted to each set.
        run: name of its folder and recipe, where several trials share a training.
    """

    name: str
    series: str
    values: Mapping[str, float | str]
    sets: tuple[str, ...]
    recipe: Recipe | None = None
    model: str | None = None
    task: str | None = None
    zero_shot: bool = False
    run: str = ""

    @property
    def training(self) -> str:
        """Name of its run and recipe."""
        return self.run or self.name


@dataclass(frozen=True)
class Study:
    """What is trained, and what it is judged by."""

    trials: Sequence[Trial]
    sets: Mapping[str, SetConfig]


@dataclass(frozen=True)
class Work:
    """How a study is carried out.

    Attributes:
        say: takes a line for people.
        on_set: shows the progress of a set that is being predicted; None for none.
        jobs: trainings at a time.
    """

    say: Callable[[str], None]
    on_set: OnSet | None = None
    jobs: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        trial: which.
        scores: errors by set and quantity, eV/atom and eV/Å.
        std: standard deviation of the labels by set and quantity.
        facts: parameters, steps, frames (training, seen), seconds (training).
        failed: why there are no errors, by set, or of the training under the empty name.
    """

    trial: Trial
    scores: Mapping[str, Mapping[str, Score]]
    std: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def rmse(self, set_name: str, quantity: str) -> float | None:
        """RMSE on a set; ``None`` where there is none."""
        score = self.scores.get(set_name, {}).get(quantity)
        return None if score is None else score.rmse


def slug(text: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_.") or "trial"
