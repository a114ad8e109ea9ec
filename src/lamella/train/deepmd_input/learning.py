"""``learning_rate`` and ``optimizer``, with the keys of both that once stood in ``training``."""

from __future__ import annotations

from typing import Any, Final

from lamella.train.deepmd_input.section import Section, refusal
from lamella.train.optim import Adam, AdamW
from lamella.train.schedule import CosineSchedule, ExponentialSchedule, Schedule

__all__ = ["read_optimizer", "read_schedule", "write_learning_rate", "write_optimizer"]

_STOP_LR: Final = 5e-8
"""Where ``stop_lr`` and ``stop_lr_ratio`` are absent."""

_SMALLEST: Final = 1e-10
"""An exponential aims at no smaller learning rate."""

_WARMUP: Final = ("warmup_steps", "warmup_ratio", "warmup_start_factor")
_LEGACY_OPTIMIZER: Final = ("opt_type", "adam_beta1", "adam_beta2", "weight_decay")

_UNKNOWN_OPTIMIZER: Final = "LKF, AdaMuon and HybridMuon are not in lamella"


def read_schedule(section: Section, training: Section, steps: int) -> tuple[float, dict[str, Any]]:
    """Learning rate at the start, and our ``schedule``.

    Args:
        section: ``learning_rate``.
        training: ``training``, where the warm-up stood before version 3.2.
        steps: length of the run.
    """
    kind = section.text("type", "exp", ("exp", "cosine", "wsd"))
    lr = section.number("start_lr")
    stop = section.number("stop_lr", None)
    ratio = section.number("stop_lr_ratio", None)
    if stop is not None and ratio is not None:
        raise refusal(section.full("stop_lr_ratio"), ratio, "stop_lr is given too", "remove one of them")
    stop = _STOP_LR if stop is None and ratio is None else stop if ratio is None else ratio * lr
    if stop < 0.0:
        raise refusal(section.full("stop_lr"), stop, "a learning rate is not negative", "correct it")
    schedule = {"stop_lr": stop, **_read_warmup(section, training, steps)}
    section.ignore("lamella trains in one process", "scale_by_worker")
    if kind == "cosine":
        schedule["kind"] = "cosine"
    elif kind == "wsd":
        fraction = section.number("decay_phase_ratio", 0.1)
        shape = section.text("decay_type", "inverse_linear", ("inverse_linear", "cosine", "linear"))
        schedule |= {"kind": "wsd", "decay_fraction": fraction, "decay_shape": shape}
    else:
        schedule |= {"kind": "exponential", "decay_steps": section.whole("decay_steps", 5000)}
        schedule |= {"decay_rate": section.number("decay_rate", None), "smooth": section.flag("smooth", False)}
        if schedule["decay_rate"] is None and stop < _SMALLEST:
            schedule["stop_lr"] = _SMALLEST
            section.notes.add(section.key("stop_lr"), f"{_SMALLEST}: an exponential arrives at no less, in deepmd-kit too")
    section.end()
    return lr, schedule


def _read_warmup(section: Section, training: Section, steps: int) -> dict[str, Any]:
    """Our keys of the warm-up."""
    place = training if any(key in training for key in _WARMUP) else section
    if place is training and any(key in section for key in _WARMUP):
        raise refusal(training.full("warmup_*"), "...", "learning_rate sets the warm-up too", "keep those of learning_rate")
    number, ratio = place.whole("warmup_steps", 0), place.number("warmup_ratio", None)
    if number and ratio is not None:
        raise refusal(place.full("warmup_ratio"), ratio, "warmup_steps is given too", "remove one of them")
    number = int(ratio * steps) if ratio is not None else number
    start = place.number("warmup_start_factor", 0.0)
    if number:
        place.notes.add(
            place.key("warmup_steps"),
            "loss prefactors do not follow the warm-up; deepmd-kit's begin at their limits and swing back to their starts",
        )
    return {"warmup_steps": number, "warmup_start": start}


def write_learning_rate(schedule: Schedule, lr: float) -> dict[str, Any]:
    """Their ``learning_rate``."""
    common = {"start_lr": lr, "stop_lr": schedule.stop_lr}
    common |= {"warmup_steps": schedule.warmup_steps, "warmup_start_factor": schedule.warmup_start}
    if isinstance(schedule, CosineSchedule):
        return {"type": "cosine", **common}
    if isinstance(schedule, ExponentialSchedule):
        own: dict[str, Any] = {"decay_steps": schedule.decay_steps, "smooth": schedule.smooth}
        if schedule.decay_rate is not None:
            own["decay_rate"] = schedule.decay_rate
        return {"type": "exp", **common, **own}
    return {"type": "wsd", **common, "decay_phase_ratio": schedule.decay_fraction, "decay_type": schedule.decay_shape}


def read_optimizer(section: Section, training: Section) -> dict[str, Any]:
    """Our ``optimizer`` but its learning rate.

    Args:
        section: ``optimizer``.
        training: ``training``: its ``gradient_max_norm``, and the keys of the optimizer that stood there before version 3.2;
            these win, as in deepmd-kit.
    """

    def place(key: str) -> Section:
        return training if key in training else section

    kind = training.text("opt_type", None) or section.text("type", "Adam")
    section.ignore("training.opt_type wins", "type")
    if kind not in ("Adam", "AdamW"):
        name = training.full("opt_type") if "type" not in section else section.full("type")
        raise refusal(name, kind, _UNKNOWN_OPTIMIZER, "use Adam or AdamW")
    betas = [place("adam_beta1").number("adam_beta1", 0.9), place("adam_beta2").number("adam_beta2", 0.999)]
    decay = place("weight_decay").number("weight_decay", None)
    if decay is None and kind == "AdamW":
        section.notes.add(section.key("weight_decay"), "0: what deepmd-kit 3.2.0 trains with where it is absent")
    for key in _LEGACY_OPTIMIZER:
        section.ignore("the one in training wins", key)
    clip = training.number("gradient_max_norm", 0.0)
    section.end()
    return {"kind": kind.lower(), "betas": betas, "weight_decay": decay or 0.0, "clip": clip if clip > 0 else None}


def write_optimizer(optimizer: Adam | AdamW) -> dict[str, Any]:
    """Their ``optimizer``."""
    first, second = optimizer.betas
    name = {"adam": "Adam", "adamw": "AdamW"}[optimizer.kind]
    return {"type": name, "adam_beta1": first, "adam_beta2": second, "weight_decay": optimizer.weight_decay}
