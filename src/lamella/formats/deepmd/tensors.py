"""Tensors of one branch, by deepmd-kit's names and by ours.

Names of theirs are relative to ``model.<branch>.``, names of ours to the potential. A network is stored twice, below
``networks`` and ``_networks``; of the second copy only agreement is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from lamella.errors import CheckpointError, shown
from lamella.formats.deepmd.model import translator_of
from lamella.formats.deepmd.translator import Block, network_names
from lamella.models.potential import ModelConfig

__all__ = [
    "DEFAULT_FPARAM",
    "DESCRIPTOR",
    "FITTING",
    "OUT_BIAS",
    "OUT_STD",
    "TYPE_BIAS",
    "UNUSED",
    "branch_tensors",
    "descriptor_from",
    "descriptor_to",
    "head_from",
    "head_names",
    "head_to",
    "same",
    "taken",
]

DESCRIPTOR: Final = "atomic_model.descriptor."
FITTING: Final = "atomic_model.fitting_net."
OUT_BIAS: Final = "atomic_model.out_bias"
TYPE_BIAS: Final = f"{FITTING}bias_atom_e"

DEFAULT_FPARAM: Final = f"{FITTING}default_fparam_tensor"

OUT_STD: Final = "atomic_model.out_std"

UNUSED: Final = ("min_nbor_dist", OUT_STD)
"""Tensors that no energy depends on: kept for the way back."""

_ORDER = (
    "deepmd-kit fills empty neighbour slots with the element of the first atom, and with the environment mean of {key} not "
    "zero those slots count: its energies depend on the order of atoms. lamella's do not; train the model with "
    "set_davg_zero: true, or with tebd_input_mode: strip and smooth_type_embedding: true"
)


def branch_tensors(state: Mapping[str, Tensor], branch: str, source: str) -> dict[str, Tensor]:
    """Tensors of one branch, the second copies of networks compared and left out.

    Raises:
        CheckpointError: the two copies of a network differ.
    """
    prefix = f"model.{branch}."
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for key in [key for key in found if "._networks." in key]:
        copy, first = found.pop(key), found.get(key.replace("._networks.", ".networks."))
        if first is None or not same(copy, first):
            raise CheckpointError(f"{source}: tensor {shown(prefix + key, 160)} differs from its other copy; copy it again.")
    return found


def taken(found: dict[str, Tensor], key: str, source: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """A tensor of a branch, taken out of ``found``.

    Raises:
        CheckpointError: it is missing, or of another shape than ``shape``.
    """
    value = found.pop(key, None)
    if value is None:
        raise CheckpointError(f"{source}: tensor {key} is missing, and its configuration asks for it; copy the file again.")
    if shape is not None and value.shape != shape:
        raise CheckpointError(
            f"{source}: tensor {key} has shape {tuple(value.shape)}, its configuration says {shape}; copy it again."
        )
    return value


def same(a: Tensor, b: Tensor) -> bool:
    """Same numbers, shape and dtype; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    one_memory = a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
    return one_memory or torch.equal(a, b) or torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def descriptor_from(
    found: dict[str, Tensor], config: ModelConfig, elements: tuple[str, ...], source: str
) -> dict[str, Tensor]:
    """Our backbone tensors from a branch, whose descriptor tensors are taken out of ``found``.

    Raises:
        CheckpointError: a tensor is missing or unknown, or holds what lamella does not run.
    """
    backbone = config.backbone
    translator = translator_of(backbone)
    ours: dict[str, Tensor] = {}
    for name, key in translator.names(backbone, elements).items():
        ours[f"backbone.{name}"] = taken(found, DESCRIPTOR + key, source)
    for module, block in translator.blocks(backbone, elements).items():
        mean, std = (taken(found, f"{DESCRIPTOR}{block.prefix}.{leaf}", source) for leaf in ("mean", "stddev"))
        ours |= _statistics_from(mean, std, f"backbone.{module}", block, len(elements), source)
    for key in translator.empty(backbone, elements):
        if found.pop(DESCRIPTOR + key, torch.empty(0)).numel():
            raise CheckpointError(
                f"{source}: {key} holds a compression table; lamella runs models that are not compressed: give the "
                "checkpoint or frozen model that dp compress started from."
            )
    unknown = next((key for key in found if key.startswith(DESCRIPTOR)), None)
    if unknown is not None:
        raise CheckpointError(
            f"{source}: tensor {shown(unknown, 120)} is not one of a {translator.kinds[0]} model that lamella runs."
        )
    return ours


