"""Every study in miniature: what it trains, what it says, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from lamella.cli import app
from lamella.errors import InputError, RecipeError
from lamella.train.fit import fit
from lamella.train.recipe import Recipe, dump_recipe, load_recipe
from lamella.train.stop import Interrupted
from lamella.use.study import training
from lamella.use.study.curves import equal_error
from lamella.use.study.powerlaw import fit_power_law, frontier
from lamella.use.study.report import cell, spread
from lamella.use.study.studies import plan_study, read_config, run_study
from lamella.use.study.trial import Work
from train.small import MODEL, labelled

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """``a.xyz`` and ``b.xyz`` (16 frames to train on each), their test frames, a recipe, and a model of two tasks."""
    place = tmp_path_factory.mktemp("study")
    kinds = {"a": [molecule("H2O"), molecule("CH4")], "b": [molecule("H2O"), molecule("NH3")]}
    for name, pair in kinds.items():
        write(place / f"{name}.xyz", [labelled(pair[k % 2], k) for k in range(16)])
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
    fit(Recipe.model_validate(recipe), place / "pretrained")
    return place


def words(folder: Path, *more: str, sets: str = "ab") -> list[str]:
    """Settings of a study that trains on both sets, or one."""
    files = {"train": "{}.xyz", "test": "{}_test.xyz"}
    data = [f"sets.{name}.{part}={folder / file.format(name)}" for name in sets for part, file in files.items()]
    return [*data, f"steps={STEPS}", *more]


def smallest(folder: Path) -> list[str]:
    """Settings of a learning curve of two trainings."""
    return words(folder, "sizes=[4]", "whole=false", "seeds=[1,2]", f"scratch.plain={folder / 'small.yaml'}", sets="a")


def carried_out(kind: str, overrides: list[str], out: Path, jobs: int = 1) -> tuple[list[dict[str, str]], str, list[str]]:
    """Rows of the table, the page, and what was said."""
    said: list[str] = []
    page = run_study(kind, read_config(kind, None, overrides), out, Work(said.append, jobs=jobs))
    assert (out / "figure.png").stat().st_size > 1000 and (out / "figure.svg").read_text().startswith("<?xml")
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    return rows, page.read_text(), said


def test_a_learning_curve_trains_every_size_for_the_same_steps(folder, tmp_path):
    overrides = words(
        folder, "sizes=[4,8]", f"pretrained.tuned.model={folder / 'pretrained'}", f"scratch.plain={folder / 'small.yaml'}"
    )
    rows, page, said = carried_out("learning-curve", overrides, tmp_path / "s")
    found = {(row["set"], row["frames"], row["model"]) for row in rows}
    series = {"tuned", "plain"}
    assert found == {(s, n, m) for s in "ab" for n in ("4", "8", "16") for m in series} | {
        (s, "0", "tuned, zero-shot") for s in "ab"
    }
    assert all(float(row["force RMSE, meV/Å"]) > 0 for row in rows)
    recipes = [load_recipe(path) for path in sorted((tmp_path / "s" / "recipes").iterdir())]
    assert len(recipes) == 12 and {recipe.training.steps for recipe in recipes} == {STEPS}
    assert "Every training makes 6 steps" in page and "tuned against plain" in page
    assert len([line for line in said if line.endswith("trained")]) == 12
    nested = [set(map(str, (a.positions for a in read(tmp_path / "s" / "data" / f"a-{n}-s1.extxyz", ":")))) for n in (4, 8)]
    assert nested[0] < nested[1]


@pytest.fixture(scope="module")
def finished(folder) -> tuple[Path, tuple[list[dict[str, str]], str, list[str]]]:
    """The smallest learning curve, and what was found."""
    return folder / "finished", carried_out("learning-curve", smallest(folder), folder / "finished")


def test_a_study_keeps_what_is_done(folder, finished, monkeypatch):
    out, first = finished
    monkeypatch.setattr(training, "fit", lambda *given: pytest.fail("it was trained already"))
    monkeypatch.setattr("lamella.use.study.judging.evaluate_sets", lambda *given: pytest.fail("it was judged already"))
    second = carried_out("learning-curve", smallest(folder), out)
    assert second[:2] == first[:2]
    assert second[2] == ["2 of 2 trainings are finished and kept"]
    with pytest.raises(RecipeError, match="begun with another recipe"):
        carried_out("learning-curve", [*smallest(folder), "steps=7"], out)


def test_a_study_goes_on_where_it_stopped(folder, finished, tmp_path, monkeypatch):
    asked = training.fit

    def stopped_once(recipe: Recipe, run: Path, resume: bool) -> Path:
        if run.name.endswith("s2") and not resume:
            asked(recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 3})}), run, resume)
            (run / "config.yaml").write_text(dump_recipe(recipe))
            raise Interrupted("stopped after step 3.", 130)
        return asked(recipe, run, resume)

    monkeypatch.setattr(training, "fit", stopped_once)
    with pytest.raises(Interrupted, match="The same command goes on") as stop:
        carried_out("learning-curve", smallest(folder), tmp_path / "s")
    assert stop.value.exit_code == 130
    rows, _, said = carried_out("learning-curve", smallest(folder), tmp_path / "s")
    assert said[0] == "1 of 2 trainings are finished and kept"
    assert [row["model"] for row in rows] == [row["model"] for row in finished[1][0]]


def test_a_study_made_again_from_what_it_wrote_is_the_same(finished, tmp_path):
    out, (rows, _, _) = finished
    config = read_config("learning-curve", out / "study.yaml", [])
    run_study("learning-curve", config, tmp_path / "again", Work(lambda line: None))
    assert list(csv.DictReader((tmp_path / "again" / "table.csv").read_text().splitlines())) == rows


def test_trainings_side_by_side_give_the_same_errors(folder, finished, tmp_path):
    assert carried_out("learning-curve", smallest(folder), tmp_path / "s", jobs=2)[0] == finished[1][0]
    assert "step" in (tmp_path / "s" / "logs" / "a-plain-4-s1.log").read_text()


def test_a_training_that_fails_is_said_and_the_others_go_on(folder, tmp_path):
    wild = f"{{recipe: {folder / 'small.yaml'}, set: [optimizer.lr=1e300, schedule.stop_lr=1e-4]}}"
    rows, page, _ = carried_out("learning-curve", [*smallest(folder), "seeds=[1]", f"scratch.wild={wild}"], tmp_path / "s")
    assert {row["model"] for row in rows} == {"plain"}
    assert "a-wild-4-s1 could not be trained" in page


def test_single_tasks_get_their_effective_steps(folder, tmp_path):
    overrides = [f"recipe={folder / 'two.yaml'}", "steps=8", "set=[training.tasks_per_step=2]"]
    overrides += [f"test.{name}={folder / f'{name}_test.xyz'}" for name in "ab"]
    overrides += ["variants.heads=[]", "variants.encoding=[model.head.task_dim=2]"]
    overrides += [f"downstream.b_again={{data: {folder / 'b_test.xyz'}, task: a, weight: 2.0}}"]
    rows, page, _ = carried_out("tasks", overrides, tmp_path / "s")
    recipe = {path.stem: load_recipe(path) for path in (tmp_path / "s" / "recipes").iterdir()}
    assert {name: each.training.steps for name, each in recipe.items()} == {
        "heads-s1": 8, "encoding-s1": 8, "single-task-a-s1": 12, "single-task-b-s1": 4,
    }  # fmt: skip
    assert recipe["single-task-a-s1"].elements == recipe["heads-s1"].elements == ("H", "C", "N", "O")
    assert recipe["encoding-s1"].model.head.task_dim == 2 and recipe["single-task-b-s1"].model.head.task_dim == 0
    assert [row["set"] for row in rows] == [
        "a", "b", "WARMSE", "log-weighted", "b_again, zero-shot", "WARMSE, zero-shot", "log-weighted, zero-shot",
    ]  # fmt: skip
    for name in ("heads", "encoding", "single-task"):
        errors = [float(row[f"force RMSE, meV/Å: {name}"]) for row in rows]
        assert errors[2] == pytest.approx((3 * errors[0] + errors[1]) / 4)
        assert errors[3] == pytest.approx(math.exp((3 * math.log(errors[0]) + math.log(errors[1])) / 4))
        assert errors[4] == pytest.approx(errors[5])
    assert "Parameters: heads" in page


def test_an_unknown_task_is_refused_before_anything_is_trained(folder, tmp_path):
    overrides = [f"recipe={folder / 'two.yaml'}", f"test.aa={folder / 'a_test.xyz'}"]
    with pytest.raises(RecipeError, match="no task 'aa'"):
        carried_out("tasks", overrides, tmp_path / "s")


def test_a_benchmark_sets_architectures_beside_calculators(folder, tmp_path):
    lj = "ase:ase.calculators.lj.LennardJones(sigma=1.0, epsilon=0.1, rc=4.0)"
    overrides = words(folder, f"models.small={folder / 'small.yaml'}", f"references.lj='{lj}'", "sets.a.weight=3")
    overrides += ["references.emt='ase:ase.calculators.emt.EMT()'", "seeds=[1,2]"]
    rows, page, _ = carried_out("benchmark", overrides, tmp_path / "s")
    assert [row["set"] for row in rows] == ["a", "b", "WARMSE", "log-weighted"]
    for row in rows:
        assert float(row["energy RMSE, meV/atom: lj"]) < 1e-4, "it made the labels"
        assert float(row["energy RMSE, meV/atom: small"]) > 1e-3
    assert "parameters" in page
    assert len(list((tmp_path / "s" / "recipes").iterdir())) == 4


def test_heads_are_tried_one_by_one_and_at_random(folder, tmp_path):
    overrides = words(folder, f"model.model={folder / 'pretrained'}", "sizes=[4]", "whole=false")
    rows, page, _ = carried_out("heads", overrides, tmp_path / "s")
    assert {(row["set"], row["model"]) for row in rows} == {(s, head) for s in "ab" for head in ("a", "b", "random head")}
    assert "the worst head's force error" in page
    with pytest.raises(RecipeError, match="no task 'c'"):
        carried_out("heads", [*overrides, "heads=[c]"], tmp_path / "other")


def test_an_ablation_removes_parts_one_after_the_other(folder, tmp_path):
    chain = "[{part: angles, set: [model.backbone.angle_dim=3]}, {part: edges, set: [model.backbone.edge_dim=5]}]"
    overrides = words(folder, f"recipe={folder / 'small.yaml'}", f"remove={{channel: {chain}}}")
    rows, page, _ = carried_out("ablation", overrides, tmp_path / "s")
    last = load_recipe(tmp_path / "s" / "recipes" / "channel_edges-s1.yaml").model.backbone
    assert (last.angle_dim, last.edge_dim) == (3, 5), "parts stay removed"
    assert [row["removed"] for row in rows] == ["angles", "edges"]
    rise, error = "rise of force RMSE, meV/Å", "force RMSE, meV/Å"
    assert float(rows[1][rise]) == pytest.approx(float(rows[1][error]) - float(rows[0][error]))
    assert "of the full model" in page


def test_the_paper_s_ablation_is_the_default(folder):
    config = read_config("ablation", None, words(folder, "recipe=dpa2_paper"))
    parts = {channel: [removal.part for removal in chain] for channel, chain in config.remove.items()}
    assert parts == {
        "single-atom channel": ["conv", "sym_f", "sym_g", "local_attention"],
        "pair channel": ["prod_f", "gate", "attention"],
    }


def test_scaling_sweeps_models_data_and_steps(folder, tmp_path):
    overrides = [f"data.train={folder / 'a.xyz'}", f"data.test={folder / 'a_test.xyz'}", f"steps={STEPS}"]
    wide = f"{{recipe: {folder / 'small.yaml'}, set: [model.backbone.node_dim=12]}}"
    overrides += [f"models.narrow={folder / 'small.yaml'}", f"models.wide={wide}", "sizes=[4,8]", "lengths=[3]"]
    rows, page, _ = carried_out("scaling", overrides, tmp_path / "s")
    found = {(row["model"], row["frames D"], row["steps"]) for row in rows}
    assert found == {
        ("narrow", "16", "3"),
        ("narrow", "16", "6"),
        ("wide", "16", "3"),
        ("wide", "16", "6"),
        ("wide", "4", "6"),
        ("wide", "8", "6"),
    }
    for row in rows:
        assert 2 * int(row["steps"]) <= int(row["frames seen"]) <= 3 * int(row["steps"])
        assert float(row["compute N × seen"]) == pytest.approx(int(row["parameters N"]) * int(row["frames seen"]), rel=0.05)
    assert "e ∝ x^-α" in page


def test_drift_runs_models_and_calculators_without_a_thermostat(folder, tmp_path):
    lj = "ase:ase.calculators.lj.LennardJones(sigma=1.0, epsilon=0.1, rc=4.0)"
    overrides = [f"models.ours={folder / 'pretrained'}@a", f"models.lj='{lj}'", f"data={folder / 'a_test.xyz'}"]
    overrides += ["draw=2", "time=0.004", "timestep=0.2", "every=2"]
    rows, page, said = carried_out("drift", overrides, tmp_path / "s")
    assert [row["model"] for row in rows] == ["ours", "lj", "ours", "lj"]
    assert all(math.isfinite(float(row["drift, meV/atom/ps"])) for row in rows)
    assert "NVE" in page and len(said) == 4
    kept = json.loads(next((tmp_path / "s" / "errors").glob("ours-*.json")).read_text())["run"]
    assert kept[0] == pytest.approx([0.0, 0.0004, 0.0008, 0.0012, 0.0016, 0.002, 0.0024, 0.0028, 0.0032, 0.0036, 0.004])
    assert kept[1][0] == 0.0


def test_a_plan_writes_recipes_and_trains_nothing(folder, tmp_path):
    config = read_config("benchmark", None, words(folder, f"models.small={folder / 'small.yaml'}"))
    lines = plan_study("benchmark", config, tmp_path / "s")
    assert lines[0] == "2 trainings, 12 steps in all; 2 models judged by 2 sets"
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["recipes"]


def test_the_command_reads_a_file_and_settings(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {
        "sets": {"a": {"train": str(folder / "a.xyz"), "test": str(folder / "a_test.xyz")}},
        "models": {"small": str(folder / "small.yaml")},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    done = CliRunner().invoke(app, ["study", "benchmark", "mine.yaml", "steps=3"])
    assert done.exit_code == 0, done.output
    assert "# Architectures" in done.output and (tmp_path / "studies" / "mine" / "study.md").is_file()
    done = CliRunner().invoke(app, ["study", "benchmark", "mine.yaml", "stepps=3"])
    assert isinstance(done.exception, RecipeError) and "did you mean 'steps'" in str(done.exception)
    with pytest.raises(InputError, match="no study 'learning'"):
        read_config("learning", None, [])
