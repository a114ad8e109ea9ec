"""Every kind of model that training can start from: deepmd-kit's files, published names, shared heads, and damaged ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golden_models import GOLDEN
from lamella.data.source import open_frames
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.models.potential import Potential
from lamella.train.adapt import start as start_module
from lamella.train.adapt.compose import task_name
from lamella.train.adapt.forgetting import forgetting, forgetting_lines
from lamella.train.adapt.gate import JumpError
from lamella.train.adapt.judge import judge
from lamella.train.fit import fit
from lamella.train.prepare import build_potential, open_tasks
from lamella.train.recipe import Recipe
from train.adapt.small import two_tasks

MakeStart = Callable[..., Recipe]


def begun(recipe: Recipe) -> Potential:
    return build_potential(recipe, open_tasks(recipe))


def record(potential: Potential) -> dict[str, Any]:
    start = potential.metadata["start"]
    assert isinstance(start, dict)
    return start


@pytest.fixture
def shared(tmp_path: Path) -> Callable[[int], Path]:
    """A model whose tasks share a head, told apart by codes of a given width."""

    def make(width: int) -> Path:
        folder = tmp_path / f"shared{width}"
        folder.mkdir()
        save_model(two_tasks(model={"head": {"task_dim": width}}), folder)
        return folder

    return make


@pytest.mark.parametrize(
    "name",
    ["dp_se_e2_a", "dpa1_noattn_strip", "dpa2_released", "dpa3_static", "dpa3_multitask_case", "dpa3_multitask_heads"],
)
def test_a_deepmd_kit_file_begins_as_good_as_it_is(make_start: MakeStart, name: str) -> None:
    potential = begun(make_start("water", model=str(GOLDEN / f"{name}.pt"), lora={"rank": 2}))
    errors = record(potential)["errors"]["mine"]
    assert errors["before"]["forces"] == pytest.approx(errors["zero_shot"]["forces"], rel=1e-9)
    assert "new       no tensor is re-initialised" in record(potential)["plan"]
    assert any(parameter.requires_grad for parameter in potential.backbone.parameters())


def test_a_published_model_is_a_start_by_its_name(
    make_start: MakeStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    shutil.copy(GOLDEN / "dpa3_static.pt", tmp_path / "models" / "DPA-3.1-3M.pt")
    recipe = make_start("water", model="DPA-3.1-3M")
    assert recipe.start is not None
    assert recipe.start.model == "DPA-3.1-3M"
    assert record(begun(recipe))["plan"][0].startswith("start     DPA-3.1-3M: DPA-3, ")


@pytest.mark.parametrize("width", [2, 5])
def test_a_new_task_of_a_shared_head_gets_a_code_of_its_own(
    make_start: MakeStart, place: Path, shared: Callable[[int], Path], width: int
) -> None:
    potential = begun(make_start(model=str(shared(width))))
    assert potential.task_code.shape == (3, max(width, 3))
    assert len(potential.heads) == 1
    errors = record(potential)["errors"]["mine"]
    assert errors["before"] == pytest.approx(errors["zero_shot"], rel=1e-9)
    text = "\n".join(record(potential)["plan"])
    for words in (
        "heads.0.nets.0.hidden.0.weight: 16 of its numbers are for the code of the new task",
        "new       no tensor is re-initialised",
        "head      mine: its code begins as a copy of that of ",
        "kept      low, high: share the head that is trained, so their errors change; --replay limits that",
    ):
        assert words in text


def test_a_shared_head_forgets_although_the_backbone_is_frozen_and_the_report_says_so(
    make_start: MakeStart, place: Path, shared: Callable[[int], Path], tmp_path: Path
) -> None:
    sources = {"low": [str(place / "low.xyz")]}
    sections = {"optimizer": {"kind": "adam", "lr": 0.05}, "training": {"steps": 2, "valid_every": 2}}
    recipe = make_start(model=str(shared(2)), freeze="backbone", sources=sources, sections=sections)
    run = fit(recipe, tmp_path / "run")
    found = forgetting(run)
    assert found["low"]["after"]["forces"] > 1.2 * found["low"]["before"]["forces"]
    assert "1 of 1 tasks grew worse, low most. If you need them too, train again with --replay low" in "\n".join(
        forgetting_lines(run, found)
    )


def test_only_leaves_one_code_of_a_shared_head(make_start: MakeStart, shared: Callable[[int], Path]) -> None:
    potential = begun(make_start(model=str(shared(2)), only=True))
    assert potential.tasks == ("mine",)
    errors = record(potential)["errors"]["mine"]
    assert errors["before"] == pytest.approx(errors["zero_shot"], rel=1e-9)


@pytest.mark.parametrize("damaged", ["backbone.layers.0", "heads.2"])
def test_weights_that_are_not_those_loaded_are_a_jump(
    make_start: MakeStart, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    whole = start_module.with_tasks

    def lossy(*arguments: Any) -> Potential:
        potential = whole(*arguments)
        with torch.no_grad():
            for name, parameter in potential.named_parameters():
                if name.startswith(damaged):
                    parameter.mul_(1.5)
        return potential

    monkeypatch.setattr(start_module, "with_tasks", lossy)
    with pytest.raises(JumpError, match="what predicts is not what was loaded: a defect") as caught:
        begun(make_start())
    assert any(line.startswith("new       ") and "drawn at random" in line for line in caught.value.plan)


def test_a_random_code_is_a_jump_too(make_start: MakeStart, shared: Callable[[int], Path]) -> None:
    with pytest.raises(JumpError, match="its head is random"):
        begun(make_start(model=str(shared(2)), head="random"))


def test_new_elements_and_low_rank_updates_leave_the_model_s_own_tasks_as_they_are(
    make_start: MakeStart, place: Path
) -> None:
    potential = begun(make_start("sulfur", add_elements=("S",), lora={"rank": 2}, freeze=1))
    frames = open_frames(place / "high.xyz")
    assert judge(potential, frames, "low").errors() == judge(load(place / "model"), frames, "low").errors()


def test_a_task_is_named_after_what_says_something(tmp_path: Path) -> None:
    assert task_name("data/zeolite.v2.xyz") == "zeolite"
    assert task_name(str(tmp_path / "zeolite" / "train.extxyz")) == "zeolite"
    assert task_name("embedded:water:train") == "water"
