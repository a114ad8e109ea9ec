"""Three-body embedding of released DPA-2 models (deepmd-kit's ``se_e3_tebd``; not in the paper).

    t_i = (1/sel²) Σ_jk c_jk G_jk,          c_jk = h_ij · h_ik,   j = k included
    concat   G_jk = N([c_jk | T_j | T_k])
    strip    G_jk = N(c_jk) ⊙ (1 + w_ij w_ik N_T([T_j | T_k]))         without the switches where it is not smooth

The centre's element does not enter. An empty slot has h = 0, so c = 0 and it adds nothing.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lamella.geometry.segment import Slots, gather, incidence_of, spread
from lamella.nn.activation import activation
from lamella.nn.dense import Dense, EmbeddingNet
from lamella.nn.neighbor_embedding import EmbeddingSpec

__all__ = ["ThreeBodyEmbedding"]


class ThreeBodyEmbedding(nn.Module):
    """Neighbours of an atom -> t (N, M), M the last of ``spec.neurons``.

    Args:
        spec: which embedding; always of both elements.
        type_width: width of the type embedding.
        sel: neighbours that the mean counts.
    """

    def __init__(self, spec: EmbeddingSpec, type_width: int, sel: int) -> None:
        super().__init__()
        self.spec, self.sel = spec, sel
        stripped = spec.input == "strip"
        n_in = 1 if stripped else 1 + 2 * type_width
        self.net = EmbeddingNet(n_in, spec.neurons, spec.activation, spec.timestep)
        self.type_net = EmbeddingNet(2 * type_width, spec.neurons, spec.activation, spec.timestep) if stripped else None
        self._act = activation(spec.activation)
        self._splits = spec.neurons[0] not in (n_in, 2 * n_in)  # no shortcut around the first layer

    def forward(self, h_Q3: Tensor, w_Q: Tensor, species_Q: Tensor, table_TC: Tensor, slots: Slots) -> Tensor:
        """The sum t_i, (N, M).

        Args:
            h_Q3: equivariant columns of the environment matrix, in the dtype of the weights.
            w_Q: switch.
            species_Q: element of the neighbour.
            table_TC: type embedding of all elements.
            slots: where neighbours lie.
        """
        h_NS3 = spread(h_Q3, slots)
        c_NSS = h_NS3 @ h_NS3.transpose(1, 2)
        if self.type_net is None:
            g_NSSM = self._concatenated(c_NSS, species_Q, table_TC, slots)
        else:
            g_NSSM = self._stripped(c_NSS, w_Q, species_Q, table_TC, slots)
        n_atoms, n_slots = slots.shape
        flat_NPM = g_NSSM.reshape(n_atoms, n_slots * n_slots, g_NSSM.shape[-1])
        return (c_NSS.reshape(n_atoms, 1, n_slots * n_slots) @ flat_NPM).squeeze(1) / self.sel**2

    def _concatenated(self, c_NSS: Tensor, species_Q: Tensor, table_TC: Tensor, slots: Slots) -> Tensor:
        """N([c | T_j | T_k]), its first product taken per pair for c and per neighbour for the elements."""
        by_species, width = incidence_of(species_Q, table_TC.shape[0]), table_TC.shape[1]
        if not self._splits:
            types_NSC = spread(gather(table_TC, by_species), slots)
            shape = (*c_NSS.shape, width)
            x_NSSC = torch.cat(
                [c_NSS[..., None], types_NSC[:, :, None].expand(shape), types_NSC[:, None].expand(shape)], dim=3
            )
            return _on_last(self.net, x_NSSC)
        first, *others = cast(list[Dense], list(self.net.layers))
        weight_1M, weight_j, weight_k = first.weight.split([1, width, width])
        both_TM = torch.cat([torch.addmm(cast(Tensor, first.bias), table_TC, weight_j), table_TC @ weight_k], dim=1)
        j_NSM, k_NSM = spread(gather(both_TM, by_species), slots).chunk(2, dim=2)
        x_NSSM = self._act(torch.addcmul(j_NSM[:, :, None] + k_NSM[:, None], c_NSS[..., None], weight_1M))
        return _on_last(nn.Sequential(*others), x_NSSM)

    def _stripped(self, c_NSS: Tensor, w_Q: Tensor, species_Q: Tensor, table_TC: Tensor, slots: Slots) -> Tensor:
        """N(c) ⊙ (1 + w_j w_k N_T([T_j | T_k])), the second network taken once per pair of elements."""
        n_species, width = table_TC.shape
        shape = (n_species, n_species, width)
        pairs_PC = torch.cat([table_TC[:, None].expand(shape), table_TC[None].expand(shape)], dim=2).flatten(0, 1)
        species_NS = species_Q.new_zeros(slots.shape)
        species_NS.view(-1)[slots.place] = species_Q
        pair_NSS = species_NS[:, :, None] * n_species + species_NS[:, None]
        by_pair = incidence_of(pair_NSS.flatten(), n_species * n_species)
        factor = gather(_on_last(cast(nn.Module, self.type_net), pairs_PC), by_pair)
        factor_NSSM = factor.view(*pair_NSS.shape, factor.shape[1])
        if self.spec.smooth:
            w_NS1 = spread(w_Q[:, None], slots)
            factor_NSSM = factor_NSSM * (w_NS1 * w_NS1.transpose(1, 2))[..., None]
        g_NSSM = _on_last(self.net, c_NSS[..., None])
        return torch.addcmul(g_NSSM, g_NSSM, factor_NSSM)


def _on_last(net: nn.Module, x: Tensor) -> Tensor:
    """A network of rows, applied along the last axis."""
    rows = net(x.flatten(0, -2))
    return rows.view(*x.shape[:-1], rows.shape[-1])
