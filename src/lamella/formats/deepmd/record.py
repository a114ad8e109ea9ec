"""What lamella has no use for in a deepmd-kit checkpoint, kept in ``metadata["deepmd"]`` for the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lamella.errors import CheckpointError, shown

__all__ = ["branch_record", "plain", "tensor_of"]

_DEEPEST: Final = 32
_MOST: Final = 1_000_000
_LARGEST: Final = 100_000
_DTYPES: Final = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}


def plain(value: Any, where: str) -> Any:
    """A copy made of dicts with text keys, lists, texts and numbers alone.

    Raises:
        CheckpointError: it holds something else, or is nested deeper or larger than any configuration.
    """
    budget = [_MOST]
    return _plain(value, where, _DEEPEST, budget)


def _plain(value: Any, where: str, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth < 0 or budget[0] < 0:
        raise CheckpointError(f"{where[:200]}: nested deeper or larger than any configuration is; do not trust this file.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth - 1, budget) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{where}.{shown(key, 40)}", depth - 1, budget) for key, item in value.items()}
    raise CheckpointError(f"{where[:200]}: holds a {type(value).__name__}, no plain value; use deepmd-kit for it.")


def branch_record(unused: Mapping[str, Tensor], out_bias: Tensor, type_bias: Tensor) -> dict[str, Any]:
    """What to keep of one branch.

    Args:
        unused: tensors that no energy depends on, by deepmd-kit's names.
        out_bias: (1, n_species, 1), with ``type_bias`` the energies per element: kept apart only where the sum does not say
            which was which.
        type_bias: (n_species, 1).

    Raises:
        CheckpointError: an unused tensor that is larger than any such tensor.
    """
    kept = dict(unused)
    if type_bias.any() or out_bias.dtype != torch.float64 or type_bias.dtype != torch.float64:
        kept |= {"out_bias": out_bias, "bias_atom_e": type_bias}
    for key, value in kept.items():
        if value.numel() > _LARGEST or value.dtype not in _DTYPES.values():
            raise CheckpointError(
                f"{key}: holds {value.numel()} numbers of {value.dtype}, as in no model; do not trust this file."
            )
    return {key: {"dtype": str(value.dtype).removeprefix("torch."), "values": value.tolist()} for key, value in kept.items()}


def tensor_of(kept: Mapping[str, Any]) -> Tensor:
    """A tensor kept by :func:`branch_record`."""
    return torch.tensor(kept["values"], dtype=_DTYPES[kept["dtype"]])
