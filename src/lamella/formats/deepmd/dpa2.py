"""DPA-2 between deepmd-kit's configuration and tensors and ours."""

from __future__ import annotations

from typing import Any, Final

from lamella.errors import CheckpointError
from lamella.formats.deepmd.translator import (
    OFF,
    PAIRS,
    Block,
    Codec,
    Option,
    Place,
    Table,
    Translator,
    built,
    choice,
    dense_names,
    network_names,
    read_options,
    type_embedding_names,
    write_options,
)
from lamella.models.dpa2 import DPA2Config, RepformerConfig

__all__ = ["DPA2_TRANSLATOR"]

_NORM_EPS: Final = 1e-5
"""What deepmd-kit takes for ``ln_eps: null``."""

_EPS: Final = Codec(lambda value, place: _NORM_EPS if value is None else value, lambda eps, _: eps)

_REPINIT: Final = Table(
    options=(
        Option("rcut", "cutoff"),
        Option("rcut_smth", "switch_start"),
        Option("nsel", "sel"),
        Option("neuron", "neurons", (25, 50, 100)),
        Option("axis_neuron", "axis", 16),
        Option("tebd_dim", "embedding_dim", 8),
        Option("tebd_input_mode", "embedding_input", "concat"),
        Option("type_one_side", "one_sided", False),
        Option("activation_function", "activation", "tanh"),
        Option("resnet_dt", "timestep", False),
        Option("set_davg_zero", "zero_mean", True),
    ),
)

_THREE_BODY: Final = Table(
    options=(
        Option("three_body_rcut", "cutoff", 4.0),
        Option("three_body_rcut_smth", "switch_start", 0.5),
        Option("three_body_sel", "sel", 40),
        Option("three_body_neuron", "neurons", (2, 4, 8)),
    ),
)

_REPFORMER: Final = Table(
    options=(
        Option("rcut", "cutoff"),
        Option("rcut_smth", "switch_start"),
        Option("nsel", "sel"),
        Option("nlayers", "layers", 3),
        Option("g1_dim", "node_dim", 128),
        Option("g2_dim", "pair_dim", 16),
        Option("axis_neuron", "axis", 4),
        Option("update_g1_has_conv", "conv", True),
        Option("update_g1_has_drrd", "sym_f", True),
        Option("update_g1_has_grrg", "sym_g", True),
        Option("update_g1_has_attn", "local_attention", True),
        Option("attn1_hidden", "local_attention_dim", 64),
        Option("attn1_nhead", "local_attention_heads", 4),
        Option("update_g2_has_g1g1", "prod_f", True),
        Option("update_g2_has_attn", "attention", True),
        Option("attn2_has_gate", "gate", False),
        Option("attn2_hidden", "attention_dim", 16),
        Option("attn2_nhead", "attention_heads", 4),
        Option("update_h2", "update_vectors", False),
        Option("direct_dist", "direct_distance", False),
        Option("use_sqrt_nnei", "sqrt_norm", True),
        Option("g1_out_conv", "separate_conv", True),
        Option("g1_out_mlp", "separate_self", True),
        Option("activation_function", "activation", "tanh"),
        Option("update_style", "update_style", "res_avg"),
        Option("update_residual", "update_step", 0.001),
        Option("update_residual_init", "update_init", "norm", codec=choice({"norm": "normal", "const": "constant"})),
        Option("ln_eps", "norm_eps", 1e-5, codec=_EPS),
        Option("set_davg_zero", "zero_mean", True),
    ),
    ignored=frozenset({"trainable_ln", "bn_momentum"}),
    neutral={"do_bn_mode": ("no", *OFF)},
)

_DESCRIPTOR: Final = Table(
    options=(
        Option("smooth", "smooth", True),
        Option("add_tebd_to_repinit_out", "add_embedding", False, aliases=("repformer_add_type_ebd_to_seq",)),
        Option("concat_output_tebd", "concat_embedding", True),
        Option("use_tebd_bias", "embedding_bias", False),
        Option("use_econf_tebd", "electron_embedding", False),
        Option("env_protection", "protection", 0.0),
        Option("exclude_types", "excluded_pairs", (), codec=PAIRS),
    ),
    ignored=frozenset({"type", "precision", "trainable", "seed", "ntypes", "type_map"}),
)

