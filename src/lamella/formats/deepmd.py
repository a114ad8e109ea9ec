"""deepmd-kit's PyTorch models, weights and configuration of DPA-3 energy models, single- and multi-task.

``.pt``   training checkpoint, opened with ``torch.load(weights_only=True)``
``.pth``  frozen model, read by :mod:`lamella.formats.archive`

No code in either runs. Every key of the configuration is translated or refused by name, every tensor is used or known to
carry nothing.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamella.errors import CheckpointError
from lamella.formats.archive import archive_kind, first_line, read_module
from lamella.models.bundle import build_potential
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential

__all__ = ["potential_from_state", "read", "read_checkpoint", "read_frozen"]

_REPFLOW = {
    "n_dim": ("node_dim", 128),
    "e_dim": ("edge_dim", 64),
    "a_dim": ("angle_dim", 64),
    "nlayers": ("layers", 6),
    "e_rcut": ("cutoff", None),
    "e_rcut_smth": ("switch_start", None),
    "e_sel": ("edge_sel", None),
    "a_rcut": ("angle_cutoff", None),
    "a_rcut_smth": ("angle_switch_start", None),
    "a_sel": ("angle_sel", None),
    "a_compress_rate": ("angle_compression", 0),
    "a_compress_e_rate": ("angle_compression_edge", 1),
    "n_multi_edge_message": ("messages", 1),
    "axis_neuron": ("axis", 4),
    "fix_stat_std": ("env_std", 0.3),
    "update_angle": ("update_angle", True),
    "update_style": ("update_style", "res_residual"),
    "update_residual": ("update_step", 0.1),
    "smooth_edge_update": ("smooth_edge_update", False),
    "use_dynamic_sel": ("dynamic_sel", False),
    "sel_reduce_factor": ("sel_reduction", 10.0),
}
"""deepmd-kit's repflow key -> (our field, deepmd-kit's default; None where the key is required)."""

_REPFLOW_IGNORED = {"update_residual_init", "optim_update", "skip_stat"}
"""Keys that change how the numbers were made or computed, not the numbers."""

_EMPTY: tuple[Any, ...] = (None, [], (), {}, "", False)
_REPFLOW_REFUSED: dict[str, tuple[Any, ...]] = {"sequential_update": _EMPTY}
_DESCRIPTOR_IGNORED = {"type", "precision", "trainable", "seed", "use_loc_mapping", "ntypes", "type_map"}
_DESCRIPTOR_REFUSED: dict[str, tuple[Any, ...]] = {
    "exclude_types": _EMPTY,
    "env_protection": (0.0,),
    "use_econf_tebd": _EMPTY,
    "add_chg_spin_ebd": _EMPTY,
    "default_chg_spin": _EMPTY,
}
_FITTING_IGNORED = {"type", "precision", "trainable", "seed", "rcond", "mixed_types", "dim_descrpt", "embedding_width"}
_FITTING_IGNORED |= {"ntypes", "type_map", "var_name"}
_FITTING_REFUSED: dict[str, tuple[Any, ...]] = {
    "numb_fparam": (0,),
    "numb_aparam": (0,),
    "default_fparam": _EMPTY,
    "use_aparam_as_mask": _EMPTY,
    "atom_ener": _EMPTY,
    "layer_name": _EMPTY,
    "case_film_embd": _EMPTY,
    "spin": _EMPTY,
    "exclude_types": _EMPTY,
}
_MODEL_IGNORED = {"type_map", "descriptor", "fitting_net", "data_stat_nbatch", "data_stat_protect", "data_bias_nsample"}
_MODEL_IGNORED |= {"info", "preset_out_bias", "srtab_add_bias", "model_branch_alias", "finetune_head", "hessian_mode"}
_MODEL_IGNORED |= {
    "new_type_map",
    "rcond",
    "bridging_r_inner",
    "bridging_r_outer",
    "smin_alpha",
    "sw_rmin",
    "sw_rmax",
    "seed",
}
_MODEL_REFUSED: dict[str, tuple[Any, ...]] = {
    "type": ("standard",),
    "pair_exclude_types": _EMPTY,
    "atom_exclude_types": _EMPTY,
    "use_srtab": _EMPTY,
    "bridging_method": ("None", None),
    "type_embedding": _EMPTY,
    "modifier": _EMPTY,
    "compress": _EMPTY,
    "spin": _EMPTY,
}
"""Keys that change the numbers: by key, the values with which they do not."""

_LAYER = {
    "node_self_mlp": "node_self",
    "node_sym_linear": "node_sym",
    "node_edge_linear": "node_edge",
    "edge_self_linear": "edge_self",
    "edge_angle_linear1": "edge_angle_1",
    "edge_angle_linear2": "edge_angle_2",
    "angle_self_linear": "angle_self",
    "a_compress_n_linear": "shrink_node",
    "a_compress_e_linear": "shrink_edge",
    "n_residual": "step_node",
    "e_residual": "step_edge",
    "a_residual": "step_angle",
}
_LEAF = {"matrix": "weight", "bias": "bias", "idt": "timestep"}


def read(path: Path) -> Potential:
    """The model of a ``.pt`` or ``.pth`` file, whichever its content is, in the file's dtype.

    Raises:
        CheckpointError: neither, damaged, or a kind of model that lamella does not run.
    """
    return read_frozen(path) if archive_kind(path) == "module" else read_checkpoint(path)


def read_checkpoint(path: Path) -> Potential:
    """The model of a ``.pt`` training checkpoint, in the checkpoint's dtype.

    Raises:
        CheckpointError: not such a checkpoint, a kind of model that lamella does not run, or damaged.
    """
    archive_kind(path)  # refuses claims of more bytes than there are, before torch allocates them
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch checkpoint ({first_line(error)}); the file may be cut short or hold "
            "code, which lamella never runs. Copy it again, or export the weights anew."
        ) from None
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or "_extra_state" not in state:
        raise CheckpointError(
            f"{path}: not written by dp --pt train (no model._extra_state in it); give a deepmd-kit checkpoint."
        )
    return _translated(state, path)


def read_frozen(path: Path) -> Potential:
    """The model of a ``.pth`` frozen by ``dp --pt freeze``, in its dtype; of a multi-task model a file holds one branch.

    Raises:
        CheckpointError: not such a file, a kind of model that lamella does not run, or damaged.
    """
    tensors, plain = read_module(path)
    script = plain.get("model_def_script")
    if not isinstance(script, str):
        raise CheckpointError(f"{path}: a TorchScript file, but no deepmd-kit model (no model_def_script in it).")
    try:
        params = json.loads(script)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its model_def_script is no JSON ({error}); freeze the model anew.") from None
    # masks that TorchScript keeps as constants follow from the configuration
    state = {f"model.Default.{name}": value for name, value in tensors.items() if ".emask." not in name}
    return _translated({**state, "_extra_state": {"model_params": params}}, path)


def _translated(state: Mapping[str, Any], path: Path) -> Potential:
    for name, value in state.items():
        if name == "_extra_state":
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name[:80]} is no tensor; the file is damaged: copy it again.")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: tensor {name[:80]} claims more numbers than are stored; do not trust this file.")
    try:
        return potential_from_state(state, str(path))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"{path}: damaged, or of a layout unknown to lamella ({reason}); copy it again.") from None


def potential_from_state(state: Mapping[str, Any], source: str) -> Potential:
    """The model of a checkpoint's ``model`` section.

    Args:
        state: tensors by deepmd-kit's names, and ``_extra_state`` with the configuration.
        source: names the file in messages.

    Raises:
        CheckpointError: a kind of model or an option that lamella does not run, or a tensor that does not fit.
    """
    params = state["_extra_state"]["model_params"]
    several = "model_dict" in params
    branches: dict[str, Any] = dict(params["model_dict"]) if several else {"Default": params}
    first = next(iter(branches))
    config = _common_config(branches, source)
    _check_shared(state, list(branches), "descriptor", source)
    if config.head.task_dim:
        _check_shared(state, list(branches), "fitting_net.filter_layers", source)
    weights = _backbone_weights(state, first, source)
    if not config.backbone.update_angle:
        weights.pop("backbone.angle_init.weight", None)  # stored, but without angles nothing reads it
    for position, branch in enumerate([first] if config.head.task_dim else branches):
        weights |= _head_weights(state, branch, position)
    weights["backbone.env_std"] = _env_std(state, first, source)
    weights["baseline"] = torch.stack([_baseline(state, branch) for branch in branches])
    empty = weights["backbone.embedding.weight"].new_zeros(0)
    codes = [state.get(f"model.{branch}.atomic_model.fitting_net.case_embd", empty) for branch in branches]
    weights["task_code"] = torch.stack(codes)
    tasks = tuple(branches) if several else ("default",)
    metadata = {"origin": "deepmd-kit", "file": Path(source).name}
    own = {name: value.clone() for name, value in weights.items()}
    return build_potential(config, branches[first]["type_map"], tasks, metadata, own, source)


def _common_config(branches: Mapping[str, Any], source: str) -> ModelConfig:
    """The one configuration of all branches, which share a backbone and the shape of their heads."""
    configs = {branch: model_config(params, source) for branch, params in branches.items()}
    first, *others = branches
    for branch in others:
        for part in ("backbone", "head"):
            if getattr(configs[branch], part) != getattr(configs[first], part):
                raise CheckpointError(
                    f"{source}: branches {first} and {branch} differ in their {part}; freeze and load one alone."
                )
        if list(branches[branch]["type_map"]) != list(branches[first]["type_map"]):
            raise CheckpointError(
                f"{source}: branches {first} and {branch} differ in their type_map; freeze and load one alone."
            )
    return configs[first]


def model_config(params: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from the ``model`` section of one branch.

    Raises:
        CheckpointError: a kind of model or an option that lamella does not run.
    """
    descriptor, fitting = dict(params["descriptor"]), dict(params.get("fitting_net", {}))
    if descriptor.get("type") != "dpa3":
        raise CheckpointError(f"{source}: descriptor {descriptor.get('type')!r} is not one lamella runs; it runs dpa3.")
    if fitting.get("type", "ener") != "ener":
        raise CheckpointError(f"{source}: fitting {fitting.get('type')!r} is not one lamella runs; it runs ener.")
    _refuse_rest(params, _MODEL_IGNORED, _MODEL_REFUSED, f"{source}: model")
    repflow = {_ALIASES.get(key, key): value for key, value in dict(descriptor.pop("repflow")).items()}
    fields: dict[str, Any] = {}
    for key, (name, default) in _REPFLOW.items():
        fields[name] = repflow.pop(key) if default is None else repflow.pop(key, default)
    fields["edge_init"] = "distance" if repflow.pop("edge_init_use_dist", False) else "switched_inverse"
    fields["switch"] = "exponential" if repflow.pop("use_exp_switch", False) else "polynomial"
    fields["angle_compression_kind"] = "split" if repflow.pop("a_compress_use_split", False) else "linear"
    fields["activation"] = descriptor.pop("activation_function", "silu")
    fields["concat_embedding"] = descriptor.pop("concat_output_tebd", False)
    fields["embedding_bias"] = descriptor.pop("use_tebd_bias", False)
    head = {
        "hidden": tuple(fitting.pop("neuron", (120, 120, 120))),
        "activation": fitting.pop("activation_function", "tanh"),
        "timestep": fitting.pop("resnet_dt", True),
        "task_dim": fitting.pop("dim_case_embd", 0),
    }
    _refuse_rest(repflow, _REPFLOW_IGNORED, _REPFLOW_REFUSED, f"{source}: descriptor.repflow")
    _refuse_rest(descriptor, _DESCRIPTOR_IGNORED, _DESCRIPTOR_REFUSED, f"{source}: descriptor")
    _refuse_rest(fitting, _FITTING_IGNORED, _FITTING_REFUSED, f"{source}: fitting_net")
    try:
        return ModelConfig(backbone=DPA3Config(**fields), head=HeadConfig(**head))
    except ValueError as error:
        raise CheckpointError(f"{source}: configuration not understood: {error}") from None


