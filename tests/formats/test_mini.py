"""The model in the box: it loads by its name, obeys the laws, was trained on what may train it, and answers with care."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import lamella
from house.tree import ROOT
from lamella.errors import InputError
from lamella.formats.published import IN_PACKAGE, located, published
from lamella.use.laws import LAWS, check_law

NAME = "lamella-mini"
MAY_TRAIN = {
    *("nbmotaw", "nimo_li3n", "mlearn", "mptrj_1k", "mptrj_highstress_1k", "alex_1k", "mpf_tp", "oc20_mini", "mad_pbesol"),
    *("s66x8_wb97x", "bpa3", "acac", "ethanol_rmd17", "formic_dimer", "al_mil53_pbed3"),
    *lamella.datasets.names(),
}
"""Sets whose licences allow weights to be given away."""


@pytest.fixture(scope="module")
def mini():
    return lamella.load(NAME)


def test_files_are_small_and_know_no_machine():
    folder = IN_PACKAGE[NAME]
    assert located(NAME) == folder
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "model.json"}
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    text = (folder / "model.json").read_text(encoding="utf-8")
    paths = [word for word in json.dumps(json.loads(text)).split('"') if word.startswith(("/", "~")) and "/" in word[1:]]
    assert not paths


def test_only_permitted_sets_trained_it(mini):
    for sets in mini.metadata["sources"].values():
        assert {name.split()[0] for name in sets} <= MAY_TRAIN


def test_default_task_is_said_once_and_is_the_one_that_answers(mini):
    task = mini.metadata["default_task"]
    atoms = molecule("CH3CH2OH")
    with pytest.warns(UserWarning, match=rf"no task was named, so {task} \(.+\) answers; others: task=NAME"):
        silent = lamella.Calculator(lamella.load(NAME))
    assert silent.task == task
    atoms.calc = lamella.Calculator(mini, task)
    forces = atoms.get_forces()
    atoms.calc = silent
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    model = lamella.load(NAME)
    with pytest.warns(UserWarning, match="no task was named"):
        model.task_index(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.tasks[model.task_index(None)] == task
    with pytest.raises(InputError, match="no task 'pbe'"):
        lamella.Calculator(model, "pbe")


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), bulk("NaCl", "rocksalt", a=5.64)], ids=["molecule", "crystal"])
def test_first_force(mini, atoms):
    atoms.rattle(0.05, seed=1)
    atoms.calc = lamella.Calculator(mini, mini.metadata["default_task"])
    forces = atoms.get_forces()
    assert forces.shape == (len(atoms), 3) and 0.01 < np.abs(forces).max() < 50.0


def test_element_that_a_task_never_saw_is_warned_of(mini):
    atoms = Atoms("CuO", [[0, 0, 0], [0, 0, 1.8]])
    atoms.calc = lamella.Calculator(mini, "gfn2")
    with pytest.warns(UserWarning, match="task gfn2 never saw Cu: energies of structure mean nothing"):
        atoms.get_potential_energy()
    with pytest.warns(UserWarning, match="task gfn2 never saw Cu"):
        lamella.predict(mini, [atoms], "gfn2")


@pytest.mark.parametrize("law", LAWS)
def test_laws_hold(mini, law):
    row = check_law(law, mini, mini.metadata["default_task"])
    assert row.passed, row


def test_card_has_the_figures_of_the_model(mini):
    card, page = mini.metadata["card"], (ROOT / "docs" / f"{NAME}.md").read_text(encoding="utf-8")
    assert set(card["tasks"]) == set(mini.tasks)
    for task, entry in card["tasks"].items():
        known = dict(zip(mini.elements, mini.baseline[mini.task_index(task)].tolist(), strict=True))
        assert entry["elements"] == [symbol for symbol, energy in known.items() if energy]
        assert f"| **{task}** |" in page and f"{entry['frames']:,}" in page
    for line in card["not_for"]:
        assert line in page
    assert f"{int(mini.metadata['step']):,} steps" in page


def test_name_is_not_fetched_and_a_near_miss_is_suggested():
    with pytest.raises(InputError, match="lamella-mini comes with lamella: there is nothing to fetch"):
        published(NAME)
    with pytest.raises(lamella.errors.CheckpointError, match="did you mean the published model 'lamella-mini'"):
        lamella.load("lamela-mini")
