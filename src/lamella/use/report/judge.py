"""Which data a run is judged on, and its model's errors there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamella.data.keys import LabelKeys
from lamella.data.source import Frames
from lamella.errors import DataError, LamellaError
from lamella.models.potential import Potential
from lamella.train.prepare import TaskData, open_data, open_tasks
from lamella.train.recipe import load_recipe
from lamella.types import Frame, Prediction
from lamella.use.evaluate import evaluate
from lamella.use.report.accuracy import Judgement
from lamella.use.report.run import Run

__all__ = ["Progress", "judge"]

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


def judge(
    run: Run, model: Potential, data: Sequence[str], task: str | None, on_progress: Progress | None
) -> tuple[list[Judgement], list[str]]:
    """The model's errors by task, and a sentence on everything that could not be judged.

    Args:
        run: whose recipe says where the validation data is, whose ``eval.json`` may name test data to be judged on instead.
        model: of its best step.
        data: judge on these instead of either.
        task: which task labels ``data``; may be left out where the model has one.
        on_progress: called as frames are done.

    Raises:
        DataError: ``data`` cannot be read or carries no label.
    """
    if data:
        return [_on_test_data(run, model, data, task, on_progress)], []
    remarks: list[str] = []
    if run.evaluation is not None:
        try:
            return [_on_test_data(run, model, run.evaluation.data, run.evaluation.task, on_progress)], []
        except LamellaError as error:
            remarks.append(f"The data that eval.json names could not be used, so the validation data is: {error}")
    judgements, more = _on_validation_data(run, model, on_progress)
    return judgements, remarks + more


def _on_test_data(
    run: Run, model: Potential, data: Sequence[str], task: str | None, on_progress: Progress | None
) -> Judgement:
    chosen = model.tasks[model.task_index(task)]
    settings = (run.recipe.get("tasks") or {}).get(chosen) or {}
    keys = LabelKeys.model_validate(settings["keys"]) if settings.get("keys") else None
    frames = open_data(data, keys)
    parts = [settings.get(part) or () for part in ("train", "valid")]
    known = [str(path) for part in parts for path in ([part] if isinstance(part, str) else part)]
    apart = not any(a.startswith(b) or b.startswith(a) for a in data for b in known)
    words = f"{_paths(data)}{', which training did not read' if apart else ''}"
    return _judged(model, chosen, frames, "test" if apart else "given", words, on_progress)


def _on_validation_data(run: Run, model: Potential, on_progress: Progress | None) -> tuple[list[Judgement], list[str]]:
    try:
        opened = open_tasks(load_recipe(run.folder / "config.yaml"))
    except LamellaError as error:
        return [], [f"The run's data could not be opened: {error}"]
    judgements, remarks = [], []
    for name, contents in opened.items():
        if name not in model.tasks:
            continue
        kind, frames, words = _held_out(contents)
        if _changed(run, name, kind, frames):
            remarks.append(
                f"The {kind} data of task {name} are not what they were during training: their content hash differs."
            )
        try:
            judgements.append(_judged(model, name, frames, kind, words, on_progress))
        except LamellaError as error:
            remarks.append(f"Task {name} could not be judged: {error}")
    return judgements, remarks


def _held_out(task: TaskData) -> tuple[str, Frames, str]:
    """The validation data, or the training data where there is none."""
    if task.valid is None:
        return "training", task.train, f"the training data, {_paths(task.config.train)}"
    if task.config.valid is not None:
        return "validation", task.valid, f"the validation data, {_paths(task.config.valid)}"
    share = f"{100 * task.config.valid_fraction:g} % of {_paths(task.config.train)}, held back at random from training"
    return "validation", task.valid, share


def _judged(model: Potential, task: str, frames: Frames, kind: str, words: str, on_progress: Progress | None) -> Judgement:
    total, done = len(frames), 0
    if total == 0:
        raise DataError(f"{words}: there are no frames to judge the model on.")

    def count(frame: Frame, prediction: Prediction) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    return Judgement(evaluate(model, frames, task, on_frame=count), kind, words)


def _changed(run: Run, task: str, kind: str, frames: Frames) -> bool:
    record = ((run.model.get("metadata") or {}).get("data") or {}).get(task) or {}
    known = (record.get("valid" if kind == "validation" else "train") or {}).get("hash")
    return known is not None and known != frames.content_hash


def _paths(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:3])
    return f"{shown} and {len(paths) - 3} more" if len(paths) > 3 else shown
