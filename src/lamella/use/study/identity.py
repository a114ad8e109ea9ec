"""What a kept result depends on: the very weights of a model, not the name it goes by."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from lamella.models.bundle import DESCRIPTION, WEIGHTS
from lamella.use.table.answer import Learned, Respondent

__all__ = ["of_respondent", "of_step"]


def of_step(folder: Path) -> str:
    """SHA-256 of the files of a step folder."""
    sha = hashlib.sha256()
    for name in (DESCRIPTION, WEIGHTS):
        sha.update((folder / name).read_bytes())
    return sha.hexdigest()


def of_respondent(model: Respondent) -> str:
    """SHA-256 of the tensors of a lamella model, and its task; of others the words that name them."""
    if not isinstance(model, Learned):
        return model.origin
    sha = hashlib.sha256(repr((model.potential.elements, model.potential.tasks, model.chosen)).encode())
    for name, tensor in sorted(model.potential.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
