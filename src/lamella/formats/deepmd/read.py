"""deepmd-kit's PyTorch models of energies, single- and multi-task -> :class:`Potential`.

``.pt``   training checkpoint
``.pth``  frozen model

No code in either runs (:mod:`lamella.formats.archive`). Every key of the configuration is translated or refused by name,
every tensor is used, kept for the way back, or known to carry nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lamella.errors import CheckpointError, nearest, shown
from lamella.formats.archive import archive_kind, first_line, read_module, read_saved
from lamella.formats.deepmd.model import elements_of, model_config
from lamella.formats.deepmd.record import branch_record, plain
from lamella.formats.deepmd.tensors import (
    DEFAULT_FPARAM,
    FITTING,
    OUT_BIAS,
    OUT_STD,
    TYPE_BIAS,
    UNUSED,
    branch_tensors,
    descriptor_from,
    head_from,
    same,
    taken,
)
from lamella.models.bundle import build_potential
from lamella.models.potential import ModelConfig, Potential

__all__ = ["LEFT_OUT", "potential_from_state", "read"]

LEFT_OUT: Final = "left out"
"""What ``metadata["optimizer"]`` says of a file that held the state of an optimiser."""

_ALONE: Final = "take one alone: lamella convert IN OUT --task NAME"

_MOST_BRANCHES: Final = 1000

_OTHER_BACKENDS: Final = (".pb", ".dp", ".hlo", ".jax", ".savedmodel", ".pd", ".pt2", ".pte")

_CONSTANTS: Final = (".emask.", ".pair_excl.", ".atom_excl.", ".econf_tebd")
"""What TorchScript keeps of tables that follow from the configuration."""


def read(path: Path, task: str | None = None) -> Potential:
    """The model of a ``.pt`` or ``.pth`` file, whichever its content is, in the file's dtype.

    Where descriptor and fitting net differ in precision the wider one is the model's; what lamella does not use is kept in
    ``metadata["deepmd"]`` for :func:`lamella.formats.deepmd.write`.

    Args:
        path: the file.
        task: of a multi-task checkpoint, the one branch to take; all of them where not given.

    Raises:
        CheckpointError: neither, damaged, or a kind of model that lamella does not run.
    """
    if path.suffix in _OTHER_BACKENDS:
        raise CheckpointError(
            f"{path}: of another of deepmd-kit's backends; make a frozen model of it: dp convert-backend {path.name} "
            f"{path.stem}.pth"
        )
    state, optimizer = (_frozen_state(path), None) if archive_kind(path) == "module" else _checkpoint_state(path)
    for name, value in state.items():
        if name != "_extra_state":
            _check_stored(name, value, path)
    try:
        potential = potential_from_state(state, str(path), task)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"{path}: damaged, or of a layout unknown to lamella ({reason}); copy it again.") from None
    if optimizer:
        potential.metadata["optimizer"] = LEFT_OUT
    return potential


def _checkpoint_state(path: Path) -> tuple[Mapping[str, Any], Any]:
    """The ``model`` section, and the optimiser's state where there is one."""
    content = read_saved(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or "_extra_state" not in state:
        raise CheckpointError(
            f"{path}: not written by dp --pt train (no model._extra_state in it); give a deepmd-kit checkpoint."
        )
    return state, content.get("optimizer")


def _frozen_state(path: Path) -> Mapping[str, Any]:
    tensors, attributes = read_module(path)
    script = attributes.get("model_def_script")
    if not isinstance(script, str):
        raise CheckpointError(f"{path}: a TorchScript file, but no deepmd-kit model (no model_def_script in it).")
    try:
        params = json.loads(script)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its model_def_script is no JSON ({error}); freeze the model anew.") from None
    state = {
        f"model.Default.{name}": value
        for name, value in tensors.items()
        if not any(part in f".{name}." for part in _CONSTANTS)
    }
    return {**state, "_extra_state": {"model_params": params}}


def _check_stored(name: str, value: Any, path: Path) -> None:
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: {shown(name)} is no tensor; the file is damaged: copy it again.")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor {shown(name)} claims more numbers than are stored; do not trust this file.")
    if name.endswith((".w", ".b")):
        raise CheckpointError(
            f"{path}: written by deepmd-kit's pt_expt backend (tensor {shown(name)}), which lamella does not read; give a "
            "checkpoint of dp --pt train."
        )


