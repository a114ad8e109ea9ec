"""Losses against loops over frames, atoms and components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import Generator, default_rng
from pydantic import ValidationError
from torch import Tensor

from lamella.geometry.graph import build_graph, collate
from lamella.train.loss import LossConfig, LossKind, carrying_frames, frame_terms, total_loss
from lamella.types import Batch, Frame, GraphSpec, Prediction

SIZES = (2, 5, 3)
CARRIES = {"energy": (True, False, True), "forces": (True, True, False), "virial": (False, False, True)}
DELTA = 0.3


def graph_of(sizes: tuple[int, ...]) -> Batch:
    rng = default_rng(1)
    frames = [
        Frame(np.ones(n, dtype=int), rng.uniform(0, 9, (n, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool)) for n in sizes
    ]
    return Batch(
        collate([build_graph(frame, GraphSpec((1,), 3.0, 2.0, True)) for frame in frames]),
        {},
        {},
        tuple("abcdefgh"[: len(sizes)]),
    )


def example(rng: Generator) -> tuple[Prediction, Batch]:
    n, f = sum(SIZES), len(SIZES)
    shapes = {"energy": (f,), "forces": (n, 3), "virial": (f, 3, 3)}
    labels = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}
    graph = graph_of(SIZES).graph
    carries = {name: torch.tensor(flags) for name, flags in CARRIES.items()}
    values = {name: torch.from_numpy(rng.normal(size=shape)).requires_grad_() for name, shape in shapes.items()}
    prediction = Prediction(values["energy"], torch.zeros(n), values["forces"], values["virial"])
    return prediction, Batch(graph, labels, carries, ("a", "b", "c"))


def by_loops(kind: LossKind, name: str, prediction: Prediction, batch: Batch) -> float:
    def component(x: float, n: int) -> float:
        if kind == "squared":
            return x * x / n
        if kind == "intensive":
            return (x / n) ** 2
        if kind == "mae":
            return abs(x) / n
        y = abs(x / n)
        return y * y / 2 if y <= DELTA else DELTA * (y - DELTA / 2)

    frames, first = [], 0
    for index, size in enumerate(SIZES):
        rows = slice(first, first + size) if name == "forces" else slice(index, index + 1)
        first += size
        if CARRIES[name][index]:
            error = (getattr(prediction, name) - batch.labels[name])[rows].detach().numpy().reshape(-1)
            frames.append(np.mean([component(x, 1 if name == "forces" else size) for x in error]))
    return float(np.mean(frames))


@pytest.mark.parametrize("kind", ["squared", "intensive", "huber", "mae"])
def test_terms_are_averaged_within_a_frame_then_over_frames_that_carry_the_label(kind: LossKind) -> None:
    prediction, batch = example(default_rng(2))
    terms = frame_terms(prediction, batch, LossConfig(kind=kind, huber_delta=DELTA))
    for name, (total, count) in terms.items():
        assert count.item() == sum(CARRIES[name])
        assert (total / count).item() == pytest.approx(by_loops(kind, name, prediction, batch), rel=1e-13)


@pytest.mark.parametrize(("kind", "power"), [("mae", 1), ("huber", 2)])
def test_force_errors_may_be_lengths_of_vectors(kind: LossKind, power: int) -> None:
    prediction, batch = example(default_rng(7))
    config = LossConfig(kind=kind, force_error="vector", huber_delta=(DELTA, 100.0, DELTA))  # so far off that h(x) = x²/2
    total, count = frame_terms(prediction, batch, config)["forces"]
    lengths = np.linalg.norm((prediction.forces - batch.labels["forces"]).detach().numpy(), axis=1)
    expected = [np.mean(lengths[:2] ** power) / power, np.mean(lengths[2:7] ** power) / power]
    assert (total / count).item() == pytest.approx(np.mean(expected), rel=1e-13)
    total.backward()
    assert torch.isfinite(prediction.forces.grad).all()


def test_relative_forces_divide_by_the_label() -> None:
    prediction, batch = example(default_rng(8))
    config = LossConfig(kind="squared", relative_forces=0.5)
    total, count = frame_terms(prediction, batch, config)["forces"]
    label = batch.labels["forces"].numpy()
    scaled = (prediction.forces.detach().numpy() - label) / (np.linalg.norm(label, axis=1, keepdims=True) + 0.5)
    assert (total / count).item() == pytest.approx((np.mean(scaled[:2] ** 2) + np.mean(scaled[2:7] ** 2)) / 2, rel=1e-13)


def test_huber_turns_linear_at_a_delta_of_its_own_for_each_label() -> None:
    prediction, batch = example(default_rng(9))
    terms = frame_terms(prediction, batch, LossConfig(kind="huber", huber_delta=(0.1, 0.2, 0.3)))
    for name, delta in (("energy", 0.1), ("forces", 0.2), ("virial", 0.3)):
        alone = frame_terms(prediction, batch, LossConfig(kind="huber", huber_delta=delta))
        assert torch.equal(terms[name].total, alone[name].total)


@pytest.mark.parametrize(
    "settings", [{"kind": "squared", "force_error": "vector"}, {"kind": "huber", "relative_forces": 0.1}]
)
def test_kinds_that_do_not_go_together_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"needs|another kind"):
        LossConfig(**settings)


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_prefactors_move_from_start_to_limit_with_the_decay(share: float) -> None:
    prediction, batch = example(default_rng(3))
    config = LossConfig(energy=(2.0, 7.0), forces=(5.0, 1.0), virial=3.0)
    expected = 0.0
    for name, (start, limit) in {"energy": (2.0, 7.0), "forces": (5.0, 1.0), "virial": (3.0, 3.0)}.items():
        expected += (limit + (start - limit) * share) * by_loops("squared", name, prediction, batch)
    loss = total_loss(frame_terms(prediction, batch, config), config, share)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-13)


def test_a_frame_without_a_label_has_no_influence_whatever_is_predicted_for_it() -> None:
    prediction, batch = example(default_rng(4))
    config = LossConfig()
    loss = total_loss(frame_terms(prediction, batch, config), config, 1.0)
    with torch.no_grad():
        prediction.energy[1] = torch.inf
        prediction.forces[-1] = 1e200
    again = total_loss(frame_terms(prediction, batch, config), config, 1.0)
    assert again.item() == loss.item()
    again.backward()
    assert prediction.energy.grad is not None
    assert prediction.energy.grad[1] == 0.0


def test_a_label_that_no_frame_carries_adds_nothing() -> None:
    prediction, batch = example(default_rng(5))
    without = Batch(batch.graph, batch.labels, batch.carries | {"virial": torch.tensor([False] * 3)}, batch.sources)
    config = LossConfig(energy=0, forces=0, virial=1)
    assert total_loss(frame_terms(prediction, without, config), config, 1.0).item() == 0.0


def test_one_frame_size_gives_the_plain_mean_of_deepmd_kit() -> None:
    """p_e mean(ΔE²)/N + p_f mean(ΔF²) + p_v mean(ΔW²)/N over frames of one size."""
    rng = default_rng(6)
    batch = graph_of((4, 4, 4))
    shapes = {"energy": (3,), "forces": (12, 3), "virial": (3, 3, 3)}
    delta = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}
    zero = {name: torch.zeros_like(value) for name, value in delta.items()}
    everywhere = {name: torch.tensor([True] * 3) for name in delta}
    prediction = Prediction(delta["energy"], None, delta["forces"], delta["virial"])
    config = LossConfig(energy=2.0, forces=3.0, virial=5.0)
    loss = total_loss(frame_terms(prediction, Batch(batch.graph, zero, everywhere, batch.sources), config), config, 1.0)
    mean = {name: value.square().mean().item() for name, value in delta.items()}
    assert loss.item() == pytest.approx(2 * mean["energy"] / 4 + 3 * mean["forces"] + 5 * mean["virial"] / 4, rel=1e-13)


def test_gradient_is_that_of_finite_differences() -> None:
    prediction, batch = example(default_rng(7))

    def loss(energy: Tensor, forces: Tensor, virial: Tensor) -> Tensor:
        config = LossConfig(kind="huber", huber_delta=DELTA)
        return total_loss(frame_terms(Prediction(energy, None, forces, virial), batch, config), config, 0.5)

    assert torch.autograd.gradcheck(loss, (prediction.energy, prediction.forces, prediction.virial))


def _shared_gradient(rows: tuple[int, ...], frames: Tensor | None = None) -> Tensor:
    """Gradient of the loss of frames ``rows`` of a fixed set; frame 0 carries no energy."""
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    batch = carrying(rows)
    frame_F = torch.tensor([1.0 + row for row in rows], dtype=torch.float64)
    prediction = Prediction(scale * frame_F, None, scale * frame_F[batch.graph.frame.index][:, None].expand(-1, 3), None)
    config = LossConfig()
    total_loss(frame_terms(prediction, batch, config), config, 0.5, frames).backward()
    assert scale.grad is not None
    return scale.grad


def carrying(rows: tuple[int, ...]) -> Batch:
    batch = graph_of(tuple(2 + row for row in rows))
    labels = {"energy": torch.zeros(len(rows)), "forces": torch.zeros(batch.graph.n_atoms, 3)}
    carries = {"energy": torch.tensor([row != 0 for row in rows]), "forces": torch.ones(len(rows), dtype=torch.bool)}
    known = {name for name, flags in carries.items() if flags.any()}  # as batches are made: no label that no frame carries
    labels, carries = ({name: table[name].double() for name in known} for table in (labels, carries))
    return Batch(batch.graph, labels, {name: flags.bool() for name, flags in carries.items()}, batch.sources)


def test_losses_of_the_parts_of_a_batch_add_up_when_each_knows_how_many_frames_the_whole_has() -> None:
    """Frames divided unevenly: the gradients of the parts add up to that of all frames together."""
    parts: list[tuple[int, ...]] = [(1, 2, 3, 4), (0,)]
    frames = carrying_frames(carrying(parts[0])) + carrying_frames(carrying(parts[1])) + carrying_frames(None)
    assert frames.tolist() == [4, 5, 0]
    summed = sum(_shared_gradient(part, frames) for part in parts)
    torch.testing.assert_close(summed, _shared_gradient(sum(parts, ())), rtol=1e-13, atol=0)
