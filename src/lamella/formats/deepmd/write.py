""":class:`Potential` -> a ``.pt`` training checkpoint that deepmd-kit tests, freezes and fine-tunes.

A model that came from deepmd-kit goes back with the same tensors bit for bit, and with its own configuration, as far as
lamella has not changed them: what lamella has no use for waits in ``metadata["deepmd"]``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lamella.errors import CheckpointError
from lamella.formats.deepmd.model import elements_of, model_config, model_params, translator_of
from lamella.formats.deepmd.record import tensor_of
from lamella.formats.deepmd.tensors import (
    DEFAULT_FPARAM,
    FITTING,
    OUT_BIAS,
    OUT_STD,
    TYPE_BIAS,
    descriptor_to,
    head_to,
)
from lamella.models.potential import Potential

__all__ = ["slots_of", "state_from_potential", "write"]

_TAKEN: Final = frozenset(dir(torch.nn.ModuleDict()))
"""Names that PyTorch's dictionary of modules, in which deepmd-kit keeps its branches, has for itself."""

_PARTS: Final = ("descriptor", "fitting_net")


def write(potential: Potential, path: Path) -> None:
    """Write a training checkpoint for deepmd-kit 3.2.0; the file appears complete or not at all.

    Raises:
        CheckpointError: deepmd-kit has no such model, or the file cannot be written.
    """
    if path.suffix != ".pt":
        raise CheckpointError(
            f"{path}: deepmd-kit knows checkpoints by the ending .pt; name it {path.with_suffix('.pt').name}."
        )
    try:
        content = {"model": state_from_potential(potential), "optimizer": None}  # dp --init-model asks for the key
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path}: metadata.deepmd of the model is damaged ({type(error).__name__}: {error}); delete it from model.json "
            "and write again."
        ) from None
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(content, beside)
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where there is no folder or no space
        beside.unlink(missing_ok=True)
        reason = (str(error).splitlines() or ["unknown"])[0][:200]
        raise CheckpointError(f"{path}: cannot be written ({reason}); free space or choose another folder.") from None


def state_from_potential(potential: Potential) -> dict[str, Any]:
    """The ``model`` section of a checkpoint: tensors by deepmd-kit's names, and ``_extra_state`` with the configuration.

    Raises:
        CheckpointError: deepmd-kit has no such model.
    """
    record = _record(potential)
    config, elements = potential.config, potential.elements
    ours = {name: value.detach().cpu() for name, value in potential.state_dict().items()}
    dtypes = [_dtype(part, ours, potential.dtype, record) for part in _PARTS]
    params, branches = _params(potential, record, dtypes)
    descriptor = descriptor_to(ours, config, elements, dtypes[0])
    heads = [head_to(ours, config, elements, k, dtypes[1]) for k in range(len(potential.heads))]
    state: dict[str, Any] = {}
    for index, branch in enumerate(branches):
        noted = record.get("branches", {})
        own = _own_tensors(potential, index, noted.get(branch) or noted.get(potential.tasks[index], {}), dtypes[1])
        tensors = own | descriptor | heads[index if len(heads) > 1 else 0]
        state |= {f"model.{branch}.{name}": value for name, value in tensors.items()}
    state["_extra_state"] = {
        "model_params": params,
        "train_infos": record.get("train_infos") or {"lr": 0, "step": 0},
    }
    return state


def slots_of(potential: Potential) -> dict[str, int]:
    """Neighbours of an atom that deepmd-kit keeps, by the part of its descriptor that keeps them."""
    backbone = potential.config.backbone
    blocks = translator_of(backbone).blocks(backbone, potential.elements)
    return {block.prefix: block.slots for block in blocks.values()}


def _record(potential: Potential) -> dict[str, Any]:
    record = potential.metadata.get("deepmd")
    return record if isinstance(record, dict) else {}


def _dtype(part: str, ours: Mapping[str, Tensor], current: torch.dtype, record: Mapping[str, Any]) -> torch.dtype:
    """The precision the part came in, where every number still fits it; else the model's."""
    name = record.get("precision", {}).get(part)
    original = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}.get(name, current)
    prefixes = ("backbone.",) if part == "descriptor" else ("heads.", "task_code")
    fits = all(
        torch.equal(value.to(original).to(value.dtype), value) for name, value in ours.items() if name.startswith(prefixes)
    )
    return original if fits else current


