"""What a run shows and keeps: lines, the bar, TensorBoard, and the errors in them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lamella.data.load import make_batch
from lamella.errors import TrainingError
from lamella.train.fit import fit
from lamella.train.log import LOG
from lamella.train.metrics import ErrorSums
from lamella.train.progress import Lines, TerminalBar, make_display, summary
from lamella.train.recipe import Recipe
from lamella.types import Frame, GraphSpec, Prediction

RECORD = {
    "event": "train",
    "step": 7,
    "task": "water",
    "loss": 1.5,
    "lr": 1e-3,
    "seconds": 2.0,
    "energy_rmse": 0.00123,
    "forces_rmse": 0.0456,
}


def test_errors_are_pooled_over_everything_that_carries_the_label() -> None:
    rng = np.random.default_rng(0)
    frames = []
    for size, names in (
        (2, ("energy", "forces")),
        (5, ("forces", "virial")),
        (3, ("energy",)),
        (4, ("energy", "forces", "virial")),
    ):
        labels = {"energy": rng.normal(), "forces": rng.normal(size=(size, 3)), "virial": rng.normal(size=(3, 3))}
        positions = 2.0 * np.arange(size)[:, None] * np.ones(3)
        kept = {name: np.asarray(labels[name]) for name in names}
        frames.append(Frame(np.ones(size, dtype=int), positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), kept))
    sums, errors = ErrorSums(), {"energy": [], "forces": [], "virial": []}
    for part in (frames[:3], frames[3:]):
        batch = make_batch(part, GraphSpec((1,), 4.0, 3.0, True))
        n, f = batch.graph.n_atoms, batch.graph.n_frames
        shapes = ((f,), (n,), (n, 3), (f, 3, 3))
        predicted = Prediction(*(torch.from_numpy(rng.normal(size=shape)) for shape in shapes))
        sums.add(predicted, batch)
        first = 0
        for index, frame in enumerate(part):
            rows = slice(first, first + len(frame))
            first += len(frame)
            if "energy" in frame.labels:
                errors["energy"].append([(predicted.energy[index].item() - float(frame.labels["energy"])) / len(frame)])
            if "forces" in frame.labels:
                errors["forces"].append((predicted.forces[rows].numpy() - frame.labels["forces"]).ravel())
            if "virial" in frame.labels:
                errors["virial"].append((predicted.virial[index].numpy() - frame.labels["virial"]).ravel() / len(frame))
    result = sums.result()
    assert sums.frames == 4
    for name, parts in errors.items():
        flat = np.concatenate(parts)
        assert math.isclose(result[f"{name}_rmse"], np.sqrt(np.mean(flat**2)), rel_tol=1e-12)
        assert math.isclose(result[f"{name}_mae"], np.mean(np.abs(flat)), rel_tol=1e-12)


def test_nothing_is_said_of_a_label_that_no_frame_carries() -> None:
    assert ErrorSums().result() == {}


def test_pipes_get_plain_lines_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    display = make_display(10)
    assert isinstance(display, Lines)
    with display:
        display.record(RECORD)
    assert capsys.readouterr().out == "step       7  train water  E 1.23 meV/atom  F 45.6 meV/Å  loss 1.5  lr 0.001  2 s\n"
    assert summary({"virial_rmse": 0.5}) == "V 500 meV/atom"


def test_terminal_gets_a_bar_with_time_left_and_live_errors() -> None:
    screen = io.StringIO()
    with TerminalBar(Console(file=screen, force_terminal=True, width=140), 10) as bar:
        for step in range(1, 8):
            bar.step(step)
        bar.record(RECORD)
        bar.record(RECORD | {"event": "valid", "score": 3.0})
        bar.refresh()
    shown = screen.getvalue()
    assert "7/10" in shown
    assert "left" in shown
    assert "F 45.6 meV/Å" in shown
    assert "score 3" in shown


def test_tensorboard_gets_every_number_once_also_after_a_resume(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(training={"steps": 4, "valid_every": 2, "tensorboard": True})
    run = fit(recipe, tmp_path / "run")
    fit(recipe, run, resume=True)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"train/lj/loss", "train/lj/lr", "train/lj/forces_rmse", "valid/lj/score", "best/score"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("train/lj/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("valid/lj/score")] == [2, 4]


def test_full_disk_under_the_log_is_one_sentence_also_when_it_is_closed(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.flush()

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args, **kw: Full() if path.name == LOG else real(path, *args, **kw))
    with pytest.raises(TrainingError, match=r"log.jsonl: cannot be written \(the disk is full\)"):
        fit(make_recipe(), tmp_path / "run")
