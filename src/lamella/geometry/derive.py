"""Forces and virial from one array: g = ∂E/∂vec, the derivative of the energy with respect to every edge vector.

    F_i = Σ_{src = i} g - Σ_{dst = i} g                W = -Σ g ⊗ vec

Exact for molecules and crystals alike, in one batch: no strain tensor, no cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lamella.geometry.segment import segment_sum
from lamella.types import Graph

__all__ = ["edge_gradient", "forces_and_virial"]


def edge_gradient(energy: Tensor, vec: Tensor, create_graph: bool = False) -> Tensor:
    """Array g = ∂(Σ energy)/∂vec, (E, 3) eV/Å; zero where the energy does not depend on ``vec``.

    Args:
        energy: any shape, eV.
        vec: (E, 3), requires grad.
        create_graph: keep the graph of g, for a loss that contains forces.
    """
    if not energy.requires_grad:
        return torch.zeros_like(vec)
    (grad,) = torch.autograd.grad(energy.sum(), vec, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(vec) if grad is None else grad


def forces_and_virial(grad_E3: Tensor, vec_E3: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    """Forces (N, 3) in eV/Å and virial (F, 3, 3) in eV from g.

    The virial of an edge belongs to the frame of its centre.
    """
    forces_N3 = segment_sum(grad_E3, graph.src) - segment_sum(grad_E3, graph.dst)
    virial_N33 = -segment_sum(grad_E3[:, :, None] * vec_E3[:, None, :], graph.src)
    return forces_N3, segment_sum(virial_N33, graph.frame)
