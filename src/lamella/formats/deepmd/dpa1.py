"""DPA-1 between deepmd-kit's configuration and tensors (``dpa1``, ``se_atten``, ``se_atten_v2``) and ours."""

from __future__ import annotations

from typing import Any, Final

from lamella.errors import CheckpointError
from lamella.formats.deepmd.translator import (
    OFF,
    PAIRS,
    REQUIRED,
    Block,
    Codec,
    Option,
    Place,
    Table,
    Translator,
    built,
    dense_names,
    network_names,
    read_options,
    type_embedding_names,
    write_options,
)
from lamella.models.dpa1 import DPA1Config

__all__ = ["DPA1_TRANSLATOR"]

_NORM_EPS: Final = 1e-5
"""What deepmd-kit takes for ``ln_eps: null``."""

_SEL: Final = Codec(lambda value, place: sum(value) if isinstance(value, list | tuple) else value, lambda sel, _: sel)
"""One number, or several that only their sum is used of."""

_EPS: Final = Codec(lambda value, place: _NORM_EPS if value is None else value, lambda eps, _: eps)

_LMAX: Final = Codec(lambda value, place: 1 if value is None else value, lambda degree, _: degree)

_DESCRIPTOR: Final = Table(
    options=(
        Option("rcut", "cutoff", REQUIRED, json=6.0),
        Option("rcut_smth", "switch_start", REQUIRED, json=0.5),
        Option("sel", "sel", REQUIRED, json="auto", codec=_SEL),
        Option("neuron", "neurons", (25, 50, 100), json=(10, 20, 40)),
        Option("axis_neuron", "axis", 16, json=4, aliases=("n_axis_neuron",)),
        Option("lmax", "max_degree", 1, codec=_LMAX),
        Option("tebd_dim", "embedding_dim", 8),
        Option("tebd_input_mode", "embedding_input", "concat"),
        Option("type_one_side", "one_sided", False),
        Option("resnet_dt", "timestep", False),
        Option("activation_function", "activation", "tanh"),
        Option("attn_layer", "attention_layers", 2),
        Option("attn", "attention_dim", 128),
        Option("attn_dotr", "attention_dot", True),
        Option("normalize", "normalize", True),
        Option("temperature", "temperature", None),
        Option("scaling_factor", "scaling_factor", 1.0),
        Option("smooth_type_embedding", "smooth", True, json=False, aliases=("smooth_type_embdding",)),
        Option("ln_eps", "norm_eps", None, codec=_EPS),
        Option("set_davg_zero", "zero_mean", True),
        Option("env_protection", "protection", 0.0),
        Option("exclude_types", "excluded_pairs", (), codec=PAIRS),
        Option("concat_output_tebd", "concat_embedding", True),
        Option("use_tebd_bias", "embedding_bias", False),
        Option("use_econf_tebd", "electron_embedding", False),
    ),
    ignored=frozenset({"type", "precision", "trainable", "trainable_ln", "seed", "ntypes", "type_map"}),
    neutral={"attn_mask": OFF, "spin": OFF},
)


def _read(section: dict[str, Any], place: Place) -> DPA1Config:
    if section.get("type") == "se_atten_v2":
        section = {"set_davg_zero": not place.json, **section, "tebd_input_mode": "strip", "smooth_type_embedding": True}
    stripped = section.pop("stripped_type_embedding", None)  # older spelling; deepmd-kit lets it win
    if stripped is not None:
        section["tebd_input_mode"] = "strip" if stripped else "concat"
    fields = read_options(_DESCRIPTOR, section, place)
    free = (fields["embedding_input"] == "strip" and fields["smooth"]) or len(place.elements) == 1
    if not fields["zero_mean"] and not free:
        if place.json:
            raise CheckpointError(
                f"{place.where}.set_davg_zero = false lets deepmd-kit's energies depend on the order of atoms, unless "
                "tebd_input_mode is strip and smooth_type_embedding true; set it to true."
            )
        fields["zero_mean"] = True  # the statistics themselves tell: a mean other than zero is refused (``ordered``)
    return built(DPA1Config, fields)


def _write(config: DPA1Config, elements: tuple[str, ...]) -> dict[str, Any]:
    section = {"type": "dpa1", **write_options(_DESCRIPTOR, config, elements)}
    if config.max_degree == 1:
        del section["lmax"]  # unknown to deepmd-kit before 3.2
    return section


def _names(config: DPA1Config, elements: tuple[str, ...]) -> dict[str, str]:
    names = type_embedding_names(config.embedding_bias)
    types = config.embedding_dim * (1 if config.one_sided else 2)
    stripped = config.embedding_input == "strip"
    nets = {"net": ("filter_layers", 1 if stripped else 1 + types)}
    if stripped:
        nets["type_net"] = ("filter_layers_strip", types)
    for ours, (theirs, n_in) in nets.items():
        theirs = f"se_atten.{theirs}.networks.0"
        names |= network_names(f"neighbors.{ours}.layers", theirs, n_in, config.neurons, config.timestep)
    if config.max_degree > 1:
        names["degree_gain"] = "se_atten.adam_degree_gain_raw"
    for k in range(config.attention_layers):
        ours, theirs = f"attention.{k}", f"se_atten.dpa1_attention.attention_layers.{k}"
        names |= dense_names(f"{ours}.in_proj", f"{theirs}.attention_layer.in_proj")
        names |= dense_names(f"{ours}.out_proj", f"{theirs}.attention_layer.out_proj")
        names |= dense_names(f"{ours}.norm", f"{theirs}.attn_layer_norm")
    return names


def _blocks(config: DPA1Config, elements: tuple[str, ...]) -> dict[str, Block]:
    return {"environment": Block("se_atten", config.sel, ordered=not config.spec.counts_empty)}


def _empty(config: DPA1Config, elements: tuple[str, ...]) -> tuple[str, ...]:
    return ("se_atten.type_embd_data", "se_atten.compress_info.0", "se_atten.compress_data.0")


DPA1_TRANSLATOR: Final = Translator(("dpa1", "se_atten", "se_atten_v2"), _read, _write, _names, _blocks, _empty)