_FLAT: Final = {
    "tebd_dim": ("repinit", "tebd_dim"),
    "repinit_activation": ("repinit", "activation_function"),
    "repformer_activation": ("repformer", "activation_function"),
    "repformer_axis_dim": ("repformer", "axis_neuron"),
}
"""Names of before May 2024, when options were not nested; others keep their name behind ``repinit_`` and ``repformer_``."""

_ATOMS: Final = {"local.query": "loc_attn.mapq", "local.key_value": "loc_attn.mapkv"}


def _nested(section: dict[str, Any]) -> dict[str, Any]:
    """A flat section as a nested one, with what models of that time were made of."""
    parts: dict[str, dict[str, Any]] = {
        "repinit": {},
        "repformer": {"use_sqrt_nnei": False, "g1_out_conv": False, "g1_out_mlp": False},
    }
    rest: dict[str, Any] = {"use_tebd_bias": True}
    for key, value in section.items():
        part, _, name = key.partition("_")
        if key in _FLAT:
            part, name = _FLAT[key]
        elif part not in parts or key == "repformer_add_type_ebd_to_seq":
            if key not in ("rcut", "rcut_smth", "sel"):  # repinit's, once more
                rest[key] = value
            continue
        parts[part][name] = value
    return rest | parts


def _read(section: dict[str, Any], place: Place) -> DPA2Config:
    if "repinit" not in section and "repinit_rcut" in section:
        section = _nested(section)
    for part in ("repinit", "repformer"):
        if not isinstance(section.get(part), dict):
            raise CheckpointError(f"{place.where}: misses the section {part}; give the whole configuration.")
    repinit, repformer = dict(section.pop("repinit")), dict(section.pop("repformer"))
    within = place.within("repinit")
    wanted = repinit.pop("use_three_body", False)
    keys = [option.key for option in _THREE_BODY.options if option.key in repinit]
    three_body = read_options(_THREE_BODY, {key: repinit.pop(key) for key in keys}, within)
    fields = read_options(_DESCRIPTOR, section, place)
    inner = read_options(_REPINIT, repinit, within)
    free = (inner["embedding_input"] == "strip" and fields["smooth"]) or len(place.elements) == 1
    if not inner["zero_mean"] and not free:
        if place.json:
            raise CheckpointError(
                f"{within.where}.set_davg_zero = false lets deepmd-kit's energies depend on the order of atoms, unless "
                "tebd_input_mode is strip and smooth true; set it to true."
            )
        inner["zero_mean"] = True  # the statistics themselves tell: a mean other than zero is refused (``ordered``)
    parts = {"repinit": inner, "three_body": three_body if wanted else None}
    parts["repformer"] = read_options(_REPFORMER, repformer, place.within("repformer"))
    return built(DPA2Config, {**parts, **fields})


def _check_writable(config: DPA2Config) -> None:
    """Refuse what deepmd-kit, which cuts its shorter neighbour lists out of the longest, does not build."""
    outer, inner = config.repinit, config.repformer
    lists = [(part.cutoff, part.sel) for part in (outer, inner, config.three_body) if part is not None]
    slots = [sel for _, sel in sorted(lists)]
    if outer.cutoff <= inner.cutoff or outer.sel <= inner.sel or slots != sorted(slots):
        raise CheckpointError(
            "model.backbone: deepmd-kit needs repinit's cutoff and sel above repformer's, and no list of neighbours with a "
            "longer cutoff and a smaller sel than another; this one cannot be written for it: train one with other numbers."
        )


def _write(config: DPA2Config, elements: tuple[str, ...]) -> dict[str, Any]:
    _check_writable(config)
    repinit = write_options(_REPINIT, config.repinit, elements)
    repinit["use_three_body"] = config.three_body is not None
    if config.three_body is not None:
        repinit |= write_options(_THREE_BODY, config.three_body, elements)
    repformer = write_options(_REPFORMER, config.repformer, elements)
    rest = write_options(_DESCRIPTOR, config, elements)
    return {"type": "dpa2", "repinit": repinit, "repformer": repformer, **rest}


