"""Runs that start from a model: what may not change does not, they resume to the same bits, and say what was forgotten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golden_models import GOLDEN
from lamella.data.source import open_frames
from lamella.errors import LamellaError, RecipeError
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.models.potential import Potential
from lamella.train.adapt.forgetting import FORGETTING, forgetting, forgetting_lines
from lamella.train.adapt.judge import judge
from lamella.train.fit import CONFIG, fit
from lamella.train.log import read_log
from lamella.train.prepare import build_potential, open_tasks
from lamella.train.recipe import Recipe, load_recipe
from lamella.use.report import write_report
from train.adapt.small import two_tasks

MakeStart = Callable[..., Recipe]

LORA = {"rank": 2, "alpha": 4.0}
MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "head alone": {"freeze": "backbone"},
    "frozen layer": {"freeze": 1},
    "low rank": {"lora": LORA},
    "low rank above a frozen layer": {"lora": LORA, "freeze": 1},
}


def saved_as(potential: Potential, folder: Path) -> Path:
    folder.mkdir()
    save_model(potential, folder)
    return folder


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors of the loaded model whose bits training changed."""
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_frozen_keeps_its_bits_and_the_rest_is_trained(
    make_start: MakeStart, place: Path, tmp_path: Path, mode: str
) -> None:
    before = load(place / "model").state_dict()
    run = fit(make_start(**MODES[mode]), tmp_path / "run")
    after = load(run).state_dict()
    assert after.keys() > before.keys()
    names = changed({name: value for name, value in before.items() if name not in ("task_code", "baseline")}, after)
    layers = {name.split(".")[2] for name in names if name.startswith("backbone.layers.")}
    stem = {name for name in names if name.startswith("backbone.") and not name.startswith("backbone.layers.")}
    assert not {name for name in names if name.startswith("heads.")}, "heads of other tasks are kept"
    assert layers == {"full": {"0", "1"}, "head alone": set(), "frozen layer": {"1"}, "low rank": {"0", "1"}}.get(
        mode, {"1"}
    )
    assert bool(stem) == (mode == "full")
    if "low rank" in mode:
        assert all(name.endswith(".weight") for name in names)
        assert all(int(torch.linalg.matrix_rank(after[name] - before[name], atol=1e-10)) <= 2 for name in names)
    heads = [name for name in after if name.startswith("heads.2.") and name.endswith(("weight", "bias"))]
    assert all(not torch.equal(after[name], before[name.replace("heads.2", "heads.1")]) for name in heads)


COMBINED: dict[str, tuple[str, float | None, dict[str, Any]]] = {
    "full": ("dpa3", None, {}),
    "head alone, replay": ("dpa3", 0.9, {"freeze": "backbone"}),
    "low rank above a frozen layer, replay": ("dpa3", 0.9, {"lora": LORA, "freeze": 1}),
    "low rank of heads too, replay": ("dpa3", None, {"lora": LORA | {"matrices": ["*"]}}),
    "dpa2: low rank above a frozen layer, replay": ("dpa2", 0.9, {"lora": LORA, "freeze": 1}),
    "dpa1: low rank, replay": ("dpa1", None, {"lora": LORA}),
    "se_a: low rank, replay": ("se_a", 0.9, {"lora": LORA}),
    "new element, low rank, replay": ("dpa3", None, {"lora": LORA, "add_elements": ("S",)}),
    "se_a: new element, head alone, replay": ("se_a", None, {"freeze": "backbone", "add_elements": ("S",)}),
}
"""Architecture, moving average and choices of runs that are interrupted."""


