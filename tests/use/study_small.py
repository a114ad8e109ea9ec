"""Studies that take a second: sets of small molecules with Lennard-Jones labels, and a model of two tasks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml
from ase.build import molecule
from ase.io import write

from lamella.train.fit import fit
from lamella.train.recipe import Recipe
from lamella.use.study.studies import read_config, run_study
from lamella.use.study.trial import Work
from train.small import MODEL, labelled

STEPS = 3
LJ = "ase:ase.calculators.lj.LennardJones(sigma=1.0, epsilon=0.1, rc=4.0)"
"""Made the labels."""


def make_sets(place: Path) -> Path:
    """``a.xyz`` and ``b.xyz`` (12 frames to train on each), their test frames, and recipes of two tasks and of one."""
    kinds = {"a": [molecule("H2O"), molecule("CH4")], "b": [molecule("H2O"), molecule("NH3")]}
    for name, pair in kinds.items():
        write(place / f"{name}.xyz", [labelled(pair[k % 2], k) for k in range(12)])
        write(place / f"{name}_test.xyz", [labelled(pair[k % 2], 900 + k) for k in range(6)])
    recipe: dict[str, Any] = {
        "dtype": "float64",
        "device": "cpu",
        "model": MODEL,
        "elements": ["H", "C", "N", "O"],
        "tasks": {
            name: {"train": str(place / f"{name}.xyz"), "weight": weight} for name, weight in (("a", 3.0), ("b", 1.0))
        },
        "schedule": {"kind": "exponential", "stop_lr": 1e-4, "decay_steps": 3},
        "batch": {"frames": 3},
        "training": {"steps": 8, "valid_every": 8, "save_every": 8, "tensorboard": False},
    }
    (place / "two.yaml").write_text(yaml.safe_dump(recipe))
    one = {**recipe, "elements": None, "tasks": {"any": {"train": str(place / "a.xyz")}}}
    (place / "small.yaml").write_text(yaml.safe_dump(one))
    return place


def pretrain(place: Path) -> Path:
    """A model of the two tasks."""
    fit(Recipe.model_validate(yaml.safe_load((place / "two.yaml").read_text())), place / "pretrained")
    return place / "pretrained"


def words(folder: Path, *more: str, sets: str = "ab") -> list[str]:
    """Settings of a study that trains on both sets, or one."""
    files = {"train": "{}.xyz", "test": "{}_test.xyz"}
    data = [f"sets.{name}.{part}={folder / file.format(name)}" for name in sets for part, file in files.items()]
    return [*data, f"steps={STEPS}", *more]


def smallest(folder: Path) -> list[str]:
    """Settings of a learning curve of two trainings."""
    return words(folder, "sizes=[4]", "whole=false", "seeds=[1,2]", f"scratch.plain={folder / 'small.yaml'}", sets="a")


def table_of(out: Path) -> list[dict[str, str]]:
    """Rows of the table that a study wrote."""
    return list(csv.DictReader((out / "table.csv").read_text().splitlines()))


def carried_out(kind: str, overrides: list[str], out: Path, jobs: int = 1) -> tuple[list[dict[str, str]], str, list[str]]:
    """Rows of the table, the page, and what was said."""
    said: list[str] = []
    page = run_study(kind, read_config(kind, None, overrides), out, Work(said.append, jobs=jobs))
    assert (out / "figure.png").stat().st_size > 1000
    picture = (out / "figure.svg").read_text()
    assert picture.startswith("<?xml") and "<text" in picture
    return table_of(out), page.read_text(), said
