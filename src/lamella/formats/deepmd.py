"""deepmd-kit's PyTorch training checkpoints (.pt): weights and configuration of DPA-3 energy models, single- and multi-task.

A checkpoint is opened with ``torch.load(weights_only=True)``: no pickled code runs. Every key of its configuration is either
translated or refused by name, every tensor is used or known to carry nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamella.errors import CheckpointError
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential

__all__ = ["potential_from_state", "read_checkpoint"]

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

_REPFLOW_REFUSED: dict[str, Any] = {"sequential_update": False}
_DESCRIPTOR_IGNORED = {"type", "precision", "trainable", "seed", "use_loc_mapping", "ntypes", "type_map"}
_DESCRIPTOR_REFUSED: dict[str, Any] = {
    "exclude_types": [],
    "env_protection": 0.0,
    "use_econf_tebd": False,
    "add_chg_spin_ebd": False,
    "default_chg_spin": None,
}
_FITTING_IGNORED = {"type", "precision", "trainable", "seed", "rcond", "atom_ener", "mixed_types", "dim_descrpt", "embedding_width"}
_FITTING_IGNORED |= {"ntypes", "type_map", "var_name", "layer_name", "use_aparam_as_mask", "spin"}
_FITTING_REFUSED: dict[str, Any] = {"numb_fparam": 0, "numb_aparam": 0, "default_fparam": None}

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


def read_checkpoint(path: Path) -> Potential:
    """The model of a ``.pt`` training checkpoint, in the checkpoint's dtype.

    Raises:
        CheckpointError: not such a checkpoint, a kind of model that lamella does not run, or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch checkpoint ({_first_line(error)}); the file may be cut short or hold "
            "code, which lamella never runs. Copy it again, or export the weights anew."
        ) from None
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or "_extra_state" not in state:
        raise CheckpointError(f"{path}: no deepmd-kit training checkpoint (no model._extra_state in it).")
    try:
        return potential_from_state(state, str(path))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: damaged or unknown layout of a deepmd-kit checkpoint ({_first_line(error)}).") from None


def potential_from_state(state: Mapping[str, Any], source: str) -> Potential:
    """The model of a checkpoint's ``model`` section."""
    params = state["_extra_state"]["model_params"]
    branches: dict[str, Any] = dict(params["model_dict"]) if "model_dict" in params else {"Default": params}
    tasks = {branch: ("default" if "model_dict" not in params else branch) for branch in branches}
    first = next(iter(branches))
    configs = {branch: model_config(branches[branch], source) for branch in branches}
    if len({config.backbone for config in configs.values()}) > 1:
        raise CheckpointError(f"{source}: its branches have different descriptors; lamella shares one backbone among tasks.")
    _check_shared(state, list(branches), source)
    potential = Potential(configs[first], branches[first]["type_map"], tuple(tasks.values()), {"origin": source})
    dtype = state[f"model.{first}.atomic_model.descriptor.repflows.edge_embd.matrix"].dtype
    potential.cast(dtype)
    weights = dict(_backbone_weights(state, first))
    heads = [first] if configs[first].head.task_dim else list(branches)
    for position, branch in enumerate(heads):
        weights |= _head_weights(state, branch, position)
    weights["backbone.env_std"] = _env_std(state, first, source)
    weights["baseline"] = torch.stack([_baseline(state, branch) for branch in branches])
    weights["task_code"] = torch.stack(
        [state.get(f"model.{branch}.atomic_model.fitting_net.case_embd", torch.zeros(0, dtype=dtype)) for branch in branches]
    )
    try:
        potential.load_state_dict({name: value.clone() for name, value in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{source}: weights do not fit the configuration stored with them: {error}") from None
    return potential


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
    for key in ("pair_exclude_types", "atom_exclude_types", "use_srtab", "spin", "modifier"):
        if params.get(key):
            raise CheckpointError(f"{source}: model option {key!r} is not one lamella runs.")
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


def _refuse_rest(rest: Mapping[str, Any], ignored: set[str], neutral: Mapping[str, Any], where: str) -> None:
    for key, value in rest.items():
        if key in ignored or (key in neutral and value == neutral[key]):
            continue
        raise CheckpointError(f"{where}.{key} = {value!r} is not supported by lamella.")


def _backbone_weights(state: Mapping[str, Any], branch: str) -> dict[str, Tensor]:
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
            raise CheckpointError(f"tensor {key} is not one of a DPA-3 model that lamella runs.")
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
        raise CheckpointError(f"{source}: non-zero environment mean, with which DPA-3 energies depend on the order of atoms.")
    if not (torch.equal(std, std[:, :1].expand_as(std)) and torch.equal(std[..., 1:], std[..., 1:2].expand_as(std[..., 1:]))):
        raise CheckpointError(f"{source}: environment scales differ between neighbour slots or directions; not supported.")
    return std[:, 0, :2]


def _baseline(state: Mapping[str, Any], branch: str) -> Tensor:
    atomic = f"model.{branch}.atomic_model."
    return state[f"{atomic}out_bias"][0, :, 0].double() + state[f"{atomic}fitting_net.bias_atom_e"][:, 0].double()


def _check_shared(state: Mapping[str, Any], branches: list[str], source: str) -> None:
    """Every branch must hold the same descriptor: one backbone is built."""
    first = f"model.{branches[0]}.atomic_model.descriptor."
    for branch in branches[1:]:
        other = f"model.{branch}.atomic_model.descriptor."
        for key, value in state.items():
            if key.startswith(first) and not torch.equal(value, state[other + key.removeprefix(first)]):
                raise CheckpointError(f"{source}: branches {branches[0]} and {branch} do not share their descriptor.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
