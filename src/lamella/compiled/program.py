"""Compile a potential, keep what was compiled, and run it; anything that cannot be compiled runs operation by operation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lamella.compiled.compiler import missing_tools
from lamella.compiled.operators import fused_decompositions
from lamella.compiled.trace import Trace, flattened, trace
from lamella.models.dpa3 import DPA3
from lamella.models.potential import ModelConfig, Potential, eager
from lamella.types import Graph

__all__ = ["Compilation", "Programs", "compile_model"]

Backend = Callable[[Trace], Callable[..., Sequence[Tensor]]]


@dataclass(frozen=True)
class Compilation:
    """One program.

    Attributes:
        task: which labels it predicts.
        training: whether it can be differentiated with respect to the weights.
        nodes: operations in the trace.
        trace_seconds: CPU time of this process.
        compile_seconds: the same; what earlier runs left in Inductor's cache is read from there.
    """

    task: str
    training: bool
    nodes: int
    trace_seconds: float
    compile_seconds: float


@dataclass
class Program:
    """Compiled code, and whether its results are right for given inputs."""

    run: Callable[..., Sequence[Tensor]]
    guard: Callable[[Sequence[Tensor]], bool]
    config: ModelConfig  # kept, since its identity says which models the program is for


class Programs:
    """What was compiled for a potential and its copies: by task, dtype, device and which weights are learned.

    Attributes:
        compilations: what was compiled, and how long it took.
        failure: why nothing is compiled any more; empty while all is well.
    """

    def __init__(self, backend: Backend | None = None) -> None:
        """Programs of a backend, Inductor where none is given."""
        self.compilations: list[Compilation] = []
        self.failure = missing_tools() if backend is None else ""
        self._backend: Backend = backend or inductor
        self._given = backend
        self._known: dict[Any, Program] = {}
        if self.failure:
            self._warn()

    @property
    def programs(self) -> tuple[Program, ...]:
        """All that were compiled."""
        return tuple(self._known.values())

    def __deepcopy__(self, memo: dict[int, Any]) -> Programs:
        """Copies of a model share its programs: weights are their inputs."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process compiles for itself."""
        return _again, (self._given,)

    def __call__(self, potential: Potential, graph: Graph, task: str | None, create_graph: bool) -> tuple[Tensor, Tensor]:
        """As :func:`lamella.models.potential.eager`, compiled where that is possible.

        A graph whose sizes the compiled code is not made for, such as one without edges, runs eagerly, without a word: it
        is small. So does a model that recomputes to bound memory, and anything under a mode of torch that watches or changes
        operations, such as rounded products.
        """
        bounded = isinstance(potential.backbone, DPA3) and potential.backbone.part_rows is not None
        if self.failure or bounded or _get_current_dispatch_mode() is not None:
            return eager(potential, graph, task, create_graph)
        inputs = flattened(potential, graph)
        program = self._program(potential, task, create_graph, inputs)
        if program is None or not program.guard(inputs):
            return eager(potential, graph, task, create_graph)
        with torch.set_grad_enabled(create_graph):
            energy_N, grad_E3 = program.run(*inputs)
        return energy_N, grad_E3

    def _program(
        self, potential: Potential, task: str | None, create_graph: bool, inputs: Sequence[Tensor]
    ) -> Program | None:
        index = potential.task_index(task)
        weights = tuple((p.shape, p.requires_grad and create_graph) for p in potential.parameters())
        training = any(learned for _, learned in weights)
        kind = type(potential), potential.elements, id(potential.config), weights
        key = (index, training, potential.dtype, potential.device, kind)
        if key not in self._known:
            try:
                self._known[key] = self._compiled(potential, potential.tasks[index], training)
            except Exception as error:  # whatever a compiler stumbles over, the model can run without it
                self.failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
                self._warn()
                return None
        return self._known[key]

    def _compiled(self, potential: Potential, task: str, training: bool) -> Program:
        start = time.process_time()
        traced = trace(potential, task, training)
        middle = time.process_time()
        run = self._backend(traced)
        times = middle - start, time.process_time() - middle
        self.compilations.append(Compilation(task, training, len(traced.module.graph.nodes), *times))
        return Program(run, traced.guard(), potential.config)

    def _warn(self) -> None:
        warnings.warn(f"the model is not compiled but runs eagerly, which is slower: {self.failure}", stacklevel=2)


def _again(backend: Backend | None) -> Programs:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the original has said it
        return Programs(backend)


def compile_model(potential: Potential, backend: Backend | None = None) -> Programs:
    """Have ``potential`` compiled where it is used first; returns what keeps the programs.

    The first energy of each task, and the first training step, then takes from seconds to minutes longer. Results agree with
    eager ones to the round-off of the model's dtype. Where no C++ compiler is found, one warning says so and the model runs
    eagerly.

    Args:
        potential: changed: its ``compiled`` is set; set it to None to go back.
        backend: trace -> callable of the same inputs; Inductor where none is given.
    """
    programs = Programs(backend)
    potential.compiled = programs
    return programs


def inductor(traced: Trace) -> Callable[..., Sequence[Tensor]]:
    """Code by torch's Inductor: C++ on a CPU, Triton on a GPU."""
    # imported late: these take seconds and nothing else needs them
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    table = {**select_decomp_table(), **fused_decompositions()}
    with tracing(TracingContext(traced.mode)), traced.mode:
        run: Any = compile_fx(traced.module, list(traced.inputs), decompositions=table)
    return cast(Callable[..., Sequence[Tensor]], run)
