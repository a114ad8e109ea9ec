"""Small trainable changes of frozen tensors, folded into them whenever the model is saved.

    W' = W + (α/r) A B            A (in, r) ~ N(0, 1/in),  B (r, out) = 0         :class:`LowRank` (LoRA, arXiv 2106.09685)
    W' = W, and W + O from row k on                        O = 0                  :class:`AddedRows`

Both are parametrisations: whoever reads ``layer.weight`` reads W'. A model that has them gives ordinary tensors as its
``state_dict``, computed by the same operations as in its forward pass, so that what is saved predicts the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["AddedRows", "LowRank", "is_adapted", "parametrized", "save_merged"]


class LowRank(nn.Module):
    """W -> W + (α/r) A B.

    Args:
        weight: W, (in, out).
        rank: r.
        alpha: α.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        n_in, n_out = weight.shape
        self.a = nn.Parameter(torch.randn(n_in, rank, dtype=weight.dtype, device=weight.device) / n_in**0.5)
        self.b = nn.Parameter(torch.zeros(rank, n_out, dtype=weight.dtype, device=weight.device))
        self._scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """(in, out) -> (in, out)."""
        return weight + self._scale * (self.a @ self.b)


class AddedRows(nn.Module):
    """Rows from ``first`` on are trained, those before are not.

    Args:
        weight: (n, width).
        first: row.
    """

    def __init__(self, weight: Tensor, first: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros_like(weight[first:]))
        self._first = first

    def forward(self, weight: Tensor) -> Tensor:
        """(n, width) -> (n, width)."""
        return torch.cat([weight[: self._first], weight[self._first :] + self.offset])


def parametrized(module: nn.Module, name: str, change: nn.Module) -> None:
    """Freeze the tensor ``name`` of ``module`` and let ``change`` be trained instead."""
    parametrize.register_parametrization(module, name, change)
    module.parametrizations[name].original.requires_grad_(False)  # type: ignore[index, union-attr]


def is_adapted(model: nn.Module) -> bool:
    """Whether any tensor of the model has such a change."""
    return any(parametrize.is_parametrized(module) for module in model.modules())


def save_merged(model: nn.Module) -> None:
    """From now on ``model.state_dict()`` holds ordinary tensors, changes folded in."""
    model.register_state_dict_post_hook(_merge)


def _merge(model: nn.Module, state: dict[str, Tensor], prefix: str, local_metadata: Mapping[str, Any]) -> None:
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        place = f"{prefix}{path}." if path else prefix
        for name in module.parametrizations:  # type: ignore[union-attr]
            inner = f"{place}parametrizations.{name}."
            for key in [key for key in state if key.startswith(inner)]:
                del state[key]
            state[place + name] = getattr(module, name).detach()