_ALIASES = {"edge_use_dist": "edge_init_use_dist", "use_env_envelope": "use_exp_switch"}


def _refuse_rest(rest: Mapping[str, Any], ignored: set[str], neutral: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for key, value in rest.items():
        if key in ignored or value in neutral.get(key, ()):
            continue
        # reprlib: a hostile value may be nested without end
        raise CheckpointError(
            f"{where}.{key[:80]} = {reprlib.repr(value)} is not something lamella runs; use deepmd-kit for it."
        )


def _backbone_weights(state: Mapping[str, Any], branch: str, source: str) -> dict[str, Tensor]:
    """Our names for every descriptor tensor but the statistics."""
    prefix = f"model.{branch}.atomic_model.descriptor."
    table: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(prefix):
            continue
        parts = key.removeprefix(prefix).split(".")
        if parts[:2] == ["repflows", "layers"]:
            leaf = [_LEAF.get(part, part) for part in parts[4:]]
            table[".".join(["backbone.layers", parts[2], _LAYER[parts[3]], *leaf])] = value
        elif parts[:2] == ["repflows", "edge_embd"]:
            table[f"backbone.edge_init.{_LEAF[parts[2]]}"] = value
        elif parts[:2] == ["repflows", "angle_embd"]:
            table[f"backbone.angle_init.{_LEAF[parts[2]]}"] = value
        elif parts[0] == "type_embedding":
            table[f"backbone.embedding.{_LEAF[parts[-1]]}"] = value.reshape(-1) if parts[-1] == "bias" else value
        elif parts not in (["repflows", "mean"], ["repflows", "stddev"]):
            raise CheckpointError(f"{source}: tensor {key[:120]} is not one of a DPA-3 model that lamella runs.")
    return table


def _head_weights(state: Mapping[str, Any], branch: str, position: int) -> dict[str, Tensor]:
    prefix = f"model.{branch}.atomic_model.fitting_net.filter_layers.networks.0.layers."
    found = {tuple(key.removeprefix(prefix).split(".")): value for key, value in state.items() if key.startswith(prefix)}
    last = max(int(layer) for layer, _ in found)
    table = {}
    for (layer, leaf), value in found.items():
        name = "out" if int(layer) == last else f"hidden.{layer}"
        table[f"heads.{position}.net.{name}.{_LEAF[leaf]}"] = value
    return table


def _env_std(state: Mapping[str, Any], branch: str, source: str) -> Tensor:
    """(n_species, [radial, angular]); identical in every slot, so slot 0 tells all."""
    prefix = f"model.{branch}.atomic_model.descriptor.repflows"
    mean, std = state[f"{prefix}.mean"], state[f"{prefix}.stddev"]
    if mean.any():
        raise CheckpointError(f"{source}: repflows.mean is not zero, which no DPA-3 training writes; use deepmd-kit for it.")
    slots, directions = std[:, :1].expand_as(std), std[..., 1:2].expand_as(std[..., 1:])
    if not (torch.equal(std, slots) and torch.equal(std[..., 1:], directions)):
        raise CheckpointError(
            f"{source}: repflows.stddev differs between neighbour slots or directions; use deepmd-kit for it."
        )
    return std[:, 0, :2]


def _baseline(state: Mapping[str, Any], branch: str) -> Tensor:
    atomic = f"model.{branch}.atomic_model."
    return state[f"{atomic}out_bias"][0, :, 0].double() + state[f"{atomic}fitting_net.bias_atom_e"][:, 0].double()


def _check_shared(state: Mapping[str, Any], branches: list[str], part: str, source: str) -> None:
    """Every branch must hold the same weights in ``part``: one module is built."""
    first = f"model.{branches[0]}.atomic_model.{part}."
    for branch in branches[1:]:
        other = f"model.{branch}.atomic_model.{part}."
        for key, value in state.items():
            if key.startswith(first) and not torch.equal(value, state[other + key.removeprefix(first)]):
                raise CheckpointError(
                    f"{source}: branches {branches[0]} and {branch} do not share their {part}; load one alone."
                )
