"""Embeddings: one learned vector per element (DPA-1 paper, Eq. 5), per charge, per spin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lamella.errors import StructureError
from lamella.nn.dense import Dense
from lamella.nn.electrons import ELECTRON_WIDTH, electron_vectors

__all__ = ["ChargeSpinEmbedding", "TypeEmbedding", "with_shortcut"]


class TypeEmbedding(nn.Module):
    """Table T (n_species, width) = X W + b + shortcut: of one-hot rows X (then X W = W), or of electronic configurations.

    The shortcut is X or [X, X], where the width is that of X or twice that, as around every deepmd-kit layer: with one-hot
    rows it only appears where the width happens to agree with the number of elements.

    Args:
        elements: chemical symbols, in the order of the species index.
        width: of the vectors.
        bias: whether b is there.
        electron: X holds electronic configurations (:mod:`lamella.nn.electrons`).
    """

    def __init__(self, elements: Sequence[str], width: int, bias: bool = False, electron: bool = False) -> None:
        super().__init__()
        n_in = ELECTRON_WIDTH if electron else len(elements)
        self.weight = nn.Parameter(torch.randn(n_in, width) / (n_in + width) ** 0.5)
        self.bias = nn.Parameter(torch.randn(width)) if bias else None
        self.electrons: Tensor | None  # follows from the elements, so it is not saved
        self.register_buffer("electrons", electron_vectors(elements) if electron else None, persistent=False)

    def table(self) -> Tensor:
        """Vectors of all elements, (n_species, width)."""
        if self.electrons is None:
            table = with_shortcut(self.weight)
        else:
            x_SX = self.electrons.to(self.weight.dtype)
            copies, rest = divmod(self.weight.shape[1], ELECTRON_WIDTH)
            table = x_SX @ self.weight
            if copies in (1, 2) and not rest:
                table = table + torch.cat([x_SX] * copies, dim=1)
        return table if self.bias is None else table + self.bias

    def forward(self, species_N: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        return self.table().index_select(0, species_N)


class ChargeSpinEmbedding(nn.Module):
    """Total charge Q and spin S of a frame as a node feature: act([C_Q | S_S] W + b), with learned tables C and S.

    Source: deepmd-kit's DPA-3 option ``add_chg_spin_ebd``; charges from -100 to 99, spins from 0 to 99.
    """

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.charge = nn.Parameter(torch.randn(200, width) / (200 + width) ** 0.5)
        self.spin = nn.Parameter(torch.randn(100, width) / (100 + width) ** 0.5)
        self.mix = Dense(2 * width, width, act)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Rows (F, width) from ``charge`` and ``spin``, (F, 1) each.

        Raises:
            StructureError: a charge or spin without a row.
        """
        rows = []
        for name, weight, first in (("charge", self.charge, -100), ("spin", self.spin, 0)):
            index = inputs[name][:, 0].long() - first
            if bool(((index < 0) | (index >= weight.shape[0])).any()):
                last = first + weight.shape[0] - 1
                raise StructureError(f"{name}: the model knows {first} to {last}; correct the structure.")
            rows.append(with_shortcut(weight).index_select(0, index))
        return self.mix(torch.cat(rows, dim=1))


def with_shortcut(weight: Tensor) -> Tensor:
    """W + I or W + [I, I] where the widths agree: the shortcut around a one-hot input."""
    rows, width = weight.shape
    if width not in (rows, 2 * rows):
        return weight
    eye = torch.eye(rows, dtype=weight.dtype, device=weight.device)
    return weight + torch.cat([eye] * (width // rows), dim=1)
