"""Learning-rate schedules: a decay that starts at 1, times a linear warm-up.

    lr(t) = lr · warm(t) · decay(max(t - W, 0)),      warm(t) = u + (1 - u) t/W before step W, then 1

t counts steps from 0, T = steps - W is the length of the decay, u = ``warmup_start``. Loss prefactors follow ``decay``
alone: with the warm-up in them they would start at their limits.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "CosineSchedule",
    "ExponentialSchedule",
    "Schedule",
    "ScheduleConfig",
    "WarmupStableDecay",
    "decay",
    "learning_rate",
]


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stop_lr: float = Field(3e-5, ge=0)
    """Learning rate at the end."""
    warmup_steps: int = Field(0, ge=0)
    """W: the learning rate rises linearly over so many steps."""
    warmup_start: float = Field(0.0, ge=0, le=1)
    """u: where it rises from, as a fraction of the learning rate."""


class ExponentialSchedule(_Schedule):
    """decay(t) = max(rate^⌊t/S⌋, stop_lr/lr) with rate^(T/S) = stop_lr/lr (deepmd-kit's ``exp``)."""

    kind: Literal["exponential"] = "exponential"
    decay_steps: int = Field(5000, ge=1)
    """S: steps of equal learning rate; where the run is not longer than S, deepmd-kit's shorter choice is taken."""
    decay_rate: float | None = Field(None, gt=0, le=1)
    """rate; null takes the one that arrives at ``stop_lr``. Where it is given, S stays what it is."""
    smooth: bool = False
    """t/S instead of ⌊t/S⌋: a little at every step."""

    @model_validator(mode="after")
    def _arrives(self) -> ExponentialSchedule:
        if self.decay_rate is None and self.stop_lr == 0.0:
            raise ValueError("stop_lr must be above 0: an exponential never arrives at 0 (or give decay_rate)")
        return self

    def decay(self, step: int, length: int, floor: float) -> float:
        """The value at t = ``step`` for T = ``length`` and stop_lr/lr = ``floor``."""
        width, rate = self.decay_steps, self.decay_rate
        if rate is None:
            if width >= length:
                width = 100 if length // 10 > 100 else length // 100 + 1
            rate = math.exp(math.log(floor) * width / length)
        return max(rate ** (step / width if self.smooth else step // width), floor)


class CosineSchedule(_Schedule):
    """decay(t) = f + (1 - f)/2 · (1 + cos(π t/T)), f = stop_lr/lr."""

    kind: Literal["cosine"] = "cosine"

    def decay(self, step: int, length: int, floor: float) -> float:
        """The value at t = ``step`` for T = ``length`` and stop_lr/lr = ``floor``."""
        return floor + 0.5 * (1.0 - floor) * (1.0 + math.cos(math.pi * min(step / length, 1.0)))


class WarmupStableDecay(_Schedule):
    """1, then down to f = stop_lr/lr over τ in [0, 1] in the last ⌊``decay_fraction`` · steps⌋ steps (deepmd-kit's ``wsd``).

    ``inverse_linear``: 1/(τ/f + 1 - τ); ``cosine``; ``linear``.
    """

    kind: Literal["wsd"] = "wsd"
    decay_fraction: float = Field(0.1, gt=0, le=1)
    """Of all steps, the warm-up's too; the decay is no longer than what follows the warm-up."""
    decay_shape: Literal["inverse_linear", "cosine", "linear"] = "inverse_linear"

    @model_validator(mode="after")
    def _finite(self) -> WarmupStableDecay:
        if self.stop_lr == 0.0:
            raise ValueError("stop_lr must be above 0")
        return self

    def decay(self, step: int, length: int, floor: float) -> float:
        """The value at t = ``step`` for T = ``length`` and stop_lr/lr = ``floor``."""
        decaying = max(1, min(int(self.decay_fraction * (length + self.warmup_steps)), length))
        tau = min(max((step - (length - decaying)) / decaying, 0.0), 1.0)
        if self.decay_shape == "inverse_linear":
            return 1.0 / (tau / floor + 1.0 - tau)
        if self.decay_shape == "cosine":
            return floor + 0.5 * (1.0 - floor) * (1.0 + math.cos(math.pi * tau))
        return 1.0 + (floor - 1.0) * tau


def _kind(value: Any) -> Any:
    return {"kind": "exponential", **value} if isinstance(value, dict) else value


Schedule = ExponentialSchedule | CosineSchedule | WarmupStableDecay

ScheduleConfig = Annotated[Annotated[Schedule, Field(discriminator="kind")], BeforeValidator(_kind)]
"""``exponential`` where no kind is given."""


def decay(schedule: Schedule, step: int, steps: int, lr: float) -> float:
    """The schedule without its warm-up factor, 1 at the start: what loss prefactors follow.

    Args:
        schedule: its shape.
        step: steps already made.
        steps: length of the run.
        lr: learning rate at the start.
    """
    length = max(steps - schedule.warmup_steps, 1)
    return schedule.decay(max(step - schedule.warmup_steps, 0), length, schedule.stop_lr / lr)


def learning_rate(schedule: Schedule, step: int, steps: int, lr: float) -> float:
    """The learning rate of the step that follows ``step`` steps; see :func:`decay`."""
    risen = min(step / schedule.warmup_steps, 1.0) if schedule.warmup_steps else 1.0
    warm = schedule.warmup_start + (1.0 - schedule.warmup_start) * risen
    return lr * warm * decay(schedule, step, steps, lr)
