"""Judge what was trained by the sets of a study; errors are kept, and made again only where something changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from lamella.errors import DataError, LamellaError
from lamella.fields import LABELS
from lamella.formats.load import load
from lamella.train.log import read_log
from lamella.train.prepare import open_data
from lamella.train.state import step_name, write_file
from lamella.use.study.identity import of_respondent, of_step
from lamella.use.study.training import run_path
from lamella.use.study.trial import Outcome, Study, Trial
from lamella.use.table.answer import Learned, Respondent
from lamella.use.table.compare import Score, each
from lamella.use.table.config import SetConfig
from lamella.use.table.reference import respondents
from lamella.use.table.result import Row
from lamella.use.table.run import OnSet, evaluate_sets

__all__ = ["hashes_of", "judge_all"]

_TOGETHER: Final = 8
"""So many models are held at a time."""


def hashes_of(sets: Mapping[str, SetConfig]) -> dict[str, str]:
    """Content of every set, so that what cannot be judged is known before anything is trained.

    Raises:
        DataError: a set that cannot be read, or without labels.
    """
    found = {}
    for name, config in sets.items():
        frames = open_data(config.data, config.keys)
        if not any(name in frame.labels for frame in each(frames) for name in LABELS):
            raise DataError(
                f"{name} ({', '.join(config.data)}): no frame carries an energy, forces or virial; name their keys (keys)."
            )
        fit = "" if config.fit is None else open_data(config.fit, config.keys).content_hash
        found[name] = frames.content_hash + fit
    return found


def judge_all(
    study: Study, folder: Path, hashes: Mapping[str, str], failed: Mapping[str, str], on_set: OnSet | None = None
) -> list[Outcome]:
    """Errors of every trial on its sets, in the order of the study.

    Args:
        study: trials and sets.
        folder: of the study; errors are kept in ``errors/``.
        hashes: content of the sets.
        failed: trainings that came to nothing, and why.
        on_set: to show progress.

    Raises:
        LamellaError: a model that cannot be read.
    """
    found: dict[str, Outcome] = {}
    identities: dict[str, dict[str, Any]] = {}
    groups: dict[tuple[tuple[str, ...], bool], list[Trial]] = {}
    for trial in study.trials:
        if trial.recipe is not None and trial.training in failed:
            found[trial.name] = Outcome(trial, {}, {}, failed={"": failed[trial.training]})
        else:
            identities[trial.name] = _identity(trial, folder, hashes)
            kept = _kept(trial, folder, identities[trial.name])
            if kept is not None:
                found[trial.name] = kept
            else:
                groups.setdefault((trial.sets, trial.zero_shot), []).append(trial)
    for (names, zero_shot), trials in groups.items():
        for start in range(0, len(trials), _TOGETHER):
            some = trials[start : start + _TOGETHER]
            for outcome in _judged(some, folder, _rows(study, names, zero_shot), on_set):
                _keep(outcome, folder, identities[outcome.trial.name])
                found[outcome.trial.name] = outcome
    return [found[trial.name] for trial in study.trials]


def _rows(study: Study, names: Sequence[str], zero_shot: bool) -> dict[str, SetConfig]:
    change: dict[str, Any] = {"baseline": "refit"} if zero_shot else {"baseline": "keep", "fit": None}
    return {name: study.sets[name].model_copy(update=change) for name in names}


def _judged(trials: Sequence[Trial], folder: Path, sets: Mapping[str, SetConfig], on_set: OnSet | None) -> list[Outcome]:
    asked: dict[str, Respondent] = {}
    found: dict[str, Outcome] = {}
    for trial in trials:
        try:
            asked[trial.name] = _respondent(trial, folder)
        except LamellaError as error:
            found[trial.name] = Outcome(trial, {}, {}, failed={"": str(error)})
    rows = evaluate_sets(sets, list(asked.values()), on_set).rows if asked else []
    for trial in trials:
        if trial.name in asked:
            found[trial.name] = _outcome(trial, rows, _facts(trial, folder, asked[trial.name]))
    return [found[trial.name] for trial in trials]


def _respondent(trial: Trial, folder: Path) -> Respondent:
    if trial.recipe is not None:
        last = _last_step(trial, folder)
        return Learned(trial.name, str(last), load(last, _device(trial.recipe.device)), trial.task)
    model = _ready(trial)
    if isinstance(model, Learned) and trial.task is not None:
        return Learned(trial.name, model.origin, model.potential, trial.task)
    return model


def _ready(trial: Trial) -> Respondent:
    assert trial.model is not None
    return respondents({trial.name: trial.model}, device=_device("auto"), functions=True)[0]


def _last_step(trial: Trial, folder: Path) -> Path:
    """The last step of its training: nothing was chosen by looking at frames."""
    assert trial.recipe is not None
    return run_path(folder, trial) / step_name(trial.recipe.training.steps)


def _device(wanted: str) -> str:
    """Where a recipe's training ran: errors are taken there too."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _outcome(trial: Trial, rows: Sequence[Row], facts: Mapping[str, float]) -> Outcome:
    cells = {row.name: row.cells[trial.name] for row in rows}
    scores = {name: cell.compared.scores for name, cell in cells.items() if cell.compared is not None}
    failed = {name: cell.why_not for name, cell in cells.items() if cell.why_not is not None}
    return Outcome(trial, scores, {row.name: row.labels.std for row in rows}, facts, failed)


def _facts(trial: Trial, folder: Path, model: Respondent) -> dict[str, float]:
    """What is known of a model beside its errors."""
    facts: dict[str, float] = {}
    if isinstance(model, Learned):
        facts["parameters"] = sum(parameter.numel() for parameter in model.potential.parameters())
    if trial.recipe is None:
        return facts
    facts["steps"] = trial.recipe.training.steps
    log = [record for record in read_log(run_path(folder, trial)) if record.get("event") == "train"]
    if log:
        facts["seconds"] = float(log[-1]["seconds"])
        facts["batch"] = sum(float(record["frames"]) for record in log) / len(log)
        facts["seen"] = facts["batch"] * facts["steps"] * trial.recipe.training.tasks_per_step
    return facts


def _identity(trial: Trial, folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What errors depend on: the model, and the frames they were taken on.

    Raises:
        LamellaError: a ready model that cannot be read.
    """
    return {
        "model": of_step(_last_step(trial, folder)) if trial.recipe is not None else of_respondent(_ready(trial)),
        "task": trial.task,
        "zero_shot": trial.zero_shot,
        "sets": {name: hashes[name] for name in trial.sets},
    }


def _file(trial: Trial, folder: Path) -> Path:
    return folder / "errors" / f"{trial.name}.json"


def _keep(outcome: Outcome, folder: Path, identity: Mapping[str, Any]) -> None:
    path = _file(outcome.trial, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = {name: {each: asdict(score) for each, score in found.items()} for name, found in outcome.scores.items()}
    content = {"of": identity, "scores": scores, "std": {name: dict(std) for name, std in outcome.std.items()}}
    content |= {"facts": dict(outcome.facts), "failed": dict(outcome.failed)}
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _kept(trial: Trial, folder: Path, identity: Mapping[str, Any]) -> Outcome | None:
    """Errors of an earlier session, where nothing they depend on has changed and there are some."""
    path = _file(trial, folder)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["of"] != json.loads(json.dumps(identity)) or content["failed"]:
        return None
    scores = {
        name: {each: Score(*score.values()) for each, score in found.items()} for name, found in content["scores"].items()
    }
    return Outcome(trial, scores, content["std"], content["facts"])
