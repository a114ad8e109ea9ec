"""Schedules: the published formulas, their end points, and prefactors that know nothing of the warm-up."""

from __future__ import annotations

import itertools
import math

import pytest
from pydantic import ValidationError

from lamella.train.schedule import (
    CosineSchedule,
    ExponentialSchedule,
    Schedule,
    WarmupStableDecay,
    decay,
    learning_rate,
)

KINDS: list[Schedule] = [
    ExponentialSchedule(stop_lr=1e-5, decay_steps=50),
    CosineSchedule(stop_lr=1e-5),
    WarmupStableDecay(stop_lr=1e-5),
    WarmupStableDecay(stop_lr=1e-5, decay_shape="cosine"),
    WarmupStableDecay(stop_lr=1e-5, decay_shape="linear"),
]


@pytest.mark.parametrize("schedule", KINDS, ids=lambda s: f"{s.kind}")
def test_runs_from_lr_to_stop_lr_and_never_rises(schedule: Schedule) -> None:
    rates = [learning_rate(schedule, t, 1000, 1e-3) for t in range(1001)]
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(1e-5, rel=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize("schedule", KINDS, ids=lambda s: f"{s.kind}")
def test_warm_up_rises_linearly_from_zero_and_leaves_the_decay_alone(schedule: Schedule) -> None:
    warmed = schedule.model_copy(update={"warmup_steps": 100})
    for step in range(100):
        assert learning_rate(warmed, step, 1100, 1e-3) == pytest.approx(1e-3 * step / 100, rel=1e-12)
        assert decay(warmed, step, 1100, 1e-3) == 1.0
    if isinstance(schedule, WarmupStableDecay):  # whose last phase is a fraction of all steps
        schedule = schedule.model_copy(update={"decay_fraction": 0.11})
    for step in range(0, 1001, 37):
        assert decay(warmed, 100 + step, 1100, 1e-3) == decay(schedule, step, 1000, 1e-3)


def test_warm_up_may_start_above_zero() -> None:
    schedule = CosineSchedule(stop_lr=0.0, warmup_steps=10, warmup_start=0.2)
    assert [learning_rate(schedule, step, 100, 1e-3) for step in (0, 5, 10)] == pytest.approx([2e-4, 6e-4, 1e-3])


def test_exponential_with_a_rate_keeps_its_stairs_and_stops_at_the_floor() -> None:
    schedule = ExponentialSchedule(stop_lr=2e-4, decay_steps=50, decay_rate=0.5)
    rates = [learning_rate(schedule, step, 40, 1e-3) for step in (0, 49, 50, 100, 150, 500)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4, 2e-4, 2e-4])
    smooth = schedule.model_copy(update={"smooth": True})
    assert learning_rate(smooth, 25, 40, 1e-3) == pytest.approx(1e-3 * 0.5**0.5)


@pytest.mark.parametrize("kind", [ExponentialSchedule, WarmupStableDecay])
def test_schedules_that_never_arrive_at_zero_refuse_to_aim_at_it(kind: type[Schedule]) -> None:
    with pytest.raises(ValidationError, match="stop_lr must be above 0"):
        kind(stop_lr=0.0)


def test_exponential_decays_in_stairs() -> None:
    """deepmd-kit: lr · rate^⌊t/S⌋ with rate = (stop/start)^(S/T)."""
    schedule = ExponentialSchedule(stop_lr=1e-4, decay_steps=5)
    for step in range(20):
        assert learning_rate(schedule, step, 20, 1e-3) == pytest.approx(1e-3 * 0.1 ** (5 / 20 * (step // 5)), rel=1e-14)


@pytest.mark.parametrize(("length", "width"), [(2000, 100), (1009, 11), (500, 6), (60, 1)])
def test_exponential_shortens_its_stairs_where_the_run_is_short(length: int, width: int) -> None:
    """deepmd-kit: decay_steps ≥ T becomes 100 if T//10 > 100 else T//100 + 1."""
    schedule = ExponentialSchedule(stop_lr=1e-4, decay_steps=5000)
    rates = [learning_rate(schedule, t, length, 1e-3) for t in range(length)]
    assert rates.index(next(rate for rate in rates if rate < 1e-3)) == width


def test_cosine_is_half_way_in_the_middle() -> None:
    assert learning_rate(CosineSchedule(stop_lr=1e-5), 500, 1000, 1e-3) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-12)


def test_stable_phase_is_constant_and_inverse_linear_decay_is_as_published() -> None:
    schedule = WarmupStableDecay(stop_lr=1e-5, decay_fraction=0.2)
    assert {learning_rate(schedule, t, 1000, 1e-3) for t in range(801)} == {1e-3}
    middle = 1.0 / (0.5 / 1e-5 + 0.5 / 1e-3)
    assert math.isclose(learning_rate(schedule, 900, 1000, 1e-3), middle, rel_tol=1e-12)
