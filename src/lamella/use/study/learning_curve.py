"""Sample efficiency (DPA-2 paper, Fig. 3 and S1): error over the number of training frames, at the same number of steps.

Every size is trained for the same number of steps, so that small sets are seen more often: the paper divides a fixed number
of steps by the number of frames to get epochs. Models that are pre-trained are compared with others that begin with random
weights, on the same nested subsets, by the same test frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, model_validator

from lamella.formats.load import load
from lamella.models.potential import Potential
from lamella.train.adapt.heads import rank_heads
from lamella.train.adapt.judge import some_frames
from lamella.train.prepare import open_data
from lamella.use.study.config import STRICT, Distinct, LabelledSet, Size, Source, StudyConfig
from lamella.use.study.curves import (
    Pretrained,
    curve_panels,
    curve_rows,
    curves_of,
    equal_error,
    finetuned,
    from_scratch,
    labels_said,
    sampled,
    sizes_said,
)
from lamella.use.study.report import Report, failures
from lamella.use.study.trial import Outcome, Study, Trial, slug

__all__ = ["LearningCurveConfig", "learning_curve", "report_learning_curve"]

_RANKED: Final = 64
"""So many training frames choose the head that answers zero-shot."""


class LearningCurveConfig(StudyConfig):
    """``lamella study learning-curve``."""

    model_config = STRICT

    sets: Annotated[dict[str, LabelledSet], Distinct] = Field(min_length=1)
    sizes: tuple[Size, ...] = (10, 30, 100, 300, 1000)
    whole: bool = True
    """Whether all frames of a set come last."""
    pretrained: Annotated[dict[str, Pretrained], Distinct] = Field({})
    """Models to fine-tune, by the name of their line."""
    scratch: Annotated[dict[str, Source], Distinct] = Field({})
    """Architectures that begin with random weights."""
    zero_shot: bool = True
    """Whether the models to fine-tune are judged as they are too, their energies per element refitted to the test frames."""

    @model_validator(mode="after")
    def _something(self) -> LearningCurveConfig:
        names = [*self.pretrained, *self.scratch]
        if not names:
            raise ValueError("give models to fine-tune (pretrained) or architectures to train from scratch (scratch)")
        if len(set(names)) < len(names):
            raise ValueError("a name stands in pretrained and in scratch; give each line a name of its own")
        return self


def learning_curve(config: LearningCurveConfig, folder: Path) -> Study:
    """All trainings: sets × sizes × seeds × lines, and the pre-trained models as they are."""
    loaded = {name: load(source.model) for name, source in config.pretrained.items()}
    makers = {name: finetuned(source, config, loaded[name]) for name, source in config.pretrained.items()}
    makers |= {name: from_scratch(source, config, config.sets) for name, source in config.scratch.items()}
    trials = sampled(config.sets, (config.sizes, config.whole), config, folder, makers)
    for name, source in config.pretrained.items() if config.zero_shot else ():
        for each, labelled in config.sets.items():
            label = f"{slug(each)}-{slug(name)}-zero-shot"
            values: dict[str, float | str] = {"set": each, "frames": 0}
            task = _answering(loaded[name], source.head, labelled)
            trials.append(Trial(label, f"{name}, zero-shot", values, (each,), None, source.model, task, zero_shot=True))
    return Study(trials, {name: labelled.row() for name, labelled in config.sets.items()})


def _answering(potential: Potential, head: str, labelled: LabelledSet) -> str:
    """The task that answers zero-shot: the one that lends its head, chosen on training frames alone."""
    if head in potential.tasks:
        return head
    if len(potential.tasks) == 1:
        return potential.tasks[0]
    return rank_heads(potential, some_frames(open_data(labelled.train, labelled.keys), _RANKED, 1))[0].task


def report_learning_curve(config: LearningCurveConfig, outcomes: Sequence[Outcome]) -> Report:
    """Curves, and how many frames training from scratch needs for the same error."""
    said = [f"Every training makes {config.steps} steps, whatever the number of frames; the last step is judged."]
    said += labels_said(outcomes, list(config.sets)) + sizes_said(outcomes, config.sizes)
    for name in config.sets:
        for quantity in ("forces", "energy"):
            curves = curves_of(outcomes, name, quantity)
            for tuned in config.pretrained:
                for plain in config.scratch:
                    if tuned in curves and plain in curves:
                        points = equal_error(curves[tuned], curves[plain])
                        said.append(f"{name}, {quantity}: {_savings(tuned, plain, points)}")
    said += failures(outcomes)
    return Report(
        "Learning curves", curve_rows(outcomes, list(config.sets)), curve_panels(outcomes, list(config.sets)), said
    )


def _savings(tuned: str, plain: str, points: Sequence[tuple[int, float, float | None]]) -> str:
    """In words, how many frames the other needs for the same error."""
    parts = []
    for size, _, needed in points:
        if needed is None:
            parts.append(f"with {size} frames: fewer than its smallest set")
        elif math.isinf(needed):
            parts.append(f"with {size} frames: more than its largest set")
        else:
            parts.append(f"with {size} frames: {needed:.0f} ({needed / size:.1f} ×)")
    return f"{plain} needs for the error of {tuned} {'; '.join(parts)}."
