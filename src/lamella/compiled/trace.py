"""A potential's energy and its derivative with respect to edge vectors, as one graph of tensor operations for any shape.

    (θ, vec, graph) -> e_i, g = ∂(Σ e)/∂vec

``make_fx`` runs the model once on tensors that have sizes but no values, below autograd, so that the backward pass that
gives g is part of the graph like the forward pass. The gradient of a loss of forces with respect to θ is then an ordinary
backward pass through that graph: no second derivative is left to autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from lamella.compiled.operators import TracedOperators
from lamella.geometry.segment import longest_segment, tracing
from lamella.models.potential import Potential
from lamella.types import Graph, Incidence

__all__ = ["Trace", "flattened", "trace"]

_RELATIONS: Final = {
    "frame": ("atoms", "frames"),
    "src": ("edges", "atoms"),
    "dst": ("edges", "atoms"),
    "short_src": ("short", "atoms"),
    "short_dst": ("short", "atoms"),
    "angle_j": ("angles", "short"),
    "angle_k": ("angles", "short"),
}
"""Rows and owners of every incidence of a graph."""

_RECTANGLES: Final = ("src", "short_src")
"""Relations whose rows models put into rectangles."""

_SIZES: Final = {"atoms": 211, "frames": 7, "edges": 17_011, "short": 5_209, "angles": 142_007, "src": 127, "short_src": 41}
"""Sizes the trace runs on; all different, since equal ones would be taken for one size. Nothing of them is allocated. A
compiler may look at them where it has to choose, so they are those of a liquid of 200 atoms."""


@dataclass(frozen=True)
class Trace:
    """What a trace gave.

    Attributes:
        module: takes the inputs that :func:`flattened` lists, returns (e_N, g_E3).
        inputs: without values, as the module was traced; parameters that are learned require gradients.
        mode: they belong to.
        sizes: holds what the trace took for granted about sizes.
    """

    module: GraphModule
    inputs: tuple[FakeTensor, ...]
    mode: FakeTensorMode
    sizes: ShapeEnv

    def guard(self) -> Callable[[Sequence[Tensor]], bool]:
        """Says of inputs whether the module's results are right for them: whatever was assumed about sizes until now."""
        text = self.sizes.produce_guards_expression(self.inputs)
        if text is None:
            return lambda inputs: True
        code: Any = compile(text, "<guard>", "eval")
        return lambda inputs: self.sizes.evaluate_guards_expression(code, inputs)


def flattened(potential: Potential, graph: Graph) -> list[Tensor]:
    """Parameters and buffers, edge vectors, everything else of the graph, and how long its longest segments are."""
    weights = [value for _, value in _weights(potential)]
    carriers = [graph.vec.new_empty(longest_segment(getattr(graph, field)), 0) for field in _RECTANGLES]
    return [*weights, graph.vec, *_indices(graph), *carriers, *(graph.inputs[name] for name in sorted(graph.inputs))]


def trace(potential: Potential, task: str | None, training: bool) -> Trace:
    """Trace one task of a model.

    Raises:
        NotImplementedError: the model does what no trace can follow, such as a choice by a value.
    """
    sizes = ShapeEnv(specialize_zero_one=False, duck_shape=True)
    mode = FakeTensorMode(shape_env=sizes)
    weights = dict(_weights(potential))
    example = [_sized(mode, value, index) for index, value in enumerate(_example(potential))]
    fixed = [_whole(mode, value, training) for value in weights.values()]
    energy = _Energy(potential, task)

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = {f"potential.{name}": value for name, value in zip(weights, values, strict=False)}
        vec_E3 = values[len(weights)].detach().requires_grad_()
        graph, longest = _graph(potential, vec_E3, values[len(weights) + 1 :])
        with tracing(TracedOperators(graph, longest)), torch.enable_grad():
            energy_N = functional_call(energy, named, (graph, vec_E3))
            (grad_E3,) = torch.autograd.grad(energy_N.sum(), vec_E3)
        return energy_N, grad_E3

    silu: Any = get_decompositions(
        [torch.ops.aten.silu_backward, torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward]
    )
    with mode, enable_python_dispatcher():
        module = make_fx(run, decomposition_table=silu)(*fixed, *example)
    _without_detach(module)
    _check_sizes(example)
    return Trace(module, (*fixed, *example), mode, sizes)


