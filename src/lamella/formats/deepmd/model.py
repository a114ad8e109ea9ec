"""The ``model`` section of deepmd-kit's configuration, of one branch, and our :class:`ModelConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ase.data import chemical_symbols
from pydantic import ValidationError

from lamella.errors import CheckpointError, RecipeError, shown
from lamella.formats.deepmd.architectures import TRANSLATORS
from lamella.formats.deepmd.translator import (
    OFF,
    PAIRS,
    PLAIN,
    Codec,
    Option,
    Place,
    Table,
    Translator,
    built,
    read_options,
    refuse,
    symbol_of,
    write_options,
)
from lamella.models.backbone import BackboneConfig
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig

__all__ = ["PRECISIONS", "elements_of", "model_config", "model_params", "translator_of"]

PRECISIONS: Final = ("float64", "float32")
"""Precisions that we write."""

_OTHER_KINDS: Final = {
    "se_e2_r": "the radial descriptor se_e2_r",
    "se_r": "the radial descriptor se_e2_r",
    "se_e3": "the three-body descriptor se_e3",
    "se_at": "the three-body descriptor se_e3",
    "se_a_3be": "the three-body descriptor se_e3",
    "se_t": "the three-body descriptor se_e3",
    "se_e3_tebd": "the three-body descriptor se_e3_tebd",
    "hybrid": "a hybrid of descriptors",
    "se_a_mask": "the masked descriptor se_a_mask",
    "dpa4": "DPA-4",
    "DPA4": "DPA-4",
    "sezm": "DPA-4 (SeZM)",
    "SeZM": "DPA-4 (SeZM)",
}


def _read_types(value: Any, place: Place) -> tuple[str, ...]:
    return () if value in OFF else tuple(symbol_of(index, place) for index in value)


def _write_types(symbols: tuple[str, ...], elements: tuple[str, ...]) -> list[int]:
    return [elements.index(symbol) for symbol in symbols]


_TYPES: Final = Codec(_read_types, _write_types)
"""Type indices of theirs, symbols of ours."""

_MODEL: Final = Table(
    options=(
        Option("pair_exclude_types", "excluded_pairs", (), codec=PAIRS),
        Option("atom_exclude_types", "excluded_atoms", (), codec=_TYPES),
    ),
    ignored=frozenset(
        [
            *("type_map", "descriptor", "fitting_net", "data_stat_nbatch", "data_stat_protect", "data_bias_nsample", "info"),
            *("preset_out_bias", "srtab_add_bias", "model_branch_alias", "finetune_head", "hessian_mode", "new_type_map"),
            *("rcond", "bridging_r_inner", "bridging_r_outer", "smin_alpha", "sw_rmin", "sw_rmax", "seed"),
        ]
    ),
    neutral={
        "type": ("standard",),
        "use_srtab": OFF,
        "bridging_method": ("None", "none", None),
        "type_embedding": OFF,
        "modifier": OFF,
        "compress": OFF,
        "spin": OFF,
        "lora": OFF,
    },
)

_FITTING: Final = Table(
    options=(
        Option("neuron", "hidden", (128, 128, 128), json=(120, 120, 120), aliases=("n_neuron",)),
        Option("activation_function", "activation", "tanh"),
        Option("resnet_dt", "timestep", True),
        Option("dim_case_embd", "task_dim", 0),
        Option("numb_fparam", "frame_params", 0),
        Option("default_fparam", "default_frame_params", None, codec=Codec(lambda v, place: v or None, PLAIN.write)),
    ),
    ignored=frozenset(
        [
            *("type", "precision", "trainable", "seed", "rcond", "mixed_types", "dim_descrpt", "embedding_width"),
            *("ntypes", "type_map", "var_name"),
        ]
    ),
    neutral={
        "numb_aparam": (0,),
        "use_aparam_as_mask": OFF,
        "layer_name": OFF,
        "case_film_embd": OFF,
        "spin": OFF,
        "exclude_types": OFF,
        "tot_ener_zero": OFF,
    },
)


def translator_of(config: BackboneConfig) -> Translator:
    """The translator of one of our backbones."""
    return TRANSLATORS[config.kind]


def elements_of(params: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The ``type_map``: chemical symbols, each once.

    Raises:
        CheckpointError: it is missing or holds something else.
    """
    names = params.get("type_map")
    if not isinstance(names, list) or not 0 < len(names) < len(chemical_symbols):
        raise CheckpointError(f"{where}: no type_map of 1 to {len(chemical_symbols) - 1} elements; copy the file again.")
    for name in names:
        if name not in chemical_symbols[1:]:
            raise CheckpointError(
                f"{where}.type_map: {str(name)[:40]!r} is no chemical symbol, and lamella tells atoms apart by their "
                "element alone; use deepmd-kit for it."
            )
    if len(set(names)) < len(names):
        raise CheckpointError(f"{where}.type_map: an element occurs twice; use deepmd-kit for it.")
    return tuple(names)


