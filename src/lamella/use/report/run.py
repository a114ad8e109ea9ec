"""What a run folder says of itself, read without guessing: what is missing is a sentence, not an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel, ValidationError

from lamella.errors import CheckpointError
from lamella.train.log import LOG, read_log
from lamella.use.report.records import Dynamics, Evaluated, Laws

__all__ = ["History", "Run", "histories", "read_run"]

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class History:
    """One task's learning curve on one kind of data.

    Attributes:
        task: name of the task.
        split: ``"train"`` or ``"valid"``.
        step: (n,) optimiser steps done.
        seconds: (n,) wall time since the start, s.
        values: (n,) by quantity: ``loss``, ``energy`` and ``virial`` (eV/atom), ``forces`` (eV/Å), ``lr``; NaN where absent.
    """

    task: str
    split: str
    step: np.ndarray
    seconds: np.ndarray
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: where it is.
        recipe: the resolved recipe as plain data; empty where it cannot be read.
        recipe_text: the same, verbatim.
        log: rows of ``log.jsonl``.
        best: name of the best step's folder.
        last: name of the last step's folder.
        model: ``model.json`` of the best step.
        dynamics: ``md.json``, or ``None``.
        laws: ``check.json``, or ``None``.
        evaluation: ``eval.json``, what ``lamella eval --json`` prints, or ``None``.
        remarks: what is missing or unreadable, one sentence each.
    """

    folder: Path
    recipe: Mapping[str, Any]
    recipe_text: str
    log: Sequence[Mapping[str, Any]]
    best: str | None
    last: str | None
    model: Mapping[str, Any]
    dynamics: Dynamics | None
    laws: Laws | None
    evaluation: Evaluated | None
    remarks: tuple[str, ...]


def read_run(folder: Path) -> Run:
    """Everything in a run folder but the weights.

    Raises:
        CheckpointError: not a run folder.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such run folder; give the folder that `lamella train` wrote.")
    if not (folder / "config.yaml").exists() and not (folder / LOG).exists():
        raise CheckpointError(
            f"{folder}: holds neither config.yaml nor log.jsonl, so it is no run folder; give the folder that `lamella "
            "train` wrote."
        )
    remarks: list[str] = []
    recipe_text = _text(folder / "config.yaml", remarks)
    best, last = _word(folder / "best"), _word(folder / "last")
    model = _json(folder / (best or last or "") / "model.json", remarks) if best or last else None
    if model is None and not (best or last):
        remarks.append("No checkpoint has been saved yet, so there is no model to judge.")
    if not (folder / LOG).exists():
        remarks.append("There is no log.jsonl, so there are no learning curves.")
    return Run(
        folder=folder,
        recipe=_recipe(recipe_text, remarks),
        recipe_text=recipe_text,
        log=read_log(folder),
        best=best,
        last=last,
        model=model or {},
        dynamics=_record(folder / "md.json", Dynamics, "lamella md", remarks),
        laws=_record(folder / "check.json", Laws, "lamella check --json", remarks),
        evaluation=_record(folder / "eval.json", Evaluated, "lamella eval --json", remarks),
        remarks=tuple(remarks),
    )


def _text(path: Path, remarks: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remarks.append(f"{path.name} cannot be read ({type(error).__name__}).")
        return ""


def _word(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None


def _json(path: Path, remarks: list[str]) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remarks.append(f"{path.name} cannot be read ({type(error).__name__}).")
        return None
    if not isinstance(content, dict):
        remarks.append(f"{path.name} does not hold a table of values.")
        return None
    return content


def _record(path: Path, kind: type[Record], command: str, remarks: list[str]) -> Record | None:
    if not path.exists():
        return None
    content = _json(path, remarks)
    if content is None:
        return None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        remarks.append(f"{path.name} is not what `{command}` writes ({place} is missing or wrong), so it is left out.")
        return None


def _recipe(words: str, remarks: list[str]) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(words)
    except yaml.YAMLError:
        remarks.append("config.yaml is no valid YAML.")
        return {}
    return content if isinstance(content, dict) else {}


_COLUMNS = {"loss": "loss", "forces": "forces_rmse", "energy": "energy_rmse", "virial": "virial_rmse", "lr": "lr"}


def histories(log: Sequence[Mapping[str, Any]]) -> list[History]:
    """The log's records as curves: one per task and split, in the order in which tasks appear."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in log:
        event = str(record.get("event"))
        if event in ("train", "valid"):
            rows.setdefault((str(record.get("task", "")), event), []).append(record)
    made = []
    for (task, split), records in sorted(rows.items(), key=lambda item: item[0][1]):
        values = {name: _column(records, column) for name, column in _COLUMNS.items()}
        made.append(
            History(
                task,
                split,
                _column(records, "step"),
                _column(records, "seconds"),
                {name: column for name, column in values.items() if np.isfinite(column).any()},
            )
        )
    return made


def _column(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([_number(record.get(key)) for record in records])


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
