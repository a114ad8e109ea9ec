"""Parts of a model removed one after the other (DPA-2 paper, Table S5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from lamella.train.prepare import open_data
from lamella.train.recipe import Recipe
from lamella.use.study.chart import Line, Panel
from lamella.use.study.config import STRICT, LabelledSet, Source, StudyConfig, recipe_of
from lamella.use.study.report import QUANTITIES, Report, failures, spread
from lamella.use.study.trial import Outcome, Study, Trial, slug
from lamella.use.table.compare import each, elements_of

__all__ = ["AblationConfig", "ablation", "report_ablation"]

FULL: Final = "full"


class Removal(BaseModel):
    """One part, and the settings that remove it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    part: str
    set: tuple[str, ...] = Field(min_length=1)


def _repformer(*parts: str) -> tuple[Removal, ...]:
    return tuple(Removal(part=part, set=(f"model.backbone.repformer.{part}=false",)) for part in parts)


TABLE_S5: Final = {
    "single-atom channel": _repformer("conv", "sym_f", "sym_g", "local_attention"),
    "pair channel": _repformer("prod_f", "gate", "attention"),
}
"""The two sequences of the paper."""


class AblationConfig(StudyConfig):
    """``lamella study ablation``."""

    model_config = STRICT

    sets: dict[str, LabelledSet] = Field(min_length=1)
    """All of them train one model, each a task."""
    recipe: Source
    """Of the full model; a DPA-2 unless ``remove`` is given."""
    remove: dict[str, tuple[Removal, ...]] = TABLE_S5
    """Sequences of parts, by name; each part is removed together with those before it."""


def ablation(config: AblationConfig, folder: Path) -> Study:
    """The full model, and every sequence cut shorter and shorter."""
    elements = elements_of(
        frame
        for labelled in config.sets.values()
        for frame in each(open_data((*labelled.train, *labelled.test), labelled.keys))
    )
    trials = []
    for seed in config.seeds:
        trials.append(_trial(config, "", (), elements, seed))
        for channel, parts in config.remove.items():
            gone: tuple[str, ...] = ()
            for removal in parts:
                gone += removal.set
                trials.append(_trial(config, f"{channel}: {removal.part}", gone, elements, seed))
    return Study(trials, {name: labelled.row() for name, labelled in config.sets.items()})


def report_ablation(config: AblationConfig, outcomes: Sequence[Outcome]) -> Report:
    """By how much errors rise at each removal, averaged over the sets."""
    quantities = [q for q in QUANTITIES if any(q in scores for o in outcomes for scores in o.scores.values())]
    rows: list[dict[str, Any]] = []
    panels = []
    for channel, parts in config.remove.items():
        before = FULL
        for removal in parts:
            name = f"{channel}: {removal.part}"
            row: dict[str, Any] = {"channel": channel, "removed": removal.part}
            for quantity in quantities:
                heading, factor = QUANTITIES[quantity]
                now, then = _average(config, outcomes, name, quantity), _average(config, outcomes, before, quantity)
                row[f"rise of {heading}"] = None if now is None or then is None else factor * (now - then)
                row[heading] = None if now is None else factor * now
            rows.append(row)
            before = name
    full = {quantity: _average(config, outcomes, FULL, quantity) for quantity in quantities}
    for quantity in quantities[:2]:
        heading, factor = QUANTITIES[quantity]
        lines = []
        for channel, parts in config.remove.items():
            names = [FULL, *(f"{channel}: {removal.part}" for removal in parts)]
            values = [_average(config, outcomes, name, quantity) for name in names]
            known = [
                (name.partition(": ")[2] or FULL, factor * v) for name, v in zip(names, values, strict=True) if v is not None
            ]
            lines.append(Line(channel, [name for name, _ in known], [value for _, value in known]))
        panels.append(Panel("removed one after the other", "", heading, lines, log_y=False))
    of_full = ", ".join(f"{QUANTITIES[q][0]} {QUANTITIES[q][1] * v:.4g}" for q, v in full.items() if v is not None)
    said = [
        f"Errors are plain means over the test frames of {', '.join(config.sets)}; of the full model: {of_full}.",
        f"Every model makes {config.steps} steps; each part is removed together with those above it in its channel.",
        *failures(outcomes),
    ]
    return Report("Ablation", rows, panels, said)


def _trial(config: AblationConfig, name: str, gone: Sequence[str], elements: Sequence[str], seed: int) -> Trial:
    series = name or FULL
    recipe = _recipe(config, gone, elements, seed)
    sets = tuple(config.sets)
    return Trial(f"{slug(series)}-s{seed}", series, {"seed": seed}, sets, recipe)


def _recipe(config: AblationConfig, gone: Sequence[str], elements: Sequence[str], seed: int) -> Recipe:
    source = config.recipe.model_copy(update={"set": (*config.recipe.set, *gone)})
    tasks = {
        name: {
            "train": list(labelled.train),
            "keys": labelled.keys.model_dump(),
            "weight": labelled.weight,
            "valid": None,
            "valid_fraction": 0.0,
        }
        for name, labelled in config.sets.items()
    }
    return recipe_of(source, tasks, config, seed, elements)


def _average(config: AblationConfig, outcomes: Sequence[Outcome], series: str, quantity: str) -> float | None:
    """Plain mean over sets, of the mean over seeds; sets without the label are left out."""
    means = []
    for name in config.sets:
        errors = [o.rmse(name, quantity) for o in outcomes if o.trial.series == series]
        known = [error for error in errors if error is not None]
        if known:
            means.append(spread(known)[0])
        elif any(quantity in std for o in outcomes for key, std in o.std.items() if key == name):
            return None  # a mean over other sets would be compared with one over all
    return sum(means) / len(means) if means else None