@pytest.mark.parametrize("case", COMBINED)
def test_a_run_of_any_combination_resumes_to_the_same_bits(
    make_start: MakeStart, place: Path, tmp_path: Path, case: str
) -> None:
    architecture, ema, start = COMBINED[case]
    saved_as(two_tasks(architecture), tmp_path / "model")
    data = "sulfur" if "new element" in case else "high"
    tasks = {"mine": {"train": str(place / f"{data}.xyz"), "valid_fraction": 0.25, "weight": 0.5}}
    if "replay" in case:
        tasks["low"] = {"train": str(place / "low.xyz"), "weight": 0.5, "baseline": "keep"}
    sections = {"tasks": tasks, "training": {"ema": ema, "steps": 4, "valid_every": 4, "keep": 9}}
    recipe = make_start(sections=sections, model=str(tmp_path / "model"), **start)
    whole, run = fit(recipe, tmp_path / "whole"), tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "step_0000004")
    (run / "last").write_text("step_0000002\n")
    fit(load_recipe(run / CONFIG), run, resume=True)
    for name in ("model.safetensors", "model.json"):
        first, second = ((folder / "step_0000004" / name).read_bytes() for folder in (whole, run))
        assert first == second
    states = [torch.load(folder / "step_0000004" / "trainer.pt", weights_only=True) for folder in (whole, run)]
    for part in ("weights", "average"):
        one, two = (state.get(part) or {} for state in states)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    before, after = load(tmp_path / "model").heads[1].nets[0].out.bias, load(whole).heads[2].nets[0].out.bias
    assert not torch.equal(before, after)


