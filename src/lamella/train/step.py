"""One training step: prediction, loss, gradient, clipping, update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lamella.errors import TrainingError
from lamella.models.potential import Potential
from lamella.train.loss import LossConfig, Term, frame_terms, total_loss
from lamella.train.optim import Adam, AdamW, set_learning_rate
from lamella.types import Batch, Prediction

__all__ = ["Outcome", "StepSetting", "train_step"]


@dataclass(frozen=True)
class Outcome:
    """What a step saw, at the weights before its update.

    Attributes:
        loss: L.
        gradient_norm: 2-norm of the whole gradient, before clipping.
        prediction: detached.
    """

    loss: float
    gradient_norm: float
    prediction: Prediction


@dataclass(frozen=True)
class StepSetting:
    """What the schedule says of one step.

    Attributes:
        number: of the step, from 1, for messages.
        lr: learning rate, warm-up included.
        decay: the schedule without warm-up, for prefactors.
    """

    number: int
    lr: float
    decay: float


def train_step(
    potential: Potential,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    task: str,
    loss_config: LossConfig,
    optimizer_config: Adam | AdamW,
    setting: StepSetting,
) -> Outcome:
    """Change the weights by one batch of one task.

    Raises:
        TrainingError: the loss or its gradient is not finite; the weights are as before.
    """
    optimizer.zero_grad(set_to_none=True)
    prediction = potential(batch.graph, task, create_graph=True)
    terms = frame_terms(prediction, batch, loss_config)
    loss = total_loss(terms, loss_config, setting.decay)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(_not_finite("loss", value, batch, task, setting.number, terms))
    if loss.requires_grad:
        loss.backward()
    parameters = [p for p in potential.parameters() if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, optimizer_config.clip or math.inf).item()
    if not math.isfinite(norm):
        raise TrainingError(_not_finite("gradient of the loss", norm, batch, task, setting.number, terms))
    set_learning_rate(optimizer, setting.lr)
    optimizer.step()
    return Outcome(value, norm, Prediction(*(part.detach() for part in prediction)))


def _not_finite(what: str, value: float, batch: Batch, task: str, number: int, terms: dict[str, Term]) -> str:
    bad = [name for name, term in terms.items() if not torch.isfinite(term.total)]
    blame = f" ({', '.join(bad)})" if bad else ""
    shown = ", ".join(batch.sources[:8]) + (f" and {len(batch.sources) - 8} more" if len(batch.sources) > 8 else "")
    return (
        f"step {number}, task {task}: the {what} is {value}{blame}, in the frames {shown}. The last checkpoint is intact; "
        "check these frames with `lamella data lint`, or lower optimizer.lr."
    )
