"""Error over the number of training frames: what the learning curve and the choice of heads share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ValidationError

from lamella.formats.load import load
from lamella.models.potential import Potential
from lamella.train.adapt.compose import FinetuneConfig, finetune_recipe
from lamella.train.adapt.config import RANDOM, StartConfig
from lamella.train.explain import explain
from lamella.train.prepare import open_data
from lamella.train.recipe import Recipe
from lamella.use.study.chart import STD, Line, Panel
from lamella.use.study.config import STRICT, Found, LabelledSet, Recipes, StudyConfig, recipe_of, short_run
from lamella.use.study.errors import given
from lamella.use.study.report import PLUS_MINUS, QUANTITIES, spread
from lamella.use.study.subsets import subsets
from lamella.use.study.trial import Outcome, Trial, slug
from lamella.use.table.compare import each, elements_of

__all__ = [
    "Curve",
    "Pretrained",
    "curve_panels",
    "curve_rows",
    "curves_of",
    "equal_error",
    "finetuned",
    "from_scratch",
    "labels_said",
    "sampled",
    "sizes_said",
]

_ABREAST: Final = 4
"""Sets whose pictures stand side by side."""

Maker = Callable[[str, Mapping[str, Any], int], tuple[Recipe, str]]
"""Name of the set, keys of its task, and seed -> a recipe, and the task that answers."""

Curve = tuple[list[int], list[float], list[float | None]]
"""Numbers of frames, mean errors, their standard deviations over seeds."""


class Pretrained(BaseModel):
    """A model to fine-tune."""

    model_config = STRICT

    model: Found
    """A run or step folder, a deepmd-kit file, or the name of a published model."""
    head: str = "best"
    """Where the head comes from: a task of the model, best, or random."""
    start: dict[str, Any] = {}
    """Other keys of a recipe's ``start``: freeze, lora, add_elements, ..."""
    set: tuple[str, ...] = ()
    """Settings of the recipe, ``key=value``."""


def sampled(
    sets: Mapping[str, LabelledSet],
    sizes: tuple[Sequence[int], bool],
    study: StudyConfig,
    folder: Path,
    makers: Mapping[str, Maker],
) -> list[Trial]:
    """A training for every set, size, seed and series.

    Args:
        sets: by name.
        sizes: numbers of frames, and whether all of them come too.
        study: seeds.
        folder: of the study.
        makers: how each series makes its recipes.
    """
    trials = []
    for name, labelled in sets.items():
        for seed in study.seeds:
            for size, part in subsets(name, labelled, *sizes, seed, folder):
                for series, make in makers.items():
                    recipe, task = make(name, {**part, "valid": None, "valid_fraction": 0.0}, seed)
                    label = f"{slug(name)}-{slug(series)}-{size}-s{seed}"
                    values: dict[str, float | str] = {"set": name, "frames": size, "seed": seed}
                    trials.append(Trial(label, series, values, (name,), recipe, task=task))
    return trials


def from_scratch(source: Recipes, study: StudyConfig, sets: Mapping[str, LabelledSet]) -> Maker:
    """Random weights; the model knows every element of the set, whichever of them a subset holds."""
    elements = {
        name: elements_of(
            frame for paths in (labelled.train, labelled.test) for frame in each(open_data(paths, labelled.keys))
        )
        for name, labelled in sets.items()
    }

    def make(name: str, part: Mapping[str, Any], seed: int) -> tuple[Recipe, str]:
        task = _task(name)
        return recipe_of(source, {task: part}, study, seed, elements[name]), task

    return make


def finetuned(source: Pretrained, study: StudyConfig, potential: Potential | None = None) -> Maker:
    """Weights of a model, and a new task with a head of its own."""
    loaded = potential if potential is not None else load(source.model)
    # a random head is worse than zero-shot before step 0, and is meant to be
    jump = {"allow_jump": True} if source.head == RANDOM else {}
    content = {**jump, **source.start, "model": source.model, "head": source.head}
    try:
        start = StartConfig.model_validate(content)
    except ValidationError as error:
        raise explain(error, StartConfig, content, f"start of {source.model}") from None

    def make(name: str, part: Mapping[str, Any], seed: int) -> tuple[Recipe, str]:
        task = _task(name)
        task = f"{task}_tuned" if task in loaded.tasks else task
        choices = FinetuneConfig.model_validate({"data": part["train"], "task": task, "keys": part.get("keys") or {}})
        overrides = [f"tasks.{task}.valid_fraction=0", f"seed={seed}", "start.sources={}"]
        overrides += [f"training.{key}={json.dumps(value)}" for key, value in short_run(study.steps, {}).items()]
        overrides += [f"tasks.{task}.loss={json.dumps(study.loss)}"] if study.loss is not None else []
        return finetune_recipe(loaded, start, choices, [*overrides, *source.set, *study.set]), task

    return make


