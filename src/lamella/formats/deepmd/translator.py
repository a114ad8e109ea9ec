"""What a translator between deepmd-kit's descriptors and our backbones is made of.

One translator per architecture says, once and for both directions,

* which option of theirs is which field of ours (:class:`Table` of :class:`Option`),
* which tensor of theirs is which of ours (``names``),
* where their statistics of the environment matrix lie (``blocks``), and which tensors carry nothing (``empty``).

Reading and writing of whole models (:mod:`.read`, :mod:`.write`) follow from that.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel

from lamella.errors import CheckpointError, nearest, shown

__all__ = [
    "OFF",
    "PAIRS",
    "PLAIN",
    "REQUIRED",
    "Block",
    "Codec",
    "Option",
    "Place",
    "Table",
    "Translator",
    "built",
    "choice",
    "dense_names",
    "network_names",
    "read_options",
    "refuse",
    "symbol_of",
    "type_embedding_names",
    "write_options",
]

REQUIRED: Final = object()
"""Default of an option that must be given."""

OFF: Final[tuple[Any, ...]] = (None, [], (), {}, "", False)
"""Values that switch an option off."""

_SAME: Final = object()


Config = TypeVar("Config", bound=BaseModel)


class Place(NamedTuple):
    """Where options stand.

    Attributes:
        where: for messages: ``"model.pt: model.descriptor"``.
        elements: chemical symbols in the order of their type index.
        json: whether the options come from an ``input.json``, whose defaults differ here and there from a checkpoint's.
    """

    where: str
    elements: tuple[str, ...]
    json: bool = False

    def within(self, key: str) -> Place:
        """The place of a section inside this one."""
        return self._replace(where=f"{self.where}.{key}")


class Codec(NamedTuple):
    """How one value is spelled by them and by us; ``read(value, place)`` and ``write(value, elements)``."""

    read: Callable[[Any, Place], Any]
    write: Callable[[Any, tuple[str, ...]], Any]


class Option(NamedTuple):
    """One option: their key and our field.

    Attributes:
        key: deepmd-kit's name.
        field: our name.
        default: what deepmd-kit takes for a checkpoint without the key (the default of its classes), in its spelling.
        json: what it takes for an ``input.json`` without the key, where that is another value.
        codec: how the value is spelled.
        aliases: other names of the key, read and never written.
    """

    key: str
    field: str
    default: Any = REQUIRED
    json: Any = _SAME
    codec: Codec | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Every key of one section of deepmd-kit's configuration.

    Attributes:
        options: keys with a field of ours.
        ignored: keys that say how the numbers were made, not what they are (seeds, names, ways to compute).
        neutral: keys of what lamella does not do -> their values that ask for nothing; any other value is refused.
    """

    options: tuple[Option, ...]
    ignored: frozenset[str] = frozenset()
    neutral: Mapping[str, tuple[Any, ...]] | None = None


class Block(NamedTuple):
    """Where the statistics of one environment matrix lie.

    Attributes:
        prefix: their tensors are ``<prefix>.mean`` and ``<prefix>.stddev``, (n_species, slots, 4), below the descriptor.
        slots: their neighbour slots.
        ordered: whether a mean other than zero makes deepmd-kit's energy depend on the order of atoms: its empty slots take
            the type of the first atom, and the embedding of a slot knows its type (concatenated, or stripped, not smooth).
    """

    prefix: str
    slots: int
    ordered: bool = False


@dataclass(frozen=True)
class Translator:
    """Both ways between one architecture of deepmd-kit and ours.

    Attributes:
        kinds: their values of the descriptor's ``type``; the first is the one written.
        read: (their descriptor section, place) -> our configuration. The section is a copy that may be taken apart. Raises
            CheckpointError by name (:func:`refuse`) for what lamella does not run.
        write: (our configuration, elements) -> their descriptor section with ``type``, without ``precision``.
        names: (our configuration, elements) -> {our tensor below ``backbone.``: their tensor below ``descriptor.``}, every
            parameter and buffer but the environments'. Of a network stored twice (``networks``, ``_networks``) the first.
        blocks: (our configuration, elements) -> {our environment below ``backbone.``: where its statistics lie}.
        empty: (our configuration, elements) -> their tensors of zero length (places for compression tables).
    """

    kinds: tuple[str, ...]
    read: Callable[[dict[str, Any], Place], Any]
    write: Callable[[Any, tuple[str, ...]], dict[str, Any]]
    names: Callable[[Any, tuple[str, ...]], dict[str, str]]
    blocks: Callable[[Any, tuple[str, ...]], dict[str, Block]]
    empty: Callable[[Any, tuple[str, ...]], tuple[str, ...]] = lambda config, elements: ()


