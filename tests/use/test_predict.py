"""Predictions of many structures."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from lamella.errors import InputError, StructureError
from lamella.models.bundle import save_model
from lamella.use import predict as module
from lamella.use.calculator import Calculator
from lamella.use.predict import describe, predict
from use.small import dimer, small_model, water_box


@pytest.fixture(scope="module")
def model():
    return small_model()


def mixed() -> list[Atoms]:
    return [water_box(), dimer(), Atoms("O"), water_box(1), dimer(), water_box(2, seed=3)]


def test_prediction_has_the_promised_types_and_shapes(model):
    for atoms, found in zip(mixed(), predict(model, mixed()), strict=True):
        assert type(found.energy) is float
        assert found.atom_energy.shape == (len(atoms),)
        assert found.forces.shape == (len(atoms), 3)
        assert found.virial.shape == (3, 3)
        assert {part.dtype for part in found[1:]} == {np.dtype("float64")}
        assert found.atom_energy.sum() == pytest.approx(found.energy, abs=1e-9)


def test_batches_equal_singles_in_any_order_for_any_budget(model, monkeypatch):
    singles = [predict(model, [atoms])[0] for atoms in mixed()]
    for edges, angles in ((1, 1), (500, 10**9), (10**9, 2000), (10**9, 10**9)):
        monkeypatch.setattr(module, "MAX_EDGES", edges)
        monkeypatch.setattr(module, "MAX_ANGLES", angles)
        for order in ([0, 1, 2, 3, 4, 5], [5, 2, 4, 0, 3, 1]):
            together = predict(model, [mixed()[index] for index in order])
            for found, index in zip(together, order, strict=True):
                for got, want in zip(found, singles[index], strict=True):
                    np.testing.assert_allclose(got, want, atol=1e-12, rtol=1e-12)


def test_batches_respect_the_budget(model, monkeypatch):
    monkeypatch.setattr(module, "MAX_EDGES", 1200)
    frames = [module.structure_from_atoms(atoms, "x") for atoms in mixed() * 3]
    sizes = [(len(batch), graph.n_edges) for batch, graph in module._batches(model, frames)]
    assert sum(count for count, _ in sizes) == len(frames)
    assert all(edges <= 1200 or count == 1 for count, edges in sizes)
    assert any(count > 1 for count, _ in sizes)


def test_descriptors_are_what_the_head_reads(model):
    for atoms, found in zip(mixed(), describe(model, mixed()), strict=True):
        assert found.shape == (len(atoms), 16)
    (alone,) = describe(model, [dimer()])
    np.testing.assert_allclose(alone, describe(model, mixed())[1], atol=1e-13)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_inputs_are_not_mutated_and_their_calculators_not_asked(model):
    box = water_box()
    box.calc = Calculator(small_model(seed=5))
    before = box.copy()
    predict(model, [box])
    describe(model, [box])
    assert box == before
    assert box.calc.results == {}


def test_a_path_is_a_model_too(model, tmp_path):
    save_model(model, tmp_path)
    (known,) = predict(model, [dimer()])
    for path in (tmp_path, str(tmp_path)):
        assert predict(path, [dimer()])[0].energy == known.energy


def test_no_structures_give_no_predictions(model):
    assert predict(model, []) == []
    assert describe(model, []) == []


def test_one_structure_instead_of_a_list_is_refused(model):
    with pytest.raises(InputError, match=r"write \[atoms\]"):
        predict(model, dimer())
    with pytest.raises(InputError, match="structure 1: a str"):
        predict(model, [dimer(), "water.xyz"])


def test_the_structure_that_cannot_be_predicted_is_named(model):
    with pytest.raises(StructureError, match=r"structure 2: .*element Cu"):
        predict(model, [dimer(), dimer(), Atoms("Cu")])


def test_tasks_must_be_named_where_there_are_several():
    model = small_model(tasks=("pbe", "scan"))
    for ask in (predict, describe):
        with pytest.raises(InputError, match="pbe, scan"):
            ask(model, [dimer()])
        with pytest.raises(InputError, match="pbe, scan"):
            ask(model, [])
        assert len(ask(model, [dimer()], task="scan")) == 1
    one, two = (predict(model, [dimer()], task)[0].energy for task in model.tasks)
    assert abs(one - two) > 0.1
