"""Elements and statistics of a model of several tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import read, write

from lamella.models.potential import Potential
from lamella.train.prepare import build_potential
from lamella.train.recipe import Recipe
from lamella.train.task_data import elements_of, open_tasks
from train.small import MODEL

MakeRecipe = Callable[..., Recipe]


def built(recipe: Recipe) -> Potential:
    return build_potential(recipe, open_tasks(recipe))


def whole(path: Path, **settings: Any) -> dict[str, Any]:
    return {"train": str(path), "valid_fraction": 0.0, **settings}


def test_a_model_knows_the_elements_that_its_trained_tasks_hold_or_list(
    files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    tasks = {
        "a": whole(files["molecules"], elements=["O", "C", "H", "N"]),
        "b": whole(files["crystals"]),
        "idle": whole(files["other"], weight=0.0, elements=["H", "C", "O", "Xe"]),
    }
    recipe = make_recipe(tasks=tasks)
    assert elements_of(recipe, open_tasks(recipe)) == ("H", "C", "N", "O", "Na", "Cl")
    listed = ("Xe", "Cl", "Na", "O", "C", "H")
    recipe = make_recipe(tasks={name: task | {"elements": None} for name, task in tasks.items()}, elements=listed)
    assert elements_of(recipe, open_tasks(recipe)) == listed


def test_statistics_are_those_of_all_trained_frames_together(files: dict[str, Path], make_recipe: MakeRecipe) -> None:
    """Sums over frames are added, so that the model is the one of a single task that holds them all."""
    model = MODEL | {"backbone": MODEL["backbone"] | {"env_std": 0.0}}
    two = {"a": whole(files["molecules"]), "b": whole(files["crystals"], weight=0.1)}
    idle = {"idle": whole(files["other"], weight=0.0)}
    one = {"a": whole(files["molecules"]) | {"train": [str(files["molecules"]), str(files["crystals"])]}}
    merged, beside, single = (built(make_recipe(model=model, tasks=tasks)) for tasks in (two, idle | two, one))
    scales = [potential.backbone.environment.std for potential in (merged, beside, single)]
    torch.testing.assert_close(scales[0], scales[2], rtol=1e-12, atol=0)
    assert torch.equal(scales[0], scales[1])
    alone = built(make_recipe(model=model, tasks={"a": two["a"]}, elements=merged.elements))
    assert not torch.equal(alone.backbone.environment.std, scales[0])


@pytest.mark.parametrize("shared", [False, True])
def test_each_task_has_a_baseline_of_its_own(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, shared: bool
) -> None:
    """The same structures labelled by a method that puts every H at -10 eV and every other atom at -20 eV more."""
    frames = read(files["molecules"], ":")
    for atoms in frames:
        atoms.calc.results["energy"] += sum(-10.0 if number == 1 else -20.0 for number in atoms.numbers)
    write(tmp_path / "shifted.xyz", frames)
    tasks = {"a": whole(files["molecules"]), "b": whole(tmp_path / "shifted.xyz")}
    model = MODEL | {"head": MODEL["head"] | ({"task_dim": 2} if shared else {})}
    potential = built(make_recipe(model=model, tasks=tasks))
    counts = np.array([[(atoms.numbers == z).sum() for z in (1, 6, 8)] for atoms in frames])
    np.testing.assert_allclose(counts @ (potential.baseline[1] - potential.baseline[0]).numpy(), counts @ [-10, -20, -20])
