"""Further tasks and elements: what the model predicted before it predicts still, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

from contract.models import build
from lamella.data.convert import frame_from_atoms
from lamella.errors import InputError, RecipeError
from lamella.models.bundle import load_model, save_model
from lamella.models.extend import only_tasks, with_elements, with_tasks
from lamella.models.potential import Potential
from lamella.types import Frame

TASKS = ("a", "b")
HEADS = {
    "separate": {},
    "encoded": {"task_dim": 2},
    "encoded with room": {"task_dim": 3},
    "shared": {"shared": True},
}
ARCHITECTURES = {
    "dpa3": {"architecture": "dpa3"},
    "dpa3, table with a shortcut": {"architecture": "dpa3", "node_dim": 6, "edge_dim": 6, "axis": 2},
    "dpa3, electrons": {"architecture": "dpa3", "electron_embedding": True},
    "dpa2": {"architecture": "dpa2"},
    "dpa1": {"architecture": "dpa1", "embedding_bias": True},
    "dpa1, mean": {
        "architecture": "dpa1",
        "zero_mean": False,
        "embedding_input": "strip",
        "smooth": True,
        "attention_layers": 0,
    },
    "se_a, one-sided": {"architecture": "se_a", "zero_mean": True},
    "se_a, mean": {"architecture": "se_a"},
    "se_a, two-sided": {"architecture": "se_a", "one_sided": False},
}
EXACT = ("dpa2", "dpa3", "dpa3, table with a shortcut", "dpa1", "se_a, one-sided")


def model(architecture: str, head: str = "separate", elements: tuple[str, ...] = ("H", "C", "O")) -> Potential:
    return build(elements=elements, tasks=TASKS, model={"head": HEADS[head]}, **ARCHITECTURES[architecture])


def frames(names: tuple[str, ...] = ("CH3OH", "H2O", "C2H4")) -> list[Frame]:
    found = []
    for seed, name in enumerate(names):
        atoms = molecule(name)
        atoms.positions += np.random.default_rng(seed).normal(0.0, 0.05, atoms.positions.shape)
        found.append(frame_from_atoms(atoms, source=name))
    return found


def assert_same(one: Potential, task: str, other: Potential, of: str, tolerance: float = 0.0) -> None:
    """Two models predict the same bits, or the same to a tolerance."""
    predictions = [potential(potential.graph(frames()), name) for potential, name in ((one, task), (other, of))]
    for first, second in zip(*predictions, strict=True):
        assert torch.allclose(first, second, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ["dpa3", "se_a, one-sided"])
def test_a_new_task_begins_as_the_one_it_comes_from_and_leaves_the_others_alone(architecture, head):
    old = model(architecture, head)
    new = with_tasks(old, {"c": "b"})
    assert new.tasks == ("a", "b", "c")
    for task, origin in (("a", "a"), ("b", "b"), ("c", "b")):
        assert_same(new, task, old, origin)


@pytest.mark.parametrize("head", ["separate", "encoded", "encoded with room"])
def test_a_random_head_is_the_task_s_own_and_depends_on_seed_and_name(head):
    old = model("dpa3", head)
    one, again = with_tasks(old, {"c": None}), with_tasks(old, {"c": None})
    other = with_tasks(old, {"d": None})
    graph = old.graph(frames())
    assert torch.equal(one(graph, "c").energy, again(graph, "c").energy)
    assert not torch.equal(one(graph, "c").forces, other(graph, "d").forces)
    assert not torch.equal(one(graph, "c").forces, old(graph, "b").forces)
    for task in TASKS:
        assert_same(one, task, old, task)


def test_tasks_with_codes_are_told_apart_once_they_are_trained():
    new = with_tasks(model("dpa3", "encoded"), {"c": "b"})
    assert new.config.head.task_dim == 3
    assert torch.equal(new.task_code, torch.eye(3, dtype=new.task_code.dtype))
    graph = new.graph(frames())
    new(graph, "c").energy.sum()
    with torch.no_grad():
        new.heads[0].nets[0].hidden[0].weight[-1] += 0.1
    assert not torch.equal(new(graph, "c").forces, new(graph, "b").forces)


def test_tasks_that_share_everything_cannot_have_a_random_head():
    with pytest.raises(InputError, match="share a head without encoding"):
        with_tasks(model("dpa3", "shared"), {"c": None})


def test_a_code_that_would_make_a_shortcut_is_refused():
    old = build(tasks=TASKS, model={"head": {"hidden": (15,), "task_dim": 2}})  # 12 + 2 wide; 15 = 12 + 3
    with pytest.raises(InputError, match="shortcut"):
        with_tasks(old, {"c": "a"})


def test_names_of_tasks_are_checked():
    old = model("dpa3")
    with pytest.raises(InputError, match="has a task 'a' already"):
        with_tasks(old, {"a": "b"})
    with pytest.raises(InputError, match=r"no task 'bb'.*did you mean 'b'"):
        with_tasks(old, {"c": "bb"})
    with pytest.raises(InputError, match="at least one"):
        only_tasks(old, ())
    with pytest.raises(InputError, match="each once"):
        only_tasks(old, ("a", "a"))


@pytest.mark.parametrize("head", HEADS)
def test_a_task_predicts_the_same_alone(head):
    old = model("dpa3", head)
    assert_same(only_tasks(old, ("b",)), "b", old, "b")
    swapped = only_tasks(old, ("b", "a"))
    assert swapped.tasks == ("b", "a")
    assert_same(swapped, "a", old, "a")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_new_elements_change_nothing_for_the_others(architecture):
    old = model(architecture)
    new = with_elements(old, {"S": "O", "N": None})
    assert new.elements == ("H", "C", "O", "S", "N")
    # what is one product of matrices with a row for each element rounds differently with more of them: the table of
    # electronic configurations, the terms of empty slots where the environment has a mean
    tolerance = 0.0 if architecture in EXACT else 1e-13
    for task in TASKS:
        assert_same(new, task, old, task, tolerance)


@pytest.mark.parametrize("architecture", ["dpa3", "dpa1", "dpa2", "se_a, one-sided"])
def test_an_element_begins_as_the_one_it_is_likened_to(architecture):
    old = model(architecture)
    new = with_elements(old, {"S": "O"})
    water, sulfide = molecule("H2O"), molecule("H2O")
    sulfide.symbols[[atom.index for atom in sulfide if atom.symbol == "O"]] = "S"
    predicted = [new(new.graph([frame_from_atoms(atoms)]), "a") for atoms in (water, sulfide)]
    baseline = old.baseline[0, old.elements.index("O")]
    if architecture.startswith("se_a"):
        pytest.skip("its sums count the neighbours of each element, 0 of a new one, so empty places differ")
    assert torch.allclose(predicted[0].forces, predicted[1].forces, rtol=0, atol=1e-12)
    assert float(predicted[0].energy - predicted[1].energy) == pytest.approx(float(baseline), abs=1e-9)


def test_a_table_that_gains_a_shortcut_keeps_its_rows_to_round_off():
    old = build(elements=("H", "C", "O"), node_dim=4, edge_dim=4, axis=2, angle_compression=0)
    new = with_elements(old, {"N": None})  # 4 elements, 4 wide: the identity is added
    graph = old.graph(frames())
    assert torch.allclose(new(new.graph(frames())).forces, old(graph).forces, rtol=0, atol=1e-13)


def test_new_pairs_of_deeppot_se_leave_the_old_ones_in_place():
    old = model("se_a, two-sided")
    new = with_elements(old, {"N": None})
    assert len(new.backbone.nets) == 16
    assert torch.equal(new.backbone.nets[2 + 4 * 1].layers[0].weight, old.backbone.nets[2 + 3 * 1].layers[0].weight)
    assert new.config.backbone.sel["N"] == 0


def test_an_unknown_or_known_symbol_is_refused():
    old = model("dpa3")
    with pytest.raises(RecipeError, match="Xx"):
        with_elements(old, {"Xx": None})
    with pytest.raises(RecipeError, match="each symbol once"):
        with_elements(old, {"H": None})
    with pytest.raises(InputError, match="Si is not an element"):
        with_elements(old, {"S": "Si"})


def test_an_extended_model_is_saved_and_loaded_like_any_other(tmp_path: Path):
    new = with_tasks(with_elements(model("dpa3", "encoded"), {"N": "C"}), {"c": "a"})
    save_model(new, tmp_path)
    assert_same(load_model(tmp_path), "c", new, "c")


def test_the_old_model_is_not_changed():
    old = model("dpa1")
    before = {name: value.clone() for name, value in old.state_dict().items()}
    state = torch.get_rng_state()
    new = with_tasks(with_elements(old, {"N": "C"}), {"c": "a"})
    with torch.no_grad():
        for parameter in new.parameters():
            parameter += 1.0
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
