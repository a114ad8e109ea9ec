"""Invariants of a sum of h ⊗ features (DPA-2 paper Eqs. 18-20; DPA3 paper Eqs. 14-16)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["symmetrise"]


def symmetrise(h_NS3: Tensor, x_NSC: Tensor, axis: int, norm: Tensor | float) -> Tensor:
    """(N, axis · C): flatten(X[:, :axis]ᵀ X)/3, axis-major, with X = Σ_j h_ij ⊗ x_ij / norm, (3, C).

    The sum is a product of each centre's rectangle of slots: nothing of (slots, 3, C) exists, in the derivatives neither.

    Args:
        h_NS3: equivariant vectors, times the weight of their slot; 0 in empty slots.
        x_NSC: invariant features.
        axis: channels of the smaller factor.
        norm: what the sum is divided by, (N, 1, 1) or one number.
    """
    x_N3C = h_NS3.transpose(1, 2) @ x_NSC / norm
    return (x_N3C[:, :, :axis].transpose(1, 2) @ x_N3C).flatten(1) / 3.0
