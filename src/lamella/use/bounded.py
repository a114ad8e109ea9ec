"""Predictions within a memory budget: parts where a graph needs them, smaller pieces where the machine gives out."""

from __future__ import annotations

import warnings
from typing import Final

import torch

from lamella.errors import ResourceError
from lamella.geometry.parts import take_frames
from lamella.models.dpa3 import DPA3
from lamella.models.memory import Sizes, available_memory, footprint, is_out_of_memory, shrink_parts, sizes_of
from lamella.models.potential import Potential
from lamella.models.precision import Products, matrix_products
from lamella.types import Graph, Prediction

__all__ = ["Bounded"]

_SHARE: Final = 0.8
"""Of what is free when the model is made ready, this much may be used."""

_SMALL: Final = 50_000
"""Edges and pairs of short edges of a graph that fits anywhere: at most some hundred MB. Nothing is predicted for it."""


class Bounded:
    """A potential that stays within memory. Energies and forces do not depend on how, but for round-off.

    A DPA-3 whose graph would take more than the budget works in parts (:attr:`lamella.models.dpa3.DPA3.part_rows`). Where
    memory runs out all the same, a batch is halved, then parts, with one warning, and the pass is done again.

    Attributes:
        potential: the model.
        budget: bytes.
    """

    def __init__(self, potential: Potential, budget: float | None = None, products: Products = "full") -> None:
        """A model and what it may take.

        Args:
            potential: ``part_rows`` of its backbone is set before each prediction.
            budget: bytes; four fifths of what is free now where not given.
            products: how many digits matrix products have.

        Raises:
            InputError: products that the device does not have.
        """
        self.potential, self.products = potential, products
        with matrix_products(products, potential.device):
            pass  # refused now rather than at the first prediction
        self.budget = _SHARE * available_memory(potential.device) if budget is None else budget
        self._most_rows: int | None = None
        self._warned = False

    def __call__(self, graph: Graph, task: str | None = None) -> Prediction:
        """Energy, atomic energies, forces and virial of every frame of ``graph``.

        Raises:
            ResourceError: not enough memory for one frame in the smallest parts.
        """
        backbone = self.potential.backbone
        if isinstance(backbone, DPA3):
            backbone.part_rows = self._rows(graph)
        return self._run(graph, task)

    def plan(self, sizes: Sizes) -> str:
        """What a graph of that size will take, for people."""
        return footprint(self.potential).words(sizes, self.budget)

    def _rows(self, graph: Graph) -> int | None:
        """Edges and angles of a part, None for all at once."""
        small = graph.n_edges + graph.n_angles <= _SMALL
        rows = None if small else footprint(self.potential).part_rows(sizes_of(graph), self.budget)
        known = [bound for bound in (rows, self._most_rows) if bound is not None]
        return min(known) if known else None

    def _run(self, graph: Graph, task: str | None) -> Prediction:
        try:
            with matrix_products(self.products, self.potential.device):
                return self.potential(graph, task)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).splitlines()[0]
        # only here is the traceback gone, and with it the arrays of what failed
        if self.potential.device.type == "cuda":
            torch.cuda.empty_cache()
        if graph.n_frames > 1:
            self._warn(f"a batch of {graph.n_frames} structures is halved")
            middle = graph.n_frames // 2
            halves = [self._run(take_frames(graph, *ends), task) for ends in ((0, middle), (middle, graph.n_frames))]
            return Prediction(*(torch.cat(values) for values in zip(*halves, strict=True)))
        rows = shrink_parts(self.potential, graph)
        if rows is None:
            raise ResourceError(
                f"not enough memory for a structure of {graph.n_atoms} atoms ({said}); take a smaller one, float32, or a "
                "machine with more."
            )
        self._most_rows = rows
        self._warn("the model goes on in smaller parts, somewhat slower")
        return self._run(graph, task)

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"memory ran out: {what}; results do not change. Later cases are not told.", stacklevel=5)
