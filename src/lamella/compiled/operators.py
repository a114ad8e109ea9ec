"""Gather, segment sum, spread and collect as operators of torch, so that a traced model shows each of them as one node.

    gather' = segment_sum      segment_sum' = gather      spread' = collect      collect' = spread

Their kernels are those of :mod:`lamella.geometry.segment`. The derivative of each is another one, so derivatives of any
order of a traced model stay among the four; torch's own derivative of a gather, ``index_add``, is not safe in code that
Inductor generates for a CPU (docs/decisions/0010-compiled-graphs.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lamella.geometry.segment import Slots, sum_rows
from lamella.types import Graph, Incidence

__all__ = ["TracedOperators", "fused_decompositions", "operators"]

_Run = Callable[..., Any]
_LIBRARIES: list[torch.library.Library] = []
"""Operators live as long as the library they were registered in."""


def _gather(x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
    return x.index_select(0, index)


def _gather_shape(x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
    return x.new_empty((index.shape[0], *x.shape[1:]))


def _segment_sum_shape(x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
    return x.new_empty((ptr.shape[0] - 1, *x.shape[1:]))


def _spread(x: Tensor, place: Tensor, owners: int, longest: int) -> Tensor:
    out = x.new_zeros(owners * longest, x.shape[1])
    return out.index_copy_(0, place, x).view(owners, longest, x.shape[1])


def _spread_shape(x: Tensor, place: Tensor, owners: int, longest: int) -> Tensor:
    return x.new_empty((owners, longest, x.shape[1]))


def _collect(x: Tensor, place: Tensor) -> Tensor:
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2]).index_select(0, place)


def _collect_shape(x: Tensor, place: Tensor) -> Tensor:
    return x.new_empty((place.shape[0], x.shape[2]))


def _keep_incidence(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _keep_place(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.rectangle = inputs[0].shape[:2]


def _gather_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.lamella.segment_sum(grad, *ctx.saved_tensors), None, None, None


def _segment_sum_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.lamella.gather(grad, *ctx.saved_tensors), None, None, None


def _spread_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.lamella.collect(grad, *ctx.saved_tensors), None, None, None


def _collect_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.lamella.spread(grad, *ctx.saved_tensors, *ctx.rectangle), None


_ROWS = "(Tensor x, Tensor index, Tensor order, Tensor ptr) -> Tensor"
_TO_SLOTS = "(Tensor x, Tensor place, SymInt owners, SymInt longest) -> Tensor"
_FROM_SLOTS = "(Tensor x, Tensor place) -> Tensor"
_OPERATORS: tuple[tuple[str, str, _Run, _Run, _Run, _Run], ...] = (
    ("gather", _ROWS, _gather, _gather_shape, _gather_derivative, _keep_incidence),
    ("segment_sum", _ROWS, sum_rows, _segment_sum_shape, _segment_sum_derivative, _keep_incidence),
    ("spread", _TO_SLOTS, _spread, _spread_shape, _spread_derivative, _keep_place),
    ("collect", _FROM_SLOTS, _collect, _collect_shape, _collect_derivative, _keep_place),
)
"""Name, signature, kernel, shape of the result, derivative, what the derivative needs."""


@cache
def operators() -> Any:
    """``torch.ops.lamella``, in which the four are registered by the first call."""
    library = torch.library.Library("lamella", "DEF")
    for name, schema, run, shape, derivative, keep in _OPERATORS:
        library.define(name + schema)
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"lamella::{name}", shape, lib=library)
        torch.library.register_autograd(f"lamella::{name}", derivative, setup_context=keep, lib=library)
    _LIBRARIES.append(library)
    return torch.ops.lamella


def fused_decompositions() -> dict[Any, Any]:
    """What a compiler may take apart once derivatives are taken: a gather is an indexed load, fused with what reads it."""
    return {
        operators().gather.default: lambda x, index, order, ptr: x.index_select(0, index),
        operators().collect.default: _collect,
    }


class TracedOperators:
    """Stands in for the functions of :mod:`lamella.geometry.segment` while a model is traced.

    Attributes:
        graph: the one that is traced.
        longest: (longest segment, 0) tensors by the field of the graph: their first dimension is what ``slots_of`` would
            have to read from the values of ``ptr``, which a trace does not know.
    """

    def __init__(self, graph: Graph, longest: dict[str, Tensor]) -> None:
        self.graph, self.longest, self._ops = graph, longest, operators()

    def gather(self, x: Tensor, incidence: Incidence) -> Tensor:
        """As :func:`lamella.geometry.segment.gather`."""
        return self._ops.gather(x, *incidence)  # type: ignore[no-any-return]

    def segment_sum(self, x: Tensor, incidence: Incidence) -> Tensor:
        """As :func:`lamella.geometry.segment.segment_sum`."""
        return self._ops.segment_sum(x, *incidence)  # type: ignore[no-any-return]

    def spread(self, x: Tensor, slots: Slots) -> Tensor:
        """As :func:`lamella.geometry.segment.spread`."""
        return self._ops.spread(x, slots.place, *slots.shape)  # type: ignore[no-any-return]

    def collect(self, x: Tensor, slots: Slots) -> Tensor:
        """As :func:`lamella.geometry.segment.collect`."""
        return self._ops.collect(x, slots.place)  # type: ignore[no-any-return]

    def longest_segment(self, incidence: Incidence) -> int:
        """Rows of the owner that has most of them.

        Raises:
            NotImplementedError: it is not known for this relation.
        """
        for field, carrier in self.longest.items():
            if getattr(self.graph, field) is incidence:
                return carrier.shape[0]
        raise NotImplementedError("the longest segment of a relation that is no field of the graph")