def _names(config: DPA2Config, elements: tuple[str, ...]) -> dict[str, str]:
    part = config.repinit
    names = type_embedding_names(config.embedding_bias)
    nets = {"repinit.neighbors": ("repinit", part.neurons, part.one_sided)}
    if config.three_body is not None:
        nets["three_body.pairs"] = ("repinit_three_body", config.three_body.neurons, False)
    for ours, (theirs, neurons, one_sided) in nets.items():
        types = part.embedding_dim * (1 if one_sided else 2)
        stripped = part.embedding_input == "strip"
        n_in = 1 if stripped else 1 + types
        names |= network_names(f"{ours}.net.layers", f"{theirs}.filter_layers.networks.0", n_in, neurons, part.timestep)
        if stripped:
            theirs = f"{theirs}.filter_layers_strip.networks.0"
            names |= network_names(f"{ours}.type_net.layers", theirs, types, neurons, part.timestep)
    if config.repinit_dim != config.repformer.node_dim:
        names |= dense_names("project", "g1_shape_tranform", bias=False)
    if config.add_embedding:
        names |= dense_names("project_embedding", "tebd_transform", bias=False)
    names |= dense_names("repformer.pair_init", "repformers.g2_embd")
    for layer in range(config.repformer.layers):
        ours, theirs = f"repformer.layers.{layer}", f"repformers.layers.{layer}"
        names |= _atom_names(config.repformer, f"{ours}.atoms", theirs)
        if layer < config.repformer.layers - 1:
            names |= _pair_names(config.repformer, f"{ours}.pairs", theirs)
    return names


def _atom_names(config: RepformerConfig, ours: str, theirs: str) -> dict[str, str]:
    names = dense_names(f"{ours}.mix", f"{theirs}.linear1")
    if config.separate_self:
        names |= dense_names(f"{ours}.own", f"{theirs}.g1_self_mlp")
    if config.conv:
        names |= dense_names(f"{ours}.conv", f"{theirs}.proj_g1g2", bias=False)
    if config.local_attention:
        for name, key in _ATOMS.items():
            names |= dense_names(f"{ours}.{name}", f"{theirs}.{key}", bias=False)
        names |= dense_names(f"{ours}.local.heads", f"{theirs}.loc_attn.head_map")
    count = 1 + config.separate_self + (config.conv and config.separate_conv) + config.local_attention
    return names | _step_names(config, f"{ours}.steps", f"{theirs}.g1_residual", count)


def _pair_names(config: RepformerConfig, ours: str, theirs: str) -> dict[str, str]:
    names = dense_names(f"{ours}.own", f"{theirs}.linear2")
    if config.prod_f:
        names |= dense_names(f"{ours}.product", f"{theirs}.proj_g1g1g2", bias=False)
    if config.attention or config.update_vectors:
        names |= dense_names(f"{ours}.map.query_key", f"{theirs}.attn2g_map.mapqk", bias=False)
    if config.attention:
        names |= dense_names(f"{ours}.value.value", f"{theirs}.attn2_mh_apply.mapv", bias=False)
        names |= dense_names(f"{ours}.value.heads", f"{theirs}.attn2_mh_apply.head_map")
        names |= dense_names(f"{ours}.norm", f"{theirs}.attn2_lm")
    if config.update_vectors:
        names |= dense_names(f"{ours}.vector", f"{theirs}.attn2_ev_apply.head_map", bias=False)
        names |= _step_names(config, f"{ours}.vector_steps", f"{theirs}.h2_residual", 1)
    count = 1 + config.prod_f + config.attention
    return names | _step_names(config, f"{ours}.steps", f"{theirs}.g2_residual", count)


def _step_names(config: RepformerConfig, ours: str, theirs: str, count: int) -> dict[str, str]:
    """Steps belong to updates by position, in both."""
    if config.update_style != "res_residual":
        return {}
    return {f"{ours}.{k}": f"{theirs}.{k}" for k in range(count)}


def _blocks(config: DPA2Config, elements: tuple[str, ...]) -> dict[str, Block]:
    part = config.repinit
    ordered = not config.spec(part.neurons, part.one_sided).counts_empty
    blocks = {"repinit.environment": Block("repinit", part.sel, ordered)}
    if config.three_body is not None:  # reads directions alone, whose mean is zero
        blocks["three_body.environment"] = Block("repinit_three_body", config.three_body.sel)
    blocks["repformer.environment"] = Block("repformers", config.repformer.sel)
    return blocks


def _empty(config: DPA2Config, elements: tuple[str, ...]) -> tuple[str, ...]:
    prefixes = ["repinit"] if config.three_body is None else ["repinit", "repinit_three_body"]
    leaves = ("type_embd_data", "compress_info.0", "compress_data.0")
    return tuple(f"{prefix}.{leaf}" for prefix in prefixes for leaf in leaves)


DPA2_TRANSLATOR: Final = Translator(("dpa2",), _read, _write, _names, _blocks, _empty)
