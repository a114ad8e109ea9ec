"""Recomputation changes neither values nor first and second derivatives, and keeps nothing but the inputs."""

from __future__ import annotations

import pytest
import torch

from lamella.nn.recompute import recomputed


def inputs(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def mixed(weight):
    """Two outputs, one of them an input as it is."""

    def run(x, y):
        return torch.tanh(x @ weight) * y.sum(dim=1, keepdim=True), y

    return run


def test_first_and_second_derivatives_equal_finite_differences():
    x, y, weight = inputs((4, 3), (4, 2), (3, 5))

    def function(x, y, weight):
        # the weight enters as a parameter: a leaf that is read, not passed
        return recomputed(mixed(weight), [x, y], [weight])

    assert torch.autograd.gradcheck(lambda x, y: function(x, y, weight), (x, y))
    assert torch.autograd.gradgradcheck(lambda x, y: function(x, y, weight), (x, y))


@pytest.mark.parametrize("wanted", ["all", "inputs", "weight", "y"])
def test_gradients_of_a_loss_of_gradients_equal_those_without_recomputation(wanted):
    """As in training: the derivative with respect to an input enters a loss, whose derivative reaches all parameters."""
    found = []
    for again in (False, True):
        x, y, weight, other = inputs((4, 3), (4, 2), (3, 5), (5, 3))
        if wanted == "inputs":
            weight.requires_grad_(False)
        if wanted == "y":
            x.requires_grad_(False)
        first, second = mixed(weight), mixed(other)
        z, same = recomputed(first, [x, y], [weight]) if again else first(x, y)
        z, same = recomputed(second, [z, same], [other]) if again else second(z, same)
        (slope,) = torch.autograd.grad((z**2).sum(), y, create_graph=True)
        loss = (slope**3).sum() + (z * 0.3).sum() + same.sum()
        leaves = [leaf for leaf in (x, y, weight, other) if leaf.requires_grad]
        if wanted == "weight":
            leaves = [weight]
        found.append(torch.autograd.grad(loss, leaves))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_backward_adds_to_the_gradients_of_parameters():
    x, weight = inputs((4, 3), (3, 5))
    found = []
    for again in (False, True):
        (z,) = recomputed(lambda x: (torch.tanh(x @ weight),), [x], [weight]) if again else (torch.tanh(x @ weight),)
        (slope,) = torch.autograd.grad(z.sum(), x, create_graph=True)
        (slope**2).sum().backward()
        found.append(weight.grad.clone())
    torch.testing.assert_close(found[1], 2.0 * found[0], rtol=1e-12, atol=1e-12)


def test_nothing_but_inputs_is_kept():
    """Every array that autograd saves is an input; without recomputation there are others."""
    x, y, weight = inputs((4, 3), (4, 2), (3, 5))
    saved = []

    def note(tensor):
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        recomputed(mixed(weight), [x, y], [weight])
        assert set(saved) == {x.data_ptr(), y.data_ptr(), weight.data_ptr()}
        mixed(weight)(x, y)
        assert not set(saved) <= {x.data_ptr(), y.data_ptr(), weight.data_ptr()}


def test_function_runs_once_without_derivatives_and_again_for_each():
    x, y, weight = inputs((4, 3), (4, 2), (3, 5))
    calls = []

    def run(x, y):
        calls.append(torch.is_grad_enabled())
        return mixed(weight)(x, y)

    with torch.no_grad():
        recomputed(run, [x, y], [weight])
    assert calls == [False]
    z, _ = recomputed(run, [x, y], [weight])
    torch.autograd.grad(z.sum(), x)
    assert calls == [False, False, True]
