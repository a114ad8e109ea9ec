"""Recipes that come with lamella train, and are what they say they are."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from ase.io import write

from lamella import datasets
from lamella.formats.load import load
from lamella.train import recipe as recipe_module
from lamella.train.deepmd_input import read_input
from lamella.train.fit import fit
from lamella.train.recipe import load_recipe

RECIPES = sorted((Path(recipe_module.__file__).parents[1] / "recipes").glob("*.yaml"))

NARROW = {
    "se_a": ["neurons=[2,4]", "axis=2"],
    "dpa1": ["neurons=[2,4]", "axis=2", "attention_dim=4"],
    "dpa2": [
        *("repinit.neurons=[2,4]", "repinit.axis=2", "repformer.layers=2", "repformer.node_dim=8", "repformer.pair_dim=4"),
        *("repformer.axis=2", "repformer.attention_dim=4", "repformer.attention_heads=2", "repformer.local_attention_dim=4"),
        "repformer.local_attention_heads=2",
    ],
    "dpa3": ["layers=2", "node_dim=8", "edge_dim=6", "angle_dim=4", "axis=2"],
}
"""Settings of the backbone that make a recipe of each architecture quick."""


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest frames of the embedded water."""
    path = tmp_path_factory.mktemp("water") / "water.xyz"
    write(path, sorted(datasets.load("water_gfn2", "train"), key=len)[:8])
    return path


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_trains_on_embedded_data(file: Path, water: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(file.read_text())
    kind = content["model"]["backbone"].get("kind", "dpa3")
    settings = [f"tasks.{task}.train={water}" for task in content["tasks"]]
    settings += [f"tasks.{task}.valid_fraction=0.25" for task in content["tasks"]]
    settings += ["batch={frames: 2}", "device=cpu"]
    settings += ["training.steps=2", "training.workers=0", "training.tensorboard=false", "model.head.hidden=[4,4]"]
    settings += [f"model.backbone.{setting}" for setting in NARROW[kind]]
    run = fit(load_recipe(file.stem, settings), tmp_path / "run")
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["event"] == "train"]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    assert load(run).config.backbone.kind == kind


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("se_a_water", "se_e2_a"),
        ("dpa1_example", "se_atten"),
        ("dpa2_small", "dpa2_small"),
        ("dpa3_l6", "dpa3"),
    ],
)
def test_recipe_of_a_shipped_example_is_that_example(name: str, example: str) -> None:
    """Model, loss, optimiser and schedule; batches, lengths and data are the user's."""
    ours = load_recipe(name, ["tasks.default.train=water.xyz"])
    theirs = read_input(Path(__file__).parent / "inputs" / f"{example}.json").recipe
    assert ours.model == theirs.model
    assert ours.dtype == theirs.dtype
    assert ours.tasks["default"].loss == theirs.tasks["default"].loss
    assert ours.optimizer == theirs.optimizer
    assert ours.schedule == theirs.schedule
