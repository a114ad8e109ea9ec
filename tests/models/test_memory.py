"""What is predicted of memory is near what a run takes, for every architecture; parts are chosen by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.geometry.graph import build_graph
from lamella.models.dpa1 import DPA1Config
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.memory import Footprint, Sizes, available_memory, footprint, is_out_of_memory, sizes_of
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeAConfig
from lamella.types import Frame
from models.watch import Watch

REACH = {"cutoff": 5.0, "switch_start": 4.2}
BACKBONES = {
    "dpa3": DPA3Config(layers=4, node_dim=32, edge_dim=24, angle_dim=16, angle_cutoff=3.2, angle_switch_start=2.6, **REACH),
    "dpa3 without angles": DPA3Config(layers=3, node_dim=32, edge_dim=24, angle_dim=16, update_angle=False, **REACH),
    "dpa1": DPA1Config(sel=60, neurons=(12, 24, 48), axis=8, **REACH),
    "se_a": SeAConfig(sel={"O": 40, "H": 60}, neurons=(12, 24, 48), axis=8, **REACH),
}


def model_of(name) -> Potential:
    torch.manual_seed(0)
    return Potential(ModelConfig(backbone=BACKBONES[name], head=HeadConfig(hidden=(32,))), ("O", "H")).eval()


def graph_of(model, n=24, length=6.5):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)[:n] * length / 4
    positions = grid + rng.normal(0, 0.15, (n, 3))
    frame = Frame(rng.choice([1, 8], n), positions, length * np.eye(3), np.ones(3, bool))
    return build_graph(frame, model.graph_spec)


def peak_of(model, graph, training):
    with Watch() as watch:
        prediction = model(graph, create_graph=training)
        if training:
            loss = (prediction.forces**2).sum() + (prediction.energy**2).sum()
            torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return watch.peak


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_prediction_is_near_the_peak(name, training):
    model = model_of(name).requires_grad_(training)
    graph = graph_of(model)
    found = footprint(model, training)
    peak = peak_of(model, graph, training)
    assert 0.75 * peak < found.peak(sizes_of(graph)) < 2.0 * peak
    assert (found.parts is not None) == name.startswith("dpa3")


@pytest.mark.parametrize("training", [False, True])
def test_prediction_in_parts_bounds_the_peak_in_parts(training):
    model = model_of("dpa3").requires_grad_(training)
    graph = graph_of(model)
    sizes, found = sizes_of(graph), footprint(model, training)
    whole = peak_of(model, graph, training)
    model.backbone.part_rows = -(-(sizes.edges + sizes.short_pairs) // 6)
    peak = peak_of(model, graph, training)
    assert peak < 0.6 * whole
    assert 0.9 * peak < found.peak(sizes, 6) < 3.0 * peak


def test_measuring_changes_nothing_of_the_model():
    model = model_of("dpa3")
    model.backbone.part_rows = 17
    before = {name: value.clone() for name, value in model.state_dict().items()}
    footprint(model, True)
    assert model.backbone.part_rows == 17
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert footprint(model, True) is footprint(model, True), "measured once"


def test_sizes_count_the_graph():
    model = model_of("dpa3")
    graph = graph_of(model)
    sizes = sizes_of(graph)
    degree = torch.bincount(graph.src.index, minlength=graph.n_atoms)
    assert sizes == (graph.n_atoms, graph.n_edges, len(graph.short), int((degree**2).sum()), graph.n_angles)


ROOMY = Sizes(100, 1000, 300, 10_000, 900)


def test_parts_are_as_few_as_the_budget_allows():
    found = Footprint((0.0, 0.0, 1e6, 0.0, 0.0, 0.0), (0.0, 0.0, 1e5, 0.0, 0.0, 0.0), 6)
    assert found.part_rows(ROOMY, found.peak(ROOMY)) is None
    for parts in (4, 9, 30):
        rows = found.part_rows(ROOMY, found.peak(ROOMY, parts))
        assert rows == -(-1900 // parts)
    assert found.part_rows(ROOMY, 0.0) == -(-1900 // 64), "the smallest there are"
    assert Footprint((0.0, 0.0, 1e6, 0.0, 0.0, 0.0)).part_rows(ROOMY, 0.0) is None, "a model that has no parts"


def test_words_say_how_much_of_how_much_and_what_will_not_do():
    found = Footprint((0.0, 0.0, 1e6, 0.0, 0.0, 0.0), (0.0, 0.0, 1e5, 0.0, 0.0, 0.0), 6)
    assert found.words(ROOMY, 8e9) == "about 1.4 GB of 8.0 GB"
    assert found.words(ROOMY, 5e8) == "about 0.3 GB of 0.5 GB in 4 parts (at once 1.4 GB)"
    assert found.words(ROOMY, 1e8).endswith(", which will not do")
    assert Footprint((0.0, 0.0, 1e6, 0.0, 0.0, 0.0)).words(ROOMY, 1e9) == "about 1.4 GB of 1.0 GB, which will not do"
    assert Footprint((0.0, 0.0, 1e3, 0.0, 0.0, 0.0)).words(ROOMY, 1e9) == "about 1 MB of 1.0 GB"


def test_shortage_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("memory"))


def test_this_machine_has_memory():
    assert available_memory("cpu") > 1e7
