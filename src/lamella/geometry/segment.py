"""Gather and segment-sum: each is the other's derivative, so any number of derivatives stays in the pair.

    gather(x)[m] = x[index[m]]            segment_sum(y)[o] = Σ_{m: index[m] = o} y[m]

Sums run over rows listed owner by owner (:class:`lamella.types.Incidence`): no atomics, the same bits in every run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamella.types import Incidence

__all__ = ["gather", "segment_sum"]


def gather(owner_OC: Tensor, incidence: Incidence) -> Tensor:
    """Row ``incidence.index[m]`` of ``owner_OC`` for each m: (n, ...) -> (M, ...)."""
    return _Gather.apply(owner_OC, *incidence)


def segment_sum(row_MC: Tensor, incidence: Incidence) -> Tensor:
    """Sum of the rows of each owner, zero for an owner without rows: (M, ...) -> (n, ...)."""
    return _SegmentSum.apply(row_MC, *incidence)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(index, order, ptr)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _SegmentSum.apply(grads[0], *ctx.saved_tensors), None, None, None


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(index, order, ptr)
        return _sum_rows(x, index, order, ptr)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Gather.apply(grads[0], *ctx.saved_tensors), None, None, None


def _sum_rows(x: Tensor, index: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
    """The kernel, whichever is fastest here: ``embedding_bag`` gathers and sums in one pass, but has no fast float64 on a CPU."""
    shape = (ptr.shape[0] - 1, *x.shape[1:])
    if x.numel() == 0 or shape[0] == 0:
        return x.new_zeros(shape)
    if x.dtype == torch.float64 and x.device.type == "cpu":
        return x.new_zeros(shape).index_add_(0, index, x)
    flat = x.reshape(x.shape[0], -1)
    total = torch.nn.functional.embedding_bag(order, flat, ptr, mode="sum", include_last_offset=True)
    return total.reshape(shape)
