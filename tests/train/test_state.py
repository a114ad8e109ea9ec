"""Checkpoints: whole or not at all; a failure to write loses nothing; a damaged one is refused by name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lamella.errors import CheckpointError, TrainingError
from lamella.models.bundle import load_model
from lamella.models.potential import ModelConfig, Potential
from lamella.train.optim import AdamW, MovingAverage, build_optimizer
from lamella.train.state import (
    Progress,
    load_trainer,
    point,
    pointed,
    prune,
    save_checkpoint,
)
from train.small import MODEL

CONFIG = ModelConfig.model_validate(MODEL)


class Session:
    """A model, its optimiser and its average after one step on an arbitrary loss."""

    def __init__(self, seed: int = 0, step: int = 100) -> None:
        torch.manual_seed(seed)
        self.potential = Potential(CONFIG, ["H", "O"])
        self.optimizer = build_optimizer(AdamW(), self.potential)
        self.average = MovingAverage(self.potential, 0.9)
        sum(p.square().sum() for p in self.potential.parameters()).backward()
        self.optimizer.step()
        self.average.update(self.potential, 1)
        self.progress = Progress(step, 12.5, step, step, 0.25)

    def save(self, run: Path) -> Path:
        return save_checkpoint(run, self.potential, self.optimizer, self.average, self.progress)


def test_checkpoint_brings_everything_back_bit_by_bit(tmp_path: Path) -> None:
    session = Session()
    folder = session.save(tmp_path)
    random = torch.get_rng_state()
    potential = load_model(folder)
    optimizer, average = build_optimizer(AdamW(), potential), MovingAverage(potential, 0.9)
    torch.manual_seed(99)
    assert load_trainer(folder, potential, optimizer, average) == session.progress
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in session.potential.state_dict().items():
        assert torch.equal(potential.state_dict()[name], value)
    for name, value in session.average.average.items():
        assert torch.equal(average.average[name], value)
    ours, theirs = optimizer.state_dict(), session.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, slots in theirs["state"].items():
        assert all(torch.equal(ours["state"][index][name], value) for name, value in slots.items())


def test_saved_model_has_the_averaged_weights_and_training_goes_on_with_its_own(tmp_path: Path) -> None:
    session = Session()
    own = session.potential.backbone.embedding.weight.detach().clone()
    saved = load_model(session.save(tmp_path))
    average = session.average.average["backbone.embedding.weight"]
    assert not torch.equal(own, average)
    assert torch.equal(saved.backbone.embedding.weight, average)
    assert torch.equal(session.potential.backbone.embedding.weight, own)


@pytest.mark.parametrize("culprit", ["fsync", "replace"])
def test_full_disk_names_the_path_and_leaves_earlier_checkpoints_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, culprit: str
) -> None:
    session = Session(step=100)
    session.save(tmp_path)
    point(tmp_path, "last", 100)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    session.progress.step = 200

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", full) if culprit == "fsync" else (Path, "replace", full)))
    with pytest.raises(TrainingError, match=r"step_0000200: cannot be written \(the disk is full\).*--resume"):
        session.save(tmp_path)
    with pytest.raises(TrainingError, match="last: cannot be written"):
        point(tmp_path, "last", 200)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert pointed(tmp_path, "last") == tmp_path / "step_0000100"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    path.unlink()


def from_the_future(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"format": 999}, path)


def with_code(path: Path) -> None:
    torch.save({"format": 1, "run me": print}, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(cut, "damaged or cut short"), (remove, "missing"), (from_the_future, "newer"), (with_code, "damaged")],
)
def test_unusable_trainer_state_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    session = Session()
    folder = session.save(tmp_path)
    damage(folder / "trainer.pt")
    with pytest.raises(CheckpointError, match=rf"trainer\.pt: .*{words}"):
        load_trainer(folder, session.potential, session.optimizer, session.average)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    Session(seed=1).save(tmp_path)
    later = Session(seed=2)
    folder = later.save(tmp_path)
    name = "backbone.embedding.weight"
    assert torch.equal(load_model(folder).backbone.embedding.weight, later.average.average[name])
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000100"]


def test_pruning_keeps_the_newest_the_best_and_what_pointers_name(tmp_path: Path) -> None:
    for step in range(1, 8):
        (tmp_path / f"step_{step:07d}").mkdir()
    (tmp_path / ".saving-step_0000009-123").mkdir()
    point(tmp_path, "last", 3)
    prune(tmp_path, keep=2, best_step=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", *(f"step_{step:07d}" for step in (1, 3, 6, 7))]


def test_pointer_to_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    assert pointed(tmp_path, "last") is None
    point(tmp_path, "last", 5)
    assert pointed(tmp_path, "last") is None
