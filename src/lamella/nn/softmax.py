"""Softmax over the neighbours of an atom, the same however many empty slots the tensor carries (DPA-2 paper, Sec. 4.2.4).

    smooth      softmax*(x) = w softmax(w (x + 20) - 20)      Eqs. 35, 36; w = w_ij, or w_ij w_ik
    not smooth  softmax over the neighbours alone              Eq. 34

The smooth one counts ``sel`` slots: an empty one has w = 0 and adds e^-20 to the denominator. The tensor holds S slots, some
of them empty; the other sel - S are added in closed form, and subtracted where S > sel.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["masked_softmax", "smooth_softmax"]

_SHIFT = 20.0
"""s* = s† of Eqs. 35 and 36."""


def smooth_softmax(logit_S: Tensor, weight_S: Tensor, sel: int) -> Tensor:
    """Softmax of Eqs. 35 and 36 over the last axis, before its factor w in front.

    Args:
        logit_S: (..., S) x.
        weight_S: w, 0 in empty slots; broadcasts against ``logit_S``.
        sel: number of slots the softmax counts.
    """
    if not logit_S.numel():  # no centre has a neighbour
        return logit_S
    raised_S = (logit_S + _SHIFT) * weight_S - _SHIFT
    missing = sel - logit_S.shape[-1]
    top_1 = raised_S.detach().amax(dim=-1, keepdim=True)
    if missing > 0:  # an empty slot may be the largest term by far
        top_1 = top_1.clamp(min=-_SHIFT)
    terms_S = torch.exp(raised_S - top_1)
    return terms_S / (terms_S.sum(dim=-1, keepdim=True) + missing * torch.exp(-_SHIFT - top_1))


def masked_softmax(logit_S: Tensor, absent_S: Tensor) -> Tensor:
    """Softmax over the last axis without the slots marked absent, which get 0 unless all are.

    Args:
        logit_S: (..., S).
        absent_S: bool; broadcasts against ``logit_S``.
    """
    # not -inf: all slots of a row may be absent, and a row of -inf has no derivative
    return logit_S.masked_fill(absent_S, torch.finfo(logit_S.dtype).min).softmax(dim=-1)
