"""``sel: auto``: the most neighbours of the training data, times a ratio, rounded up to a multiple of 4."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.data import chemical_symbols

from lamella.data.source import open_frames
from lamella.errors import RecipeError
from lamella.train.fit import fit
from lamella.train.prepare import count_sel, open_tasks
from lamella.train.recipe import Recipe, dump_recipe, load_recipe
from lamella.train.sel import auto_ratio, most_neighbors, rounded_sel
from lamella.types import Frame
from train.small import MODEL


def by_loops(frames: list[Frame], cutoff: float, elements: list[str]) -> list[int]:
    """Periodic images up to two cells away."""
    most = np.zeros(len(elements) + 1, dtype=int)
    for frame in frames:
        span = range(-2, 3) if frame.pbc.all() else range(1)
        for i in range(len(frame)):
            counts = np.zeros(len(elements) + 1, dtype=int)
            for j in range(len(frame)):
                for shift in ((a, b, c) for a in span for b in span for c in span):
                    distance = np.linalg.norm(frame.positions[j] + np.array(shift) @ frame.cell - frame.positions[i])
                    if distance < cutoff and (i != j or any(shift)):
                        counts[elements.index(chemical_symbols[frame.numbers[j]])] += 1
                        counts[-1] += 1
            most = np.maximum(most, counts)
    return most.tolist()


def test_most_neighbors_match_loops(files: dict[str, Path]) -> None:
    crystals = [*open_frames(files["crystals"])][:2]
    found = most_neighbors(crystals, [3.0, 4.5], ["Na", "Cl"])
    for cutoff in (3.0, 4.5):
        assert found[cutoff].tolist() == by_loops(crystals, cutoff, ["Na", "Cl"])


def test_most_neighbors_are_those_of_deepmd_kit(shared: Path) -> None:
    """``dp --pt neighbor-stat -s FRAME -r 6 -t O H [--mixed-type]``, deepmd-kit 3.2.0, on the frame wrapped into its cell.

    (Unwrapped, as the file is, it finds 66 H: it adds images to the positions as they are.)
    """
    frames = open_frames(shared / "reference" / "training" / "frame")
    found = most_neighbors([frames[0]], [6.0, 4.0], ["O", "H"])
    assert found[6.0].tolist() == [35, 67, 101]
    assert found[4.0].tolist() == [12, 23, 33]


@pytest.mark.parametrize(
    ("most", "ratio", "sel"), [(101, 1.1, 112), (67, 1.1, 76), (40, 1.0, 40), (41, 1.0, 44), (0, 1.1, 0)]
)
def test_sel_is_rounded_up_to_a_multiple_of_four(most: int, ratio: float, sel: int) -> None:
    assert rounded_sel(most, ratio) == sel


@pytest.mark.parametrize(
    ("text", "ratio"), [("auto", 1.1), ("auto:1.5", 1.5), ("auto:0", None), ("auto:x", None), ("automatic", None), (4, None)]
)
def test_words_for_auto(text: Any, ratio: float | None) -> None:
    assert auto_ratio(text) == ratio


BACKBONES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "se_a": ({"kind": "se_a", "sel": "auto:2"}, {"sel": {"H": 8, "C": 4, "O": 4}}),
    "se_a by default": ({"kind": "se_a"}, {"sel": {"H": 4, "C": 4, "O": 4}}),
    "dpa1": ({"kind": "dpa1", "sel": "auto"}, {"sel": 4}),
    "dpa2": (
        {"kind": "dpa2", "repinit": {"sel": "auto:3"}, "repformer": {"sel": "auto", "cutoff": 1.0, "switch_start": 0.5}},
        {"repinit.sel": 12, "repformer.sel": 4},
    ),
    "dpa3": ({**MODEL["backbone"], "edge_sel": "auto:2"}, {"edge_sel": 8, "angle_sel": 10}),
}
"""Molecules of water and methane: at most 4 neighbours (H4 around C), 4 H, 1 O or C; within 1 Å an O has 2."""


@pytest.mark.parametrize(("backbone", "expected"), BACKBONES.values(), ids=BACKBONES)
def test_auto_is_counted_in_the_training_data(
    make_recipe: Callable[..., Recipe], backbone: dict[str, Any], expected: dict[str, Any]
) -> None:
    recipe = make_recipe(model={"backbone": backbone, "head": {"hidden": [4]}})
    assert recipe.sel_from_data
    data = open_tasks(recipe)
    resolved, lines = count_sel(recipe, data)
    assert not resolved.sel_from_data
    assert len(lines) == len(recipe.sel_from_data)
    for field, value in expected.items():
        holder: Any = resolved.model.backbone
        for part in field.split("."):
            holder = getattr(holder, part)
        assert holder == value, field
    assert count_sel(resolved, data) == (resolved, [])


def test_auto_stays_auto_in_a_recipe_and_is_a_number_in_a_run(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    model = copy.deepcopy(MODEL)
    model["backbone"]["edge_sel"] = "auto:1.5"
    recipe = make_recipe(model=model)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["model"]["backbone"]["edge_sel"] == "auto:1.5"
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    run = fit(recipe, tmp_path / "run")
    assert load_recipe(run / "config.yaml").model.backbone.model_dump()["edge_sel"] == 8
    assert not load_recipe(run / "config.yaml").sel_from_data


def test_other_words_are_refused(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(make_recipe()))
    with pytest.raises(RecipeError, match=r"model\.backbone\.edge_sel = 'many'"):
        load_recipe(tmp_path / "recipe.yaml", ["model.backbone.edge_sel=many"])


def test_frames_without_neighbours_count_none() -> None:
    alone = Frame(np.array([8]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool))
    assert most_neighbors([alone], [5.0], ["O"])[5.0].tolist() == [0, 0]
