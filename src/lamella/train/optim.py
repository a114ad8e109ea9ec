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
    """The optimiser over all trainable parameters, in one group: deepmd-kit decays biases too."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return _CLASSES[config.kind](parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


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
