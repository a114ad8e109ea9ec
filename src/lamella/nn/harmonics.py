"""Solid harmonics: polynomials of a vector that rotate among themselves, degree by degree.

    R_l(u) · R_l(v) = |u|^l |v|^l P_l(cos(u, v))          l = 0, 1, 2, …, with 2 l + 1 components each

P_l is Legendre's polynomial: real spherical harmonics times r^l √(4π/(2 l + 1)), without Condon and Shortley's sign (the
addition theorem; E. W. Hobson, *The Theory of Spherical and Ellipsoidal Harmonics*, 1931).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["solid_harmonics"]


def solid_harmonics(vec_E3: Tensor, lowest: int, highest: int) -> Tensor:
    """Components R_lm of every vector, by degree l from ``lowest`` to ``highest``, in each by order m from -l to l.

        R_l±m = √((2 - δ_m0) (l - m)!/(l + m)!) Q_lm(z, r²) {Re, Im} (x + i y)^m
        Q_mm = (2 m - 1)!!,   (l - m) Q_lm = (2 l - 1) z Q_(l-1)m - (l + m - 1) r² Q_(l-2)m

    Args:
        vec_E3: vectors; nothing is divided by their length, so that every derivative exists at 0 too.
        lowest: first degree.
        highest: last degree.

    Returns:
        (E, (highest + 1)² - lowest²), in the dtype of the vectors.
    """
    x_E, y_E, z_E = vec_E3.unbind(1)
    square_E = (vec_E3 * vec_E3).sum(dim=1)
    real_E, imaginary_E = torch.ones_like(x_E), torch.zeros_like(x_E)  # of (x + i y)^m
    components: dict[tuple[int, int], Tensor] = {}
    for m in range(highest + 1):
        below_E, q_E = torch.zeros_like(x_E), torch.full_like(x_E, math.prod(range(1, 2 * m, 2)))
        for degree in range(m, highest + 1):
            if degree > m:
                next_E = ((2 * degree - 1) * z_E * q_E - (degree + m - 1) * square_E * below_E) / (degree - m)
                below_E, q_E = q_E, next_E
            if degree >= lowest:
                norm = math.sqrt((2 if m else 1) * math.factorial(degree - m) / math.factorial(degree + m))
                components[degree, m] = norm * q_E * real_E
                if m:
                    components[degree, -m] = norm * q_E * imaginary_E
        real_E, imaginary_E = x_E * real_E - y_E * imaginary_E, x_E * imaginary_E + y_E * real_E
    order = [(degree, m) for degree in range(lowest, highest + 1) for m in range(-degree, degree + 1)]
    return torch.stack([components[at] for at in order], dim=1)
