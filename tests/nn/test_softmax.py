"""Softmaxes over slots: nothing depends on how many empty ones the tensor carries."""

from __future__ import annotations

import math

import pytest
import torch

from lamella.nn.softmax import masked_softmax, smooth_softmax

LOGITS = torch.tensor([0.7, -1.2, 2.1], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 0.4, 0.05], dtype=torch.float64)


def by_hand(sel):
    raised = [math.exp((x + 20.0) * w - 20.0) for x, w in zip(LOGITS.tolist(), WEIGHTS.tolist(), strict=True)]
    total = sum(raised) + (sel - 3) * math.exp(-20.0)
    return torch.tensor([x / total for x in raised], dtype=torch.float64)


@pytest.mark.parametrize("sel", [3, 4, 120, 1])
@pytest.mark.parametrize("empty", [0, 1, 6])
def test_smooth_softmax_counts_sel_slots_however_many_the_tensor_has(sel, empty):
    pad = torch.zeros(empty, dtype=torch.float64)
    # what stands in an empty slot does not matter: its weight is 0
    found = smooth_softmax(torch.cat([LOGITS, pad + 5.0]), torch.cat([WEIGHTS, pad]), sel)
    assert torch.allclose(found[:3], by_hand(sel), rtol=1e-13, atol=0)


def test_fewer_slots_than_neighbours_are_taken_off():
    """With sel below the number of neighbours, the shares of neighbours at the cutoff are what is missing to 1."""
    logits, weights = torch.zeros(5, dtype=torch.float64), torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    found = smooth_softmax(logits, weights, 1)
    assert float(found[0]) == pytest.approx(1.0, abs=1e-15)
    assert float(found.sum()) > 1.0


def test_smooth_softmax_is_smooth_where_a_slot_fills():
    tiny = torch.cat([WEIGHTS, torch.tensor([1e-9], dtype=torch.float64)])
    filled = smooth_softmax(torch.cat([LOGITS, LOGITS[:1]]), tiny, 10)
    assert torch.allclose(filled[:3], by_hand(10), rtol=0, atol=1e-15)


@pytest.mark.parametrize("large", [300.0, -300.0])
def test_large_logits_stay_finite(large):
    found = smooth_softmax(LOGITS * large, WEIGHTS, 8)
    assert torch.isfinite(found).all()
    assert float(found.sum()) <= 1.0 + 1e-12


def test_masked_softmax_knows_neighbours_alone():
    absent = torch.tensor([False, False, False, True])
    found = masked_softmax(torch.cat([LOGITS, LOGITS[:1] + 50.0]), absent)
    assert torch.allclose(found[:3], LOGITS.softmax(0), rtol=1e-14, atol=0)
    assert float(found[3]) == 0.0


def test_derivative_of_a_row_without_neighbours_is_a_number():
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((masked_softmax(logits, torch.ones(3, dtype=torch.bool)) * 0.0).sum(), logits)
    assert torch.equal(gradient, torch.zeros(3, dtype=torch.float64))


def test_no_slots_at_all_make_no_error():
    nothing = torch.zeros(2, 0, dtype=torch.float64, requires_grad=True)
    assert smooth_softmax(nothing, nothing.detach(), 5).shape == (2, 0)
    assert masked_softmax(nothing, torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0)
