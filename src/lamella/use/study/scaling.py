"""Error against parameters, data and compute (DPA3 paper: scaling laws; e(N) ∝ N^-α and so on).

N  parameters of the model.
D  frames of the training set.
C  compute in parameters × frames seen (batch × steps): proportional to operations for one architecture and kind of frame.

The models are trained on all data for all steps, the largest model on each part of the data, and every model for each number
of steps. Fits: e(N) over models at all data, e(D) over data with the largest model, e(C) over the frontier of all trainings:
those that no cheaper one beats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lamella.use.study.chart import FIT, Line, Panel
from lamella.use.study.config import STRICT, Distinct, LabelledSet, Size, Source, StudyConfig
from lamella.use.study.curves import from_scratch
from lamella.use.study.powerlaw import PowerLaw, fit_power_law, frontier
from lamella.use.study.report import QUANTITIES, Report, failures
from lamella.use.study.subsets import subsets
from lamella.use.study.trial import Outcome, Study, Trial, slug

__all__ = ["ScalingConfig", "report_scaling", "scaling"]

_AXES = {
    "parameters": "N, parameters",
    "frames": "D, training frames",
    "compute": "C, parameters × frames seen",
}


class ScalingConfig(StudyConfig):
    """``lamella study scaling``."""

    model_config = STRICT

    data: LabelledSet
    models: Annotated[dict[str, Source], Distinct] = Field(min_length=1)
    """From the smallest to the largest."""
    sizes: tuple[Size, ...] = ()
    """Numbers of training frames, below all of them, on which the largest model is trained."""
    lengths: tuple[Size, ...] = ()
    """Numbers of steps, below ``steps``, for which every model is trained."""


def scaling(config: ScalingConfig, folder: Path) -> Study:
    """Three sweeps that meet at the largest model, all data and all steps."""
    sets = {"test": config.data}
    largest = list(config.models)[-1]
    trials = []
    for series, source in config.models.items():
        for steps in sorted({*(n for n in config.lengths if n < config.steps), config.steps}):
            study = config.model_copy(update={"steps": steps})
            make = from_scratch(source, study, sets)
            sizes = config.sizes if series == largest and steps == config.steps else ()
            for seed in config.seeds:
                for size, part in subsets("data", config.data, sizes, True, seed, folder):
                    recipe, task = make("test", {**part, "valid": None, "valid_fraction": 0.0}, seed)
                    label = f"{slug(series)}-{size}-{steps}-s{seed}"
                    values = {"frames": size, "steps": steps, "seed": seed}
                    trials.append(Trial(label, series, values, ("test",), recipe, task=task))
    return Study(trials, {"test": config.data.row()})


def report_scaling(config: ScalingConfig, outcomes: Sequence[Outcome]) -> Report:
    """A line per training; exponents; three panels per quantity."""
    points = [point for outcome in outcomes if (point := _point(outcome)) is not None]
    quantities = [q for q in QUANTITIES if any(q in point for point in points)]
    whole = max((point["frames"] for point in points), default=0)
    largest = list(config.models)[-1]
    rows = [_row(point, quantities) for point in points]
    panels, said = [], []
    for number, quantity in enumerate(quantities[:2]):
        known = [point for point in points if quantity in point]
        full = [point for point in known if point["steps"] == config.steps and point["frames"] == whole]
        data = [point for point in known if point["steps"] == config.steps and point["model"] == largest]
        best = [known[at] for at in frontier([p["compute"] for p in known], [p[quantity] for p in known])]
        for axis, fitted, shown in (("parameters", full, full), ("frames", data, data), ("compute", best, known)):
            law = fit_power_law([p[axis] for p in fitted], [p[quantity] for p in fitted])
            panels.append(_panel(axis, quantity, shown, fitted, law, number))
            said.append(_sentence(axis, quantity, law, len({p[axis] for p in fitted})))
    said += failures(outcomes)
    return Report("Scaling", rows, panels, said)


def _point(outcome: Outcome) -> dict[str, Any] | None:
    """One training as numbers: errors in eV/atom and eV/Å."""
    if "test" not in outcome.scores or "seen" not in outcome.facts:
        return None
    facts, values = outcome.facts, outcome.trial.values
    point: dict[str, Any] = {"model": outcome.trial.series, **values, "parameters": facts["parameters"]}
    point["seen"] = facts["seen"]
    point["compute"] = facts["parameters"] * facts["seen"]
    return point | {name: score.rmse for name, score in outcome.scores["test"].items()}


def _row(point: Mapping[str, Any], quantities: Sequence[str]) -> dict[str, Any]:
    row = {
        "model": point["model"],
        "parameters N": int(point["parameters"]),
        "frames D": point["frames"],
        "steps": point["steps"],
        "seed": point["seed"],
        "frames seen": round(point["seen"]),
        "compute N × seen": point["compute"],
    }
    return row | {QUANTITIES[q][0]: QUANTITIES[q][1] * point[q] if q in point else None for q in quantities}


def _panel(
    axis: str,
    quantity: str,
    shown: Sequence[Mapping[str, Any]],
    fitted: Sequence[Mapping[str, Any]],
    law: PowerLaw | None,
    row: int,
) -> Panel:
    heading, factor = QUANTITIES[quantity]
    lines = []
    for series in dict.fromkeys(point["model"] for point in shown):
        own = [point for point in shown if point["model"] == series]
        lines.append(Line(series, [p[axis] for p in own], [factor * p[quantity] for p in own], style="apart"))
    title = ""
    if law is not None:
        ends = [min(p[axis] for p in fitted), max(p[axis] for p in fitted)]
        lines.append(Line(FIT, ends, [factor * law(x) for x in ends], style="line"))
        title = f"α = {law.exponent:.3f}" + (f" [{law.low:.3f}, {law.high:.3f}]" if math.isfinite(law.low) else "")
    return Panel(title, _AXES[axis], heading, lines, row)


def _sentence(axis: str, quantity: str, law: PowerLaw | None, different: int) -> str:
    what = f"{quantity} error over {_AXES[axis]}"
    if law is None:
        return f"{what}: {different} different value{'s' if different != 1 else ''}, no power law; give more."
    sure = (
        f", 95 % interval [{law.low:.3f}, {law.high:.3f}] by bootstrap"
        if math.isfinite(law.low)
        else ", too few points for an interval"
    )
    return f"{what}: e ∝ x^-α with α = {law.exponent:.3f}{sure}, {law.points} points."
