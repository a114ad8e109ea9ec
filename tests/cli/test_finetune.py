"""``lamella finetune`` and ``lamella heads``, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ase.io import write
from typer.testing import CliRunner, Result

from lamella import cli
from lamella.errors import LamellaError
from lamella.formats.load import load
from lamella.models.bundle import save_model
from train.adapt.small import labelled_by, two_tasks

SHORT = ["training.steps=4", "training.valid_every=4", "training.tensorboard=false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model`` of two tasks, with the data of one of them in its metadata, and ``mine.xyz``."""
    place = tmp_path_factory.mktemp("finetune")
    potential = two_tasks()
    write(place / "mine.xyz", labelled_by(potential, "high", ["H2O", "CH4", "NH3"] * 4, 0.01), format="extxyz")
    write(place / "low.xyz", labelled_by(potential, "low", ["H2O", "CH4", "HCN"] * 4, 0.01), format="extxyz")
    tasks = {"low": {"train": [str(place / "low.xyz")]}, "high": {"train": [str(place / "gone.xyz")]}}
    write(place / "one.xyz", labelled_by(potential, "high", ["H2O"]), format="extxyz")
    write(place / "water.xyz", labelled_by(potential, "high", ["H2O"] * 6), format="extxyz")
    potential.metadata["recipe"] = {"tasks": tasks}
    (place / "model").mkdir()
    save_model(potential, place / "model")
    return place


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command in an empty folder; names of ``folder`` stand for what lies there."""
    monkeypatch.chdir(tmp_path)
    names = {path.name for path in folder.iterdir()}

    def run(*arguments: str) -> Result:
        given = [str(folder / word) if word in names else word for word in arguments]
        return CliRunner().invoke(cli.app, given, env={"COLUMNS": "200"})

    return run


def refused(result: Result) -> str:
    assert isinstance(result.exception, LamellaError), result.output
    return str(result.exception)


def test_heads_are_ranked_with_their_baselines_refitted(command):
    result = command("heads", "model", "mine.xyz", "--frames", "9")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "2 tasks on 9 of your frames, energies per element refitted for each" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["high", "low", "no"]
    assert "F meV/Å" in lines[1]
    assert "baseline  high: energies per element by least squares over 9 frames" in lines[-2]
    assert "begins with high" in lines[-1]


def test_heads_as_json(command):
    result = command("heads", "model", "mine.xyz", "--json")
    content = json.loads(result.stdout)
    assert [head["task"] for head in content["heads"]] == ["high", "low"]
    assert content["heads"][0]["forces"] == pytest.approx(0.01, rel=0.3)
    assert content["frames"] == 12


def test_the_plan_alone_writes_nothing(command, tmp_path: Path):
    result = command("finetune", "model", "mine.xyz", "--plan")
    assert result.exit_code == 0, result.output
    for word in (
        "start     ",
        "loads     ",
        "head      mine: its head begins as a copy of that of high",
        "baseline  mine: energies per element by least squares",
        "knows     its own tasks, now",
        "          low, 12 frames ",
        "next      2,000 steps of adam, lr 0.001",
        "warm-up 100: the same command without --plan",
    ):
        assert word in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_run_prints_the_plan_trains_and_reports_what_was_forgotten(command, tmp_path: Path):
    result = command("finetune", "model", "mine.xyz", *SHORT)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert text.index("step 0: what") < text.index("step       4") < text.index("forgotten: errors on the model's own tasks")
    assert load(tmp_path / "runs" / "mine").tasks == ("low", "high", "mine")
    assert set(json.loads((tmp_path / "runs" / "mine" / "forgetting.json").read_text())) == {"low"}
    again = command("train", "--resume", "runs/mine")
    assert again.exit_code == 0, again.output


def test_options_become_keys_of_the_recipe(command, tmp_path: Path):
    result = command(
        *["finetune", "model", "mine.xyz", "--run", "here", "--task", "new", "--head", "low", "--only", "--lora", "3"],
        *["--lora-alpha", "6", "--lora-matrices", "backbone.layers.1.*", "--freeze", "1", "--frames", "7", "--allow-jump"],
        *["--valid", "low.xyz", "--replay", "low", "--replay-share", "0.4", *SHORT],
    )
    assert result.exit_code == 0, result.output
    recipe = yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())
    start = recipe["start"]
    assert start["lora"] == {"rank": 3, "alpha": 6.0, "matrices": ["backbone.layers.1.*"]}
    assert (start["head"], start["only"], start["freeze"], start["frames"], start["allow_jump"]) == ("low", True, 1, 7, True)
    assert list(recipe["tasks"]) == ["new", "low"]
    assert [task["weight"] for task in recipe["tasks"].values()] == pytest.approx([0.6, 0.4])
    assert recipe["tasks"]["low"]["baseline"] == "keep"
    assert recipe["tasks"]["new"]["valid"][0].endswith("low.xyz")
    assert load(tmp_path / "here").tasks == ("new", "low")


def test_a_refusal_prints_the_plan_first(command, tmp_path: Path):
    result = command("finetune", "model", "mine.xyz", "--head", "random", *SHORT)
    assert "--allow-jump" in refused(result)
    assert "JUMP" in result.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--replay", "lwo"), "no such task (did you mean 'low'?); it has low, high"),
        (("--replay", "high"), "its data are not where the model's metadata say"),
        (("--replay", "low="), "at least one path"),
        (("--replay", "mine", "--task", "mine"), "no such task"),
        (("--replay", "low", "--task", "low"), "this is the task that is fine-tuned"),
        (("--source", "lwo=x.xyz"), "did you mean 'low'"),
        (("--head", "hihg"), "did you mean 'high'"),
        (("--freeze", "all"), "freeze"),
        (("training.step=3",), "did you mean 'steps'"),
    ],
)
def test_wrong_choices_are_refused_by_name(command, arguments: tuple[str, ...], message: str):
    assert message in refused(command("finetune", "model", "mine.xyz", *arguments))


def test_one_frame_is_refused_and_nothing_is_written(command, tmp_path: Path):
    for arguments in (["one.xyz"], ["one.xyz", "--valid", "mine.xyz"]):
        message = refused(command("finetune", "model", *arguments, *SHORT))
        assert message.startswith("tasks.one: ")
        assert "give at least two" in message
        assert not list(tmp_path.iterdir())


def test_one_composition_throughout_is_said_before_training(command):
    result = command("finetune", "model", "water.xyz", "--plan")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("baseline  water: "))
    for words in ("under-determined: H and O always occur in the ratio 2:1", "Your energies are met", "add frames of other"):
        assert words in line


def test_a_model_that_is_not_there_is_refused(command):
    assert "no such file or folder" in refused(command("finetune", "modle", "mine.xyz"))
