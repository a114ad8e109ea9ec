"""Every study in miniature: what it trains, what it says, and what it writes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from lamella.errors import RecipeError
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.train.recipe import load_recipe
from lamella.use.study import drift
from lamella.use.study.studies import plan_study, read_config
from use.study_small import LJ, STEPS, carried_out, make_sets, pretrain, smallest, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = make_sets(tmp_path_factory.mktemp("study"))
    pretrain(place)
    return place


def test_a_learning_curve_trains_every_size_for_the_same_steps(folder, tmp_path):
    overrides = words(folder, "sizes=[4,1000]", f"pretrained.tuned.model={folder / 'pretrained'}")
    rows, page, said = carried_out("learning-curve", [*overrides, f"scratch.plain={folder / 'small.yaml'}"], tmp_path / "s")
    found = {(row["set"], row["frames"], row["model"]) for row in rows}
    assert found == {(s, n, m) for s in "ab" for n in ("4", "12") for m in ("tuned", "plain")} | {
        (s, "0", "tuned, zero-shot") for s in "ab"
    }
    assert all(float(row["force RMSE, meV/Å"]) > 0 for row in rows)
    recipes = [load_recipe(path) for path in sorted((tmp_path / "s" / "recipes").iterdir())]
    assert len(recipes) == 8 and {recipe.training.steps for recipe in recipes} == {STEPS}
    assert f"Every training makes {STEPS} steps" in page and "plain needs for the error of tuned with 4 frames:" in page
    assert "a has too few frames for 1000: left out." in page
    assert len([line for line in said if line.endswith("trained")]) == 8
    subset = [set(map(str, (a.positions for a in read(tmp_path / "s" / "data" / f"{n}-4-s1.extxyz", ":")))) for n in "ab"]
    assert all(len(frames) == 4 for frames in subset)


def test_a_random_head_may_begin_above_zero_shot(folder, tmp_path):
    """Beside a named head, and for as many steps; the mean over seeds has a deviation."""
    model = f"{{model: {folder / 'pretrained'}, head: random}}"
    overrides = words(folder, "sizes=[4]", "whole=false", "seeds=[1,2]", f"pretrained.new={model}", sets="a")
    rows, page, _ = carried_out("learning-curve", overrides, tmp_path / "s")
    assert [row["model"] for row in rows] == ["new, zero-shot", "new"]
    assert float(rows[1]["force RMSE, meV/Å ±"]) > 0 and "could not be trained" not in page


def test_single_tasks_get_their_effective_steps(folder, tmp_path):
    overrides = [f"recipe={folder / 'two.yaml'}", "steps=4", "set=[training.tasks_per_step=2]"]
    overrides += [f"test.{name}={folder / f'{name}_test.xyz'}" for name in "ab"]
    overrides += ["variants.heads=[]", "variants.encoding=[model.head.task_dim=2]"]
    overrides += [f"downstream.b_again={{data: {folder / 'b_test.xyz'}, task: a, weight: 2.0}}"]
    rows, page, _ = carried_out("tasks", overrides, tmp_path / "s")
    recipe = {path.stem: load_recipe(path) for path in (tmp_path / "s" / "recipes").iterdir()}
    assert {name: each.training.steps for name, each in recipe.items()} == {
        "heads-s1": 4, "encoding-s1": 4, "single-task-a-s1": 6, "single-task-b-s1": 2,
    }  # fmt: skip
    assert recipe["single-task-a-s1"].elements == recipe["heads-s1"].elements == ("H", "C", "N", "O")
    assert recipe["encoding-s1"].model.head.task_dim == 2 and recipe["single-task-b-s1"].model.head.task_dim == 0
    assert {each.batch.frames for each in recipe.values()} == {3}
    assert [row["set"] for row in rows] == [
        "a", "b", "WARMSE", "log-weighted", "b_again, zero-shot", "WARMSE, zero-shot", "log-weighted, zero-shot",
    ]  # fmt: skip
    for name in ("heads", "encoding", "single-task"):
        errors = [float(row[f"force RMSE, meV/Å: {name}"]) for row in rows]
        assert errors[2] == pytest.approx((3 * errors[0] + errors[1]) / 4)
        assert errors[3] == pytest.approx(math.exp((3 * math.log(errors[0]) + math.log(errors[1])) / 4))
        assert errors[4] == pytest.approx(errors[5])
    assert "Parameters: heads" in page and "| set | weight | single-task steps | std | heads |" in page


def test_a_task_that_is_not_tested_is_named(folder, tmp_path):
    overrides = [f"recipe={folder / 'two.yaml'}", "steps=2", "single=false", f"test.b={folder / 'b_test.xyz'}"]
    rows, page, _ = carried_out("tasks", overrides, tmp_path / "s")
    assert [row["set"] for row in rows] == ["b", "WARMSE", "log-weighted"]
    assert "without test frames, and so in no average: a." in page


def test_the_last_step_is_judged_not_the_best(folder, tmp_path):
    """Steps that were chosen on validation frames would not be those that were counted."""
    overrides = [f"recipe={folder / 'two.yaml'}", "steps=2", "single=false", f"test.a={folder / 'a_test.xyz'}"]
    first, _, _ = carried_out("tasks", overrides, tmp_path / "s")
    run = tmp_path / "s" / "runs" / "multi-task-s1"
    other = load(run)
    next(iter(other.parameters())).mul_(2.0)
    (run / "step_0000001").mkdir()
    save_model(other, run / "step_0000001")
    (run / "best").write_text("step_0000001\n")
    shutil.rmtree(tmp_path / "s" / "errors")
    assert carried_out("tasks", overrides, tmp_path / "s")[0] == first


def test_an_unknown_task_is_refused_before_anything_is_trained(folder, tmp_path):
    overrides = [f"recipe={folder / 'two.yaml'}", f"test.aa={folder / 'a_test.xyz'}"]
    with pytest.raises(RecipeError, match="no task 'aa'"):
        carried_out("tasks", overrides, tmp_path / "s")
    with pytest.raises(RecipeError, match="choose another name"):
        carried_out("tasks", [overrides[0], f"test.a={folder / 'a_test.xyz'}", "variants.single-task=[]"], tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_benchmark_sets_architectures_beside_calculators(folder, tmp_path):
    overrides = words(folder, f"models.small={folder / 'small.yaml'}", f"references.lj='{LJ}'", "sets.a.weight=3")
    overrides += ["seeds=[1,2]", f"also.again={{data: {folder / 'a_test.xyz'}, trained_on: a}}"]
    rows, page, _ = carried_out("benchmark", overrides, tmp_path / "s")
    averages = ["WARMSE", "log-weighted"]
    assert [row["set"] for row in rows] == ["a", "b", *averages, "again"]
    for row in rows:
        assert float(row["energy RMSE, meV/atom: lj"]) < 1e-4, "it made the labels"
        assert float(row["energy RMSE, meV/atom: small"]) > 1e-3
    assert rows[4]["force RMSE, meV/Å: small"] == rows[0]["force RMSE, meV/Å: small"], "the same frames"
    assert float(rows[0]["force RMSE, meV/Å: small ±"]) > 0 and " ± " in page
    assert "parameters" in page and "again: judged by the models trained on a" in page
    assert len(list((tmp_path / "s" / "recipes").iterdir())) == 4


def test_averages_say_which_sets_they_leave_out(folder, tmp_path):
    overrides = words(folder, f"models.small={folder / 'small.yaml'}", "references.emt='ase:ase.calculators.emt.EMT()'")
    (tmp_path / "si.xyz").write_text(
        '1\nenergy=-1.0 pbc="F F F" Properties=species:S:1:pos:R:3:forces:R:3\nSi 0 0 0 0 0 1\n'
    )
    overrides += [f"also.salt={{data: {tmp_path / 'si.xyz'}, trained_on: a}}"]
    rows, page, _ = carried_out("benchmark", overrides, tmp_path / "s")
    assert rows[4]["force RMSE, meV/Å: small"] == rows[4]["force RMSE, meV/Å: emt"] == ""
    assert "is not evaluated on salt: it does not know Si" in page
    assert "salt-emt is not evaluated on salt" in page
    assert float(rows[2]["force RMSE, meV/Å: emt"]) > 0, "the sets above are averaged all the same"


def test_heads_are_tried_one_by_one_and_at_random(folder, tmp_path):
    overrides = words(folder, f"model.model={folder / 'pretrained'}", "sizes=[4]", "whole=false", sets="a")
    rows, page, _ = carried_out("heads", overrides, tmp_path / "s")
    assert [row["model"] for row in rows] == ["a", "b", "random head"]
    started = {path.stem: load_recipe(path).start.head for path in (tmp_path / "s" / "recipes").iterdir()}
    assert started == {"a-a-4-s1": "a", "a-b-4-s1": "b", "a-random_head-4-s1": "random"}
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


def test_the_paper_s_ablation_is_the_default(folder, tmp_path):
    """Table S5: four parts of the single-atom channel and three of the pair channel, each a model that can be built."""
    overrides = words(folder, "recipe=dpa2_paper", "set=[model.backbone.repformer.layers=1]", sets="a")
    config = read_config("ablation", None, overrides)
    parts = {channel: [removal.part for removal in chain] for channel, chain in config.remove.items()}
    assert parts == {
        "single-atom channel": ["conv", "sym_f", "sym_g", "local_attention"],
        "pair channel": ["prod_f", "gate", "attention"],
    }
    lines = plan_study("ablation", config, tmp_path / "s")
    assert lines[0].startswith("8 trainings")
    bare = load_recipe(tmp_path / "s" / "recipes" / "single-atom_channel_local_attention-s1.yaml").model.backbone.repformer
    assert not any((bare.conv, bare.sym_f, bare.sym_g, bare.local_attention)) and bare.attention


def test_the_paper_s_ablation_is_for_dpa2_alone(folder, tmp_path):
    config = read_config("ablation", None, words(folder, f"recipe={folder / 'small.yaml'}"))
    with pytest.raises(RecipeError, match=r"parts of DPA-2 are removed, but .*small\.yaml is of kind dpa3; name its parts"):
        plan_study("ablation", config, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_scaling_sweeps_models_data_and_steps(folder, tmp_path):
    overrides = [f"data.train={folder / 'a.xyz'}", f"data.test={folder / 'a_test.xyz'}", f"steps={STEPS}"]
    wide = f"{{recipe: {folder / 'small.yaml'}, set: [model.backbone.node_dim=12]}}"
    overrides += [f"models.narrow={folder / 'small.yaml'}", f"models.wide={wide}", "sizes=[4]", "lengths=[2]"]
    rows, page, _ = carried_out("scaling", overrides, tmp_path / "s")
    found = {(row["model"], row["frames D"], row["steps"]) for row in rows}
    assert found == {
        ("narrow", "12", "2"),
        ("narrow", "12", "3"),
        ("wide", "12", "2"),
        ("wide", "12", "3"),
        ("wide", "4", "3"),
    }
    for row in rows:
        assert 2 * int(row["steps"]) <= int(row["frames seen"]) <= 3 * int(row["steps"])
        assert float(row["compute N × seen"]) == pytest.approx(int(row["parameters N"]) * int(row["frames seen"]), rel=0.05)
    assert "e ∝ x^-α" in page


def drift_words(folder: Path, *more: str) -> list[str]:
    return [f"models.lj='{LJ}'", f"data={folder / 'a_test.xyz'}", "draw=2", "time=0.004", "timestep=0.2", "every=2", *more]


def test_drift_runs_models_and_calculators_without_a_thermostat(folder, tmp_path):
    rows, page, said = carried_out("drift", drift_words(folder, f"models.ours={folder / 'pretrained'}@a"), tmp_path / "s")
    assert [row["model"] for row in rows] == ["lj", "ours", "lj", "ours"]
    assert all(math.isfinite(float(row["drift, meV/atom/ps"])) for row in rows)
    assert "NVE" in page and len(said) == 4
    time, energy, stopped = json.loads(next((tmp_path / "s" / "errors").glob("ours-*.json")).read_text())["run"]
    assert time == pytest.approx([0.0, 0.0004, 0.0008, 0.0012, 0.0016, 0.002, 0.0024, 0.0028, 0.0032, 0.0036, 0.004])
    assert energy[0] == 0.0 and stopped is None
    slope = np.polyfit(time[2:], energy[2:], 1)[0]
    row = next(row for row in rows if row["model"] == "ours")
    assert float(row["drift, meV/atom/ps"]) == pytest.approx(1000 * slope, rel=1e-6)


def test_a_model_that_changed_under_its_name_is_run_again(folder, tmp_path, monkeypatch):
    """Results are kept for weights, not for the path they lay under."""
    shutil.copytree(folder / "pretrained", tmp_path / "m")
    overrides = drift_words(folder, f"models.ours={tmp_path / 'm'}@a", "draw=1")
    runs = []
    simulate = drift._simulate
    monkeypatch.setattr(drift, "_simulate", lambda *given: runs.append(1) or simulate(*given))
    carried_out("drift", overrides, tmp_path / "s")
    carried_out("drift", overrides, tmp_path / "s")
    assert len(runs) == 2, "lj and ours, once"
    model = load(tmp_path / "m")
    next(iter(model.parameters())).mul_(1.01)
    step = tmp_path / "m" / (tmp_path / "m" / "best").read_text().strip()
    shutil.rmtree(step)
    step.mkdir()
    save_model(model, step)
    carried_out("drift", overrides, tmp_path / "s")
    assert len(runs) == 3, "ours alone again"


def test_a_plan_writes_recipes_and_trains_nothing(folder, tmp_path):
    config = read_config("benchmark", None, words(folder, f"models.small={folder / 'small.yaml'}"))
    lines = plan_study("benchmark", config, tmp_path / "s")
    assert lines[0] == f"2 trainings, {2 * STEPS} steps in all; 2 models judged by 2 sets"
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["recipes", "study.yaml"]
    again = read_config("benchmark", tmp_path / "s" / "study.yaml", [])
    assert again == config, "what was planned can be carried out"
    lines = plan_study("drift", read_config("drift", None, drift_words(folder)), tmp_path / "d")
    assert lines[0] == "2 runs of 0.004 ps (20 steps): lj on" and len(lines) == 3
    assert not (tmp_path / "d").exists()


def test_a_training_that_fails_is_said_and_the_others_go_on(folder, tmp_path):
    wild = f"{{recipe: {folder / 'small.yaml'}, set: [optimizer.lr=1e300, schedule.stop_lr=1e-4]}}"
    rows, page, _ = carried_out("learning-curve", [*smallest(folder), "seeds=[1]", f"scratch.wild={wild}"], tmp_path / "s")
    assert {row["model"] for row in rows} == {"plain"}
    assert "a-wild-4-s1 could not be trained" in page