def curves_of(outcomes: Sequence[Outcome], name: str, quantity: str) -> dict[str, Curve]:
    """Mean error over seeds by series, over the number of frames; what failed is left out."""
    found: dict[str, dict[int, list[float]]] = {}
    for outcome in outcomes:
        error = outcome.rmse(name, quantity)
        if error is not None and outcome.trial.values.get("set") == name:
            found.setdefault(outcome.trial.series, {}).setdefault(int(outcome.trial.values["frames"]), []).append(error)
    curves = {}
    for series, points in found.items():
        sizes = sorted(points)
        pairs = [spread(points[size]) for size in sizes]
        curves[series] = (sizes, [mean for mean, _ in pairs], [std for _, std in pairs])
    return curves


def curve_rows(outcomes: Sequence[Outcome], sets: Sequence[str]) -> list[dict[str, Any]]:
    """A line per set, size and series."""
    quantities = given(outcomes)
    rows = []
    for name in sets:
        curves = {quantity: curves_of(outcomes, name, quantity) for quantity in quantities}
        sizes = sorted({size for found in curves.values() for sizes, _, _ in found.values() for size in sizes})
        for size in sizes:
            for series in dict.fromkeys(outcome.trial.series for outcome in outcomes):
                row: dict[str, Any] = {"set": name, "frames": size, "model": series}
                for quantity, found in curves.items():
                    heading, factor = QUANTITIES[quantity]
                    known = (
                        dict(zip(found[series][0], zip(*found[series][1:], strict=True), strict=True))
                        if series in found
                        else {}
                    )
                    mean, deviation = known.get(size, (None, None))
                    row[heading] = None if mean is None else factor * mean
                    row[heading + PLUS_MINUS] = None if deviation is None else factor * deviation
                if any(row[QUANTITIES[quantity][0]] is not None for quantity in quantities):
                    rows.append(row)
    return [_without_empty(row, rows) for row in rows]


def labels_said(outcomes: Sequence[Outcome], sets: Sequence[str]) -> list[str]:
    """Standard deviations of the labels, a sentence per set."""
    said = []
    for name in sets:
        std = next((outcome.std[name] for outcome in outcomes if name in outcome.std), {})
        parts = [
            f"{QUANTITIES[q][1] * std[q]:.4g} {QUANTITIES[q][0].rpartition(' ')[2]} ({q})" for q in QUANTITIES if q in std
        ]
        said.append(
            f"{name}: standard deviation of the labels {', '.join(parts)}; of energies, of what energies per element leave."
        )
    return said


def sizes_said(outcomes: Sequence[Outcome], sizes: Sequence[int]) -> list[str]:
    """Sizes that a set is too small for, a sentence per set."""
    had: dict[str, set[int]] = {}
    for outcome in outcomes:
        values = outcome.trial.values
        had.setdefault(str(values["set"]), set()).add(int(values["frames"]))
    beyond = {name: sorted(set(sizes) - found) for name, found in had.items()}
    return [
        f"{name} has too few frames for {', '.join(map(str, missing))}: left out."
        for name, missing in beyond.items()
        if missing
    ]


def curve_panels(outcomes: Sequence[Outcome], sets: Sequence[str]) -> list[Panel]:
    """Forces above, energies below, a column per set (of one set, side by side); size 0 is a level across the panel.

    More sets than stand abreast go on below.
    """
    panels = []
    for row, quantity in enumerate(quantity for quantity in ("forces", "energy") if quantity in given(outcomes)):
        heading, factor = QUANTITIES[quantity]
        for at, name in enumerate(sets):
            std = next((outcome.std[name] for outcome in outcomes if name in outcome.std), {})
            lines = [Line(STD, [], [factor * std[quantity]], style="level")] if quantity in std else []
            for series, (sizes, means, stds) in curves_of(outcomes, name, quantity).items():
                y = [factor * mean for mean in means]
                error = [factor * (std or 0.0) for std in stds] if any(stds) else None
                lines.append(Line(series, [], y, style="level") if sizes == [0] else Line(series, sizes, y, error))
            panels.append(Panel(name, "training frames", heading, lines, 2 * (at // _ABREAST) + row if len(sets) > 1 else 0))
    return panels


def equal_error(curve: Curve, reference: Curve) -> list[tuple[int, float, float | None]]:
    """For each point of a curve: its frames, its error, and the frames at which the reference has the same error.

    Between points of the reference log(error) is linear in log(frames). ``inf`` where it never gets there, ``None`` where it
    begins better.
    """
    sizes, errors = np.array(reference[0], float), np.array(reference[1])
    found: list[tuple[int, float, float | None]] = []
    for size, error in zip(curve[0], curve[1], strict=True):
        below = np.flatnonzero(errors <= error)
        if not len(below):
            needed: float | None = math.inf
        elif below[0] == 0:
            needed = None
        else:
            at = int(below[0])
            share = (
                math.log(errors[at - 1] / error) / math.log(errors[at - 1] / errors[at])
                if errors[at] < errors[at - 1]
                else 1.0
            )
            needed = float(sizes[at - 1] * (sizes[at] / sizes[at - 1]) ** share)
        found.append((size, error, needed))
    return found


def _without_empty(row: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Without columns that are empty in every row."""
    return {key: value for key, value in row.items() if any(other[key] is not None for other in rows)}


def _task(name: str) -> str:
    return slug(name).replace(".", "_")