def _statistics_from(mean: Tensor, std: Tensor, module: str, block: Block, n_species: int, source: str) -> dict[str, Tensor]:
    """(n_species,) and (n_species, [radial, angular]); identical in every slot, so slot 0 tells all."""
    where = f"{source}: {block.prefix}"
    for leaf, value in (("mean", mean), ("stddev", std)):
        if value.shape != (n_species, block.slots, 4):
            want = (n_species, block.slots, 4)
            raise CheckpointError(
                f"{where}.{leaf} has shape {tuple(value.shape)}, its configuration says {want}; copy it again."
            )
        if not same(value, value[:, :1].expand_as(value)):
            raise CheckpointError(
                f"{where}.{leaf} differs between neighbour slots, which no training writes; do not trust it."
            )
    if not same(std[:, 0, 1:], std[:, 0, 1:2].expand(-1, 3)):
        raise CheckpointError(f"{where}.stddev differs between neighbour slots or directions; use deepmd-kit for it.")
    if (std[:, 0] <= 0).any():
        raise CheckpointError(f"{where}.stddev holds a number that is not above 0, and rows are divided by it; retrain it.")
    if mean[:, 0, 1:].any():
        raise CheckpointError(
            f"{where}.mean is not zero for x, y or z, so energies would depend on orientation; retrain it."
        )
    if block.ordered and n_species > 1 and mean.any():
        raise CheckpointError(f"{source}: {_ORDER.format(key=f'{block.prefix}.mean')}.")
    return {f"{module}.mean": mean[:, 0, 0], f"{module}.std": std[:, 0, :2]}


def descriptor_to(
    ours: Mapping[str, Tensor], config: ModelConfig, elements: tuple[str, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    """A branch's descriptor tensors from ours, in ``dtype``."""
    backbone = config.backbone
    translator = translator_of(backbone)
    theirs: dict[str, Tensor] = {}
    for module, block in translator.blocks(backbone, elements).items():
        mean, std = (ours[f"backbone.{module}.{leaf}"].to(dtype) for leaf in ("mean", "std"))
        rows = torch.stack([mean, *[torch.zeros_like(mean)] * 3], dim=1), std[:, [0, 1, 1, 1]]
        for leaf, row_S4 in zip(("mean", "stddev"), rows, strict=True):
            theirs[f"{DESCRIPTOR}{block.prefix}.{leaf}"] = row_S4[:, None].repeat(1, block.slots, 1)
    for name, key in translator.names(backbone, elements).items():
        theirs[DESCRIPTOR + key] = ours[f"backbone.{name}"].to(dtype).contiguous()
    for key in translator.empty(backbone, elements):
        theirs[DESCRIPTOR + key] = torch.empty(0, dtype=dtype)
    return _twice(theirs)


def head_names(config: ModelConfig, elements: tuple[str, ...], position: int) -> dict[str, str]:
    """{our tensor: theirs} of one head's networks, frame statistics included."""
    head = config.head
    width = config.backbone.output_dim + head.frame_params + head.task_dim
    names: dict[str, str] = {}
    for net in range(len(elements) if config.backbone.element_heads else 1):
        ours, theirs = f"heads.{position}.nets.{net}", f"{FITTING}filter_layers.networks.{net}"
        names |= network_names(f"{ours}.hidden", theirs, width, head.hidden, head.timestep)
        for leaf, key in (("weight", "matrix"), ("bias", "bias")):
            names[f"{ours}.out.{leaf}"] = f"{theirs}.layers.{len(head.hidden)}.{key}"
    if head.frame_params:
        names[f"heads.{position}.frame_mean"] = f"{FITTING}fparam_avg"
        names[f"heads.{position}.frame_inv_std"] = f"{FITTING}fparam_inv_std"
    return names


def head_from(
    found: dict[str, Tensor], config: ModelConfig, elements: tuple[str, ...], position: int, source: str
) -> dict[str, Tensor]:
    """Our tensors of one head from a branch, whose fitting tensors are taken out of ``found``.

    Raises:
        CheckpointError: a tensor is missing or unknown.
    """
    ours = {name: taken(found, key, source) for name, key in head_names(config, elements, position).items()}
    unknown = next((key for key in found if key.startswith(FITTING)), None)
    if unknown is not None:
        raise CheckpointError(f"{source}: tensor {shown(unknown, 120)} is not one of an energy model that lamella runs.")
    if not config.head.frame_params:
        nothing = next(iter(ours.values())).new_zeros(0)
        ours |= {f"heads.{position}.frame_mean": nothing, f"heads.{position}.frame_inv_std": nothing.clone()}
    return ours


def head_to(
    ours: Mapping[str, Tensor], config: ModelConfig, elements: tuple[str, ...], position: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """A branch's fitting tensors from ours, in ``dtype``; those of the branch alone are not among them."""
    names = head_names(config, elements, position)
    return _twice({key: ours[name].to(dtype).contiguous() for name, key in names.items()})


def _twice(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every network below ``_networks`` too, as the same tensor, so that a file stores it once."""
    again = {key.replace(".networks.", "._networks."): value for key, value in theirs.items() if ".networks." in key}
    return theirs | again
