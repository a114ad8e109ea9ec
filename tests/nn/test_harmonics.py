"""Solid harmonics: the addition theorem, Laplace's equation, and scipy's Legendre functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import lpmv

from lamella.nn.harmonics import solid_harmonics

DEGREES = range(6)


def vectors(n=7):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("degree", DEGREES)
def test_products_are_legendre_polynomials_of_the_cosine(degree):
    u, v = vectors()[:3], vectors()[3:]
    found = solid_harmonics(u, degree, degree) @ solid_harmonics(v, degree, degree).T
    lengths = u.norm(dim=1)[:, None] * v.norm(dim=1)
    legendre = np.polynomial.Legendre.basis(degree)
    want = lengths.numpy() ** degree * legendre((u @ v.T / lengths).numpy())
    assert np.allclose(found, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("degree", DEGREES)
def test_components_are_real_spherical_harmonics_by_order(degree):
    vec = vectors()
    x, y, z = vec.numpy().T
    r, azimuth = np.sqrt(x * x + y * y + z * z), np.arctan2(y, x)
    want = []
    for order in range(-degree, degree + 1):
        m = abs(order)
        norm = np.sqrt((2 if m else 1) * math.factorial(degree - m) / math.factorial(degree + m))
        legendre = (-1) ** m * lpmv(m, degree, z / r)  # scipy's has Condon and Shortley's sign
        want.append(norm * r**degree * legendre * (np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth)))
    assert np.allclose(solid_harmonics(vec, degree, degree), np.transpose(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("degree", DEGREES)
def test_components_solve_laplaces_equation(degree):
    for vec in vectors(3):
        for m in range(2 * degree + 1):
            hessian = torch.autograd.functional.hessian(lambda v, m=m: solid_harmonics(v[None], degree, degree)[0, m], vec)
            assert abs(float(hessian.trace())) < 1e-11


def test_degrees_stand_in_order_and_keep_the_dtype():
    vec = vectors()
    found = solid_harmonics(vec, 1, 4)
    assert found.shape == (7, 24)
    assert torch.allclose(found[:, :3], vec[:, [1, 2, 0]])
    assert torch.equal(found[:, 8:15], solid_harmonics(vec, 3, 3))
    assert solid_harmonics(vec.float(), 2, 4).dtype == torch.float32


def test_derivatives_are_numbers_at_the_poles_and_at_zero():
    vec = torch.tensor([[0.0, 0, 0], [0, 0, 1.0], [0, 0, -2.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(solid_harmonics(vec, 0, 4).square().sum(), vec, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), vec)
    assert torch.isfinite(slope).all()
    assert torch.isfinite(second).all()
