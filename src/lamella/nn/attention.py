"""Attention of the repformer: among the neighbours of an atom, and among the pairs that share one (DPA-2 paper Eqs. 26-33).

A product of a query and a key is a bilinear form of the features themselves, q_j · k_k = x_j (Q Kᵀ) x_k, and values may be
mapped after they were summed: Σ_k A_jk (x_k V) = (Σ_k A_jk x_k) V. So keys and values of single neighbours never exist, only
forms and sums of what is updated.

Stored weights follow deepmd-kit: the head is the last index of every query, key and value.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

from torch import Tensor, nn

from lamella.geometry.segment import Slots, collect, spread
from lamella.nn.dense import Dense
from lamella.nn.softmax import masked_softmax, smooth_softmax

__all__ = ["LocalAttention", "PairMap", "PairValue", "Places"]


class Places(NamedTuple):
    """What attention reads of the geometry.

    Attributes:
        slots: where the neighbours of each centre lie.
        weight_NS: switch of each slot, or 1 and 0 where nothing is smooth; 0 in empty slots.
        sel: slots that the smooth softmax counts.
        smooth: which softmax.
    """

    slots: Slots
    weight_NS: Tensor
    sel: int
    smooth: bool

    def shares(self, logit_S: Tensor, weight_S: Tensor) -> Tensor:
        """Attention along the last axis: softmax of Eqs. 35 and 36, or the plain one over neighbours that are there.

        Args:
            logit_S: (..., S).
            weight_S: w_ij, or w_ij w_ik; broadcasts against ``logit_S``.
        """
        if self.smooth:
            return smooth_softmax(logit_S, weight_S, self.sel) * weight_S
        return masked_softmax(logit_S, weight_S == 0.0) * weight_S


def _forms(query: Tensor, key: Tensor) -> Tensor:
    """Q Kᵀ/√d of every head side by side, (C, H · C), from (C, d, H) each."""
    width, hidden, heads = query.shape
    forms_HCC = query.permute(2, 0, 1) @ key.permute(2, 1, 0) / math.sqrt(hidden)
    return forms_HCC.permute(1, 0, 2).reshape(width, heads * width)


class LocalAttention(nn.Module):
    """loc_attn: an atom attends to its neighbours (Eqs. 26-28).

    Args:
        width: channels of an atom, n₁².
        hidden: channels of a query, d̂.
        heads: number of heads.
    """

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.query = Dense(width, hidden * heads, bias=False)
        self.key_value = Dense(width, (hidden + width) * heads, bias=False)  # columns: key, value
        self.heads = Dense(width * heads, width)  # rows: head by head
        self._shape = (width, hidden, heads)

    def forward(self, node_NC: Tensor, neighbour_NSC: Tensor, places: Places) -> Tensor:
        """(N, C) from atoms and the features of their neighbours."""
        width, hidden, heads = self._shape
        key, value = self.key_value.weight.view(width, -1, heads).split([hidden, width], dim=1)
        forms = _forms(self.query.weight.view(width, hidden, heads), key)
        form_NHC = (node_NC @ forms).view(-1, heads, width)
        share_NHS = places.shares(form_NHC @ neighbour_NSC.transpose(1, 2), places.weight_NS[:, None])
        sum_HNC = (share_NHS @ neighbour_NSC).transpose(0, 1)
        return self.heads((sum_HNC @ value.permute(2, 0, 1)).transpose(0, 1).reshape(-1, heads * width))


class PairMap(nn.Module):
    """A: how pairs of one centre attend to each other (Eqs. 31, 32), times h_j · h_k/√3.

    Args:
        width: channels of a pair, n₂².
        hidden: channels of a query, d.
        heads: number of heads.
        gate: whether h_j · h_k enters the softmax as well.
    """

    def __init__(self, width: int, hidden: int, heads: int, gate: bool) -> None:
        super().__init__()
        self.query_key = Dense(width, 2 * hidden * heads, bias=False)  # columns: channel by channel, queries then keys
        self._shape, self._gate = (width, hidden, heads), gate

    def forward(self, pair_QC: Tensor, pair_NSC: Tensor, h_NS3: Tensor, places: Places) -> Tensor:
        """(N, H, S, S): receiving pair, then the one it attends to.

        Args:
            pair_QC: pairs.
            pair_NSC: the same in their slots.
            h_NS3: their equivariant vectors.
            places: slots and weights.
        """
        width, hidden, heads = self._shape
        query, key = self.query_key.weight.view(width, hidden, 2 * heads).split(heads, dim=2)
        n_atoms, n_slots = places.slots.shape
        form_NHSC = spread(pair_QC @ _forms(query, key), places.slots).view(n_atoms, n_slots, heads, width).transpose(1, 2)
        logit_NHSS = form_NHSC @ pair_NSC.transpose(1, 2)[:, None]
        gate_NSS = h_NS3 @ h_NS3.transpose(1, 2)
        if self._gate:
            logit_NHSS = logit_NHSS * gate_NSS[:, None]
        weight_NSS = places.weight_NS[:, :, None] * places.weight_NS[:, None]
        return places.shares(logit_NHSS, weight_NSS[:, None]) * (gate_NSS[:, None] / math.sqrt(3.0))


class PairValue(nn.Module):
    """gated_attn: the map applied to pairs, heads mixed (Eq. 30).

    Args:
        width: channels of a pair, n₂².
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.value = Dense(width, width * heads, bias=False)
        self.heads = Dense(width * heads, width)  # rows: channel by channel, the head last
        self._shape = (width, heads)

    def forward(self, map_NHSS: Tensor, pair_NSC: Tensor, slots: Slots) -> Tensor:
        """(Q, C)."""
        width, heads = self._shape
        sum_NSHC = (map_NHSS @ pair_NSC[:, None]).transpose(1, 2)
        sum_QX = collect(sum_NSHC.reshape(*slots.shape, heads * width), slots)
        value_HCC = self.value.weight.view(width, width, heads).permute(2, 0, 1)
        mix_HCC = self.heads.weight.view(width, heads, width).transpose(0, 1)
        return sum_QX @ (value_HCC @ mix_HCC).view(heads * width, width) + cast(Tensor, self.heads.bias)