def _params(
    potential: Potential, record: Mapping[str, Any], dtypes: list[torch.dtype]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``model_params``, and the names of the branches."""
    precision = {part: str(dtype).removeprefix("torch.") for part, dtype in zip(_PARTS, dtypes, strict=True)}
    stored = record.get("model_params", {})
    known = stored.get("model_dict", {})
    fresh = model_params(potential.config, potential.elements, (precision["descriptor"], precision["fitting_net"]))
    if len(potential.tasks) == 1 and tuple(known) != potential.tasks:
        section = known.get(potential.tasks[0], stored)  # one branch of many, or the only one
        own = _kept_params(section, potential, precision, record) or fresh
        return _with_task(own, potential.tasks[0]), ("Default",)
    for task in potential.tasks:
        if not task or "." in task or task in _TAKEN:
            raise CheckpointError(
                f"task {task!r}: PyTorch takes no dot, no empty word and none of its own (train, type, keys, …) as the name "
                "of a branch of deepmd-kit; rename the task."
            )
    branches = {task: _kept_params(known.get(task, {}), potential, precision, record) or fresh for task in potential.tasks}
    if tuple(known) == potential.tasks and not any(section is fresh for section in branches.values()):
        return {**copy.deepcopy(dict(stored)), "model_dict": branches}, potential.tasks
    shared = {"type_map": fresh["type_map"], "descriptor": fresh["descriptor"]}
    if len(potential.heads) == 1:
        shared["fitting_net"] = fresh["fitting_net"]
    return copy.deepcopy({"shared_dict": shared, "model_dict": branches}), potential.tasks


def _kept_params(
    stored: Mapping[str, Any], potential: Potential, precision: Mapping[str, str], record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The configuration a branch came with, where it still is that of the model."""
    config = potential.config
    alone = config.model_copy(update={"head": config.head.model_copy(update={"shared": False})})
    try:
        if elements_of(stored, "") != potential.elements or model_config(stored, "") != alone:
            return None
    except CheckpointError:
        return None
    kept = copy.deepcopy(dict(stored))
    for part in _PARTS:
        if record.get("precision", {}).get(part) != precision[part]:
            kept.setdefault(part, {})["precision"] = precision[part]
    return kept


def _with_task(params: dict[str, Any], task: str) -> dict[str, Any]:
    return params if task == "default" else {**params, "info": {"lamella": {"task": task}}}


def _own_tensors(potential: Potential, index: int, kept: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """What a branch shares with no other: biases, its place in the dataset encoding, and what deepmd-kit alone uses."""
    head, n_species = potential.config.head, len(potential.elements)
    tensors = {
        "min_nbor_dist": torch.tensor(-1.0, dtype=torch.float64),
        OUT_STD: torch.ones(1, n_species, 1, dtype=torch.float64),
        OUT_BIAS: potential.baseline[index].detach().cpu().reshape(1, n_species, 1).clone(),
        TYPE_BIAS: torch.zeros(n_species, 1, dtype=torch.float64),
    }
    if kept and "min_nbor_dist" not in kept:
        del tensors["min_nbor_dist"]  # files of older versions have none
    back = {key: tensor_of(value) for key, value in kept.items()}
    if "out_bias" in back:
        split = {OUT_BIAS: back.pop("out_bias"), TYPE_BIAS: back.pop("bias_atom_e")}
        total = split[OUT_BIAS][0, :, 0].double() + split[TYPE_BIAS][:, 0].double()
        if torch.equal(total, tensors[OUT_BIAS][0, :, 0]):
            tensors |= split
    if head.task_dim:
        tensors[f"{FITTING}case_embd"] = potential.task_code[index].detach().cpu().to(dtype).clone()
    if head.default_frame_params is not None:
        tensors[DEFAULT_FPARAM] = torch.tensor(head.default_frame_params, dtype=dtype)
    return tensors | back