class _Energy(nn.Module):
    """Calls the part of a potential that learns, as ``functional_call`` wants it."""

    def __init__(self, potential: Potential, task: str | None) -> None:
        super().__init__()
        self.potential, self.task = potential, task

    def forward(self, graph: Graph, vec_E3: Tensor) -> Tensor:
        """(N,) float64."""
        return self.potential.network_energy(graph, vec_E3, self.task)


def _weights(potential: Potential) -> Iterator[tuple[str, Tensor]]:
    yield from potential.named_parameters()
    yield from ((name, value) for name, value in potential.named_buffers() if name != "baseline")


def _indices(graph: Graph) -> list[Tensor]:
    return [graph.species, graph.short, *(part for field in _RELATIONS for part in getattr(graph, field))]


def _example(potential: Potential) -> list[Tensor]:
    """Tensors of the shapes and types that follow the weights in :func:`flattened`."""
    spec = potential.graph_spec
    absent = {"short", "short_src"} if spec.short_cutoff == 0.0 else set()
    size = {name: 0 if name in absent or (name == "angles" and not spec.angles) else n for name, n in _SIZES.items()}

    def whole(count: int) -> Tensor:
        return torch.empty(count, dtype=torch.int64, device=potential.device)

    values = [torch.empty(size["edges"], 3, dtype=torch.float64, device=potential.device)]
    values += [whole(size["atoms"]), whole(size["short"])]
    for rows, owners in _RELATIONS.values():
        values += [whole(size[rows]), whole(size[rows]), whole(size[owners] + 1)]
    values += [values[0].new_empty(size[field], 0) for field in _RECTANGLES]
    widths = {wanted.name: wanted.width for wanted in spec.inputs}
    return values + [values[0].new_empty(size["frames"], widths[name]) for name in sorted(widths)]


def _graph(potential: Potential, vec_E3: Tensor, values: Sequence[Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The graph of a flat list, and the carriers of its longest segments."""
    species, short, *rest = values
    parts: dict[str, Any] = {}
    for field in _RELATIONS:
        parts[field], rest = Incidence(*rest[:3]), rest[3:]
    longest, rest = dict(zip(_RECTANGLES, rest, strict=False)), rest[len(_RECTANGLES) :]
    names = sorted(wanted.name for wanted in potential.graph_spec.inputs)
    graph = Graph(species=species, short=short, vec=vec_E3, inputs=dict(zip(names, rest, strict=True)), **parts)
    return graph, longest


def _whole(mode: FakeTensorMode, value: Tensor, training: bool) -> FakeTensor:
    """A weight without its values; its sizes are what they are."""
    empty = cast(FakeTensor, mode.from_tensor(value, static_shapes=True).detach())
    empty.requires_grad_(training and value.requires_grad)
    return empty


def _sized(mode: FakeTensorMode, value: Tensor, index: int) -> FakeTensor:
    """Without values; the first dimension may be anything unless the model has nothing of the kind (0, of ``ptr`` 1)."""
    from torch._dynamo.source import ConstantSource  # takes seconds, and only a trace needs it

    kinds = [DimDynamic.STATIC] * value.dim()
    if value.shape[0] > 1:
        kinds[0] = DimDynamic.DUCK
    context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
    return mode.from_tensor(value, symbolic_context=context, source=ConstantSource(f"input_{index}"))


def _without_detach(module: GraphModule) -> None:
    """Values that autograd kept come back detached in the trace, which would cut the derivative of the derivative."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _check_sizes(example: Sequence[FakeTensor]) -> None:
    """A size that a choice in the model has pinned would make wrong results for every other size."""
    for value in example:
        count: Any = value.shape[0]
        if isinstance(count, torch.SymInt) and count.node.expr.is_number:
            raise NotImplementedError(f"a choice in the model depends on whether a size is {count.node.expr}")
