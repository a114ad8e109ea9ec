"""Fine-tuning from each head of a model, and from a random one (DPA-2 paper, Fig. S2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lamella.errors import RecipeError, nearest
from lamella.formats.load import load
from lamella.train.adapt.config import RANDOM
from lamella.use.study.config import STRICT, Distinct, LabelledSet, Size, StudyConfig
from lamella.use.study.curves import (
    Pretrained,
    curve_panels,
    curve_rows,
    curves_of,
    finetuned,
    labels_said,
    sampled,
    sizes_said,
)
from lamella.use.study.report import Report, failures
from lamella.use.study.trial import Outcome, Study

__all__ = ["HeadsConfig", "heads", "report_heads"]


class HeadsConfig(StudyConfig):
    """``lamella study heads``."""

    model_config = STRICT

    sets: Annotated[dict[str, LabelledSet], Distinct] = Field(min_length=1)
    model: Pretrained
    """What is fine-tuned; its ``head`` is not read."""
    heads: tuple[str, ...] | None = None
    """Tasks whose heads are tried; null tries every one."""
    random: bool = True
    """Whether a random head is tried too."""
    sizes: tuple[Size, ...] = (10, 100, 1000)
    whole: bool = True


def heads(config: HeadsConfig, folder: Path) -> Study:
    """A learning curve for each head."""
    potential = load(config.model.model)
    chosen = list(config.heads) if config.heads is not None else list(potential.tasks)
    for head in chosen:
        if head not in potential.tasks:
            known = ", ".join(potential.tasks)
            raise RecipeError(f"heads: the model has no task {head!r}{nearest(head, potential.tasks)}; it has {known}.")
    makers = {head: finetuned(config.model.model_copy(update={"head": head}), config, potential) for head in chosen}
    if config.random:
        makers[f"{RANDOM} head"] = finetuned(config.model.model_copy(update={"head": RANDOM}), config, potential)
    trials = sampled(config.sets, (config.sizes, config.whole), config, folder, makers)
    return Study(trials, {name: labelled.row() for name, labelled in config.sets.items()})


def report_heads(config: HeadsConfig, outcomes: Sequence[Outcome]) -> Report:
    """Curves, and how far apart heads are at each size."""
    said = [f"Every training makes {config.steps} steps from {config.model.model}; names are of the heads it starts from."]
    said += labels_said(outcomes, list(config.sets)) + sizes_said(outcomes, config.sizes)
    for name in config.sets:
        curves = curves_of(outcomes, name, "forces")
        sizes = sorted({size for sizes, _, _ in curves.values() for size in sizes})
        parts = []
        for size in sizes:
            errors = [means[known.index(size)] for known, means, _ in curves.values() if size in known]
            parts.append(f"{max(errors) / min(errors):.2f} at {size} frames")
        if parts and len(curves) > 1:
            said.append(f"{name}: the worst head's force error divided by the best one's is {', '.join(parts)}.")
    said += failures(outcomes)
    return Report(
        "Choice of the head", curve_rows(outcomes, list(config.sets)), curve_panels(outcomes, list(config.sets)), said
    )
