"""Optimisers, gradient clipping and the moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

__all__ = ["Adam", "AdamW", "MovingAverage", "OptimizerConfig", "build_optimizer", "set_learning_rate"]

_Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Optimizer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lr: float = Field(1e-3, gt=0)
    """Learning rate at the start (after warm-up)."""
    betas: tuple[_Fraction, _Fraction] = (0.9, 0.999)
    backbone_lr: float = Field(1.0, gt=0)
    """Learning rate of the backbone as a multiple of ``lr``; heads have ``lr``."""
    clip: float | None = Field(5.0, gt=0)
    """Largest 2-norm of the whole gradient; null for no clipping."""


class Adam(_Optimizer):
    """Adam (arXiv 1412.6980); weight decay, where asked for, is added to the gradient."""

    kind: Literal["adam"] = "adam"
    weight_decay: float = Field(0.0, ge=0)


class AdamW(_Optimizer):
    """AdamW (arXiv 1711.05101): decay of weights apart from the gradient, on every parameter that has a gradient."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(1e-3, ge=0)


def _kind(value: Any) -> Any:
    return {"kind": "adamw", **value} if isinstance(value, dict) else value


OptimizerConfig = Annotated[Annotated[Adam | AdamW, Field(discriminator="kind")], BeforeValidator(_kind)]
"""``adamw`` where no kind is given."""

_CLASSES: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_optimizer(config: Adam | AdamW, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters: deepmd-kit decays biases too.

    One group, unless the backbone has a learning rate of its own: then parameters named ``backbone.`` are the first of two.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [p for _, p in trained]}]
    if config.backbone_lr != 1.0:
        slow = [p for name, p in trained if name.startswith("backbone.")]
        rest = [p for name, p in trained if not name.startswith("backbone.")]
        parts = ((slow, config.backbone_lr), (rest, 1.0))
        groups = [{"params": part, "rate": rate} for part, rate in parts if part]
    return _CLASSES[config.kind](groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on, times the ``rate`` of a group that has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)


class MovingAverage:
    """Exponential moving average of the weights: s ← s + (1 - d)(w - s), d = min(decay, (1 + t)/(10 + t)) after t updates.

    The lower d at the start keeps the random initial weights from lingering in short runs.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` optimiser steps."""
        rate = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        for name, parameter in model.named_parameters():
            self.average[name].lerp_(parameter, rate)

    @torch.no_grad()
    def take(self, average: Mapping[str, Tensor]) -> None:
        """Go on from an average that was saved."""
        for name, value in self.average.items():
            value.copy_(average[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the model has the averaged weights; afterwards its own, bit by bit."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        copy_weights(model, self.average)
        try:
            yield
        finally:
            copy_weights(model, own)


@torch.no_grad()
def copy_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite the model's parameters in place (optimisers hold on to the tensors)."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
