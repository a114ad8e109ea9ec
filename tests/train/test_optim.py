"""Optimisers and the moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lamella.train.optim import Adam, AdamW, MovingAverage, build_optimizer, set_learning_rate


def layer(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2).double()


def test_weight_decay_reaches_every_parameter_biases_too() -> None:
    model = layer()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(AdamW(lr=0.1, weight_decay=0.5), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.1 * 0.5), rtol=1e-14, atol=0)


def test_adamw_first_step_is_the_learning_rate_times_the_sign() -> None:
    model = layer()
    before = model.weight.detach().clone()
    optimizer = build_optimizer(AdamW(lr=1.0, weight_decay=0.0), model)
    set_learning_rate(optimizer, 0.01)
    model.weight.grad = torch.tensor([[3.0, -2.0, 1.0], [-1.0, 5.0, -4.0]], dtype=torch.float64)
    sign = model.weight.grad.sign()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.01 * sign, rtol=1e-6, atol=0)


def test_adam_adds_its_weight_decay_to_the_gradient() -> None:
    model, twin = layer(), layer()
    ours = build_optimizer(Adam(lr=0.1, weight_decay=0.3), model)
    plain = build_optimizer(Adam(lr=0.1), twin)
    for step in range(3):
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            gradient = torch.full_like(a, 1.0 + step)
            a.grad, b.grad = gradient.clone(), gradient + 0.3 * b.detach()
        ours.step()
        plain.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_moving_average_follows_its_formula() -> None:
    model = layer()
    average = MovingAverage(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        average.update(model, step)
        rate = min(0.9, (1 + step) / (10 + step))
        expected = rate * expected + (1 - rate) * model.weight.detach()
    torch.testing.assert_close(average.average["weight"], expected, rtol=1e-12, atol=1e-14)


def test_applying_the_average_gives_the_own_weights_back_bit_by_bit() -> None:
    model = layer()
    average = MovingAverage(model, 0.5)
    with torch.no_grad():
        model.weight.mul_(3)
    own = model.weight.detach().clone()
    average.update(model, 1)

    def judge() -> None:
        with average.applied(model):
            assert torch.equal(model.weight, average.average["weight"])
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        judge()
    assert torch.equal(model.weight, own)
