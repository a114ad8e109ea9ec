"""Architectures on the same data for the same steps, beside calculators that are ready (DPA-2 paper, Tables S1 and S2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from lamella.data.keys import LabelKeys
from lamella.errors import nearest
from lamella.train.paths import Paths
from lamella.use.study.config import STRICT, Distinct, LabelledSet, Reference, Source, StudyConfig
from lamella.use.study.curves import from_scratch
from lamella.use.study.errors import average_rows, averages_said, error_panel, error_rows, given
from lamella.use.study.report import Report, failures
from lamella.use.study.trial import Outcome, Study, Trial, slug
from lamella.use.table.config import Baseline, SetConfig
from lamella.use.table.reference import respondents

__all__ = ["BenchmarkConfig", "benchmark", "report_benchmark"]


class Other(BaseModel):
    """Frames that models of one set are judged by too."""

    model_config = STRICT

    data: Paths
    trained_on: str
    """Which set's models."""
    keys: LabelKeys = LabelKeys()
    baseline: Baseline = "keep"
    """Energies of these models: keep where the labels are of the same source, else refit."""


class BenchmarkConfig(StudyConfig):
    """``lamella study benchmark``."""

    model_config = STRICT

    sets: Annotated[dict[str, LabelledSet], Distinct] = Field(min_length=1)
    models: Annotated[dict[str, Source], Distinct] = Field(min_length=1)
    """Architectures: one training for each set."""
    references: Annotated[dict[str, Reference], Distinct] = Field({})
    """Ready models as ``lamella table`` takes them, ASE calculators above all; their energies per element are refitted."""

    also: Annotated[dict[str, Other], Distinct] = Field({})
    """Other frames, each for the models of one set (Table S1)."""

    @model_validator(mode="after")
    def _names(self) -> BenchmarkConfig:
        unknown = [other.trained_on for other in self.also.values() if other.trained_on not in self.sets]
        if unknown:
            raise ValueError(f"also: there is no set {unknown[0]!r}{nearest(unknown[0], self.sets)} to be trained on")
        if twice := set(self.also) & set(self.sets):
            raise ValueError(f"{min(twice)} stands in sets and in also; give each a name of its own")
        both = set(self.models) & set(self.references)
        if both:
            raise ValueError(f"{min(both)} stands in models and in references; give each a name of its own")
        return self


def benchmark(config: BenchmarkConfig, folder: Path) -> Study:
    """A training for every set, architecture and seed, judged by its set and by others."""
    respondents(config.references, functions=True)  # what cannot be made is known before anything is trained
    trials = []
    for series, source in config.models.items():
        make = from_scratch(source, config, config.sets)
        for name, labelled in config.sets.items():
            part = {"train": list(labelled.train), "keys": labelled.keys.model_dump(), "valid": None, "valid_fraction": 0.0}
            for seed in config.seeds:
                recipe, task = make(name, part, seed)
                label = f"{slug(name)}-{slug(series)}-s{seed}"
                trials.append(Trial(label, series, {"set": name, "seed": seed}, (name,), recipe, task=task))
                for on, other in config.also.items():
                    if other.trained_on == name:
                        values: dict[str, float | str] = {"set": on, "seed": seed}
                        refit = other.baseline == "refit"
                        trials.append(
                            Trial(f"{label}-on-{slug(on)}", series, values, (on,), recipe, None, task, refit, label)
                        )
    for series, reference in config.references.items():
        for name in (*config.sets, *config.also):
            label = f"{slug(name)}-{slug(series)}"
            trials.append(Trial(label, series, {"set": name}, (name,), None, reference, zero_shot=True))
    sets = {name: labelled.row() for name, labelled in config.sets.items()}
    sets |= {name: SetConfig(data=other.data, keys=other.keys, weight=0.0) for name, other in config.also.items()}
    return Study(trials, sets)


def report_benchmark(config: BenchmarkConfig, outcomes: Sequence[Outcome]) -> Report:
    """Table S2, and below it Table S1: a line per set and the averages, then the other frames, which are in none."""
    series = [*config.models, *config.references]
    weights = {name: labelled.weight for name, labelled in config.sets.items()}
    rows = error_rows(outcomes, weights, series)
    said = averages_said(rows)
    rows += average_rows(rows)
    rows += error_rows(outcomes, dict.fromkeys(config.also, 0.0), series)
    names = [*config.sets, *config.also]
    panels = [error_panel(outcomes, names, series, quantity) for quantity in given(outcomes)[:2]]
    said.insert(
        0, f"Every training makes {config.steps} steps from random weights; its last step is judged, with its own energies."
    )
    said += [f"{name}: judged by the models trained on {other.trained_on}." for name, other in config.also.items()]
    if config.references:
        said.append(
            f"Ready models ({', '.join(config.references)}): their energies per element are refitted to the test frames."
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
