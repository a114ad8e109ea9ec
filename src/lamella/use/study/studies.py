"""All studies by name: what each reads, what it trains, what it reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from lamella.errors import InputError, nearest
from lamella.train.explain import explain
from lamella.train.recipe import read_mapping, set_key
from lamella.use.study.ablation import AblationConfig, ablation, report_ablation
from lamella.use.study.benchmark import BenchmarkConfig, benchmark, report_benchmark
from lamella.use.study.drift import DriftConfig, drift, plan_drift
from lamella.use.study.heads import HeadsConfig, heads, report_heads
from lamella.use.study.judging import hashes_of, judge_all
from lamella.use.study.learning_curve import LearningCurveConfig, learning_curve, report_learning_curve
from lamella.use.study.report import Report, write_report, write_settings
from lamella.use.study.scaling import ScalingConfig, report_scaling, scaling
from lamella.use.study.tasks import TasksConfig, report_tasks, tasks_study
from lamella.use.study.training import recipe_path, train_all, write_recipes
from lamella.use.study.trial import Outcome, Study, Work

__all__ = ["STUDIES", "Definition", "plan_study", "read_config", "run_study"]


class Definition(NamedTuple):
    """A study of trainings.

    Attributes:
        config: class of its settings.
        build: settings and folder -> what is trained and judged.
        report: settings and outcomes -> what was found.
    """

    config: type[BaseModel]
    build: Callable[[Any, Path], Study]
    report: Callable[[Any, Sequence[Outcome]], Report]


STUDIES: Final[dict[str, Definition]] = {
    "learning-curve": Definition(LearningCurveConfig, learning_curve, report_learning_curve),
    "tasks": Definition(TasksConfig, tasks_study, report_tasks),
    "benchmark": Definition(BenchmarkConfig, benchmark, report_benchmark),
    "heads": Definition(HeadsConfig, heads, report_heads),
    "ablation": Definition(AblationConfig, ablation, report_ablation),
    "scaling": Definition(ScalingConfig, scaling, report_scaling),
}
"""By name; ``drift`` trains nothing and is apart."""

_DRIFT: Final = "drift"


def read_config(kind: str, file: Path | None, overrides: Sequence[str]) -> BaseModel:
    """Settings of a study.

    Args:
        kind: name of the study.
        file: YAML or JSON; none where all is said by ``overrides``.
        overrides: ``key=value`` with a dotted key; they win over the file.

    Raises:
        RecipeError: a file that cannot be read, or a key or value that is wrong.
        InputError: no such study.
    """
    content = read_mapping(file) if file is not None else {}
    for override in overrides:
        set_key(content, override)
    config = _config(kind)
    try:
        return config.model_validate(content)
    except ValidationError as error:
        raise explain(error, config, content, str(file) if file is not None else f"lamella study {kind}") from None


def plan_study(kind: str, config: BaseModel, folder: Path) -> list[str]:
    """Write the recipes of a study, and say what it would train; nothing is trained."""
    if kind == _DRIFT:
        assert isinstance(config, DriftConfig)
        return plan_drift(config)
    study, _ = _built(kind, config, folder)
    trained = {trial.training: trial for trial in study.trials if trial.recipe is not None}
    steps = sum(trial.recipe.training.steps for trial in trained.values() if trial.recipe is not None)
    lines = [f"{len(trained)} trainings, {steps} steps in all; {len(study.trials)} models judged by {len(study.sets)} sets"]
    return lines + [str(recipe_path(folder, trial)) for trial in trained.values()]


def run_study(kind: str, config: BaseModel, folder: Path, work: Work) -> Path:
    """Train, judge, report. What an earlier session finished is kept; what it began goes on.

    Args:
        kind: name of the study.
        config: its settings.
        folder: for everything the study writes.
        work: how.

    Returns:
        The page.

    Raises:
        Interrupted: asked to stop; the same call goes on.
        LamellaError: data, recipes or models that cannot be used.
    """
    if kind == _DRIFT:
        assert isinstance(config, DriftConfig)
        write_settings(config, folder)
        report = drift(config, folder, work)
    else:
        study, hashes = _built(kind, config, folder)
        failed = train_all(study.trials, folder, work.jobs, work.say)
        report = STUDIES[kind].report(config, judge_all(study, folder, hashes, failed, work.on_set))
    return write_report(report, folder, f"lamella study {kind}")


def _built(kind: str, config: BaseModel, folder: Path) -> tuple[Study, dict[str, str]]:
    """The study, and what its test frames are; its recipes and settings are written, and what can fail early has."""
    study = STUDIES[kind].build(config, folder)
    names = Counter(trial.name for trial in study.trials)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(f"two models of the study would both be called {twice[0]}; choose names that differ in letters.")
    hashes = hashes_of(study.sets)
    write_recipes(study.trials, folder)
    write_settings(config, folder)
    return study, hashes


def _config(kind: str) -> type[BaseModel]:
    if kind == _DRIFT:
        return DriftConfig
    if kind not in STUDIES:
        raise InputError(f"there is no study {kind!r}{nearest(kind, STUDIES)}; there are {', '.join([*STUDIES, _DRIFT])}.")
    return STUDIES[kind].config
