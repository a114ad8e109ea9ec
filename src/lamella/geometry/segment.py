"""Gather and segment-sum, spread and collect: each is the other's derivative, so derivatives of any order stay in the pair.

    gather(x)[m] = x[index[m]]            segment_sum(y)[o] = Σ_{m: index[m] = o} y[m]
    collect(z)[m] = z[o, s]               spread(y)[o, s] = y[m]  for row m in slot s of its owner o, 0 in empty slots

Sums run over rows listed owner by owner (:class:`lamella.types.Incidence`): no atomics, the same bits in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lamella.types import Incidence

__all__ = [
    "Slots",
    "collect",
    "gather",
    "gather_add",
    "incidence_of",
    "longest_segment",
    "segment_sum",
    "slots_of",
    "spread",
    "sum_rows",
    "tracing",
]


class Operators(Protocol):
    """What stands in for the functions of this module while a model is traced (:mod:`lamella.compiled`)."""

    def gather(self, x: Tensor, incidence: Incidence) -> Tensor:
        """:func:`gather`."""

    def segment_sum(self, x: Tensor, incidence: Incidence) -> Tensor:
        """:func:`segment_sum`."""

    def spread(self, x: Tensor, slots: Slots) -> Tensor:
        """:func:`spread`."""

    def collect(self, x: Tensor, slots: Slots) -> Tensor:
        """:func:`collect`."""

    def longest_segment(self, incidence: Incidence) -> int:
        """Rows of the owner that has most of them."""


_traced: Operators | None = None


@contextmanager
def tracing(operators: Operators) -> Iterator[None]:
    """Use other operators meanwhile."""
    global _traced
    before, _traced = _traced, operators
    try:
        yield
    finally:
        _traced = before


def gather(owner_OC: Tensor, incidence: Incidence) -> Tensor:
    """Row ``incidence.index[m]`` of ``owner_OC`` for each m: (n, ...) -> (M, ...)."""
    return _Gather.apply(owner_OC, *incidence) if _traced is None else _traced.gather(owner_OC, incidence)


def segment_sum(row_MC: Tensor, incidence: Incidence) -> Tensor:
    """Sum of the rows of each owner, zero for an owner without rows: (M, ...) -> (n, ...)."""
    return _SegmentSum.apply(row_MC, *incidence) if _traced is None else _traced.segment_sum(row_MC, incidence)


def gather_add(a_OC: Tensor, by_a: Incidence, b_PC: Tensor, by_b: Incidence) -> Tensor:
    """``gather(a_OC, by_a) + gather(b_PC, by_b)`` without the two gathered arrays: (M, ...)."""
    if _traced is not None:
        return _traced.gather(a_OC, by_a) + _traced.gather(b_PC, by_b)
    return _GatherAdd.apply(a_OC, b_PC, *by_a, *by_b)


def incidence_of(owner_M: Tensor, size: int) -> Incidence:
    """Rows in any order by their owners, of which there are ``size``."""
    order = torch.argsort(owner_M, stable=True)
    bounds = torch.arange(size + 1, device=owner_M.device)
    return Incidence(owner_M, order, torch.searchsorted(owner_M.index_select(0, order), bounds))


class Slots(NamedTuple):
    """A place for every row in a rectangle of (owners, longest segment), so that a sum over rows can be a batched product.

    Attributes:
        place: (M,) int64, row-major position of each row.
        shape: number of owners, number of slots of each.
    """

    place: Tensor
    shape: tuple[int, int]


def slots_of(incidence: Incidence) -> Slots:
    """Slots for rows already sorted by owner."""
    ptr = incidence.ptr
    longest = longest_segment(incidence) if _traced is None else _traced.longest_segment(incidence)
    rank = torch.arange(incidence.index.shape[0], device=ptr.device) - ptr.index_select(0, incidence.index)
    return Slots(incidence.index * longest + rank, (incidence.size, longest))


def longest_segment(incidence: Incidence) -> int:
    """Rows of the owner that has most of them; 0 without owners."""
    return int(incidence.ptr.diff().max()) if incidence.size else 0


def spread(row_MC: Tensor, slots: Slots) -> Tensor:
    """Rows at their slots, zeros in empty ones: (M, C) -> (n, longest, C)."""
    return _Spread.apply(row_MC, slots.place, slots.shape) if _traced is None else _traced.spread(row_MC, slots)


def collect(slot_OSC: Tensor, slots: Slots) -> Tensor:
    """Rows from their slots: (n, longest, C) -> (M, C); what empty slots hold is not read."""
    return _Collect.apply(slot_OSC, slots.place, slots.shape) if _traced is None else _traced.collect(slot_OSC, slots)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(place)
        ctx.shape = shape
        out = x.new_zeros(shape[0] * shape[1], x.shape[1])
        return out.index_copy_(0, place, x).view(*shape, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Collect.apply(grads[0], ctx.saved_tensors[0], ctx.shape), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(place)
        ctx.shape = shape
        return x.reshape(-1, x.shape[-1]).index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Spread.apply(grads[0], ctx.saved_tensors[0], ctx.shape), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(index, order, ptr)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _SegmentSum.apply(grads[0], *ctx.saved_tensors), None, None, None


class _GatherAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *incidences: Tensor) -> Tensor:
        ctx.save_for_backward(*incidences)
        return a.index_select(0, incidences[0]).add_(b.index_select(0, incidences[3]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_a, by_b = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        return _SegmentSum.apply(grads[0], *by_a), _SegmentSum.apply(grads[0], *by_b), *[None] * 6


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(index, order, ptr)
        return sum_rows(x, index, order, ptr)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Gather.apply(grads[0], *ctx.saved_tensors), None, None, None


def sum_rows(x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
    """The fastest kernel here: ``embedding_bag`` gathers and sums in one pass, but has no fast float64 on a CPU."""
    shape = (ptr.shape[0] - 1, *x.shape[1:])
    if x.numel() == 0 or shape[0] == 0:
        return x.new_zeros(shape)
    if x.dtype == torch.float64 and x.device.type == "cpu":
        return x.new_zeros(shape).index_add_(0, index, x)
    flat = x.reshape(x.shape[0], -1)
    total = torch.nn.functional.embedding_bag(order, flat, ptr, mode="sum", include_last_offset=True)
    return total.reshape(shape)