def read_options(table: Table, section: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Our fields from a section of theirs.

    Raises:
        CheckpointError: a required key is missing, or a key is unknown or asks for what lamella does not do.
    """
    rest = dict(section)
    fields: dict[str, Any] = {}
    for option in table.options:
        for alias in option.aliases:
            if alias in rest:
                rest[option.key] = rest.pop(alias)
        default = option.json if place.json and option.json is not _SAME else option.default
        value = rest.pop(option.key, default)
        if value is REQUIRED:
            raise CheckpointError(f"{place.where}: misses the key {option.key}; give the whole configuration.")
        codec = option.codec or PLAIN
        fields[option.field] = codec.read(value, place.within(option.key))
    for key, value in rest.items():
        if key not in table.ignored and value not in (table.neutral or {}).get(key, ()):
            known = [option.key for option in table.options]
            refuse(key, value, place, "" if key in (table.neutral or {}) else nearest(key, known))
    return fields


def write_options(table: Table, config: Any, elements: tuple[str, ...]) -> dict[str, Any]:
    """A section of theirs from our configuration: every option of the table, also those at their default."""
    return {option.key: (option.codec or PLAIN).write(getattr(config, option.field), elements) for option in table.options}


def built(kind: type[Config], fields: Mapping[str, Any]) -> Config:
    """A configuration of foreign values: an integer is no text, no truth value and no 2.0 here.

    Raises:
        pydantic.ValidationError: a value of another type, or out of range.
    """
    return kind.model_validate({name: _tupled(value) for name, value in fields.items()}, strict=True)


def _tupled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tupled(item) for key, item in value.items()}
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def refuse(key: str, value: Any, place: Place, hint: str = "") -> None:
    """Say that lamella does not run an option; ``hint`` is what may have been meant.

    Raises:
        CheckpointError: always.
    """
    # reprlib: a hostile value may be nested without end
    raise CheckpointError(
        f"{place.where}.{shown(key)} = {reprlib.repr(value)} is not something lamella runs{hint}; use deepmd-kit for it."
    )


def choice(theirs_to_ours: Mapping[Any, Any]) -> Codec:
    """A value that is one of a few, one to one; any other is refused by name."""
    pairs = list(theirs_to_ours.items())

    def read(value: Any, place: Place) -> Any:
        for theirs, ours in pairs:
            if type(theirs) is type(value) and theirs == value:
                return ours
        where, _, key = place.where.rpartition(".")
        return refuse(key, value, place._replace(where=where))

    def write(value: Any, _: tuple[str, ...]) -> Any:
        return next(theirs for theirs, ours in pairs if ours == value)

    return Codec(read, write)


def _listed(value: Any, _: tuple[str, ...] = ()) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_pairs(value: Any, place: Place) -> tuple[tuple[str, str], ...]:
    if value in OFF:
        return ()
    return tuple((symbol_of(a, place), symbol_of(b, place)) for a, b in value)


def _write_pairs(pairs: Sequence[tuple[str, str]], elements: tuple[str, ...]) -> list[list[int]]:
    return [[elements.index(a), elements.index(b)] for a, b in pairs]


def symbol_of(index: Any, place: Place) -> str:
    """The element of a type index.

    Raises:
        CheckpointError: there is none.
    """
    if not isinstance(index, int) or not 0 <= index < len(place.elements):
        raise CheckpointError(f"{place.where}: {reprlib.repr(index)} is no index into type_map; copy the file again.")
    return place.elements[index]


PLAIN: Final = Codec(lambda value, place: value, _listed)
"""The same value in both; tuples of ours are lists of theirs."""

PAIRS: Final = Codec(_read_pairs, _write_pairs)
"""Pairs of type indices of theirs, pairs of symbols of ours."""


def dense_names(ours: str, theirs: str, bias: bool = True, timestep: bool = False) -> dict[str, str]:
    """Names of one dense layer's tensors."""
    names = {f"{ours}.weight": f"{theirs}.matrix"}
    if bias:
        names[f"{ours}.bias"] = f"{theirs}.bias"
    if timestep:
        names[f"{ours}.timestep"] = f"{theirs}.idt"
    return names


def network_names(ours: str, theirs: str, n_in: int, widths: Sequence[int], timestep: bool = False) -> dict[str, str]:
    """Names of the hidden layers ``<ours>.<l>`` and ``<theirs>.layers.<l>`` of a network.

    Args:
        ours: e.g. ``"embedding_net.hidden"``.
        theirs: e.g. ``"sea.filter_layers.networks.0"``.
        n_in: width of the input: a layer has a timestep only where it has a shortcut (out = in or 2 in).
        widths: of the layers.
        timestep: whether the network has timesteps.
    """
    names: dict[str, str] = {}
    for layer, width in enumerate(widths):
        step = timestep and width in (n_in, 2 * n_in)
        names |= dense_names(f"{ours}.{layer}", f"{theirs}.layers.{layer}", timestep=step)
        n_in = width
    return names


def type_embedding_names(bias: bool) -> dict[str, str]:
    """Names of the type embedding's tensors."""
    return dense_names("embedding", "type_embedding.embedding.embedding_net.layers.0", bias=bias)
