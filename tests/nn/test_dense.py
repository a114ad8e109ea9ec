"""Dense layers: y = act(x W + b) τ + shortcut(x), with the shortcut the widths call for."""

from __future__ import annotations

import pytest
import torch

from lamella.nn.dense import Dense, Network


def inputs(n_in):
    return torch.randn(5, n_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("timestep", [True, False])
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize(
    ("n_in", "n_out", "copies"), [(4, 4, 1), (4, 8, 2), (4, 6, 0), (4, 2, 0), (4, 12, 0), (1, 1, 1), (1, 2, 2)]
)
def test_layer_is_its_formula_written_in_loops(bias, timestep, shortcut, n_in, n_out, copies):
    layer = Dense(n_in, n_out, "tanh", bias=bias, shortcut=shortcut, timestep=timestep).double().requires_grad_(False)
    x = inputs(n_in)
    copies = copies if shortcut else 0
    assert (layer.timestep is not None) == (timestep and copies > 0)
    assert (layer.bias is not None) == bias
    for row, got in zip(x, layer(x), strict=True):
        for o in range(n_out):
            total = sum(float(row[i]) * float(layer.weight[i, o]) for i in range(n_in))
            want = torch.tanh(torch.tensor(total + (float(layer.bias[o]) if bias else 0.0), dtype=torch.float64))
            want = want * (float(layer.timestep[o]) if layer.timestep is not None else 1.0)
            want = want + (float(row[o % n_in]) if copies else 0.0)
            assert float(got[o]) == pytest.approx(float(want), rel=1e-13, abs=1e-14)


def test_layer_is_twice_differentiable():
    layer = Dense(3, 3, "silut:3.0", shortcut=True, timestep=True).double()
    x = inputs(3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_network_is_its_layers_one_after_the_other():
    net = Network(6, (6, 12, 10), 1, "tanh", timestep=True).double()
    x = inputs(6)
    y = x
    for layer in net.hidden:
        y = layer(y)
    assert torch.allclose(net(x), y @ net.out.weight + net.out.bias, rtol=0, atol=1e-14)
    assert [layer.timestep is not None for layer in net.hidden] == [True, True, False]
    assert net.out.timestep is None


def test_network_without_hidden_layers_is_linear():
    net = Network(3, (), 2, "tanh", timestep=True).double()
    x = inputs(3)
    assert torch.allclose(net(2 * x) - net(x), x @ net.out.weight, rtol=0, atol=1e-14)


def test_initial_weights_have_the_stated_spread():
    torch.manual_seed(0)
    layer = Dense(300, 300, shortcut=True, timestep=True).requires_grad_(False)
    assert float(layer.weight.std()) == pytest.approx(600**-0.5, rel=0.02)
    assert float(layer.bias.std()) == pytest.approx(1.0, rel=0.15)
    assert float(layer.timestep.mean()) == pytest.approx(0.1, abs=5e-4)
    assert float(layer.timestep.std()) == pytest.approx(1e-3, rel=0.2)
