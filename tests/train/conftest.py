"""Small labelled frames, and a recipe that trains on them within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule
from ase.io import write

from lamella.train.recipe import Recipe
from train.small import MODEL, labelled


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``molecules`` (12 frames, no stress), ``other`` (9 more), ``crystals`` (3 frames with stress and 3 molecules)."""
    folder = tmp_path_factory.mktemp("data")
    kinds = [molecule("H2O"), molecule("CH4")]
    crystal = bulk("NaCl", "rocksalt", a=4.2, cubic=True)
    sets = {
        "molecules": [labelled(kinds[k % 2], k) for k in range(12)],
        "other": [labelled(kinds[k % 2], 100 + k) for k in range(9)],
        "crystals": [labelled(crystal, k) for k in range(3)] + [labelled(molecule("NaCl"), k) for k in range(3)],
    }
    for name, frames in sets.items():
        write(folder / f"{name}.xyz", frames)
    return {name: folder / f"{name}.xyz" for name in sets}


@pytest.fixture
def make_recipe(files: dict[str, Path]) -> Callable[..., Recipe]:
    """A recipe of 12 steps on ``molecules``; keyword arguments replace whole sections."""

    def make(**sections: Any) -> Recipe:
        training = {"steps": 12, "valid_every": 4, "log_every": 1, "save_every": 5, "tensorboard": False}
        content: dict[str, Any] = {
            "dtype": "float64",
            "device": "cpu",
            "model": MODEL,
            "tasks": {"lj": {"train": str(files["molecules"])}},
            "schedule": {"kind": "exponential", "stop_lr": 1e-4, "decay_steps": 3},
            "batch": {"frames": 3},
            **sections,
        }
        content["training"] = training | sections.get("training", {})
        return Recipe.model_validate(content)

    return make
