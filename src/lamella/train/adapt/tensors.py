"""Which tensors of a started model are the loaded ones: by comparing them, not by trusting how it was made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lamella.models.potential import Potential
from lamella.nn.embedding import TypeEmbedding, with_shortcut

__all__ = ["Fates", "fates"]


@dataclass(frozen=True)
class Fates:
    """What became of the parameters.

    Attributes:
        loaded: names that hold a tensor of the loaded model, to the last bit (in the run's dtype).
        widened: names of matrices that hold the loaded one but for some rows (new elements, codes of tasks), and how many
            numbers those rows have.
        new: names whose tensor is not in the loaded model, and how many numbers it has.
        dropped: names of the loaded model that are gone.
        numbers: that were loaded.
    """

    loaded: tuple[str, ...]
    widened: dict[str, int]
    new: dict[str, int]
    dropped: tuple[str, ...]
    numbers: int


def fates(potential: Potential, source: Potential, dtype: str) -> Fates:
    """Compare a started model with the loaded one."""
    kind = torch.float32 if dtype == "float32" else torch.float64
    old = {name: value.to(kind) for name, value in _parameters(source).items()}
    by_content: dict[bytes, list[str]] = {}
    for name, value in old.items():
        by_content.setdefault(_key(name, value), []).append(name)
    used: set[str] = set()
    loaded, widened, new, numbers = [], {}, {}, 0
    for name, value in _parameters(potential).items():
        same = by_content.get(_key(name, value))
        rows = 0 if name not in old else _rows_kept(old[name], value)
        if same is not None:
            loaded.append(name)
            numbers += value.numel()
            used.update(same)
        elif rows:
            kept = rows * value.shape[1]
            widened[name] = value.numel() - kept
            numbers += kept
            used.add(name)
        else:
            new[name] = value.numel()
    dropped = tuple(name for name in old if name not in used)
    return Fates(tuple(loaded), widened, new, dropped, numbers)


def _rows_kept(old: Tensor, new: Tensor) -> int:
    """Rows of a matrix that are still what and where they were."""
    if old.dim() != 2 or old.shape[1:] != new.shape[1:] or len(new) < len(old):
        return 0
    return int((old == new[: len(old)]).all(dim=1).sum())


def _parameters(potential: Potential) -> dict[str, Tensor]:
    """By name; of embeddings of one-hot rows the table with its shortcut, which new elements may make or break."""
    tables = {
        f"{name}.weight"
        for name, module in potential.named_modules()
        if isinstance(module, TypeEmbedding) and module.electrons is None
    }
    values = {name: parameter.detach().cpu().contiguous() for name, parameter in potential.named_parameters()}
    return {name: with_shortcut(value) if name in tables else value for name, value in values.items()}


def _key(name: str, value: Tensor) -> bytes:
    """Content, shape and the last word of the name."""
    return f"{name.rpartition('.')[2]}{tuple(value.shape)}".encode() + value.numpy().tobytes()
