"""Recipes: strict keys, overrides, and what is saved reads back as the same recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from lamella.errors import RecipeError
from lamella.models.potential import Potential
from lamella.train import recipe as recipe_module
from lamella.train.recipe import Recipe, dump_recipe, load_recipe

PACKAGED = sorted(file.stem for file in (Path(recipe_module.__file__).parents[1] / "recipes").glob("*.yaml"))
MINIMAL = {"tasks": {"water": {"train": "water.xyz"}}}


def written(folder: Path, content: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("override", "key", "hint"),
    [
        ("training.step=5", "training.step", "'steps'"),
        ("model.backbone.layer=5", "model.backbone.layer", "'layers'"),
        ("tasks.water.los={}", "tasks.water.los", "'loss'"),
        ("tasks.water.loss.force=1", "tasks.water.loss.force", "'forces'"),
        ("optimizer.weigth_decay=0", "optimizer.weigth_decay", "'weight_decay'"),
        ("schedule.decay_step=5", "schedule.decay_step", "'decay_steps'"),
        ("batches.frames=5", "batches", "'batch'"),
        ("lr=0.1", "lr", "'optimizer.lr'"),
        ("tasks.water.keys.forcs=REF", "tasks.water.keys.forcs", "'forces'"),
        ("optimizer.learning_rate=0.1", "optimizer.learning_rate", "known here: lr, "),
        ("model.backbone.repformer.conv=false", "model.backbone.repformer", "known here: "),
    ],
)
def test_unknown_key_is_named_in_full_with_the_nearest_known_one(tmp_path: Path, override: str, key: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, MINIMAL), [override])
    message = str(caught.value)
    assert f"unknown key {key!r}" in message
    assert hint in message
    assert "recipe.yaml" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps=0", ["training.steps", "greater than or equal to 1"]),
        ("optimizer.lr=fast", ["optimizer.lr", "'fast'"]),
        ("tasks.water.baseline=guess", ["tasks.water.baseline", "least_squares"]),
        ("optimizer.kind=sgd", ["optimizer.kind = 'sgd'", "use adam or adamw"]),
        ("schedule.kind=cosin", ["schedule.kind = 'cosin'", "did you mean 'cosine'"]),
        ("schedule.stop_lr=0.5", ["stop_lr", "optimizer.lr"]),
        ("tasks.water.train=[]", ["tasks.water", "at least one path"]),
        ("tasks.watr.weight=2", ["'watr'", "'water'"]),
        ("tasks.water.weight=0", ["weight above 0"]),
        ("dtype=float16", ["dtype", "'float32'"]),
        ("steps", ["key=value"]),
        ("seed.x.y=1", ["seed"]),
        ("model.backbone.switch_start=9", ["model.backbone", "switch_start", "cutoff"]),
    ],
)
def test_wrong_value_is_refused_with_its_key(tmp_path: Path, override: str, words: list[str]) -> None:
    content = MINIMAL | {"seed": 3}
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, content), [override])
    for word in words:
        assert word in str(caught.value)


def test_overrides_win_and_may_hold_any_yaml(tmp_path: Path) -> None:
    recipe = load_recipe(
        written(tmp_path, MINIMAL),
        [
            "training.steps=50",
            "optimizer.lr=1e-4",
            "optimizer.kind=adam",
            "tasks.water.loss.energy=[1, 2]",
            "tasks.water.train=[a.xyz, b.xyz]",
        ],
    )
    assert recipe.training.steps == 50
    assert recipe.optimizer.kind == "adam"
    assert recipe.optimizer.lr == 1e-4
    assert recipe.optimizer.weight_decay == 0.0
    assert recipe.tasks["water"].loss.energy == (1.0, 2.0)
    assert recipe.tasks["water"].train == (str(Path.cwd() / "a.xyz"), str(Path.cwd() / "b.xyz"))


def test_json_is_read_like_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(MINIMAL))
    assert load_recipe(path) == load_recipe(written(tmp_path, MINIMAL))


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.json"])
def test_two_tasks_of_one_name_are_refused_by_it(tmp_path: Path, name: str) -> None:
    task = '{"train": "a.xyz"}'
    (tmp_path / name).write_text(f'{{"tasks": {{"water": {task},\n"ice": {task},\n"water": {task}}}}}')
    with pytest.raises(RecipeError, match=rf"{name}: the key 'water' occurs twice.*rename or remove one"):
        load_recipe(tmp_path / name)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ((0, 0), "the weights sum to zero"),
        ((1e308, 1e308), "sum of the weights is not finite"),
        ((-1, 2), r"tasks\.a\.weight"),
    ],
)
def test_weights_that_draw_no_task_are_refused(tmp_path: Path, weights: tuple[float, float], words: str) -> None:
    tasks = {name: {"train": "x.xyz", "weight": weight} for name, weight in zip("ab", weights, strict=True)}
    with pytest.raises(RecipeError, match=words):
        load_recipe(written(tmp_path, {"tasks": tasks}))


@pytest.mark.parametrize(
    "text", ["tasks: [", "just words", "", "seed: 1\nseed: 2\ntasks: {}", "tasks: {{x}}", "? [a]\n: 1\n"]
)
def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(written(tmp_path, text))


def test_missing_recipe_names_the_packaged_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'dpa3_l6'"):
        load_recipe("dpa3_l7a6")


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_recipes_read_and_round_trip_through_the_saved_form(tmp_path: Path, name: str) -> None:
    given = [] if name.startswith("demo_") else ["tasks.default.train=data.xyz"]
    recipe = load_recipe(name, given)
    saved = written(tmp_path, dump_recipe(recipe))
    assert load_recipe(saved) == recipe
    assert dump_recipe(load_recipe(saved)) == dump_recipe(recipe)


def test_recipes_that_need_data_say_so() -> None:
    with pytest.raises(RecipeError, match=r"tasks\.default\.train: give at least one path"):
        load_recipe("dpa3_l6")


def potential_of(recipe: Recipe) -> Potential:
    assert recipe.elements is not None
    with torch.device("meta"):
        return Potential(recipe.model, recipe.elements, tuple(recipe.tasks))


def test_parameter_counts_are_those_of_the_published_models() -> None:
    """DPA-3.1-3M reports 3 268 838 (with 118 baselines and 31 numbers of task code), DPA-3.1-MPtrj 4 810 679 (with 118)."""
    large = load_recipe("dpa3_1_3m", ["tasks.default.train=x.xyz"])
    assert len(large.elements or ()) == 118
    assert potential_of(large).parameter_count() == 3_268_689
    assert large.elements is not None
    mptrj = load_recipe("dpa3_l24", ["tasks.default.train=x.xyz", f"elements={json.dumps(large.elements)}"])
    assert potential_of(mptrj).parameter_count() == 4_810_561


@pytest.mark.parametrize("layers", [3, 6, 12, 24])
def test_sizes_differ_in_their_layers_only(layers: int) -> None:
    recipe = load_recipe(f"dpa3_l{layers}", ["tasks.default.train=x.xyz"])
    six = load_recipe("dpa3_l6", ["tasks.default.train=x.xyz"])
    assert recipe.model.backbone.layers == layers
    assert recipe.model_copy(update={"model": six.model}) == six
    assert recipe.model.backbone.model_copy(update={"layers": 6}) == six.model.backbone
