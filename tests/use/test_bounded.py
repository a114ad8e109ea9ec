"""When memory runs out, a batch and then the parts are halved: the same numbers, one warning, or one clear error."""

from __future__ import annotations

import warnings

import pytest
import torch

from lamella.data.convert import structure_from_atoms
from lamella.errors import ResourceError
from lamella.use.bounded import Bounded
from lamella.use.calculator import Calculator
from lamella.use.predict import predict
from use.small import dimer, small_model, water_box


def graph_of(model, *structures):
    return model.graph([structure_from_atoms(atoms, "s") for atoms in structures])


def scarce(model, most, monkeypatch):
    """Memory for so many edges and angles at a time, in all or in a part, as torch reports it on a CPU."""
    backbone, calls = model.backbone, []
    inner = backbone.forward

    def forward(graph, vec):
        calls.append((graph.n_frames, backbone.part_rows))
        if min(graph.n_edges + graph.n_angles, backbone.part_rows or 10**9) > most:
            torch.empty(2**60, dtype=torch.uint8)
        return inner(graph, vec)

    monkeypatch.setattr(backbone, "forward", forward)
    return calls


def assert_equal(one, two):
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_nothing_is_done_without_need():
    model = small_model()
    graph = graph_of(model, water_box(), dimer())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(Bounded(model)(graph), model(graph))
    assert model.backbone.part_rows is None


def test_a_batch_is_halved_until_it_fits(monkeypatch):
    model = small_model()
    graph = graph_of(model, dimer(), water_box(), dimer())
    expected = model(graph)
    box = graph_of(model, water_box())
    calls = scarce(model, box.n_edges + box.n_angles, monkeypatch)
    with pytest.warns(UserWarning, match="memory ran out: a batch of 3 structures is halved") as said:
        found = Bounded(model)(graph)
    assert len(said) == 1
    assert [frames for frames, _ in calls] == [3, 1, 2, 1, 1]
    assert all(rows is None for _, rows in calls)
    assert_equal(found, expected)


def test_one_structure_goes_on_in_smaller_parts_and_so_do_the_next(monkeypatch):
    model = small_model()
    graph = graph_of(model, water_box())
    expected, total = model(graph), graph.n_edges + graph.n_angles
    calls = scarce(model, total // 8, monkeypatch)
    run = Bounded(model)
    with pytest.warns(UserWarning, match="in smaller parts") as said:
        assert_equal(run(graph), expected)
    assert len(said) == 1
    assert [rows for _, rows in calls] == [None, total // 4, total // 4 // 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(run(graph), expected)
    assert len(calls) == 4, "what was learned is kept"


def test_what_does_not_fit_at_all_is_an_error_that_says_so(monkeypatch):
    model = small_model()
    scarce(model, 0, monkeypatch)
    with (
        pytest.warns(UserWarning, match="memory"),
        pytest.raises(ResourceError, match=r"not enough memory for a structure of 24 atoms"),
    ):
        Bounded(model)(graph_of(model, water_box()))


def test_other_errors_pass():
    model = small_model()
    model.backbone.forward = lambda graph, vec: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):
        Bounded(model)(graph_of(model, dimer()))


def test_a_budget_makes_parts_before_anything_fails(monkeypatch):
    model = small_model()
    graph = graph_of(model, water_box(3))
    expected = model(graph)
    monkeypatch.setattr("lamella.use.bounded._SMALL", 0)
    run = Bounded(model, budget=1e6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(run(graph), expected)
    assert model.backbone.part_rows is not None
    roomy = Bounded(model, budget=1e12)
    assert_equal(roomy(graph), expected)
    assert model.backbone.part_rows is None


def test_calculator_and_predict_survive_a_shortage(monkeypatch):
    model, box = small_model(), water_box()
    expected = predict(model, [box, dimer()])
    calculator = Calculator(model)
    calls = scarce(calculator.model, 200, monkeypatch)
    box.calc = calculator
    with pytest.warns(UserWarning, match="memory ran out"):
        assert box.get_potential_energy() == pytest.approx(expected[0].energy, abs=1e-10)
    assert len(calls) > 1
    assert abs(box.get_forces() - expected[0].forces).max() < 1e-10