@pytest.mark.parametrize("architecture", ["dpa3", "dpa2", "dpa1", "se_a"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_low_rank_updates_are_saved_as_ordinary_matrices_that_predict_the_same_bits(
    make_start: MakeStart, place: Path, tmp_path: Path, architecture: str, dtype: str
) -> None:
    saved_as(two_tasks(architecture), tmp_path / "model")
    recipe = make_start(model=str(tmp_path / "model"), lora=LORA | {"matrices": ["*"]}, sections={"dtype": dtype})
    armed = build_potential(recipe, open_tasks(recipe))
    frames = [open_frames(place / "low.xyz")[index] for index in range(3)]
    before = armed(armed.graph(frames), "mine")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in armed.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert any(name.endswith("parametrizations.weight.0.b") for name, _ in armed.named_parameters())
    saved = load(saved_as(armed, tmp_path / "saved"))
    assert not any("parametrizations" in name for name in saved.state_dict())
    one, two = armed(armed.graph(frames), "mine"), saved(saved.graph(frames), "mine")
    assert torch.equal(one.energy, two.energy)
    assert torch.equal(one.forces, two.forces)
    assert not torch.allclose(one.forces, before.forces)


def test_layers_that_are_not_there_cannot_be_frozen(make_start: MakeStart, tmp_path: Path) -> None:
    save_model(two_tasks("se_a"), tmp_path)
    recipe = make_start(model=str(tmp_path), freeze=1, allow_jump=True)
    with pytest.raises(RecipeError, match="se_a backbone has no numbered layers"):
        build_potential(recipe, open_tasks(recipe))
    recipe = make_start(freeze=2)
    with pytest.raises(RecipeError, match="2 of the backbone's 2 layers would leave none"):
        build_potential(recipe, open_tasks(recipe))


def test_patterns_that_match_no_matrix_are_refused(make_start: MakeStart) -> None:
    for lora in ({"matrices": ["backbone.layer.*"]}, {"rank": 4000}, {"matrices": ["heads.0.*"]}):
        recipe = make_start(lora=lora)
        with pytest.raises(RecipeError, match="matches no matrix"):
            build_potential(recipe, open_tasks(recipe))
    recipe = make_start(lora={"rank": 2}, freeze="backbone")
    with pytest.raises(RecipeError, match=r"start\.freeze \(--freeze\) keeps them"):
        build_potential(recipe, open_tasks(recipe))


def test_a_replayed_task_keeps_its_baseline_and_is_trained_along(make_start: MakeStart, place: Path, tmp_path: Path) -> None:
    tasks = {
        "mine": {"train": str(place / "high.xyz"), "weight": 0.5},
        "low": {"train": str(place / "low.xyz"), "weight": 0.5, "baseline": "keep"},
    }
    run = fit(make_start(sections={"tasks": tasks, "training": {"steps": 8}}), tmp_path / "run")
    before, after = load(place / "model"), load(run)
    assert torch.equal(after.baseline[0], before.baseline[0])
    assert not torch.equal(after.heads[0].nets[0].out.weight, before.heads[0].nets[0].out.weight)
    assert torch.equal(after.heads[1].nets[0].out.weight, before.heads[1].nets[0].out.weight)
    valid = [record for record in read_log(run) if record["event"] == "valid"]
    assert {record["task"] for record in valid} == {"mine", "low"}


def test_the_backbone_may_learn_at_a_rate_of_its_own(make_start: MakeStart, place: Path, tmp_path: Path) -> None:
    slow = fit(make_start(sections={"optimizer": {"kind": "adam", "lr": 1e-3, "backbone_lr": 1e-6}}), tmp_path / "run")
    before, after = load(place / "model").state_dict(), load(slow).state_dict()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before if name.startswith("backbone."))
    assert 0.0 < moved < 1e-7
    head = (after["heads.2.nets.0.out.bias"] - before["heads.1.nets.0.out.bias"]).abs()
    assert float(head) > 1e-4


def test_forgetting_is_measured_on_the_same_frames_before_and_after(
    make_start: MakeStart, place: Path, tmp_path: Path
) -> None:
    recipe = make_start(sources={"low": [str(place / "low.xyz")], "high": [str(place / "water.xyz")]})
    run = fit(recipe, tmp_path / "run")
    found = forgetting(run)
    frames = open_frames(place / "low.xyz")
    assert found["low"]["before"] == judge(load(place / "model"), frames, "low").errors()
    assert found["low"]["after"] == judge(load(run), frames, "low").errors()
    assert found["low"]["after"]["forces"] > 1.01 * found["low"]["before"]["forces"]
    assert json.loads((run / FORGETTING).read_text()) == found
    text = "\n".join(forgetting_lines(run, found))
    for word in (
        "learned: errors on validation",
        "  mine",
        "forgotten: errors on the model's own tasks",
        "  low ",
        "  high",
        "meV/Å",
        "->",
        "×",
    ):
        assert word in text


def test_with_a_frozen_backbone_nothing_is_forgotten(make_start: MakeStart, place: Path, tmp_path: Path) -> None:
    run = fit(make_start(freeze="backbone", sources={"low": [str(place / "low.xyz")]}), tmp_path / "run")
    found = forgetting(run)["low"]
    assert found["after"] == found["before"]


def test_a_run_that_started_from_no_model_forgets_nothing(place: Path) -> None:
    assert forgetting(place / "model") == {}
    assert forgetting_lines(place / "model", {}) == []


def test_an_adapted_model_is_adapted_again(make_start: MakeStart, tmp_path: Path) -> None:
    first = fit(make_start(lora=LORA), tmp_path / "first")
    second = fit(make_start("water", task="water", model=str(first)), tmp_path / "second")
    potential = load(second)
    assert potential.tasks == ("low", "high", "mine", "water")
    start = potential.metadata["start"]
    assert isinstance(start, dict)
    assert start["before"]["start"]["tasks"] == ["low", "high"]


def test_a_deepmd_kit_checkpoint_is_a_start_like_any_other(make_start: MakeStart, tmp_path: Path) -> None:
    checkpoint = GOLDEN / "dpa3_multitask_case.pt"
    source = load(checkpoint)
    recipe = make_start("water", model=str(checkpoint), allow_jump=True, head=source.tasks[0])
    run = fit(recipe, tmp_path / "run")
    potential = load(run)
    assert potential.tasks == (*source.tasks, "mine")
    assert potential.elements == source.elements
    assert recipe.dtype == str(source.dtype).removeprefix("torch.")


def test_settings_of_the_start_cannot_change_on_the_way(make_start: MakeStart, tmp_path: Path) -> None:
    run = fit(make_start(), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"start\.freeze was absent when the run began"):
        fit(load_recipe(run / CONFIG, ["start.freeze=backbone", "training.steps=8"]), run, resume=True)


def test_nothing_is_written_where_the_gate_refuses(make_start: MakeStart, tmp_path: Path) -> None:
    with pytest.raises(LamellaError, match="Nothing was written"):
        fit(make_start(head="random"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_report_says_where_the_run_began_and_what_was_forgotten(
    make_start: MakeStart, place: Path, tmp_path: Path
) -> None:
    run = fit(make_start(sources={"low": [str(place / "low.xyz")]}), tmp_path / "run")
    forgetting(run)
    text = write_report(run).read_text(encoding="utf-8")
    for words in ("started from", "which knew low and high", "began as that of high", "zero-shot", "task low of that model"):
        assert words in text
