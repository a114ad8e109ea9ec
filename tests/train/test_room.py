"""A training step that runs out of memory gives the same gradient in smaller pieces with one warning, or a clear error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from lamella.data.load import Share, make_batch
from lamella.errors import ResourceError
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeAConfig
from lamella.train.loss import LossConfig
from lamella.train.optim import Adam, build_optimizer
from lamella.train.room import Room, cut
from lamella.train.step import StepSetting, train_step
from lamella.types import Frame
from use.small import BACKBONE

SE_A = SeAConfig(sel={"H": 20, "O": 20}, cutoff=4.0, switch_start=3.0, neurons=(6, 12), axis=4)


def model_of(backbone) -> Potential:
    torch.manual_seed(0)
    return Potential(ModelConfig(backbone=backbone, head=HeadConfig(hidden=(8,))), ("H", "O")).cast(torch.float64)


def batch_of(model, sizes=(3, 5, 4, 6)):
    """Frames of several sizes; the second has no energy, the third no forces."""
    rng = np.random.default_rng(1)
    frames = []
    for k, n in enumerate(sizes):
        labels = {"energy": np.array(rng.normal()), "forces": rng.normal(size=(n, 3))}
        labels.pop({1: "energy", 2: "forces"}.get(k, ""), None)
        positions = rng.random((n, 3)) * 3.0 + np.arange(n)[:, None] * 0.5
        frames.append(Frame(rng.choice([1, 8], n), positions, np.zeros((3, 3)), np.zeros(3, bool), labels, f"frame {k}"))
    return make_batch(frames, model.graph_spec)


def one_step(model, batch, room=None):
    """Loss, gradient norm and predictions of a step, and the gradients it left."""
    config = Adam()
    outcome = train_step(
        model,
        build_optimizer(config, model),
        [Share("default", batch), Share("default", None)],
        {"default": LossConfig()},
        config,
        StepSetting(1, 0.0, 1.0),
        room=room,
    )
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return outcome, gradients


def scarce(model, allows, monkeypatch):
    """Memory for what ``allows`` (frames, part_rows) says; else torch's own error, after part of the work is done."""
    inner, calls = model.backbone.forward, []

    def forward(graph, vec):
        calls.append(graph.n_frames)
        if not allows(graph.n_frames, getattr(model.backbone, "part_rows", None)):
            torch.empty(2**60, dtype=torch.uint8)
        return inner(graph, vec)

    monkeypatch.setattr(model.backbone, "forward", forward)
    return calls


def assert_same(one, two):
    (outcome, gradients), (other, others) = one, two
    assert outcome.losses == pytest.approx(other.losses, rel=1e-12)
    assert outcome.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-10)
    for left, right in zip(outcome.predictions[0], other.predictions[0], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)
    assert gradients.keys() == others.keys()
    for name, value in gradients.items():
        torch.testing.assert_close(others[name], value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("backbone", [SE_A, BACKBONE], ids=["se_a", "dpa3"])
def test_a_batch_cut_into_pieces_gives_the_same_step(backbone, monkeypatch):
    model = model_of(backbone)
    batch = batch_of(model)
    expected = one_step(model, batch)
    calls, room = scarce(model, lambda frames, _: frames == 1, monkeypatch), Room(model)
    with pytest.warns(UserWarning, match="memory ran out: batches are cut into 2 pieces") as said:
        assert_same(expected, one_step(model, batch, room))
    assert len(said) == 1
    assert room.pieces == 4
    assert calls == [4, 2, 1, 1, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(expected, one_step(model, batch, room))
    assert calls[6:] == [1, 1, 1, 1], "the next step begins with what was learned"


def test_gradients_of_a_failed_try_are_thrown_away(monkeypatch):
    """Memory runs out in the second piece, when the first has left its gradient."""
    model = model_of(SE_A)
    batch = batch_of(model)
    expected = one_step(model, batch)
    failures = iter([False, True, False, True])
    monkeypatch.setattr("lamella.train.step.cut", lambda batch, pieces: cut(batch, max(pieces, 2)))
    scarce(model, lambda *_: not next(failures, False), monkeypatch)
    with pytest.warns(UserWarning, match="memory ran out"):
        assert_same(expected, one_step(model, batch))


def test_single_frames_go_on_in_parts(monkeypatch):
    model = model_of(BACKBONE)
    batch = batch_of(model, sizes=(9,))
    expected = one_step(model, batch)
    most = (batch.graph.n_edges + batch.graph.n_angles) // 4
    scarce(model, lambda _, rows: (rows or 10**9) <= most, monkeypatch)
    with pytest.warns(UserWarning, match="in smaller parts"):
        assert_same(expected, one_step(model, batch, Room(model)))


def test_what_does_not_fit_is_an_error_and_leaves_no_gradient(monkeypatch):
    model = model_of(SE_A)
    scarce(model, lambda *_: False, monkeypatch)
    batch = batch_of(model)
    with pytest.warns(UserWarning, match="memory ran out"), pytest.raises(ResourceError, match="training step of 18 atoms"):
        one_step(model, batch, Room(model))
    assert all(p.grad is None for p in model.parameters())


def test_pieces_are_the_batch():
    model = model_of(SE_A)
    batch = batch_of(model)
    for pieces in (1, 2, 3, 4, 9):
        parts = list(cut(batch, pieces))
        assert len(parts) == min(pieces, 4)
        assert sum((part.sources for part in parts), ()) == batch.sources
        for name in batch.labels:
            assert torch.equal(torch.cat([part.labels[name] for part in parts]), batch.labels[name])
            assert torch.equal(torch.cat([part.carries[name] for part in parts]), batch.carries[name])


def test_a_small_budget_makes_parts_and_is_said(monkeypatch):
    model = model_of(BACKBONE)
    batch = batch_of(model, sizes=(9,))
    expected = one_step(model, batch)
    monkeypatch.setattr("lamella.train.room._SMALL", 0)
    monkeypatch.setattr("lamella.train.room.available_memory", lambda device: 1e5)
    room = Room(model)
    assert "parts" in room.plan(batch.graph)
    assert_same(expected, one_step(model, batch, room))
    assert model.backbone.part_rows is not None
