"""Activation functions, by the names that recipes and deepmd-kit's configurations use."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from lamella.errors import RecipeError, nearest

__all__ = ["KINKED", "Activation", "activation", "silut"]

Activation = Callable[[Tensor], Tensor]


def silut(x: Tensor, threshold: float) -> Tensor:
    """SiLUT: SiLU below the threshold T, a saturating tanh above it (DPA3 paper, Section "activation").

        f(x) = x σ(x)                        for x < T
        f(x) = tanh(s (x - T)) + T σ(T)      for x ≥ T,   s = σ(T) + T σ(T) (1 - σ(T))

    Value and slope agree at T; the second derivative jumps there from SiLU''(T) to 0.
    """
    return _SiluT.apply(x, threshold)


def _tanh_branch(threshold: float) -> tuple[float, float]:
    """Offset c = T σ(T) and slope s of the branch above T."""
    sig = 1.0 / (1.0 + math.exp(min(-threshold, 700.0)))  # e^710 is no float64
    return threshold * sig, sig + threshold * sig * (1.0 - sig)


def _reaches(x: Tensor, threshold: float) -> bool:
    """Whether any x is on the tanh branch; a GPU is not asked, since the answer would be waited for, nor is a trace."""
    if isinstance(x, FakeTensor) or x.device.type != "cpu":
        return True
    return x.numel() > 0 and bool(x.amax() >= threshold)


class _SiluT(torch.autograd.Function):
    """Saves x alone, and skips the tanh branch where no x reaches the threshold (nearly always)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.threshold, ctx.high = threshold, _reaches(x, threshold)
        value = torch.nn.functional.silu(x)
        if ctx.high:
            offset, slope = _tanh_branch(threshold)
            value = torch.where(x >= threshold, torch.tanh(slope * (x - threshold)) + offset, value)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _SiluTGrad.apply(grads[0], x, ctx.threshold, ctx.high), None


class _SiluTGrad(torch.autograd.Function):
    """grad · f'(x), and its derivative in closed form; lamella needs no third one."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, threshold: float, high: bool) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.threshold, ctx.high = threshold, high
        return _times_slope(grad, x, threshold, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, x = ctx.saved_tensors
        sig = torch.sigmoid(x)
        rest = 1.0 - sig
        curvature = (rest - sig).mul_(x).add_(2.0).mul_(sig).mul_(rest)  # SiLU'' = σ(1-σ)(2 + x(1-2σ))
        if ctx.high:
            _, slope = _tanh_branch(ctx.threshold)
            tanh = torch.tanh(slope * (x - ctx.threshold))
            curvature = torch.where(x >= ctx.threshold, -2.0 * slope * slope * tanh * (1.0 - tanh * tanh), curvature)
        grad_x = curvature.mul_(grad).mul_(grads[0])
        return _times_slope(grads[0], x, ctx.threshold, ctx.high), grad_x, None, None


def _times_slope(grad: Tensor, x: Tensor, threshold: float, high: bool) -> Tensor:
    out = torch.ops.aten.silu_backward(grad, x)
    if high:
        _, slope = _tanh_branch(threshold)
        tanh = torch.tanh(slope * (x - threshold))
        out = torch.where(x >= threshold, grad * slope * (1.0 - tanh * tanh), out)
    return out


def _identity(x: Tensor) -> Tensor:
    return x


_TABLE: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "gelu": partial(torch.nn.functional.gelu, approximate="tanh"),
    "gelu_tf": partial(torch.nn.functional.gelu, approximate="tanh"),
    "softplus": torch.nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "linear": _identity,
    "none": _identity,
}


KINKED = ("relu", "relu6")
"""Names of functions whose slope jumps, and with it the forces."""


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
        if not math.isfinite(threshold):
            raise RecipeError(f"activation {name!r}: the threshold must be a finite number; write for example 'silut:3.0'.")
        return partial(silut, threshold=threshold)
    if name not in _TABLE:
        known = [*_TABLE, "silut:T"]
        raise RecipeError(f"activation {name!r} is unknown{nearest(name, known)}; known are {', '.join(known)}.")
    return _TABLE[name]
