"""The environment matrix: switched, normalised neighbour coordinates, the one geometric input of every backbone.

    s_ij = (w(r)/(r + p) - mean_i) / std_i,radial            h_ij = w(r) r_ij / (r + p)² / std_i,angular

DeepPot-SE paper Eqs. 3-4, DPA-2 paper Eqs. 4-6; means and scales belong to the element of the centre i. Rows of a degree
l > 1, where a backbone asks for them, are w(r)/(r + p)/std_i,radial R_l(r_ij/(r + p)), R_l the solid harmonics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lamella.geometry.switch import SWITCHES, Shell
from lamella.nn.harmonics import solid_harmonics

__all__ = ["Environment", "EnvironmentRows", "SlotUse"]


class EnvironmentRows(NamedTuple):
    """Rows of the environment matrix, one per edge, float64.

    Attributes:
        r_E: distance, Å.
        w_E: switch.
        s_E: normalised radial column.
        h_E3: normalised angular columns.
        keep_E: 0 for an edge between elements the descriptor excludes, else 1; None where it excludes none.
    """

    r_E: Tensor
    w_E: Tensor
    s_E: Tensor
    h_E3: Tensor
    keep_E: Tensor | None


class SlotUse(NamedTuple):
    """How many neighbours an atom has of those a constant of the model stands for.

    Attributes:
        name: deepmd-kit's name of the constant.
        most: largest number of neighbours of any atom.
        sel: the constant.
    """

    name: str
    most: int
    sel: int


class Environment(nn.Module):
    """Edge vectors -> rows of the environment matrix.

    Args:
        n_species: number of elements.
        shell: cutoff and switch.
        slots: neighbours that statistics count for every atom, present or not (deepmd-kit's ``sel``).
        protection: p, Å; keeps the rows finite as r -> 0.
        excluded: pairs of species, either way round, whose rows are zero.
        std: initial scale of all columns.
        from_data: whether training takes the scales from its data.
        zero_mean: whether the mean stays 0 then.
    """

    def __init__(
        self,
        n_species: int,
        shell: Shell,
        slots: int,
        protection: float = 0.0,
        excluded: tuple[tuple[int, int], ...] = (),
        std: float = 1.0,
        from_data: bool = True,
        zero_mean: bool = True,
    ) -> None:
        super().__init__()
        self.shell, self.slots, self.protection, self.excluded = shell, slots, protection, excluded
        self.from_data, self.zero_mean = from_data, zero_mean
        self.mean: Tensor  # (n_species,), by the centre's element
        self.std: Tensor  # (n_species, [radial, angular])
        self.register_buffer("mean", torch.zeros(n_species))
        self.register_buffer("std", torch.full((n_species, 2), std))

    def forward(self, species_N: Tensor, src_E: Tensor, dst_E: Tensor, vec_E3: Tensor) -> EnvironmentRows:
        """Rows of all edges.

        Args:
            species_N: (N,) int64.
            src_E: (E,) int64, centres.
            dst_E: (E,) int64, neighbours.
            vec_E3: Å, float64; rows are formed in float64 whatever the model's dtype.
        """
        centre_E = species_N.index_select(0, src_E)
        std_E2 = self.std.to(vec_E3.dtype).index_select(0, centre_E)
        r_E = torch.linalg.vector_norm(vec_E3, dim=1)
        guarded_E = r_E + self.protection
        w_E = SWITCHES[self.shell.kind](r_E, self.shell.start, self.shell.end)
        keep_E = None
        if self.excluded:
            keep_E = self._keep(centre_E, species_N.index_select(0, dst_E)).to(vec_E3.dtype)
            w_E = w_E * keep_E
        mean_E = self.mean.to(vec_E3.dtype).index_select(0, centre_E)
        s_E = (w_E / guarded_E - (mean_E if keep_E is None else mean_E * keep_E)) / std_E2[:, 0]
        h_E3 = (w_E / (guarded_E * guarded_E * std_E2[:, 1]))[:, None] * vec_E3
        return EnvironmentRows(r_E, w_E, s_E, h_E3, keep_E)

    def empty(self, species_N: Tensor) -> Tensor:
        """Value of s in an empty slot of each centre, (N,): -mean/std; its h is zero."""
        return (-self.mean / self.std[:, 0]).index_select(0, species_N)

    def higher(self, rows: EnvironmentRows, species_N: Tensor, src_E: Tensor, vec_E3: Tensor, highest: int) -> Tensor:
        """Rows of the degrees from 2 to ``highest``, (E, (highest + 1)² - 4) float64; they have no mean: empty slots hold 0.

        Args:
            rows: of the same edges.
            species_N: (N,) int64.
            src_E: (E,) int64, centres.
            vec_E3: Å, float64.
            highest: degree, 2 or more.
        """
        scale_E = self.std[:, 0].to(vec_E3.dtype).index_select(0, species_N.index_select(0, src_E))
        guarded_E = rows.r_E + self.protection
        harmonics_EK = solid_harmonics(vec_E3 / guarded_E[:, None], 2, highest)
        return (rows.w_E / (guarded_E * scale_E))[:, None] * harmonics_EK

    def _keep(self, centre_E: Tensor, neighbour_E: Tensor) -> Tensor:
        n_species = self.mean.shape[0]
        table = torch.ones(n_species, n_species, device=centre_E.device)
        for a, b in self.excluded:
            table[a, b] = table[b, a] = 0.0
        return table[centre_E, neighbour_E]
