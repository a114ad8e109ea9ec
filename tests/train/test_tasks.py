"""Tasks that come and go leave the others' predictions as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write
from typer.testing import CliRunner

from lamella.cli import app
from lamella.data.convert import frame_from_atoms
from lamella.data.source import FrameList
from lamella.errors import InputError
from lamella.formats import deepmd
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.models.potential import ModelConfig, Potential
from lamella.train.tasks import add_task, drop_tasks
from lamella.types import Prediction
from train.small import MODEL, labelled

HEADS = {"own": {}, "encoded": {"task_dim": 4}, "shared": {"shared": True}}
WATER = frame_from_atoms(labelled(molecule("H2O"), 0))


def model(head: dict[str, Any]) -> Potential:
    torch.manual_seed(0)
    config = ModelConfig.model_validate(MODEL | {"head": MODEL["head"] | head})
    metadata = {"data": {"a": 1, "b": 2}, "statistics": {"a": {}, "b": {}}, "recipe": {"seed": 1}}
    potential = Potential(config, ["H", "O"], ("a", "b"), metadata)
    potential.set_baseline("a", {"H": -1.0, "O": -2.0})
    potential.set_baseline("b", {"H": -3.0, "O": -5.0})
    return potential


def say(potential: Potential, task: str) -> Prediction:
    return potential(potential.graph([WATER]), task)


def assert_same(a: Prediction, b: Prediction) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("like", ["b", None])
def test_a_task_that_comes_or_goes_changes_no_bit_of_the_others(head: str, like: str | None) -> None:
    before = model(HEADS[head])
    if head == "shared" and like is None:
        with pytest.raises(InputError, match="share a head"):
            add_task(before, "new")
        return
    grown, _ = add_task(before, "new", like)
    assert grown.tasks == ("a", "b", "new")
    for task in ("a", "b"):
        assert_same(say(grown, task), say(before, task))
    if like is not None:
        assert_same(say(grown, "new"), say(before, like))
    smaller = drop_tasks(grown, ["a"])
    assert smaller.tasks == ("b", "new")
    for task in smaller.tasks:
        assert_same(say(smaller, task), say(grown, task))
    assert smaller.metadata == {
        "data": {"b": 2},
        "statistics": {"b": {}, "new": {"baseline": f"those of {like}" if like else "zero", "like": like}},
        "recipe": {"seed": 1},
    }
    assert before.metadata["statistics"] == {"a": {}, "b": {}}


def test_energies_per_element_of_a_new_task_meet_its_labels() -> None:
    frames = [frame_from_atoms(labelled(molecule(name), k)) for k, name in enumerate(("H2O", "H2", "O2"))]
    new, _ = add_task(model({}), "new", "a")
    for frame in frames:  # what the network says, and -3 eV for each H, -7 eV for each O
        energy = new(new.graph([frame]), "new").energy.item()
        frame.labels["energy"] = np.array(energy - sum(3.0 if number == 1 else 7.0 for number in frame.numbers))
    grown, said = add_task(model({}), "new", "a", FrameList(frames))
    assert said.startswith("energies per element by least squares over 3 frames, rank all 2")
    np.testing.assert_allclose(grown.baseline[2], [-4.0, -9.0], rtol=1e-6)


def test_what_has_no_meaning_is_refused() -> None:
    potential = model({})
    with pytest.raises(InputError, match="has a task 'a' already"):
        add_task(potential, "a")
    for nameless in ("", " ", "a\n"):
        with pytest.raises(InputError, match="is no name of a task"):
            add_task(potential, nameless)
    with pytest.raises(InputError, match=r"no task 'c'.*it has a, b"):
        add_task(potential, "new", like="c")
    with pytest.raises(InputError, match=r"no task 'c'.*it has a, b"):
        drop_tasks(potential, ["c"])
    with pytest.raises(InputError, match="no task would be left"):
        drop_tasks(potential, ["a", "b"])


def test_a_model_of_deepmd_kit_loses_a_task_and_goes_back(root: Path, tmp_path: Path) -> None:
    before = load(root / "tests" / "golden" / "dpa3_multitask_heads.pt")
    first, *others = before.tasks
    smaller = drop_tasks(before, [first])
    deepmd.write(smaller, tmp_path / "fewer.pt")
    back = load(tmp_path / "fewer.pt")
    assert back.tasks == tuple(others)
    for name, value in smaller.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_commands_write_new_models_and_replace_none_unasked(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_model(model({}), tmp_path / "model")

    def said(*words: str) -> str:
        result = CliRunner().invoke(app, ["tasks", *words])
        return result.output if result.exit_code == 0 else str(result.exception)

    original, grown, smaller = (str(tmp_path / name) for name in ("model", "grown", "smaller"))
    assert "with the tasks a, b, new" in said("add", original, "new", "--to", grown, "--like", "b")
    assert "with the task new" in said("drop", grown, "a", "b", "--to", smaller)
    assert "new: own head; energies per element: those of b" in said("list", smaller)
    few = str(tmp_path / "few.xyz")
    write(few, [labelled(molecule("H2O"), seed) for seed in range(4)])
    lines = said("add", original, "fitted", "--to", str(tmp_path / "fitted"), "--like", "b", "--data", few).splitlines()
    assert lines[-1].startswith("fitted: its head is a copy of b; energies per element by least squares over ")
    assert_same(say(load(Path(smaller)), "new"), say(load(Path(original)), "b"))
    assert "exists" in said("drop", grown, "a", "--to", smaller)
    (tmp_path / "notes").mkdir()
    assert "no lamella model" in said("drop", grown, "a", "--to", str(tmp_path / "notes"), "--overwrite")
