"""Architectures on the same data for the same steps, beside calculators that are ready (DPA-2 paper, Tables S1 and S2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from lamella.use.study.chart import Line, Panel
from lamella.use.study.config import STRICT, LabelledSet, Source, StudyConfig
from lamella.use.study.curves import from_scratch
from lamella.use.study.report import QUANTITIES, Report, averaged, failures, spread
from lamella.use.study.trial import Outcome, Study, Trial, slug
from lamella.use.table.averages import AVERAGES

__all__ = ["BenchmarkConfig", "benchmark", "report_benchmark"]


class BenchmarkConfig(StudyConfig):
    """``lamella study benchmark``."""

    model_config = STRICT

    sets: dict[str, LabelledSet] = Field(min_length=1)
    models: dict[str, Source] = Field(min_length=1)
    """Architectures: one training for each set."""
    references: dict[str, str] = Field({})
    """Ready models as ``lamella table`` takes them, ASE calculators above all; their energies per element are refitted."""

    @model_validator(mode="after")
    def _names(self) -> BenchmarkConfig:
        both = set(self.models) & set(self.references)
        if both:
            raise ValueError(f"{min(both)} stands in models and in references; give each a name of its own")
        return self


def benchmark(config: BenchmarkConfig, folder: Path) -> Study:
    """A training for every set, architecture and seed."""
    trials = []
    for series, source in config.models.items():
        make = from_scratch(source, config, config.sets)
        for name, labelled in config.sets.items():
            part = {"train": list(labelled.train), "keys": labelled.keys.model_dump(), "valid": None, "valid_fraction": 0.0}
            for seed in config.seeds:
                recipe, task = make(name, part, seed)
                label = f"{slug(name)}-{slug(series)}-s{seed}"
                trials.append(Trial(label, series, {"set": name, "seed": seed}, (name,), recipe, task=task))
    for series, reference in config.references.items():
        for name in config.sets:
            label = f"{slug(name)}-{slug(series)}"
            trials.append(Trial(label, series, {"set": name}, (name,), None, reference, zero_shot=True))
    return Study(trials, {name: labelled.row() for name, labelled in config.sets.items()})


def report_benchmark(config: BenchmarkConfig, outcomes: Sequence[Outcome]) -> Report:
    """Table S2: a line per set, the weighted averages last."""
    series = [*config.models, *config.references]
    quantities = [q for q in QUANTITIES if any(q in scores for o in outcomes for scores in o.scores.values())]
    std = {name: found for o in outcomes for name, found in o.std.items()}
    rows: list[dict[str, Any]] = []
    panels = []
    for name, labelled in config.sets.items():
        row: dict[str, Any] = {"set": name, "weight": labelled.weight}
        for quantity in quantities:
            heading, factor = QUANTITIES[quantity]
            level = std.get(name, {}).get(quantity)
            row[f"{heading}: std"] = None if level is None else factor * level
            for each in series:
                errors = [o.rmse(name, quantity) for o in outcomes if o.trial.series == each and name in o.trial.sets]
                known = [error for error in errors if error is not None]
                row[f"{heading}: {each}"] = factor * spread(known)[0] if known else None
        rows.append(row)
    for quantity in quantities[:2]:
        heading = QUANTITIES[quantity][0]
        lines = []
        for each in series:
            points = [(row["set"], row[f"{heading}: {each}"]) for row in rows if row[f"{heading}: {each}"] is not None]
            lines.append(Line(each, [name for name, _ in points], [value for _, value in points], style="apart"))
        panels.append(Panel("", "", heading, lines))
    rows += [averaged(rows, kind) for kind in AVERAGES]
    said = [
        f"Every training makes {config.steps} steps from random weights; its last step is judged, with its own energies."
    ]
    if config.references:
        said.append(
            f"Of {', '.join(config.references)}, which are ready, energies per element are refitted to the test frames."
        )
    said += _sizes(outcomes, config.models)
    return Report("Architectures", rows, panels, [*said, *failures(outcomes)])


def _sizes(outcomes: Sequence[Outcome], models: Sequence[str] | dict[str, Any]) -> list[str]:
    """Parameters and time of training by architecture."""
    said = []
    for series in models:
        facts = [o.facts for o in outcomes if o.trial.series == series and "parameters" in o.facts]
        if facts:
            size = max(each["parameters"] for each in facts)
            seconds = [each["seconds"] for each in facts if "seconds" in each]
            time = f", {sum(seconds) / len(seconds):.1f} s a training" if seconds else ""
            said.append(f"{series}: {size:,.0f} parameters{time}.")
    return said
