"""Recipes and data of several tasks that cannot be trained: one clear sentence by the command, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lamella.cli import app
from lamella.errors import LamellaError
from lamella.train.recipe import Recipe, recipe_content

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def refused(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What ``lamella train`` says of a recipe of tasks ``a`` (H, C, O) and ``b`` (Na, Cl) with some settings."""
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe(tasks={name: {"train": str(files[data])} for name, data in (("a", "molecules"), ("b", "crystals"))})
    content = recipe_content(recipe)
    for task in content["tasks"].values():  # which the text below may then give
        task["valid_fraction"] = 0.0
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "empty.xyz").touch()
    (tmp_path / "molecules.xyz").write_bytes(files["molecules"].read_bytes())
    (tmp_path / "crystals.xyz").write_bytes(files["crystals"].read_bytes())

    def said(*settings: str, recipe: str = "recipe.json") -> str:
        result = CliRunner().invoke(app, ["train", recipe, *settings, "--run", str(tmp_path / "run")])
        assert result.exit_code == 1
        assert isinstance(result.exception, LamellaError)
        assert not (tmp_path / "run").exists()
        return str(result.exception)

    return said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["tasks={}"], "tasks: give at least one task, with a name and its data"),
        (["tasks.b={}"], "the key 'tasks.b.train' is missing"),
        (["tasks.b.train=[]"], "tasks.b.train: give at least one path"),
        (["tasks.b.train=null"], "tasks.b.train: give at least one path"),
        (["tasks.b.train=none.xyz"], "tasks.b.train: "),
        (["tasks.b.train=empty.xyz"], "tasks.b.train: "),
        (["tasks.b.valid=empty.xyz"], "tasks.b.valid: "),
        (["tasks.b.valid=[]"], "tasks.b.valid: give at least one path"),
        (['tasks={"": {train: molecules.xyz}}'], "tasks: '' is no name"),
        (["tasks={1: {train: molecules.xyz}}"], "input should be a valid string"),
        (["tasks={a: {train: molecules.xyz}, a: {train: crystals.xyz}}"], "the key 'a' occurs twice"),
        (["tasks.a.weight=0", "tasks.b.weight=0"], "the weights sum to zero"),
        (["tasks.a.weight=1e308", "tasks.b.weight=1e308"], "the sum of the weights is not finite"),
        (["tasks.a.weight=-1"], "tasks.a.weight = -1: input should be greater than or equal to 0"),
        (["tasks.a.weight=.nan"], "tasks.a.weight = nan: input should be a finite number"),
        (["tasks.a.weight=heavy"], "tasks.a.weight = 'heavy'"),
        (["tasks.aa.weight=1"], "the recipe has no task 'aa' (did you mean 'a'?); it has a, b; a new one is"),
        (["tasks.aa.batch.frames=2"], "the recipe has no task 'aa'"),
        (["tasks.b.batch={}"], "tasks.b.batch: give at least one of frames, atoms"),
        (["tasks.b.batch={edges: 5}"], "crystals.xyz#0 alone has"),
        (["training.tasks_per_step=0"], "training.tasks_per_step = 0"),
        (["model.head.task_dim=1"], "model.head.task_dim is 1, fewer than the 2 tasks; raise it to that"),
        (["elements=[H, C, O]"], "elements: Na, Cl occurs in the data of task b but is not listed"),
        (["elements=[H, C, O, Na, Cl, Qq]"], "elements: 'Qq' is no chemical symbol"),
        (["elements=[H, C, O, Na, Cl, H]"], "elements: each symbol once"),
        (["tasks.b.elements=[Na]"], "tasks.b.elements: Cl occurs in the data of the task but is not listed"),
        (
            ["tasks.b.train=molecules.xyz", "tasks.b.valid=crystals.xyz"],
            "tasks.b: Na, Cl occurs in its validation frames",
        ),
        (["tasks.b.weight=0"], "tasks.b: Na, Cl occurs in no task that is trained"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(refused: Callable[..., str], settings: list[str], words: str) -> None:
    assert words in refused(*settings)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_two_tasks_of_one_name_are_refused_in_a_file(refused: Callable[..., str], suffix: str) -> None:
    text = Path(f"recipe.{suffix}").read_text()
    changed = text.replace('"b": {', '"a": {').replace("\n  b:\n", "\n  a:\n")
    assert changed != text
    Path(f"twice.{suffix}").write_text(changed)
    assert "the key 'a' occurs twice" in refused(recipe=f"twice.{suffix}")
