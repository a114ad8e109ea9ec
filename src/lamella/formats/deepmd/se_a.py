"""DeepPot-SE between deepmd-kit's configuration and tensors (``se_e2_a``) and ours."""

from __future__ import annotations

import reprlib
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
    network_names,
    read_options,
    write_options,
)
from lamella.models.se_a import SeAConfig

__all__ = ["SE_A_TRANSLATOR"]

_AUTO: Final = ("auto", "auto:1.1")


def _read_sel(value: Any, place: Place) -> dict[str, int] | str:
    """One number for each type index -> one for each element."""
    if place.json and value in _AUTO:
        return "auto"
    numbers = [value] if isinstance(value, int) else value
    plain = isinstance(numbers, list | tuple) and all(isinstance(n, int) for n in numbers)
    if not plain or len(numbers) != len(place.elements):
        raise CheckpointError(
            f"{place.where}: {reprlib.repr(value)} is not one number for each of {' '.join(place.elements)}; "
            "give one for each element of type_map."
        )
    return dict(zip(place.elements, numbers, strict=True))


def _write_sel(sel: dict[str, int] | str, elements: tuple[str, ...]) -> list[int] | str:
    return sel if isinstance(sel, str) else [sel[symbol] for symbol in elements]


_DESCRIPTOR: Final = Table(
    options=(
        Option("rcut", "cutoff", REQUIRED, json=6.0),
        Option("rcut_smth", "switch_start", REQUIRED, json=0.5),
        Option("sel", "sel", REQUIRED, json="auto", codec=Codec(_read_sel, _write_sel)),
        Option("neuron", "neurons", (25, 50, 100), json=(10, 20, 40)),
        Option("axis_neuron", "axis", 16, json=4, aliases=("n_axis_neuron",)),
        Option("type_one_side", "one_sided", True, json=False),
        Option("resnet_dt", "timestep", False),
        Option("activation_function", "activation", "tanh"),
        Option("set_davg_zero", "zero_mean", False),
        Option("env_protection", "protection", 0.0),
        Option("exclude_types", "excluded_pairs", (), codec=PAIRS),
    ),
    ignored=frozenset({"type", "precision", "trainable", "seed", "ntypes", "type_map"}),
    neutral={"spin": OFF},
)


def _read(section: dict[str, Any], place: Place) -> SeAConfig:
    return built(SeAConfig, read_options(_DESCRIPTOR, section, place))


def _write(config: SeAConfig, elements: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "se_e2_a", **write_options(_DESCRIPTOR, config, elements)}


def _nets(config: SeAConfig, elements: tuple[str, ...]) -> range:
    return range(len(elements) if config.one_sided else len(elements) ** 2)


def _names(config: SeAConfig, elements: tuple[str, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for net in _nets(config, elements):
        theirs = f"sea.filter_layers.networks.{net}"
        names |= network_names(f"nets.{net}.layers", theirs, 1, config.neurons, config.timestep)
    return names


def _blocks(config: SeAConfig, elements: tuple[str, ...]) -> dict[str, Block]:
    return {"environment": Block("sea", sum(config.counts.values()))}


def _empty(config: SeAConfig, elements: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"sea.compress_{what}.{net}" for net in _nets(config, elements) for what in ("info", "data"))


SE_A_TRANSLATOR: Final = Translator(("se_e2_a", "se_a"), _read, _write, _names, _blocks, _empty)
