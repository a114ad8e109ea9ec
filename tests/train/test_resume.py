"""Resuming with a recipe that was edited in between: what has an effect is taken and named, what has none is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamella.errors import RecipeError
from lamella.formats.load import load
from lamella.models.bundle import load_model
from lamella.train.fit import fit
from lamella.train.log import read_log
from lamella.train.recipe import Recipe, dump_recipe, load_recipe
from lamella.train.schedule import learning_rate
from lamella.train.state import pointed

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def run(tmp_path: Path, make_recipe: MakeRecipe) -> Path:
    return fit(make_recipe(training={"steps": 5, "ema": 0.9}), tmp_path / "run")


@pytest.mark.parametrize(
    "setting",
    [
        "seed=7",
        "dtype=float32",
        "elements=[H, C, O, N]",
        "model.backbone.edge_dim=16",
        "model.head.task_dim=1",
        "optimizer.kind=adam",
        "optimizer.weight_decay=0.5",
        "optimizer.betas=[0.8, 0.999]",
        "training.ema=null",
        "tasks.lj.baseline=isolated_atoms",
        "tasks.new={train: x.xyz, valid_fraction: 0}",
    ],
)
def test_settings_that_a_checkpoint_contains_cannot_be_changed(run: Path, files: dict[str, Path], setting: str) -> None:
    recipe = load_recipe(run / "config.yaml", [setting.replace("x.xyz", str(files["other"]))])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    key = setting.partition("=")[0].replace(".", r"\.")
    with pytest.raises(RecipeError, match=rf"run: {key} was .* and is .* put it back, or start a new run"):
        fit(recipe, run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_moving_average_cannot_begin_in_the_middle(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    run = fit(make_recipe(training={"steps": 5}), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"training\.ema was absent .* and is 0\.9"):
        fit(load_recipe(run / "config.yaml", ["training.ema=0.9"]), run, resume=True)


def test_other_changes_are_named_take_effect_and_are_saved_with_the_model(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(run / "config.yaml", ["training.steps=8", "optimizer.lr=0.002", "tasks.lj.loss.forces=7"])
    fit(recipe, run, resume=True)
    printed = capsys.readouterr().out
    for line in (
        "training.steps: 5 to 8",
        "optimizer.lr: 0.001 to 0.002",
        "tasks.lj.loss.forces: [100.0, 60.0] to [7.0, 7.0]",
    ):
        assert f"changed   {line}\n" in printed
    rates = {record["step"]: record["lr"] for record in read_log(run) if record["event"] == "train"}
    assert rates[6] == learning_rate(recipe.schedule, 5, 8, 0.002) > rates[5]
    last = pointed(run, "last")
    assert last is not None
    assert last.name == "step_0000008"
    assert Recipe.model_validate(load_model(last).metadata["recipe"]) == recipe


def test_data_may_move_as_long_as_it_stays_the_same(tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe) -> None:
    old, new = tmp_path / "old.xyz", tmp_path / "new.xyz"
    old.write_bytes(files["molecules"].read_bytes())
    tasks: dict[str, Any] = {"lj": {"train": str(old)}}
    run = fit(make_recipe(tasks=tasks, training={"steps": 5}), tmp_path / "run")
    old.rename(new)
    recipe = make_recipe(tasks={"lj": {"train": str(new)}}, training={"steps": 6})
    (run / "config.yaml").write_text(dump_recipe(recipe))
    fit(load_recipe(run / "config.yaml"), run, resume=True)
    assert load(run / "step_0000006").metadata["recipe"]["tasks"]["lj"]["train"] == [str(new)]
