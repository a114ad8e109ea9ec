"""Activation functions, by the names that recipes and deepmd-kit's configurations use."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lamella.errors import RecipeError, nearest

__all__ = ["Activation", "activation", "silut"]

Activation = Callable[[Tensor], Tensor]


def silut(x: Tensor, threshold: float) -> Tensor:
    """SiLUT: SiLU below the threshold T, a saturating tanh above it (DPA3 paper, Section "activation").

        f(x) = x σ(x)                        for x < T
        f(x) = tanh(s (x - T)) + T σ(T)      for x ≥ T,   s = σ(T) + T σ(T) (1 - σ(T))

    Value and slope agree at T; the second derivative jumps there from SiLU''(T) to 0.
    """
    return _SiluT.apply(x, threshold)


def _silut_parts(x: Tensor, threshold: float) -> tuple[Tensor, float, float]:
    sig = 1.0 / (1.0 + math.exp(-threshold))
    slope = sig + threshold * sig * (1.0 - sig)
    return x >= threshold, threshold * sig, slope


def silut_naive(x: Tensor, threshold: float) -> Tensor:
    """The same function spelled out, for tests."""
    high, offset, slope = _silut_parts(x, threshold)
    return torch.where(high, torch.tanh(slope * (x - threshold)) + offset, x * torch.sigmoid(x))


class _SiluT(torch.autograd.Function):
    """Saves x alone, and skips the tanh branch where no x reaches the threshold (nearly always)."""

    @staticmethod
    def forward(ctx, x: Tensor, threshold: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.threshold = threshold
        value = torch.nn.functional.silu(x)
        high, offset, slope = _silut_parts(x, threshold)
        if high.any():
            value = torch.where(high, torch.tanh(slope * (x - threshold)) + offset, value)
        return value

    @staticmethod
    def backward(ctx, *grads: Tensor):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return _SiluTGrad.apply(grads[0], x, ctx.threshold), None


class _SiluTGrad(torch.autograd.Function):
    """grad · f'(x), with its own derivative in closed form."""

    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor, threshold: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(grad, x)
        ctx.threshold = threshold
        out = torch.ops.aten.silu_backward(grad, x)
        high, _, slope = _silut_parts(x, threshold)
        if high.any():
            tanh = torch.tanh(slope * (x - threshold))
            out = torch.where(high, grad * slope * (1.0 - tanh * tanh), out)
        return out

    @staticmethod
    def backward(ctx, *grads: Tensor):  # type: ignore[no-untyped-def]
        grad, x = ctx.saved_tensors
        threshold = ctx.threshold
        outer = grads[0]
        sig = torch.sigmoid(x)
        rest = 1.0 - sig
        second = sig * rest * (2.0 + x * (rest - sig))
        high, _, slope = _silut_parts(x, threshold)
        if high.any():
            tanh = torch.tanh(slope * (x - threshold))
            second = torch.where(high, -2.0 * slope * slope * tanh * (1.0 - tanh * tanh), second)
        return _SiluTGrad.apply(outer, x, threshold), outer * grad * second, None


_TABLE: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "gelu": partial(torch.nn.functional.gelu, approximate="tanh"),
    "gelu_tf": partial(torch.nn.functional.gelu, approximate="tanh"),
    "softplus": torch.nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "linear": lambda x: x,
    "none": lambda x: x,
}


def activation(name: str) -> Activation:
    """The function of that name; ``silut:T`` (also ``custom_silu:T``) with T = 3 where it is not given.

    Raises:
        RecipeError: unknown name or malformed threshold.
    """
    head, _, tail = name.partition(":")
    if head in ("silut", "custom_silu"):
        try:
            threshold = float(tail) if tail else 3.0
        except ValueError:
            raise RecipeError(f"activation {name!r}: {tail!r} is not a number; write for example 'silut:3.0'.") from None
        return partial(silut, threshold=threshold)
    if name not in _TABLE:
        known = [*_TABLE, "silut:T"]
        raise RecipeError(f"activation {name!r} is unknown{nearest(name, known)}; known are {', '.join(known)}.")
    return _TABLE[name]
