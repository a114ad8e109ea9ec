"""A small model of two tasks on disk, frames that one of its tasks labelled, and a recipe that starts from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.io import write

from lamella.models.bundle import save_model
from lamella.train.recipe import Recipe, checked_recipe
from train.adapt.small import labelled_by, two_tasks


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model``; ``high.xyz``: what its task ``high`` says of several molecules, ``water.xyz``: of water; and others."""
    folder = tmp_path_factory.mktemp("adapt")
    potential = two_tasks()
    (folder / "model").mkdir()
    several = ["H2O", "CH4", "NH3", "CH3OH", "C2H4", "HCN"]
    sets = {
        "high": labelled_by(potential, "high", several * 4, 0.01),
        "water": labelled_by(potential, "high", ["H2O"] * 8, 0.01),
        "one": labelled_by(potential, "high", ["H2O"]),
        "sulfur": labelled_by(potential, "high", ["H2O", "SH2", "CH3SH", "CH4"] * 3, 0.01),
        "sulfur_alone": labelled_by(potential, "high", ["SH2"] * 5, 0.01),
        "low": labelled_by(potential, "low", several * 2, 0.01, seed=1),
    }
    for name, frames in sets.items():
        write(folder / f"{name}.xyz", frames, format="extxyz")
    low = {"train": [str(folder / "low.xyz")], "valid": None, "weight": 2.0, "valid_fraction": 0.25}
    potential.metadata["recipe"] = {"tasks": {"low": low, "high": {"train": [str(folder / "gone.xyz")]}}}
    save_model(potential, folder / "model")
    return folder


@pytest.fixture
def make_start(place: Path) -> Callable[..., Recipe]:
    """A recipe of 6 steps that starts from ``model``; keyword arguments are keys of ``start``, or whole sections."""

    def make(data: str = "high", task: str = "mine", sections: dict[str, Any] | None = None, **start: Any) -> Recipe:
        training = {"steps": 6, "valid_every": 3, "log_every": 1, "save_every": 2, "tensorboard": False}
        given = sections or {}
        content: dict[str, Any] = {
            "device": "cpu",
            "tasks": {task: {"train": str(place / f"{data}.xyz"), "valid_fraction": 0.25}},
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "cosine", "stop_lr": 1e-5},
            "batch": {"frames": 4},
            "start": {"model": str(place / "model"), **start},
            **given,
        }
        content["training"] = training | given.get("training", {})
        return checked_recipe(content, "test")

    return make