def potential_from_state(state: Mapping[str, Any], source: str, task: str | None = None) -> Potential:
    """The model of a checkpoint's ``model`` section.

    Args:
        state: tensors by deepmd-kit's names, and ``_extra_state`` with the configuration.
        source: names the file in messages.
        task: the one branch to take; all of them where not given.

    Raises:
        CheckpointError: a kind of model or an option that lamella does not run, or a tensor that does not fit.
    """
    extra = plain(state["_extra_state"], f"{source}: _extra_state")
    params = extra["model_params"]
    several = "model_dict" in params
    branches = _chosen(params["model_dict"] if several else {"Default": params}, task, source)
    config, elements = _common_config(branches, source)
    state = {name: value for name, value in state.items() if name != "_extra_state"}
    stray = next((name for name in state if not name.startswith("model.")), None)
    if stray is not None:
        raise CheckpointError(f"{source}: tensor {shown(stray, 120)} is of no model; use deepmd-kit for it.")
    parts = [_Branch(state, branch, config, elements, source) for branch in branches]
    if len(parts) > 1 and all(_one_memory(parts[0].head, part.head) for part in parts[1:]):
        config = config.model_copy(update={"head": config.head.model_copy(update={"shared": config.head.task_dim == 0})})
    weights = _assemble(parts, config, source)
    record = {
        "model_params": params,
        "train_infos": extra.get("train_infos"),
        "precision": parts[0].precision,
        "branches": {part.name: part.kept for part in parts},
    }
    if several and task is not None:
        record["model_params"] = branches[task]
    tasks = tuple(branches) if several else (_task_name(params),)
    metadata = {"origin": "deepmd-kit", "file": Path(source).name, "deepmd": record}
    return build_potential(config, elements, tasks, metadata, weights, source)


def _task_name(params: Mapping[str, Any]) -> str:
    """What lamella noted when it wrote a model of one task."""
    info = params.get("info")
    noted = info.get("lamella") if isinstance(info, dict) else None
    name = noted.get("task") if isinstance(noted, dict) else None
    return name if isinstance(name, str) and name else "default"


def _chosen(branches: Mapping[str, Any], task: str | None, source: str) -> dict[str, Any]:
    if not isinstance(branches, dict) or not 0 < len(branches) <= _MOST_BRANCHES:
        raise CheckpointError(f"{source}: its model_dict does not hold 1 to {_MOST_BRANCHES} branches; copy the file again.")
    if task is None:
        return dict(branches)
    if task not in branches:
        known = ", ".join(shown(branch) for branch in sorted(branches))
        raise CheckpointError(f"{source}: no branch {task!r}{nearest(task, branches)}; it has {known}.")
    return {task: branches[task]}


def _common_config(branches: Mapping[str, Any], source: str) -> tuple[ModelConfig, tuple[str, ...]]:
    """The one configuration of all branches, which share a backbone and the shape of their heads."""
    configs = {branch: model_config(params, source) for branch, params in branches.items()}
    first, *others = branches
    for branch in others:
        for part in ("backbone", "head", "excluded_pairs", "excluded_atoms"):
            if getattr(configs[branch], part) != getattr(configs[first], part):
                raise CheckpointError(
                    f"{source}: branches {shown(first)} and {shown(branch)} differ in their {part}; {_ALONE}."
                )
        if branches[branch]["type_map"] != branches[first]["type_map"]:
            raise CheckpointError(
                f"{source}: branches {shown(first)} and {shown(branch)} differ in their type_map; {_ALONE}."
            )
    return configs[first], elements_of(branches[first], source)


