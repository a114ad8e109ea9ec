"""DPA-3 between deepmd-kit's configuration and tensors and ours."""

from __future__ import annotations

from typing import Any, Final

from lamella.errors import CheckpointError
from lamella.formats.deepmd.translator import (
    PAIRS,
    Block,
    Option,
    Place,
    Table,
    Translator,
    built,
    choice,
    dense_names,
    read_options,
    type_embedding_names,
    write_options,
)
from lamella.models.dpa3 import DPA3Config

__all__ = ["DPA3_TRANSLATOR"]

_REPFLOW: Final = Table(
    options=(
        Option("n_dim", "node_dim", 128),
        Option("e_dim", "edge_dim", 64),
        Option("a_dim", "angle_dim", 64),
        Option("nlayers", "layers", 6),
        Option("e_rcut", "cutoff"),
        Option("e_rcut_smth", "switch_start"),
        Option("e_sel", "edge_sel"),
        Option("a_rcut", "angle_cutoff"),
        Option("a_rcut_smth", "angle_switch_start"),
        Option("a_sel", "angle_sel"),
        Option("a_compress_rate", "angle_compression", 0),
        Option("a_compress_e_rate", "angle_compression_edge", 1),
        Option("a_compress_use_split", "angle_compression_kind", False, codec=choice({False: "linear", True: "split"})),
        Option("n_multi_edge_message", "messages", 1),
        Option("axis_neuron", "axis", 4),
        Option("fix_stat_std", "env_std", 0.3),
        Option("update_angle", "update_angle", True),
        Option("update_style", "update_style", "res_residual"),
        Option("update_residual", "update_step", 0.1),
        Option("smooth_edge_update", "smooth_edge_update", False),
        Option("use_dynamic_sel", "dynamic_sel", False),
        Option("sel_reduce_factor", "sel_reduction", 10.0),
        Option(
            "edge_init_use_dist",
            "edge_init",
            False,
            codec=choice({False: "switched_inverse", True: "distance"}),
            aliases=("edge_use_dist",),
        ),
        Option(
            "use_exp_switch",
            "switch",
            False,
            codec=choice({False: "polynomial", True: "exponential"}),
            aliases=("use_env_envelope",),
        ),
        Option("sequential_update", "sequential", False),
    ),
    ignored=frozenset({"update_residual_init", "optim_update", "skip_stat"}),
)

_DESCRIPTOR: Final = Table(
    options=(
        Option("activation_function", "activation", "silu"),
        Option("concat_output_tebd", "concat_embedding", False),
        Option("use_tebd_bias", "embedding_bias", False),
        Option("use_econf_tebd", "electron_embedding", False),
        Option("env_protection", "protection", 0.0),
        Option("exclude_types", "excluded_pairs", (), codec=PAIRS),
        Option("add_chg_spin_ebd", "charge_spin", False),
        Option("default_chg_spin", "default_charge_spin", None),
    ),
    ignored=frozenset({"type", "precision", "trainable", "seed", "use_loc_mapping", "ntypes", "type_map"}),
)

_DENSE: Final = {
    "node_self": "node_self_mlp",
    "node_sym": "node_sym_linear",
    "node_edge": "node_edge_linear",
    "edge_self": "edge_self_linear",
}
_ANGLE_DENSE: Final = {
    "edge_angle_1": "edge_angle_linear1",
    "edge_angle_2": "edge_angle_linear2",
    "angle_self": "angle_self_linear",
}
_SHRINK: Final = {"shrink_node": "a_compress_n_linear", "shrink_edge": "a_compress_e_linear"}


def _read(section: dict[str, Any], place: Place) -> DPA3Config:
    repflow = dict(section.pop("repflow"))
    fields = read_options(_REPFLOW, repflow, place.within("repflow"))
    return built(DPA3Config, {**fields, **read_options(_DESCRIPTOR, section, place)})


def _write(config: DPA3Config, elements: tuple[str, ...]) -> dict[str, Any]:
    if config.angle_sel > config.edge_sel:
        raise CheckpointError(
            f"model.backbone: deepmd-kit takes no angle_sel ({config.angle_sel}) above edge_sel ({config.edge_sel}), so it "
            "cannot have the model; train it with another angle_sel."
        )
    repflow = write_options(_REPFLOW, config, elements)
    return {"type": "dpa3", "repflow": repflow, **write_options(_DESCRIPTOR, config, elements)}


def _names(config: DPA3Config, elements: tuple[str, ...]) -> dict[str, str]:
    names = type_embedding_names(config.embedding_bias)
    names |= dense_names("edge_init", "repflows.edge_embd")
    names |= dense_names("angle_init", "repflows.angle_embd", bias=False)
    if config.charge_spin:
        names["charge_spin.charge"] = "chg_embedding.embedding.embedding_net.layers.0.matrix"
        names["charge_spin.spin"] = "spin_embedding.embedding.embedding_net.layers.0.matrix"
        names |= dense_names("charge_spin.mix", "mix_cs_mlp")
    for layer in range(config.layers):
        names |= _layer_names(config, f"layers.{layer}", f"repflows.layers.{layer}")
    return names


def _layer_names(config: DPA3Config, ours: str, theirs: str) -> dict[str, str]:
    dense = _DENSE | (_ANGLE_DENSE if config.update_angle else {})
    names: dict[str, str] = {}
    for name, key in dense.items():
        names |= dense_names(f"{ours}.{name}", f"{theirs}.{key}")
    if config.update_angle and config.angle_compression and config.angle_compression_kind == "linear":
        for name, key in _SHRINK.items():
            names |= dense_names(f"{ours}.{name}", f"{theirs}.{key}", bias=False)
    if config.update_style == "res_residual":
        steps = {"node": 2 + config.messages, "edge": 2 if config.update_angle else 1, "angle": int(config.update_angle)}
        for kind, count in steps.items():
            for k in range(count):
                names[f"{ours}.step_{kind}.{k}"] = f"{theirs}.{kind[0]}_residual.{k}"
    return names


def _blocks(config: DPA3Config, elements: tuple[str, ...]) -> dict[str, Block]:
    return {"environment": Block("repflows", config.edge_sel)}


DPA3_TRANSLATOR: Final = Translator(("dpa3",), _read, _write, _names, _blocks)
