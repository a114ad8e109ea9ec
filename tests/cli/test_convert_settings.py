"""``lamella convert`` of settings: input.json to recipe and back, with notes, never over an existing file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lamella.cli import app
from lamella.errors import InputError, LamellaError, RecipeError
from lamella.train.recipe import load_recipe

INPUTS = Path(__file__).resolve().parents[1] / "train" / "inputs"


def convert(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    if isinstance(result.exception, LamellaError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["se_e2_a", "multi_task"])
def test_input_to_recipe_and_back(tmp_path: Path, name: str) -> None:
    output = convert(INPUTS / f"{name}.json", tmp_path / "recipe.yaml")
    assert "a recipe of lamella" in output
    assert "seed: left out" in output
    recipe = load_recipe(tmp_path / "recipe.yaml")
    convert(tmp_path / "recipe.yaml", tmp_path / "input.json")
    convert(tmp_path / "input.json", tmp_path / "again.json")
    assert load_recipe(tmp_path / "again.json") == recipe


def test_settings_win_over_the_recipe(tmp_path: Path) -> None:
    settings = ["elements=[O,H]", "tasks.default.train=data", "tasks.default.valid_fraction=0", "training.steps=7"]
    output = convert("dpa3_l6", tmp_path / "input.json", *settings)
    assert "dp --pt train" in output
    content = json.loads((tmp_path / "input.json").read_text())
    assert content["model"]["type_map"] == ["O", "H"]
    assert content["training"]["numb_steps"] == 7
    assert content["training"]["training_data"]["systems"] == ["data"]


def test_nothing_is_replaced_unasked_and_nothing_written_where_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(LamellaError, match=r"recipe\.yaml"):
        convert(INPUTS / "dpa3.json", tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    convert(INPUTS / "dpa3.json", tmp_path / "recipe.yaml", "--overwrite")
    with pytest.raises(RecipeError, match="elements"):
        convert("dpa3_l6", tmp_path / "out.json", "tasks.default.train=data")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((INPUTS / "dpa3.json", "out.yaml", "training.steps=5"), "settings belong to recipes"),
        ((INPUTS / "dpa3.json", "out.yaml", "--task", "a"), "--task a"),
        (("model.pt", "out.yaml"), "is a model"),
        (("model.pt", "out.pt", "elements=[H]"), "settings belong to recipes"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises((InputError, LamellaError), match=words):
        convert(*arguments)