class _Branch:
    """What one branch of a checkpoint holds, by our names.

    Attributes:
        name: of the branch.
        backbone: tensors below ``backbone.``.
        head: tensors below ``heads.0.``.
        code: dataset encoding, (task_dim,).
        baseline: (n_species,) float64, eV.
        precision: of descriptor and fitting net.
        kept: what is only kept for the way back.
    """

    def __init__(
        self, state: Mapping[str, Tensor], name: str, config: ModelConfig, elements: tuple[str, ...], source: str
    ) -> None:
        self.name = name
        found = branch_tensors(state, name, source)
        n_species = len(elements)
        out_bias = taken(found, OUT_BIAS, source, (1, n_species, 1))
        type_bias = taken(found, TYPE_BIAS, source, (n_species, 1))
        if OUT_STD in found:
            found[OUT_STD] = taken(found, OUT_STD, source, (1, n_species, 1))
        self.baseline = out_bias[0, :, 0].double() + type_bias[:, 0].double()
        _check_default(found.get(DEFAULT_FPARAM), config.head.default_frame_params, source)
        unused = {key: found.pop(key) for key in (*UNUSED, DEFAULT_FPARAM) if key in found}
        self.kept = branch_record(unused, out_bias, type_bias)
        code = found.pop(f"{FITTING}case_embd", None)
        self.backbone = descriptor_from(found, config, elements, source)
        self.head = head_from(found, config, elements, 0, source)
        self.code = next(iter(self.head.values())).new_zeros(0) if code is None else code
        dtypes = _one_dtype(self.backbone, source), _one_dtype({**self.head, "task_code": self.code}, source)
        self.precision = dict(
            zip(("descriptor", "fitting_net"), (str(d).removeprefix("torch.") for d in dtypes), strict=True)
        )
        self.dtype = torch.promote_types(torch.promote_types(*dtypes), torch.float32)
        if found:
            raise CheckpointError(
                f"{source}: tensor {shown(next(iter(found)), 120)} is not one that lamella knows; {_ALONE}."
            )


def _check_default(stored: Tensor | None, default: tuple[float, ...] | None, source: str) -> None:
    """The stored default of frame parameters must be the configured one: deepmd-kit computes with the first."""
    if default is not None and (stored is None or not torch.equal(stored, torch.tensor(default, dtype=stored.dtype))):
        raise CheckpointError(f"{source}: default_fparam_tensor is not default_fparam {list(default)}; copy the file again.")


def _one_dtype(tensors: Mapping[str, Tensor], source: str) -> torch.dtype:
    dtype = next((value.dtype for value in tensors.values()), torch.float64)
    if not dtype.is_floating_point:
        raise CheckpointError(
            f"{source}: tensor {next(iter(tensors))} is {dtype}, no floating-point numbers; copy it again."
        )
    for name, value in tensors.items():
        if value.dtype != dtype:
            raise CheckpointError(f"{source}: tensor {name} is {value.dtype}, not {dtype} like the rest; copy it again.")
    return dtype


def _assemble(parts: list[_Branch], config: ModelConfig, source: str) -> dict[str, Tensor]:
    """All tensors of the potential: the shared ones once, in one dtype, owned by nobody else."""
    first, *others = parts
    for other in others:
        _check_shared(first.backbone, other.backbone, (first.name, other.name, "descriptor"), source)
        if config.head.serves_all:
            _check_shared(first.head, other.head, (first.name, other.name, "fitting_net"), source)
    weights = dict(first.backbone)
    for position, part in enumerate([first] if config.head.serves_all else parts):
        weights |= {name.replace("heads.0.", f"heads.{position}.", 1): value for name, value in part.head.items()}
    weights["task_code"] = torch.stack([part.code for part in parts])
    dtype = torch.float32
    for part in parts:
        dtype = torch.promote_types(dtype, part.dtype)
    own = {name: value.to(dtype, copy=True).contiguous() for name, value in weights.items()}
    return {**own, "baseline": torch.stack([part.baseline for part in parts])}


def _one_memory(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether the file stores both heads as one: equal numbers alone may come from equal seeds."""
    return one.keys() == two.keys() and all(
        value.data_ptr() == two[name].data_ptr() for name, value in one.items() if value.numel()
    )


def _check_shared(one: Mapping[str, Tensor], two: Mapping[str, Tensor], names: tuple[str, str, str], source: str) -> None:
    """Two branches must hold the same weights where one module is built."""
    if one.keys() != two.keys() or not all(same(value, two[name]) for name, value in one.items()):
        raise CheckpointError(
            f"{source}: branches {shown(names[0])} and {shown(names[1])} do not share their {names[2]}; {_ALONE}."
        )
