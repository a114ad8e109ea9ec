"""Gather, segment-sum and their kin: equal to loops, and each the other's derivative, to any order."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lamella.geometry.segment import gather, gather_add, segment_sum, slots_of, spread
from lamella.types import Incidence

SIZES = (3, 0, 1, 4, 0, 2)
"""Rows of each owner; owners without rows are first, last and between in the shuffled and the sorted case."""


def incidence(sizes=SIZES, shuffled=False):
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
    if shuffled:
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(1))]
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return Incidence(index, torch.argsort(index, stable=True), ptr)


def rows(n, *shape, dtype=torch.float64):
    return torch.randn(n, *shape, dtype=dtype, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_sum_and_gather_equal_loops(dtype, shuffled, shape):
    by = incidence(shuffled=shuffled)
    values = rows(10, *shape, dtype=dtype)
    expected = torch.zeros(len(SIZES), *shape, dtype=dtype)
    for row, owner in enumerate(by.index.tolist()):
        expected[owner] += values[row]
    torch.testing.assert_close(segment_sum(values, by), expected)
    owners = rows(len(SIZES), *shape, dtype=dtype)
    assert torch.equal(gather(owners, by), torch.stack([owners[owner] for owner in by.index.tolist()]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_non_contiguous_rows_are_summed_alike(dtype):
    by = incidence(shuffled=True)
    values = rows(6, 10, dtype=dtype).T
    torch.testing.assert_close(segment_sum(values, by), segment_sum(values.contiguous(), by), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_sum_gives_zeros(dtype):
    none = incidence((0, 0, 0))
    assert torch.equal(segment_sum(torch.zeros(0, 2, dtype=dtype), none), torch.zeros(3, 2, dtype=dtype))
    nobody = incidence(())
    assert segment_sum(torch.zeros(0, 2, dtype=dtype), nobody).shape == (0, 2)
    assert gather(rows(3, 2, dtype=dtype), none).shape == (0, 2)


@pytest.mark.parametrize("shuffled", [False, True])
def test_first_and_second_derivatives_equal_finite_differences(shuffled):
    by = incidence(shuffled=shuffled)
    values, owners = rows(10, 2).requires_grad_(), rows(len(SIZES), 2).requires_grad_()

    def bent_sum(x):
        return torch.sin(segment_sum(x * x, by))

    def bent_gather(x):
        return torch.sin(gather(x * x, by))

    for function, x in ((bent_sum, values), (bent_gather, owners)):
        assert gradcheck(function, (x,))
        assert gradgradcheck(function, (x,))


def test_gather_add_is_the_sum_of_two_gathers_with_its_derivatives():
    by_a, by_b = incidence(), incidence((2, 3, 5), shuffled=True)
    a, b = rows(len(SIZES), 2).requires_grad_(), rows(3, 2).requires_grad_()
    assert torch.equal(gather_add(a, by_a, b, by_b), gather(a, by_a) + gather(b, by_b))

    def bent(x, y):
        return torch.sin(gather_add(x * x, by_a, y * y, by_b))

    assert gradcheck(bent, (a, b))
    assert gradgradcheck(bent, (a, b))


def test_spread_puts_every_row_in_a_slot_of_its_owner_and_zeros_elsewhere():
    by = incidence()
    values = rows(10, 2)
    out = spread(values, slots_of(by))
    assert out.shape == (len(SIZES), max(SIZES), 2)
    expected = torch.zeros_like(out)
    for owner in range(len(SIZES)):
        mine = values[by.ptr[owner] : by.ptr[owner + 1]]
        expected[owner, : len(mine)] = mine
    assert torch.equal(out, expected)


def test_spread_has_its_derivatives():
    by = incidence()
    slots = slots_of(by)
    x = rows(10, 2).requires_grad_()

    def bent(y):
        return torch.sin(spread(y * y, slots))

    assert gradcheck(bent, (x,))
    assert gradgradcheck(bent, (x,))


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_spread_of_nothing_is_nothing(sizes):
    assert spread(torch.zeros(0, 2), slots_of(incidence(sizes))).numel() == 0


def test_sums_have_the_same_bits_in_every_run():
    by = incidence((400, 0, 300), shuffled=True)
    values = rows(700, 7, dtype=torch.float32)
    first = segment_sum(values, by)
    assert all(torch.equal(segment_sum(values, by), first) for _ in range(5))
