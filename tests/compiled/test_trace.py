"""One trace serves graphs of every shape: predictions and parameter gradients are those of the eager model."""

from __future__ import annotations

import pytest
import torch

from compiled import backends
from compiled.samples import SAMPLES, graph_of, model_of, other_model, trained_on
from lamella.compiled import compile_model
from lamella.models.dpa1 import DPA1Config
from lamella.models.dpa2 import DPA2Config, RepformerConfig


@pytest.fixture(scope="module")
def models():
    """The same model twice, the second compiled."""
    model, twin = model_of(), model_of()
    return model, twin, compile_model(twin, backends.interpreted)


@pytest.mark.parametrize("name", SAMPLES)
def test_values_and_parameter_gradients_are_those_of_the_eager_model(models, name):
    model, twin, programs = models
    values, gradients = trained_on(model, graph_of(model, name))
    same_values, same_gradients = trained_on(twin, graph_of(model, name))
    assert not programs.failure
    for one, other in zip(values, same_values, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
    for key, gradient in gradients.items():
        # a parameter that the sample leaves untouched has the gradient 0 in a compiled model, perhaps none in the eager one
        torch.testing.assert_close(same_gradients[key], gradient, rtol=1e-9, atol=1e-11)
    assert all(not same_gradients[key].any() for key in same_gradients.keys() - gradients.keys())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpa1", "dpa2"])
def test_other_architectures_agree_too(name):
    backbones = {
        "dpa1": DPA1Config(sel=8, neurons=(4, 8), axis=2, attention_dim=4, cutoff=4.0, switch_start=3.0),
        "dpa2": DPA2Config(repformer=RepformerConfig(layers=2, node_dim=8, pair_dim=4)),
    }
    model = other_model(backbones[name])
    graphs = [graph_of(model, sample) for sample in ("crystal", "three frames")]
    expected = [trained_on(model, graph) for graph in graphs]
    programs = compile_model(model, backends.interpreted)
    for graph, (values, gradients) in zip(graphs, expected, strict=True):
        same_values, same_gradients = trained_on(model, graph)
        for one, other in zip(values, same_values, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
        for key, gradient in gradients.items():
            torch.testing.assert_close(same_gradients[key], gradient, rtol=1e-9, atol=1e-11)
    assert not programs.failure and len(programs.compilations) == 1


def test_all_shapes_shared_one_program(models):
    model, twin, programs = models
    for name in SAMPLES:
        trained_on(twin, graph_of(model, name))
    assert [(one.task, one.training) for one in programs.compilations] == [("default", True)]


def test_large_enough_graphs_do_run_compiled(models):
    """Else the comparison above would compare the eager model with itself."""
    model, twin, programs = models
    graph = graph_of(model, "crystal")
    trained_on(twin, graph)
    (program,) = programs.programs
    ran, run = [], program.run
    program.run = lambda *inputs: ran.append(len(inputs)) or run(*inputs)
    try:
        for name in ("crystal", "another crystal", "three frames", "molecule"):
            trained_on(twin, graph_of(model, name))
    finally:
        program.run = run
    assert len(ran) == 4
