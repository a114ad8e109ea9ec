"""Activations: values and derivatives against formulas written out, on both sides of SiLUT's threshold."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lamella.errors import RecipeError
from lamella.nn.activation import activation, silut

THRESHOLDS = [0.5, 3.0, 10.0]


def silut_naive(x, threshold):
    """The function spelled out; autograd differentiates it."""
    s = 1.0 / (1.0 + math.exp(-threshold))
    slope = s + threshold * s * (1.0 - s)
    return torch.where(x >= threshold, torch.tanh(slope * (x - threshold)) + threshold * s, x * torch.sigmoid(x))


def points(threshold):
    """Both sides of the threshold, none of them on it."""
    near = torch.tensor([-1e-3, 1e-3, -0.1, 0.1], dtype=torch.float64)
    return torch.cat([torch.linspace(-12, 12, 49, dtype=torch.float64) + 0.0123, threshold + near])


def derivatives(function, x, order):
    """f, f', f'', … at every x."""
    x = x.clone().requires_grad_()
    out = [function(x)]
    for _ in range(order):
        (grad,) = torch.autograd.grad(out[-1].sum(), x, create_graph=True)
        out.append(grad)
    return [value.detach() for value in out]


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silut_and_its_two_derivatives_equal_the_naive_twin(threshold, dtype):
    x = points(threshold).to(dtype)
    fast = derivatives(lambda y: silut(y, threshold), x, 2)
    naive = derivatives(lambda y: silut_naive(y, threshold), x, 2)
    bound = 1e-13 if dtype == torch.float64 else 2e-5
    for got, want in zip(fast, naive, strict=True):
        assert got.dtype == dtype
        assert (got - want).abs().max() < bound * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_silut_equals_its_definition_term_by_term(threshold):
    def sigmoid(y):
        return 1 / (1 + math.exp(-y))

    s = sigmoid(threshold)
    slope = s + threshold * s * (1 - s)
    for x in points(threshold).tolist():
        want = x * sigmoid(x) if x < threshold else math.tanh(slope * (x - threshold)) + threshold * s
        assert float(silut(torch.tensor(x, dtype=torch.float64), threshold)) == pytest.approx(want, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_silut_passes_gradcheck_and_gradgradcheck_on_both_sides(threshold):
    x = points(threshold)
    x = x[(x - threshold).abs() > 1e-4].requires_grad_()  # the numerical stencil must not straddle the threshold

    def function(y):
        return silut(y, threshold)

    assert gradcheck(function, (x,), eps=1e-6, atol=1e-7)
    assert gradgradcheck(function, (x,), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_silut_is_smooth_to_first_order_at_the_threshold_and_jumps_in_the_second(threshold):
    e = 1e-9
    below, above = torch.tensor([threshold - e], dtype=torch.float64), torch.tensor([threshold + e], dtype=torch.float64)
    low, high = (derivatives(lambda y: silut(y, threshold), x, 2) for x in (below, above))
    assert low[0] == pytest.approx(high[0], abs=1e-8)
    assert low[1] == pytest.approx(high[1], abs=1e-8)
    s = 1 / (1 + math.exp(-threshold))
    silu2 = s * (1 - s) * (2 + threshold * (1 - 2 * s))
    assert float(high[2] - low[2]) == pytest.approx(-silu2, abs=1e-7)


def test_silut_third_derivative_flows_through_both_arguments_of_its_gradient():
    """d/dv of f'(x) v and of f''(x) v: the gradient is itself differentiable in the incoming gradient."""
    x = points(3.0).requires_grad_()
    v = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(silut(x, 3.0), x, v, create_graph=True)
    (by_v,) = torch.autograd.grad(grad.sum(), v, retain_graph=True)
    assert torch.allclose(by_v, derivatives(lambda y: silut_naive(y, 3.0), x.detach(), 1)[1], atol=1e-13, rtol=0)


def test_silut_saturates_and_does_not_overflow():
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4], dtype=torch.float32)
    value, first, second = derivatives(lambda y: silut(y, 10.0), x, 2)
    assert torch.isfinite(torch.stack([value, first, second])).all()
    assert value.tolist() == pytest.approx([0.0, 0.0, 10.9995, 10.9995], abs=1e-3)
    assert first.abs().max() == 0


def test_silut_accepts_empty_and_non_contiguous_input():
    assert silut(torch.zeros(0, 3), 3.0).shape == (0, 3)
    x = torch.randn(5, 7, dtype=torch.float64)
    assert torch.equal(silut(x.t(), 3.0), silut(x, 3.0).t())


CLOSED_FORMS = {
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "gelu": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_tf": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "linear": lambda x: x,
    "none": lambda x: x,
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_activation_equals_its_closed_form(name):
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    assert activation(name)(x).tolist() == pytest.approx([CLOSED_FORMS[name](v) for v in x.tolist()], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "threshold"), [("silut", 3.0), ("silut:10.0", 10.0), ("custom_silu:5", 5.0), ("custom_silu", 3.0)]
)
def test_threshold_of_silut_is_read_from_its_name(name, threshold):
    x = points(threshold)
    assert torch.equal(activation(name)(x), silut(x, threshold))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("silut:ten", "'ten' is not a number"),
        ("silut:nan", "finite"),
        ("silut:1e400", "finite"),
        ("sillu", "did you mean 'silu'"),
        ("", "unknown"),
    ],
)
def test_unknown_activation_is_refused_by_name(name, message):
    with pytest.raises(RecipeError, match=message):
        activation(name)
