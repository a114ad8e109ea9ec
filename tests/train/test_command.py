"""``lamella train``: where a run goes, what is refused, what a stopped run exits with."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import lamella.train.fit as fit_module
from lamella.cli.train import train
from lamella.errors import RecipeError
from lamella.train.recipe import Recipe, dump_recipe, load_recipe

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def recipe_file(tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(dump_recipe(make_recipe(training={"steps": 3})))
    return path


def test_run_goes_to_runs_and_the_name_of_the_recipe(tmp_path: Path, recipe_file: Path) -> None:
    train(str(recipe_file), ["training.steps=2"])
    assert load_recipe(tmp_path / "runs" / "small" / "config.yaml").training.steps == 2
    assert (tmp_path / "runs" / "small" / "step_0000002" / "model.safetensors").is_file()


def test_run_folder_can_be_chosen_and_resumed(tmp_path: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(str(recipe_file), run=Path("mine"))
    before = (tmp_path / "mine" / "log.jsonl").read_text()
    capsys.readouterr()
    train(resume=Path("mine"))
    assert "resuming after step 3 of 3" in capsys.readouterr().out
    assert (tmp_path / "mine" / "log.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give a recipe"),
        ({"recipe": "small.yaml", "resume": Path("x")}, "give no recipe"),
        ({"resume": Path("x")}, "x: no run to resume"),
        ({"recipe": "smal.yaml"}, "did you mean 'small.yaml'"),
    ],
)
def test_what_makes_no_sense_is_refused(recipe_file: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        train(**arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_exits_as_the_shell_expects_and_says_how_to_go_on(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    original = fit_module.train_step

    def train_step(*args: Any) -> Any:
        signal.raise_signal(number)
        return original(*args)

    monkeypatch.setattr(fit_module, "train_step", train_step)
    with pytest.raises(typer.Exit) as stopped:
        train(str(recipe_file), run=Path("mine"))
    assert stopped.value.exit_code == 128 + number
    assert f"stopped by {number.name} after step 1 of 3; go on with `lamella train --resume mine`" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_plan_is_printed_before_the_first_step(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(str(recipe_file))
    plan = capsys.readouterr().out.partition("step       1")[0]
    for words in (
        "11 training frames",
        "1 for validation",
        "parameters",
        "float64 on cpu",
        "H C O",
        "edges",
        "angles",
        "baseline",
    ):
        assert words in plan
