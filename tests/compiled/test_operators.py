"""The four operators against loops, and their derivatives against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lamella.compiled.operators import operators
from lamella.types import Incidence

_INDEX = (2, 0, 2, 4, 2)
"""Owner of each row; owners 1 and 3 have none."""

_PLACE = (4, 0, 5)
"""Slots of three rows in a rectangle of 3 × 2."""


def _incidence() -> Incidence:
    index = torch.tensor(_INDEX)
    order = index.argsort(stable=True)
    counts = torch.bincount(index, minlength=5)
    return Incidence(index, order, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture(params=["gather", "segment_sum", "spread", "collect"])
def case(request):
    """An operator of one tensor, that tensor, and the same by loops."""
    ops, place = operators(), torch.tensor(_PLACE)

    def gathered(x: Tensor) -> Tensor:
        return torch.stack([x[owner] for owner in _INDEX])

    def summed(x: Tensor) -> Tensor:
        return torch.stack([sum((x[m] for m, o in enumerate(_INDEX) if o == owner), x[0] * 0.0) for owner in range(5)])

    def spread(x: Tensor) -> Tensor:
        rows = [x[_PLACE.index(slot)] if slot in _PLACE else x[0] * 0.0 for slot in range(6)]
        return torch.stack(rows).view(3, 2, -1)

    def collected(x: Tensor) -> Tensor:
        return torch.stack([x[slot // 2, slot % 2] for slot in _PLACE])

    cases = {
        "gather": (lambda x: ops.gather(x, *_incidence()), _random(5, 3), gathered),
        "segment_sum": (lambda x: ops.segment_sum(x, *_incidence()), _random(5, 2), summed),
        "spread": (lambda x: ops.spread(x, place, 3, 2), _random(3, 4), spread),
        "collect": (lambda x: ops.collect(x, place), _random(3, 2, 4), collected),
    }
    return cases[request.param]


def test_values_are_those_of_loops(case):
    operator, x, loops = case
    assert torch.equal(operator(x), loops(x))


def test_first_and_second_derivatives_match_differences(case):
    operator, x, _ = case
    assert torch.autograd.gradcheck(lambda x: operator(x).sin(), (x,))
    assert torch.autograd.gradgradcheck(lambda x: operator(x).sin(), (x,))


def test_the_gradient_graph_of_a_derivative_holds_the_partner_alone(case):
    """No index_add and no scatter of torch's own: what a compiler would be asked to generate."""
    operator, x, _ = case
    (grad,) = torch.autograd.grad(operator(x * x).sum(), x, create_graph=True)
    names, seen, left = [], set(), [grad.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.append(node.name())
        left.extend(parent for parent, _ in node.next_functions)
    assert not [name for name in names if "Index" in name or "Scatter" in name or "EmbeddingBag" in name]
