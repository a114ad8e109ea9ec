"""``lamella explain``, as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.io import write
from typer.testing import CliRunner, Result

from lamella import cli
from lamella.errors import LamellaError
from lamella.models.bundle import save_model
from lamella.use.atlas.write import FILES
from use.small import dimer, labelled, small_model, water_box


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one of them with two tasks; two data sets, one of them with labels and a task's name."""
    place = tmp_path_factory.mktemp("explain")
    for name, model in {"a": small_model(), "both": small_model(("pbe", "scan"), seed=2)}.items():
        (place / name).mkdir()
        save_model(model, place / name)
    write(place / "pbe.extxyz", labelled(small_model(seed=3), [water_box(1), dimer()]), format="extxyz")
    write(place / "boxes.extxyz", [water_box(2, seed=seed) for seed in range(2)], format="extxyz")
    return place


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command in an empty folder; names of ``folder`` stand for what lies there."""
    monkeypatch.chdir(tmp_path)
    names = {path.name for path in folder.iterdir()}

    def run(*arguments: str) -> Result:
        given = []
        for word in arguments:
            name, mark, path = word.rpartition("=")
            given.append(f"{name}{mark}{folder / path}" if path in names else word)
        return CliRunner().invoke(cli.app, ["explain", *given], env={"COLUMNS": "200"})

    return run


def refused(result: Result) -> str:
    assert isinstance(result.exception, LamellaError), result.output
    return str(result.exception)


PCA = ("--method", "pca", "--neighbors", "3")


def test_explain_writes_every_file_and_prints_a_table(command, tmp_path):
    result = command("a", "boxes.extxyz", "pbe.extxyz", "--perplexity", "5", "--atoms", "40", "-o", "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    for words in (
        "40 atoms of 2 elements",
        "2 data sets (boxes, pbe)",
        "silhouette",
        "on t-SNE",
        "on PCA",
        "data set, within an",
    ):
        assert words in result.stdout
    assert "explain.html" in result.stdout


def test_json_is_all_there_is_on_standard_output(command):
    result = command("a", "pbe.extxyz", *PCA, "--color", "element, force-error", "--json")
    content = json.loads(result.stdout)
    assert content["config"]["colors"] == ["element", "force-error"]
    assert content["data"] == ["pbe"]
    assert {each["trait"] for each in content["models"][0]["separations"]} >= {"element", "force-error"}


def test_a_data_set_named_like_a_task_is_predicted_by_it(command):
    assert command("both", "pbe.extxyz", *PCA, "--color", "energy").exit_code == 0
    assert "several tasks" in refused(command("both", "boxes.extxyz", *PCA, "--color", "energy", "-o", "other"))
    assert command("both", "scan=boxes.extxyz", *PCA, "--color", "energy", "-o", "named").exit_code == 0
    assert command("both", "boxes.extxyz", *PCA, "--color", "energy", "--task", "scan", "-o", "task").exit_code == 0


def test_files_of_one_name_are_one_data_set(command):
    result = command("a", "all=boxes.extxyz", "all=pbe.extxyz", *PCA, "--json")
    assert json.loads(result.stdout)["data"] == ["all"]


def test_models_are_compared_on_the_same_atoms(command):
    result = command("a", "boxes.extxyz", *PCA, "--beside", "both", "--json")
    content = json.loads(result.stdout)
    assert [each["model"] for each in content["models"]] == ["a", "both"]


def test_elements_may_be_all_others(command):
    result = command("a", "boxes.extxyz", *PCA, "--elements", "not H", "--distance-from", "O", "--json")
    content = json.loads(result.stdout)
    assert list(content["available"]) == ["O"]
    assert content["config"]["distance_from"] == ["O"]
    assert "'Xy' is no chemical symbol" in refused(command("a", "boxes.extxyz", "--elements", "not Xy"))


def test_files_that_exist_are_kept(command):
    assert command("a", "boxes.extxyz", *PCA).exit_code == 0
    assert "the file exists" in refused(command("a", "boxes.extxyz", *PCA))
    assert command("a", "boxes.extxyz", *PCA, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--color", "colour"), "colors.0 = 'colour'"),
        (("--perplexity", "0"), "perplexity"),
        (("--perplexity", "500"), "t-SNE needs more atoms than its perplexity of 500"),
        (("--elements", "C"), "no atoms of C"),
        (("--elements", "Cc"), "'Cc' is no chemical symbol"),
        (("--color", "force-error", "--method", "pca"), "carries forces"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_written(command, tmp_path, arguments, says):
    assert says in refused(command("a", "boxes.extxyz", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_the_same_file_twice_is_refused(command):
    assert "named twice" in refused(command("a", "boxes.extxyz", "boxes.extxyz", *PCA))
