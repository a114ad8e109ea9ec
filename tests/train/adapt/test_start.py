"""The plan and the gate: what a run begins with is the loaded model, and where it is not, that is said before step 0."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lamella.data.source import open_frames
from lamella.errors import DataError, LamellaError, RecipeError
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.models.potential import Potential
from lamella.train.adapt.gate import JumpError
from lamella.train.adapt.judge import judge, some_frames
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


def plan(potential: Potential) -> str:
    return "\n".join(record(potential)["plan"])


def refused(recipe: Recipe) -> str:
    with pytest.raises(LamellaError) as caught:
        begun(recipe)
    return str(caught.value)


def test_the_best_head_is_the_one_that_made_the_labels_and_step_0_is_zero_shot(make_start: MakeStart) -> None:
    potential = begun(make_start())
    assert potential.tasks == ("low", "high", "mine")
    assert record(potential)["heads"] == {"mine": "high"}
    errors = record(potential)["errors"]["mine"]
    assert errors["before"] == pytest.approx(errors["zero_shot"], rel=1e-9)
    assert errors["valid"]["before"] == pytest.approx(errors["valid"]["zero_shot"], rel=1e-9)
    assert errors["before"]["forces"] == pytest.approx(0.01, rel=0.2)  # the noise of the labels
    assert errors["before"]["energy"] < 1e-9 < errors["scale"]["energy"]


def test_the_baseline_takes_up_the_other_zero_of_energy(make_start: MakeStart, place: Path) -> None:
    potential = begun(make_start())
    before = load(place / "model").baseline[1]
    found = dict(zip(potential.elements, (potential.baseline[2] - before).tolist(), strict=True))
    assert found == pytest.approx({"H": 3.0, "C": -500.0, "N": 7.0, "O": -2000.0}, abs=1e-6)
    assert torch.equal(potential.baseline[:2], load(place / "model").baseline)


def test_the_plan_says_what_loads_what_is_new_and_what_is_trained(make_start: MakeStart) -> None:
    text = plan(begun(make_start()))
    for words in (
        "loads     65 of 65 tensors from the model, ",
        "new       no tensor is re-initialised",
        "head      mine: its head begins as a copy of that of high, the best of 2 on your frames",
        "kept      low, high: heads stay as they are, but the backbone changes",
        "frozen    ",
        "the head of low",
        "trained   ",
        "the backbone's layers",
        "baseline  mine: energies per element by least squares over 18 frames, rank all 4, condition ",
        "18 training frames\n",
        "zero-shot: task high as loaded ",
        "step 0: what training begins with ",
        "no network: energies per element alone ",
        "6 validation frames\n",
        "step 0 is as good as zero-shot",
    ):
        assert words in text


def test_a_random_head_is_refused_before_step_0_with_the_plan_and_both_errors(make_start: MakeStart) -> None:
    recipe = make_start(head="random")
    with pytest.raises(
        JumpError, match=r"larger errors .*task mine: .*forces .* instead of .*\(its head is random\).*--allow-jump"
    ) as caught:
        begun(recipe)
    text = "\n".join(caught.value.plan)
    assert re.search(r"new       \d+ tensors, [\d,]+ numbers, are drawn at random: the head of mine\n", text)
    assert "head      mine: a random head, as asked; high would be the best" in text
    assert "JUMP: forces at step 0 above zero-shot" in text or "JUMP: energy and forces at step 0" in text


def test_a_jump_that_is_accepted_starts(make_start: MakeStart) -> None:
    potential = begun(make_start(head="random", allow_jump=True))
    errors = record(potential)["errors"]["mine"]
    assert errors["before"]["forces"] > 2 * errors["zero_shot"]["forces"]
    assert record(potential)["heads"] == {"mine": "random"}


def test_a_baseline_that_does_not_suit_the_network_is_refused(make_start: MakeStart, place: Path) -> None:
    given = {"H": -13.0, "C": -100.0, "N": -20.0, "O": -30.0}
    tasks = {"mine": {"train": str(place / "high.xyz"), "baseline": given}}
    message = refused(make_start(sections={"tasks": tasks}))
    assert "energy" in message
    assert "its baseline is given as numbers, which does not suit the network: say least_squares" in message


@pytest.mark.parametrize("head", ["low", "high"])
def test_a_named_head_is_taken_whatever_its_errors(make_start: MakeStart, place: Path, head: str) -> None:
    potential = begun(make_start(head=head))
    frames = open_frames(place / "water.xyz")
    assert (
        judge(potential, frames, "mine").errors()["forces"] == judge(load(place / "model"), frames, head).errors()["forces"]
    )


def test_a_head_that_does_not_exist_is_refused_with_the_nearest(make_start: MakeStart) -> None:
    assert "no task 'hihg' (did you mean 'high'?); it has low, high, and there are best and random" in refused(
        make_start(head="hihg")
    )


def test_constant_composition_is_met_and_said(make_start: MakeStart, place: Path) -> None:
    potential = begun(make_start("water"))
    source = load(place / "model")
    h, o = (potential.elements.index(symbol) for symbol in "HO")
    shift = potential.baseline[2] - source.baseline[1]
    assert float(2 * shift[h] + shift[o]) == pytest.approx(2 * 3.0 - 2000.0, abs=1e-6)
    assert float(shift[h]) == pytest.approx(2 * float(shift[o]), abs=1e-6)  # the least change: in proportion to the counts
    assert float(shift[potential.elements.index("N")]) == 0.0
    assert "under-determined: H and O always occur in the ratio 2:1" in plan(potential)
    assert record(potential)["errors"]["mine"]["before"]["energy"] < 1e-9


def test_tasks_that_cannot_be_measured_are_named(make_start: MakeStart, place: Path) -> None:
    assert "knows     not measured: low, high, of which no frames are at hand; --source" in plan(begun(make_start("water")))
    sources = {"low": [str(place / "low.xyz")], "high": [str(place / "high.xyz")]}
    assert "not measured" not in plan(begun(make_start("water", sources=sources)))


def test_one_frame_is_refused(make_start: MakeStart, place: Path) -> None:
    one = {"train": str(place / "one.xyz")}
    for more in ({}, {"valid": str(place / "water.xyz")}, {"valid_fraction": 0.0}):
        with pytest.raises(DataError, match=r"tasks\.mine: one training frame is too little.*give at least two"):
            open_tasks(make_start(sections={"tasks": {"mine": one | more}}))


def test_an_element_the_model_does_not_know_is_refused_with_the_option_that_adds_it(make_start: MakeStart) -> None:
    message = refused(make_start("sulfur"))
    assert "tasks.mine: the data hold S, which the model does not know (it knows H C N O)" in message
    assert "--add-elements S" in message


@pytest.mark.parametrize("data", ["sulfur", "sulfur_alone"])
def test_an_element_can_be_added(make_start: MakeStart, place: Path, data: str) -> None:
    head = "high" if data == "sulfur_alone" else "best"
    potential = begun(make_start(data, add_elements=("S",), head=head))
    assert potential.elements == ("H", "C", "N", "O", "S")
    source, frames = load(place / "model"), open_frames(place / "high.xyz")
    for old, new in (("low", "low"), ("high", "high")):
        assert judge(potential, frames, new).errors() == judge(source, frames, old).errors()
    assert "adds      S (begins like O): outputs for other elements stay the same" in plan(potential)
    assert record(potential)["errors"]["mine"]["frames"] in (4, 5, 3)


def test_statistics_of_a_new_element_come_from_the_data_and_others_stay(make_start: MakeStart, tmp_path: Path) -> None:
    old = two_tasks("dpa1")
    save_model(old, tmp_path)
    potential = begun(make_start("sulfur", model=str(tmp_path), add_elements=("S",), allow_jump=True))
    std = potential.backbone.environment.std
    assert torch.equal(std[:4], old.backbone.environment.std)
    assert not torch.equal(std[4], std[3])
    assert not potential.backbone.environment.mean.any()


def test_best_needs_frames_of_known_elements(make_start: MakeStart) -> None:
    assert "best cannot be found" in refused(make_start("sulfur_alone", add_elements=("S",)))


def test_an_element_added_to_deeppot_se_has_its_own_networks(place: Path, tmp_path: Path, make_start: MakeStart) -> None:
    save_model(two_tasks("se_a"), tmp_path)
    potential = begun(make_start("sulfur", model=str(tmp_path), add_elements=("S",), allow_jump=True))
    assert len(potential.backbone.nets) == 5
    frozen = begun(make_start("sulfur", model=str(tmp_path), add_elements=("S",), freeze="backbone", allow_jump=True))
    trained = {name for name, p in frozen.named_parameters() if p.requires_grad}
    assert all(name.startswith(("heads.2.", "backbone.nets.4.")) for name in trained)
    assert any(name.startswith("backbone.nets.4.") for name in trained)


def test_only_leaves_the_other_tasks_out(make_start: MakeStart, place: Path) -> None:
    potential = begun(make_start(only=True))
    assert potential.tasks == ("mine",)
    assert len(potential.heads) == 1
    errors = record(potential)["errors"]["mine"]
    assert errors["before"] == pytest.approx(errors["zero_shot"], rel=1e-9)
    assert "leaves " in plan(potential)


def test_a_task_of_the_model_goes_on_with_its_head(make_start: MakeStart) -> None:
    potential = begun(make_start("low", task="low"))
    assert potential.tasks == ("low", "high")
    assert "head      low: a task of the model, goes on with its own" in plan(potential)


def test_keep_is_for_tasks_of_the_model(make_start: MakeStart, place: Path) -> None:
    tasks = {"mine": {"train": str(place / "high.xyz"), "baseline": "keep"}}
    assert "tasks.mine.baseline: keep is for tasks of the model (low, high)" in refused(
        make_start(sections={"tasks": tasks})
    )


def test_a_recipe_with_an_architecture_of_its_own_is_refused(make_start: MakeStart) -> None:
    model = {"backbone": {"kind": "dpa3", "layers": 1}}
    assert "whose architecture it keeps" in refused(make_start(sections={"model": model}))


def test_a_model_that_is_not_there_is_named_with_its_key(make_start: MakeStart) -> None:
    with pytest.raises(RecipeError, match=r"start\.model: .*nothing.*no such file or folder"):
        make_start(model="nothing")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_recipe_s_dtype_is_taken_without_a_jump(make_start: MakeStart, dtype: str) -> None:
    potential = begun(make_start(sections={"dtype": dtype}))
    assert potential.dtype == getattr(torch, dtype)
    errors = record(potential)["errors"]["mine"]
    assert errors["before"]["forces"] == pytest.approx(errors["zero_shot"]["forces"], rel=1e-3)


def test_without_energies_the_baseline_stays(make_start: MakeStart, place: Path, tmp_path: Path) -> None:
    from ase.io import read, write

    frames = read(place / "high.xyz", ":")
    for atoms in frames:
        del atoms.calc.results["energy"]
    write(tmp_path / "forces.xyz", frames, format="extxyz")
    tasks = {"mine": {"train": str(tmp_path / "forces.xyz")}}
    potential = begun(make_start(sections={"tasks": tasks}))
    assert torch.equal(potential.baseline[2], load(place / "model").baseline[1])
    assert "unchanged: no training frame carries an energy" in plan(potential)


def test_some_frames_cover_every_element(place: Path) -> None:
    frames = open_frames(place / "sulfur.xyz")
    for seed in range(5):
        chosen = some_frames(frames, 2, seed)
        numbers = np.unique(np.concatenate([chosen[k].numbers for k in range(len(chosen))]))
        assert set(numbers.tolist()) == {1, 6, 8, 16}
        assert len(chosen) <= 5
