"""Type embedding: one learned vector per element (DPA-1 paper, Eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TypeEmbedding"]


class TypeEmbedding(nn.Module):
    """Table T (n_species, width): T = W, or W + I (W + [I, I]) where the width is n_species (twice that).

    The identity is deepmd-kit's shortcut around a one-hot input; it only appears when the widths happen to agree.
    """

    def __init__(self, n_species: int, width: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_species, width) / (n_species + width) ** 0.5)
        self.bias = nn.Parameter(torch.randn(width)) if bias else None

    def forward(self, species_N: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        n_species, width = self.weight.shape
        table = self.weight if self.bias is None else self.weight + self.bias
        if width in (n_species, 2 * n_species):
            eye = torch.eye(n_species, dtype=table.dtype, device=table.device)
            table = table + torch.cat([eye] * (width // n_species), dim=1)
        return table.index_select(0, species_N)
