"""What stands for an atom in an atlas: the features that the head reads, or the last layer's update of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lamella.errors import InputError
from lamella.models.dpa2 import DPA2
from lamella.models.dpa3 import DPA3
from lamella.models.potential import Potential
from lamella.models.words import ARCHITECTURES
from lamella.types import Graph
from lamella.use.atlas.config import Representation
from lamella.use.atlas.sample import Sample
from lamella.use.predict import describe_frames

__all__ = ["last_update", "represent"]


def represent(
    potential: Potential, sample: Sample, kind: Representation, on_frame: Callable[[int], None] | None = None
) -> np.ndarray:
    """(N, C) float64, the representations of a sample's atoms.

    Args:
        potential: best from :func:`lamella.use.predict.runnable`.
        sample: which atoms.
        kind: ``"features"`` or ``"update"``.
        on_frame: called with 1 after each structure.

    Raises:
        InputError: the model has no layers that update atoms; numbers that are not finite.
        StructureError: a structure of which no graph can be built; the message says which and why.
    """
    read = last_update(potential) if kind == "update" else potential.describe
    rows: list[np.ndarray] = []
    places = np.searchsorted(sample.frame, np.arange(len(sample.frames) + 1))
    for index, (_, node_NC) in enumerate(describe_frames(potential, sample.frames, read)):
        rows.append(node_NC[sample.atom[places[index] : places[index + 1]]].astype(np.float64))
        if on_frame is not None:
            on_frame(1)
    all_NC = np.concatenate(rows)
    if not np.isfinite(all_NC).all():
        first = sample.frames[int(sample.frame[~np.isfinite(all_NC).all(axis=1)][0])]
        raise InputError(f"{first.source}: the model's features are NaN or infinite there; look at the frame, or the model.")
    return all_NC


def last_update(potential: Potential) -> Callable[[Graph], Tensor]:
    """A function from a graph to (N, C): atoms after the last layer minus atoms before it (DPA-2 paper, §2.6).

    It shows what an atom's surroundings add at last; the features themselves still carry the element that they began as.

    Raises:
        InputError: an architecture without layers that update atoms.
    """
    layer = _last_layer(potential)

    def read(graph: Graph) -> Tensor:
        with _Watch(layer) as seen:
            potential.describe(graph)
        return torch.cat(seen.after) - torch.cat(seen.before)

    return read


def _last_layer(potential: Potential) -> nn.Module:
    backbone = potential.backbone
    if isinstance(backbone, DPA2):
        return backbone.repformer.layers[-1]
    if isinstance(backbone, DPA3):
        return backbone.layers[-1]
    name = ARCHITECTURES[potential.config.backbone.kind]
    raise InputError(f"a {name} has no layers that update atoms, so there is no last update; show its features instead.")


class _Watch(AbstractContextManager["_Watch"]):
    """What goes into a layer and comes out of it as its first tensor, while it is open: once for each part of the atoms."""

    def __init__(self, layer: nn.Module) -> None:
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []
        self._handle = layer.register_forward_hook(self._note)

    def _note(self, layer: nn.Module, given: tuple[Any, ...], made: tuple[Any, ...]) -> None:
        self.before.append(next(value for value in given if isinstance(value, Tensor)))
        self.after.append(made[0])

    def __exit__(self, *error: object) -> None:
        self._handle.remove()
