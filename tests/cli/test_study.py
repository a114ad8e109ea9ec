"""``lamella study``: settings from a file and the command line, and what is wrong with them before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lamella.cli import app
from lamella.errors import LamellaError
from use.study_small import make_sets, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_sets(tmp_path_factory.mktemp("study"))


def test_a_file_and_settings_make_a_study(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {
        "sets": {"a": {"train": str(folder / "a.xyz"), "test": "embedded:molecules_gfn2:test"}},
        "models": {"small": str(folder / "small.yaml")},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    planned = CliRunner().invoke(app, ["study", "benchmark", "mine.yaml", "steps=2", "--plan"])
    assert planned.exit_code == 0 and planned.output.startswith("1 trainings, 2 steps in all"), planned.output
    assert not (tmp_path / "studies" / "mine" / "runs").exists()
    done = CliRunner().invoke(app, ["study", "benchmark", "mine.yaml", "steps=2"])
    assert done.exit_code == 0, done.output
    assert "# Architectures" in done.output and (tmp_path / "studies" / "mine" / "study.md").is_file()


BAD = {
    "a misspelt key": ("benchmark", ["stepps=3"], "did you mean 'steps'"),
    "no step": ("benchmark", ["steps=0"], "steps = 0"),
    "no seed": ("benchmark", ["seeds=[]"], "seeds"),
    "a seed twice": ("benchmark", ["seeds=[1,1]"], "a seed stands there twice"),
    "no model": ("benchmark", [], "'models' is missing"),
    "a recipe that is none": ("benchmark", ["models.x=dpa3_l7"], "dpa3_l"),
    "a setting of no recipe": ("benchmark", ["models.x={recipe: dpa3_l3, set: [optimizer.lrr=1]}"], "lrr"),
    "a loss of no kind": ("benchmark", ["models.x=dpa3_l3", "loss={energyy: 1}"], "energyy"),
    "names of one file": ("benchmark", ["models.x y=dpa3_l3", "models.x_y=dpa3_l3"], "would share their files"),
    "a calculator that is none": ("benchmark", ["models.x=dpa3_l3", "references.e=ase:ase.calculators.emt.EMTT()"], "EMT"),
    "a set that nobody trains on": ("benchmark", ["models.x=dpa3_l3", "also.o={data: o.xyz, trained_on: q}"], "no set 'q'"),
    "no file of that name": ("benchmark", ["models.x=dpa3_l3", "sets.a.test=/nowhere.xyz"], "nowhere.xyz"),
    "nothing to compare": ("learning-curve", [], "give models to fine-tune"),
    "a size of nothing": ("learning-curve", ["scratch.x=dpa3_l3", "sizes=[0]"], "sizes"),
    "no such model": ("learning-curve", ["pretrained.x.model=/nowhere"], "no such file or folder"),
    "sizes beyond the set": (
        "learning-curve",
        ["scratch.x=dpa3_l3", "sizes=[99]", "whole=false"],
        "fewer than each of them",
    ),
    "two lines of one name": ("learning-curve", ["scratch.x=dpa3_l3", "pretrained.x.model=m"], "a line|name of its own"),
    "no part of the model": ("ablation", ["recipe=dpa3_l3"], "parts of DPA-2 are removed, but dpa3_l3 is of kind dpa3"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_before_anything_is_trained(folder, tmp_path, case):
    kind, more, message = BAD[case]
    out = tmp_path / "s"
    done = CliRunner().invoke(app, ["study", kind, *words(folder, sets="a"), *more, "--out", str(out)])
    assert isinstance(done.exception, LamellaError), done.output
    assert any(part in str(done.exception) for part in message.split("|")), str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (out / "runs").exists()


def test_frames_without_labels_are_no_test(folder, tmp_path):
    (tmp_path / "bare.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n")
    given = [*words(folder, sets="a"), f"sets.a.test={tmp_path / 'bare.xyz'}", f"models.x={folder / 'small.yaml'}"]
    done = CliRunner().invoke(app, ["study", "benchmark", *given, "--out", str(tmp_path / "s")])
    assert isinstance(done.exception, LamellaError) and "no frame carries an energy" in str(done.exception)
    assert not (tmp_path / "s" / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["models.p=predictions:x.xyz"], "cannot move atoms"),
        (["models.e=ase:ase.calculators.emt.EMT()", "time=0.001"], "fewer than the 10"),
        (["models.e=ase:ase.calculators.emt.EMT()", "data=/nowhere.xyz"], "nowhere.xyz"),
    ],
)
def test_what_cannot_drift_is_refused(folder, tmp_path, more, message):
    given = [f"data={folder / 'a_test.xyz'}", *more, "--out", str(tmp_path / "s"), "--plan"]
    done = CliRunner().invoke(app, ["study", "drift", *given])
    assert isinstance(done.exception, LamellaError) and message in str(done.exception)


def test_two_files_of_settings_are_one_too_many():
    done = CliRunner().invoke(app, ["study", "heads", "one.yaml", "two.yaml"])
    assert isinstance(done.exception, LamellaError) and "one file of settings" in str(done.exception)
