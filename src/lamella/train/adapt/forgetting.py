"""What a fine-tuned model still knows: errors on the tasks of the model it started from, before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lamella.errors import LamellaError
from lamella.formats.load import load
from lamella.train.adapt.judge import judge, source_frames
from lamella.train.adapt.tables import SHOWN
from lamella.train.log import read_log
from lamella.train.paths import open_data
from lamella.train.state import pointed, step_name, write_file

__all__ = ["FORGETTING", "forgetting", "forgetting_lines", "read_forgetting"]

FORGETTING: Final = "forgetting.json"

_FORGOTTEN: Final = 1.1
"""Errors on a task of the model so many times as large as before are worth a word."""


def forgetting(run: str | Path, device: str | None = None) -> dict[str, Any]:
    """Measure the run's best model on the frames on which the loaded one was measured, and write ``run/forgetting.json``.

    Returns:
        By task of the model it started from: ``frames``, ``paths``, ``before`` and ``after`` (RMSE by label, eV/atom and
        eV/Å). Empty where no frames of these tasks are at hand, and for a run that started from no model.

    Raises:
        CheckpointError: the run has saved no model.
    """
    potential = load(run, device)
    start = potential.metadata.get("start")
    if not isinstance(start, dict):
        return {}
    known = [
        number
        for number, symbol in zip(potential.numbers, potential.elements, strict=True)
        if symbol not in start["added_elements"]
    ]
    found: dict[str, Any] = {}
    for name, entry in start["sources"].items():
        if name not in potential.tasks:
            continue
        try:
            frames = source_frames(open_data(entry["paths"]), known)
        except LamellaError:
            continue  # moved or removed since: the report says what it has
        if len(frames) == entry["frames"]:
            found[name] = {**entry, "after": judge(potential, frames, name).errors()}
    write_file(Path(run) / FORGETTING, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def read_forgetting(run: Path) -> dict[str, Any]:
    """What :func:`forgetting` wrote into a run folder; empty where it did not."""
    try:
        content = json.loads((run / FORGETTING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def forgetting_lines(run: str | Path, found: Mapping[str, Any]) -> list[str]:
    """What a run learned and forgot, for a person: a line for each task and label.

    Args:
        run: its folder.
        found: of :func:`forgetting`.
    """
    lines = _table("learned: errors on validation frames, step 0 -> best step", _learned(Path(run)))
    forgotten = _table("forgotten: errors on the model's own tasks, as loaded -> now", found)
    grown = {name: grown for name, entry in found.items() if (grown := _growth(entry)) > _FORGOTTEN}
    if grown:
        worst = max(grown, key=grown.__getitem__)
        forgotten.append(
            f"  {len(grown)} of {len(found)} tasks grew worse, {worst} most. If you need them too, train again with "
            f"--replay {worst} (or --replay all); your own task does not need them"
        )
    elif forgotten:
        forgotten.append(f"  no task grew worse by more than {100 * (_FORGOTTEN - 1):.0f} %")
    return lines + forgotten


def _growth(entry: Mapping[str, Any]) -> float:
    """By how much the errors of a task grew, the worst label."""
    before, after = entry["before"], entry["after"]
    return max((after[label] / before[label] for label in before if label in after and before[label] > 0), default=1.0)


def _learned(run: Path) -> dict[str, Any]:
    """By task that was compared before step 0, its validation errors then and at the best step."""
    step = pointed(run, "best")
    start = load(run).metadata.get("start")
    if step is None or not isinstance(start, dict):
        return {}
    found = {}
    for record in read_log(run):
        before = start["errors"].get(record.get("task"), {}).get("valid")
        if record["event"] == "valid" and before and step_name(record["step"]) == step.name:
            after = {label: record[f"{label}_rmse"] for label in SHOWN if f"{label}_rmse" in record}
            found[record["task"]] = {"before": before["before"], "after": after}
    return found


def _table(title: str, found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, entry in found.items():
        for label, (letter, unit) in SHOWN.items():
            if label in entry["before"] and label in entry["after"]:
                before, after = entry["before"][label], entry["after"][label]
                ratio = f"× {after / before:.2f}" if before > 0 else ""
                rows.append((name, letter, f"{1e3 * before:.4g}", f"{1e3 * after:.4g}", unit, ratio))
    if not rows:
        return []
    width = max(len(row[0]) for row in rows)
    shown = [f"  {name:<{width}}  {letter}  {a:>8} -> {b:>8} {unit:<9} {ratio}" for name, letter, a, b, unit, ratio in rows]
    return [title, *shown]
