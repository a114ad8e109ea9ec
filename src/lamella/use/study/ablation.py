"""Parts of a model removed one after the other (DPA-2 paper, Table S5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from lamella.errors import RecipeError
from lamella.train.prepare import open_data
from lamella.train.recipe import Recipe
from lamella.use.study.chart import Line, Panel
from lamella.use.study.config import STRICT, Distinct, LabelledSet, Source, StudyConfig, recipe_of
from lamella.use.study.errors import given, mean_error
from lamella.use.study.report import QUANTITIES, Report, failures
from lamella.use.study.trial import Outcome, Study, Trial, slug
from lamella.use.table.compare import each, elements_of

__all__ = ["AblationConfig", "ablation", "report_ablation"]

FULL: Final = "full"


class Removal(BaseModel):
    """One part, and the settings that remove it."""

    model_config = STRICT

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

    sets: Annotated[dict[str, LabelledSet], Distinct] = Field(min_length=1)
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
    kind = _recipe(config, (), elements, config.seeds[0]).model.backbone.kind
    if "remove" not in config.model_fields_set and kind != "dpa2":
        raise RecipeError(
            f"remove: where it is not given, parts of DPA-2 are removed, but {config.recipe.recipe} is of kind {kind}; name "
            "its parts: remove: {CHANNEL: [{part: NAME, set: [KEY=VALUE]}]}."
        )
    trials = []
    for seed in config.seeds:
        trials.append(_trial(config, FULL, (), elements, seed))
        for channel, parts in config.remove.items():
            gone: tuple[str, ...] = ()
            for removal in parts:
                gone += removal.set
                trials.append(_trial(config, _series(channel, removal), gone, elements, seed))
    return Study(trials, {name: labelled.row() for name, labelled in config.sets.items()})


def report_ablation(config: AblationConfig, outcomes: Sequence[Outcome]) -> Report:
    """By how much errors rise at each removal, averaged over the sets."""
    quantities = given(outcomes)
    averages = {
        quantity: {series: _average(config, outcomes, series, quantity) for series in _all_series(config)}
        for quantity in quantities
    }
    rows: list[dict[str, Any]] = []
    for channel, parts in config.remove.items():
        before = FULL
        for removal in parts:
            name = _series(channel, removal)
            row: dict[str, Any] = {"channel": channel, "removed": removal.part}
            for quantity, known in averages.items():
                now, then = known[name], known[before]
                row[f"rise of {QUANTITIES[quantity][0]}"] = None if now is None or then is None else now - then
                row[QUANTITIES[quantity][0]] = now
            rows.append(row)
            before = name
    panels = [
        _panel(
            channel, [(FULL, FULL), *((removal.part, _series(channel, removal)) for removal in parts)], known, at, quantity
        )
        for at, (quantity, known) in enumerate(averages.items())
        for channel, parts in config.remove.items()
    ]
    of_full = ", ".join(f"{QUANTITIES[q][0]} {known[FULL]:.4g}" for q, known in averages.items() if known[FULL] is not None)
    said = [
        f"Errors are plain means over the test frames of {', '.join(config.sets)}; of the full model: {of_full}.",
        f"Every model makes {config.steps} steps; each part is removed together with those above it in its channel.",
        *failures(outcomes),
    ]
    return Report("Ablation", rows, panels, said)


def _panel(
    channel: str, steps: Sequence[tuple[str, str]], known: Mapping[str, float | None], row: int, quantity: str
) -> Panel:
    """Errors of one channel, cut shorter and shorter; ``steps`` are what is removed, and the series' name."""
    points = [(part, value) for part, series in steps if (value := known[series]) is not None]
    line = Line(channel, [part for part, _ in points], [value for _, value in points])
    return Panel(channel, "removed one after the other", QUANTITIES[quantity][0], [line], row, log_y=False)


def _series(channel: str, removal: Removal) -> str:
    return f"{channel}: {removal.part}"


def _all_series(config: AblationConfig) -> list[str]:
    return [FULL, *(_series(channel, removal) for channel, parts in config.remove.items() for removal in parts)]


def _trial(config: AblationConfig, series: str, gone: Sequence[str], elements: Sequence[str], seed: int) -> Trial:
    recipe = _recipe(config, gone, elements, seed)
    return Trial(f"{slug(series)}-s{seed}", series, {"seed": seed}, tuple(config.sets), recipe)


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
    """Plain mean over the sets that carry the label; ``None`` where one is missing: others would be compared with all."""
    labelled = [name for name in config.sets if any(quantity in outcome.std.get(name, {}) for outcome in outcomes)]
    means = [mean_error(outcomes, series, name, quantity) for name in labelled]
    known = [mean for mean, _ in (found for found in means if found is not None)]
    return sum(known) / len(known) if known and len(known) == len(labelled) else None
