"""Backbones: which architectures there are, and what the rest of the library asks of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from lamella.models.dpa1 import DPA1, DPA1Config
from lamella.models.dpa2 import DPA2, DPA2Config
from lamella.models.dpa3 import DPA3, DPA3Config
from lamella.models.se_a import SeA, SeAConfig

__all__ = ["BACKBONES", "Backbone", "BackboneConfig", "build_backbone"]


def _kind(value: Any) -> Any:
    """A recipe that names no kind means DPA-3."""
    return value.get("kind", "dpa3") if isinstance(value, Mapping) else getattr(value, "kind", None)


BackboneConfig = Annotated[
    Annotated[SeAConfig, Tag("se_a")]
    | Annotated[DPA1Config, Tag("dpa1")]
    | Annotated[DPA2Config, Tag("dpa2")]
    | Annotated[DPA3Config, Tag("dpa3")],
    Discriminator(_kind),
]
"""Hyper-parameters of any backbone, told apart by ``kind``.

Each has ``cutoff``, ``short_cutoff`` (Å; 0 for none), ``angles``, ``output_dim``, ``shells`` (every cutoff, the longest
first), ``rough`` (sentences: which option breaks smoothness, and where), ``element_heads`` (one head network per element),
``excluded_pairs`` and ``inputs``.
"""

Backbone = SeA | DPA1 | DPA2 | DPA3
"""Module from a graph to node features that are invariant to translation, rotation, reflection and permutation.

``forward(graph, vec_E3)``: (N, ``config.output_dim``) in the dtype of the weights; geometry is read from ``vec_E3`` alone
(Å, float64), which the caller differentiates with respect to.
``environments()``: the environment matrices, whose statistics training takes from its data.
``slots(graph)``: how many neighbours atoms have of those that constants of the model stand for.
"""

BACKBONES: dict[str, Callable[[Any, Sequence[str]], Backbone]] = {"se_a": SeA, "dpa1": DPA1, "dpa2": DPA2, "dpa3": DPA3}
"""Module by ``kind``."""


def build_backbone(config: BackboneConfig, elements: Sequence[str]) -> Backbone:
    """A backbone with random weights."""
    return BACKBONES[config.kind](config, tuple(elements))
