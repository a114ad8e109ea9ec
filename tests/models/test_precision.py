"""Coarser matrix products: what is rounded, what is not, and how far predictions move."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.errors import InputError
from lamella.models.precision import Rounded, bfloat16_digits, matrix_products, split_precision, tf32_digits
from lamella.use.calculator import Calculator
from use.small import small_model, water_box

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("digits", "bits"), [(bfloat16_digits, 8), (tf32_digits, 11)])
def test_digits_are_rounded_to_the_nearest(digits, bits):
    x = torch.cat([draw(1000) * 10.0 ** draw(1000, seed=1), torch.tensor([0.0, -0.0, 1.0, -2.0])])
    scale = 2.0 ** (torch.floor(torch.log2(x.abs().clamp_min(1e-30).double())) - bits + 1)
    expected = (torch.round(x.double() / scale) * scale).float()
    assert torch.equal(digits(x), expected)
    assert (digits(x) - x).abs().max() > 0


def test_factors_are_rounded_and_sums_are_not():
    a, b, c = draw(5, 300), draw(300, 4, seed=1), draw(4, seed=2)
    expected = torch.addmm(c, bfloat16_digits(a), bfloat16_digits(b))
    with matrix_products("bf16", CPU):
        assert torch.equal(torch.addmm(c, a, b), expected)
        assert torch.equal(torch.bmm(a[None], b[None])[0], bfloat16_digits(a) @ bfloat16_digits(b))
        assert torch.equal(a * a, a * a.clone())
        assert torch.equal(a.double() @ b.double(), torch.mm(a.double(), b.double()))
    assert torch.equal(torch.addmm(c, a, b), torch.addmm(c, a, b).clone())
    assert not torch.equal(torch.addmm(c, a, b), expected), "outside nothing is rounded"


def test_products_of_derivatives_are_rounded_too():
    a, b, g = draw(5, 30).requires_grad_(), draw(30, 4, seed=1), draw(5, 4, seed=2)
    with matrix_products("bf16", CPU):
        (slope,) = torch.autograd.grad(a @ b, a, g)
    assert torch.equal(slope, bfloat16_digits(g) @ bfloat16_digits(b).T)


def test_names_are_split():
    assert split_precision("tf32") == ("float32", "tf32")
    assert split_precision("bf16") == ("float32", "bf16")
    assert split_precision("float64") == ("float64", "full")
    assert split_precision(None) == (None, "full")


def test_tf32_needs_a_gpu_and_says_so_at_once():
    with pytest.raises(InputError, match="precision tf32: cpu has no such products; take float32"):
        Calculator(small_model(), dtype="tf32")


def test_bf16_moves_forces_by_its_digits_and_no_more():
    model, box = small_model(), water_box()
    found = {}
    for dtype in ("float64", "float32", "bf16"):
        calculator = Calculator(model, dtype=dtype)
        assert calculator.precision == dtype
        atoms = box.copy()
        atoms.calc = calculator
        found[dtype] = atoms.get_forces(), atoms.get_potential_energy()
    size = np.abs(found["float64"][0]).max()
    error = {dtype: np.abs(found[dtype][0] - found["float64"][0]).max() / size for dtype in found}
    assert error["float32"] < 1e-4
    assert 1e-4 < error["bf16"] < 0.1
    np.testing.assert_allclose(found["bf16"][0].sum(axis=0), 0.0, atol=1e-9 + 1e-5 * size)


@pytest.mark.gpu
def test_tf32_is_used_on_a_gpu_and_left_behind():
    a, b = draw(512, 512).cuda(), draw(512, 512, seed=1).cuda()
    exact = a.double() @ b.double()
    with matrix_products("tf32", a.device):
        coarse = (a @ b - exact).abs().max()
    assert coarse > 10 * (a @ b - exact).abs().max()


def test_rounding_by_hand_is_a_mode_of_its_own():
    a, b = draw(5, 30), draw(30, 4, seed=1)
    with Rounded(tf32_digits):
        assert torch.equal(a @ b, torch.mm(tf32_digits(a), tf32_digits(b)))
