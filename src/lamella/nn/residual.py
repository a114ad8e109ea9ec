"""How a feature takes in its updates: learned steps, or averages (DPA-2 paper Eqs. 24, 29, 33; DPA3 paper Eqs. 4, 5, 12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["UpdateStyle", "combine", "learned_steps"]

UpdateStyle = Literal["res_residual", "res_avg", "res_incr"]


def learned_steps(style: UpdateStyle, size: float, count: int, width: int, normal: bool = False) -> nn.ParameterList:
    """One step per update and channel, of ``size`` or drawn from N(0, size²); empty for a style without learned steps."""
    steps = (size * (torch.randn(width) if normal else torch.ones(width)) for _ in range(count))
    return nn.ParameterList(steps if style == "res_residual" else ())


def combine(old: Tensor, updates: Sequence[Tensor], steps: nn.ParameterList, style: UpdateStyle) -> Tensor:
    """Of x and n updates u: x + Σ δu, δ learned (res_residual), (x + Σ u)/√(n+1) (res_avg), x + Σ u/√n (res_incr).

    Args:
        old: x, (M, C).
        updates: n of the shape of x; none leaves x as it is.
        steps: δ of each update, (C,).
        style: which of the three.
    """
    if not updates:
        return old
    if style == "res_residual":
        for step, update in zip(steps, updates, strict=True):
            old = torch.addcmul(old, update, step)
        return old
    if style == "res_avg":
        return sum(updates, old) / math.sqrt(len(updates) + 1)
    return old + sum(updates[1:], updates[0]) / math.sqrt(len(updates))
