"""A model that reads charge, spin and parameters of frames trains on frames that carry them, and on no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from lamella.errors import StructureError
from lamella.formats.load import load
from lamella.train.fit import fit
from lamella.train.plan import plan_lines
from lamella.train.prepare import build_potential, make_sampler, open_tasks
from lamella.train.recipe import Recipe
from train.small import MODEL

READS = {
    "backbone": {**MODEL["backbone"], "charge_spin": True},
    "head": {**MODEL["head"], "frame_params": 2},
}


@pytest.fixture
def charged(tmp_path: Path, files: dict[str, Path]) -> list[Atoms]:
    frames = read(files["molecules"], index=":")
    for n, atoms in enumerate(frames):
        atoms.info |= {"charge": n % 2, "spin": 1 + n % 2, "frame_params": [100.0 + 10.0 * n, 0.1]}
    write(tmp_path / "charged.xyz", frames)
    return frames


def test_inputs_are_scaled_read_and_saved_with_the_model(
    tmp_path: Path, make_recipe: Callable[..., Recipe], charged: list[Atoms]
) -> None:
    tasks = {"lj": {"train": str(tmp_path / "charged.xyz"), "valid_fraction": 0.25}}
    recipe = make_recipe(model=READS, tasks=tasks, training={"steps": 3})
    fit(recipe, tmp_path / "run")
    model = load(tmp_path / "run")
    params = np.array([atoms.info["frame_params"] for atoms in charged])
    head = model.heads[0]
    assert 100.0 < float(head.frame_mean[0]) < 210.0
    assert float(head.frame_inv_std[0]) == pytest.approx(1.0 / params[:, 0].std(), rel=0.5)
    assert float(head.frame_inv_std[1]) == 100.0, "a constant is scaled by the smallest spread, not by infinity"
    assert {wanted.name for wanted in model.graph_spec.inputs} == {"charge", "spin", "frame_params"}


@pytest.mark.parametrize("name", ["charge", "spin", "frame_params"])
def test_a_frame_that_lacks_an_input_stops_the_run_before_its_first_step(
    tmp_path: Path, make_recipe: Callable[..., Recipe], charged: list[Atoms], name: str
) -> None:
    del charged[7].info[name]
    write(tmp_path / "charged.xyz", charged)
    with pytest.raises(StructureError, match=rf"charged\.xyz#7: the model reads {name} "):
        fit(make_recipe(model=READS, tasks={"lj": {"train": str(tmp_path / "charged.xyz")}}), tmp_path / "run")


def test_the_plan_says_which_inputs_are_read_and_which_are_not(
    tmp_path: Path, make_recipe: Callable[..., Recipe], charged: list[Atoms]
) -> None:
    tasks = {"lj": {"train": str(tmp_path / "charged.xyz")}}
    lines = {}
    for name, model in (("reads", READS), ("ignores", MODEL)):
        recipe = make_recipe(model=model, tasks=tasks)
        data = open_tasks(recipe)
        potential = build_potential(recipe, data)
        samplers = {"lj": make_sampler(data["lj"].train, recipe.batch, potential, 0, 0)}
        lines[name] = "\n".join(plan_lines(recipe, data, potential, samplers))
    assert all(f"the model reads {name} of each frame" in lines["reads"] for name in ("charge", "spin", "frame_params"))
    assert all(f"frames carry {name}, which the model does not read" in lines["ignores"] for name in ("charge", "spin"))
    assert "which the model does not read" not in lines["reads"]
    assert "DPA-3, " in lines["reads"]
    assert "angle 2.5 Å, exponential switch from 2 Å" in lines["reads"]