def model_config(params: Mapping[str, Any], source: str, json: bool = False) -> ModelConfig:
    """Our configuration from the ``model`` section of one branch.

    Args:
        params: the section; it stays as it is.
        source: names the file in messages.
        json: whether it comes from an ``input.json``, whose defaults differ from those of a checkpoint.

    Raises:
        CheckpointError: a kind of model or an option that lamella does not run.
    """
    place = Place(f"{source}: model", elements_of(params, f"{source}: model"), json)
    for key in ("descriptor", "fitting_net"):
        if not isinstance(params.get(key, {}), dict):
            raise CheckpointError(f"{place.where}.{key} is no section of options; copy the file again.")
    descriptor, fitting = dict(params.get("descriptor", {})), dict(params.get("fitting_net", {}))
    translator = _translator(params, descriptor, fitting, source)
    fields = read_options(_MODEL, params, place)
    try:
        backbone = translator.read(descriptor, place.within("descriptor"))
        head = _head(fitting, backbone, place.within("fitting_net"))
        return built(ModelConfig, {"backbone": backbone, "head": head, **fields})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        said = [".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")]
        why = ": ".join(shown(part, 300) for part in said if part)
        raise CheckpointError(f"{source}: configuration not understood: {why}; use deepmd-kit for it.") from None
    except RecipeError as error:
        raise CheckpointError(f"{source}: configuration not understood: {shown(str(error), 300)}") from None


def _translator(params: Mapping[str, Any], descriptor: dict[str, Any], fitting: dict[str, Any], source: str) -> Translator:
    """The translator of this kind of model, refused by name where there is none."""
    known = {kind: translator for translator in TRANSLATORS.values() for kind in translator.kinds}
    kind, purpose, whole = descriptor.get("type"), fitting.get("type", "ener"), params.get("type", "standard")
    if whole != "standard":
        raise CheckpointError(
            f"{source}: model.type {str(whole)[:40]!r} is not something lamella runs; use deepmd-kit for it."
        )
    if purpose != "ener":
        raise CheckpointError(f"{source}: fitting {str(purpose)[:40]!r} is not one lamella runs; it runs ener (energies).")
    if not isinstance(kind, str) or kind not in known:
        named = _OTHER_KINDS.get(kind, "another architecture") if isinstance(kind, str) else "nothing"
        text = repr(kind[:40] if isinstance(kind, str) else kind)[:60]
        raise CheckpointError(
            f"{source}: descriptor {text} is not one lamella runs ({named}); it runs {', '.join(sorted(known))}."
        )
    return known[kind]


def _head(fitting: dict[str, Any], backbone: BackboneConfig, place: Place) -> HeadConfig:
    energies = fitting.pop("atom_ener", None)
    fields = read_options(_FITTING, fitting, place)
    if not fields["frame_params"]:
        fields["default_frame_params"] = None  # deepmd-kit keeps it, and reads it nowhere
    return built(HeadConfig, {**fields, "subtract_vacuum": _vacuum(energies, backbone.element_heads, place)})


def _vacuum(energies: Any, per_element: bool, place: Place) -> tuple[str, ...]:
    """Elements whose vacuum energy is subtracted: all that are listed; for one network for all elements, all or none."""
    if energies in OFF or all(energy is None for energy in energies):
        return ()
    if not per_element:
        return place.elements
    if len(energies) > len(place.elements):
        refuse("atom_ener", energies, place)
    kept = {symbol for symbol, energy in zip(place.elements, energies, strict=False) if energy is None}
    return tuple(symbol for symbol in place.elements if symbol not in kept)


def model_params(config: ModelConfig, elements: tuple[str, ...], precision: tuple[str, str]) -> dict[str, Any]:
    """The ``model`` section of one branch.

    Args:
        config: hyper-parameters.
        elements: chemical symbols.
        precision: of descriptor and fitting net.

    Raises:
        CheckpointError: deepmd-kit has no such model.
    """
    backbone, head = config.backbone, config.head
    descriptor = {**translator_of(backbone).write(backbone, elements), "precision": precision[0]}
    fitting = {"type": "ener", **write_options(_FITTING, head, elements), "precision": precision[1]}
    if head.subtract_vacuum:
        if not backbone.element_heads and set(head.subtract_vacuum) != set(elements):
            raise CheckpointError(
                "model.head.subtract_vacuum names some elements only, which deepmd-kit knows for se_e2_a alone; name all "
                "elements or none."
            )
        fitting["atom_ener"] = [0.0 if symbol in head.subtract_vacuum else None for symbol in elements]
    return {
        "type_map": list(elements),
        "descriptor": descriptor,
        "fitting_net": fitting,
        **write_options(_MODEL, config, elements),
    }
