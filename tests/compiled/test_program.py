"""What is compiled when, and what happens where it cannot be."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch

from compiled.samples import graph_of, model_of, other_model
from lamella.compiled import compile_model, compiler
from lamella.models.precision import matrix_products
from lamella.models.se_a import SeAConfig
from lamella.use.predict import runnable


def plain(traced):
    """The trace itself, without derivatives."""
    return traced.module


@pytest.fixture
def model():
    return model_of(layers=1)


def test_forces_are_those_of_the_eager_model(model):
    graph = graph_of(model, "crystal")
    before = model(graph)
    programs = compile_model(model, plain)
    after = model(graph)
    assert [(one.task, one.training) for one in programs.compilations] == [("default", False)]
    assert programs.compilations[0].trace_seconds > 0.0
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)


def test_changed_weights_are_used_without_another_compilation(model):
    graph = graph_of(model, "crystal")
    programs = compile_model(model, plain)
    before = model(graph).energy
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = model(graph).energy
    assert not torch.allclose(before, after)
    model.compiled = None
    torch.testing.assert_close(after, model(graph).energy, rtol=1e-11, atol=1e-13)
    assert len(programs.compilations) == 1
    twin = runnable(model)  # other weights that need no gradient, over the same memory
    model.compiled = programs
    torch.testing.assert_close(runnable(model)(graph).energy, twin(graph).energy, rtol=1e-11, atol=1e-13)
    assert len(programs.compilations) == 1


def test_a_compiler_that_fails_is_named_once_and_the_model_runs(model):
    graph = graph_of(model, "crystal")
    before = model(graph)

    def broken(traced):
        raise RuntimeError("no space left\nin a long report")

    programs = compile_model(model, broken)
    with pytest.warns(UserWarning, match="runs eagerly.*no space left") as caught:
        after = model(graph)
    assert len(caught) == 1 and programs.failure == "RuntimeError: no space left"
    assert torch.equal(before.forces, after.forces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(graph)


def test_without_a_compiler_one_warning_says_what_to_install(model, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler") as caught:
        compile_model(model)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(graph_of(model, "crystal"))


def test_without_python_headers_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "cpp_compiler", lambda: "g++")
    monkeypatch.setattr(compiler.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "python3-dev" in compiler.missing_tools()
    (tmp_path / "Python.h").touch()
    assert compiler.missing_tools() == ""


def test_nothing_is_said_where_a_graph_is_too_small(model):
    name = "no edges"
    before = model(graph_of(model, name))
    compile_model(model, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = model(graph_of(model, name))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)


def test_rounded_products_are_not_lost(model):
    model.cast(torch.float32)
    graph = graph_of(model, "crystal")
    with matrix_products("bf16", model.device):
        before = model(graph)
    compile_model(model, plain)
    with matrix_products("bf16", model.device):
        after = model(graph)
    assert torch.equal(before.forces, after.forces)


def test_copies_share_programs_and_other_processes_compile_for_themselves(model):
    programs = compile_model(model, plain)
    assert copy.deepcopy(model).compiled is programs
    other = pickle.loads(pickle.dumps(model)).compiled
    assert other is not programs and not other.failure


def test_a_model_that_no_trace_can_follow_says_so_and_runs():
    """DeepPot-SE sorts edges by the network they go through, and how many go through each is read from values."""
    model = other_model(SeAConfig(sel={"H": 9, "O": 9}, neurons=(4, 4), axis=2, cutoff=4.0, switch_start=3.0))
    graph = graph_of(model, "crystal")
    before = model(graph)
    compile_model(model, plain)
    with pytest.warns(UserWarning, match="runs eagerly") as caught:
        after = model(graph)
    assert len(caught) == 1
    assert torch.equal(before.forces, after.forces)


@pytest.mark.slow
def test_inductor_gives_the_forces_of_the_eager_model(model):
    """Real generated code, one program for two shapes."""
    if compiler.missing_tools():
        pytest.skip(compiler.missing_tools())
    graphs = [graph_of(model, name) for name in ("crystal", "three frames")]
    before = [model(graph) for graph in graphs]
    programs = compile_model(model)
    for graph, expected in zip(graphs, before, strict=True):
        for one, other in zip(expected, model(graph), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)
    assert not programs.failure and len(programs.compilations) == 1
