"""Switches: 1 inside, C² at both ends (polynomial), and the quoted leftovers at the cutoff (exponential)."""

from __future__ import annotations

import math

import pytest
import torch

from lamella.geometry.switch import SWITCHES, exponential_switch, polynomial_switch


def jet(function, r, start, cutoff):
    """w, w', w'' by automatic differentiation."""
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    w = function(x, start, cutoff)
    (first,) = torch.autograd.grad(w, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    return torch.stack([w.detach(), first.detach(), second])


@pytest.mark.parametrize(("start", "cutoff"), [(5.3, 6.0), (3.5, 4.0), (0.5, 6.0), (2.0, 2.001)])
def test_polynomial_switch_is_twice_differentiable_at_both_ends(start, cutoff):
    tiny = 1e-9 * (cutoff - start)
    scale = torch.tensor([1.0, 1.0 / (cutoff - start), 1.0 / (cutoff - start) ** 2])
    for end, value in ((start, 1.0), (cutoff, 0.0)):
        outer = torch.tensor([value, 0.0, 0.0])
        for side in (end - tiny, end + tiny):
            assert ((jet(polynomial_switch, side, start, cutoff) - outer).abs() <= 1e-6 * scale).all()


def test_polynomial_switch_is_exact_outside_its_range():
    r = torch.tensor([0.1, 3.0, 5.3, 6.0, 7.5], dtype=torch.float64)
    assert polynomial_switch(r, 5.3, 6.0).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_polynomial_switch_is_one_half_in_the_middle():
    assert float(polynomial_switch(torch.tensor(5.65, dtype=torch.float64), 5.3, 6.0)) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("r", [0.3, 2.0, 3.4, 3.9])
def test_exponential_switch_is_its_formula(r):
    expected = math.exp(-math.exp(20.0 * (r - 3.5) / 3.5))
    assert float(exponential_switch(torch.tensor(r, dtype=torch.float64), 3.5, 4.0)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("start", "cutoff", "left"), [(5.3, 6.0, 8e-7), (3.5, 4.0, 2.8e-8)])
def test_exponential_switch_leaves_what_is_quoted_at_the_cutoff(start, cutoff, left):
    value = float(exponential_switch(torch.tensor(cutoff, dtype=torch.float64), start, cutoff))
    assert value == pytest.approx(left, rel=0.03)
    assert float(exponential_switch(torch.tensor(cutoff + 1.0, dtype=torch.float64), start, cutoff)) == value


@pytest.mark.parametrize("kind", SWITCHES)
def test_switches_fall_monotonically_from_one(kind):
    r = torch.linspace(0.01, 6.5, 2000, dtype=torch.float64)
    w = SWITCHES[kind](r, 5.3, 6.0)
    assert (w.diff() <= 0).all()
    assert w[0] == pytest.approx(1.0, abs=1e-8)
    assert ((w >= 0) & (w <= 1)).all()


@pytest.mark.parametrize("kind", SWITCHES)
def test_derivatives_equal_finite_differences(kind):
    x = torch.linspace(4.9, 5.95, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: SWITCHES[kind](r, 5.0, 6.0), (x,))
    assert torch.autograd.gradgradcheck(lambda r: SWITCHES[kind](r, 5.0, 6.0), (x,))
