"""What of a model may change: frozen layers, low-rank updates, new rows of frozen tables."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from lamella.errors import RecipeError
from lamella.models.potential import Potential
from lamella.nn.dense import Dense
from lamella.nn.embedding import TypeEmbedding
from lamella.nn.low_rank import AddedRows, LowRank, parametrized, save_merged
from lamella.train.adapt.config import LowRankConfig, StartConfig

__all__ = ["Part", "arm", "part_name", "trainable_parts"]

LAYERS: Final[dict[str, str | None]] = {
    "dpa3": "backbone.layers.",
    "dpa2": "backbone.repformer.layers.",
    "dpa1": "backbone.attention.",
    "se_a": None,
}
"""Prefix of the numbered layers of a backbone, by kind; None where it has none."""


@dataclass(frozen=True)
class Part:
    """A group of tensors of one fate.

    Attributes:
        name: in words.
        tensors: how many.
        numbers: in all of them.
        trained: whether training changes them.
    """

    name: str
    tensors: int
    numbers: int
    trained: bool


def arm(potential: Potential, start: StartConfig, trained: Iterable[str], known: int, seed: int) -> None:
    """Freeze what ``start`` freezes, and put low-rank updates in place; what the model predicts stays as it is.

    Args:
        potential: changed in place: flags, and parametrisations that its ``state_dict`` folds in.
        start: what may change.
        trained: tasks whose heads are trained.
        known: how many of the elements the model knew before; vectors and networks of the others are always trained.
        seed: of the low-rank factors.

    Raises:
        RecipeError: layers that the backbone does not have, or patterns that match no matrix.
    """
    wanted = {potential.task_index(name) for name in trained}
    frozen = _frozen(potential, start.freeze)
    for name, parameter in potential.named_parameters():
        own_head = len(potential.heads) == 1 or any(name.startswith(f"heads.{index}.") for index in wanted)
        in_backbone = name.startswith("backbone.") and name not in frozen and start.lora is None
        parameter.requires_grad_(in_backbone or (name.startswith("heads.") and own_head))
    _train_new_networks(potential, known)
    if start.lora is not None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            _put_low_rank(potential, start.lora, frozen, wanted)
    _train_new_rows(potential, known)
    save_merged(potential)


def trainable_parts(potential: Potential) -> list[Part]:
    """Everything that is learned, by part of the model and whether training changes it."""
    sums: dict[tuple[str, bool], list[int]] = {}
    for name, parameter in potential.named_parameters():
        entry = sums.setdefault((part_name(potential, name), parameter.requires_grad), [0, 0])
        entry[0] += 1
        entry[1] += parameter.numel()
    return [Part(name, tensors, numbers, trained) for (name, trained), (tensors, numbers) in sums.items()]


def _frozen(potential: Potential, freeze: int | str | None) -> set[str]:
    """Names of the backbone's parameters that do not change."""
    names = [name for name, _ in potential.named_parameters() if name.startswith("backbone.")]
    if freeze is None:
        return set()
    if freeze == "backbone":
        return set(names)
    kind = potential.config.backbone.kind
    prefix = LAYERS[kind]
    numbers = {_layer(name, prefix) for name in names if prefix is not None} - {None}
    if prefix is None or not numbers:
        raise RecipeError(
            f"start.freeze: this {kind} backbone has no numbered layers; freeze it whole (backbone), or not at all."
        )
    count = len(numbers)
    if int(freeze) >= count:
        raise RecipeError(
            f"start.freeze: {freeze} of the backbone's {count} layers would leave none to train; freeze fewer, or say "
            "backbone."
        )
    return {name for name in names if (layer := _layer(name, prefix)) is None or layer < int(freeze)}


def _layer(name: str, prefix: str | None) -> int | None:
    """Number of the layer that a parameter belongs to, None before the layers."""
    if prefix is None or not name.startswith(prefix):
        return None
    return int(name.removeprefix(prefix).partition(".")[0])


def _put_low_rank(potential: Potential, config: LowRankConfig, frozen: set[str], heads: set[int]) -> None:
    matched = 0
    for path, module in list(potential.named_modules()):
        name = f"{path}.weight"
        if not isinstance(module, Dense) or not any(fnmatch.fnmatch(name, pattern) for pattern in config.matrices):
            continue
        untrained_head = name.startswith("heads.") and len(potential.heads) > 1 and int(name.split(".")[1]) not in heads
        if min(module.weight.shape) <= config.rank or name in frozen or untrained_head:
            continue
        parametrized(module, "weight", LowRank(module.weight, config.rank, config.alpha))
        matched += 1
    if not matched and frozen:
        raise RecipeError(
            f"start.lora: none of the matrices that {', '.join(config.matrices)} matches may change: start.freeze "
            "(--freeze) keeps them as they are, or they are too small for the rank; freeze less, or leave out start.lora."
        )
    if not matched:
        raise RecipeError(
            f"start.lora.matrices: {', '.join(config.matrices)} matches no matrix that may change and has both sides longer "
            f"than the rank {config.rank}; names look like backbone.layers.0.node_self.weight."
        )


def _train_new_networks(potential: Potential, known: int) -> None:
    """Networks that exist for an element that is new are trained whatever is frozen."""
    if potential.config.backbone.kind != "se_a":
        return
    n = len(potential.elements)
    nets: Sequence[nn.Module] = list(potential.backbone.nets)  # type: ignore[arg-type]
    for k, net in enumerate(nets):
        if k % n >= known or k // n >= known or (len(nets) == n and k >= known):
            net.requires_grad_(True)


def _train_new_rows(potential: Potential, known: int) -> None:
    """Vectors of new elements are trained also where the table is frozen."""
    if known == len(potential.elements):
        return
    for module in list(potential.modules()):
        if isinstance(module, TypeEmbedding) and module.electrons is None and not module.weight.requires_grad:
            parametrized(module, "weight", AddedRows(module.weight, known))


def part_name(potential: Potential, name: str) -> str:
    """Part of the model that a parameter belongs to, in words."""
    low_rank = "low-rank updates of " if ".parametrizations." in name and not name.endswith(".original") else ""
    if name.startswith("heads."):
        index = int(name.split(".")[1])
        return low_rank + (
            "the shared head" if len(potential.heads) == 1 < len(potential.tasks) else _head(potential, index)
        )
    prefix = LAYERS[potential.config.backbone.kind]
    layer = _layer(name, prefix)
    return low_rank + (
        "the backbone's embeddings" if prefix and layer is None else "the backbone's layers" if prefix else "the backbone"
    )


def _head(potential: Potential, index: int) -> str:
    return f"the head of {potential.tasks[index]}"
