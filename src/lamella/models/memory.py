"""How much memory a model takes for a graph, before it runs.

Most of it are the values that autograd keeps for derivatives. They grow in proportion to what a graph holds: atoms, edges,
short edges, and pairs of edges (attention) or of short edges (angles) of one centre. The factors are not written down for
each architecture but measured: what the model keeps of a few tiny graphs is counted, and as bytes only add up, the factors
are exact. What comes and goes besides is a fixed share of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lamella.geometry.derive import edge_gradient, forces_and_virial
from lamella.geometry.graph import graph_from_edges
from lamella.geometry.parts import MOST_PARTS
from lamella.models.dpa3 import DPA3
from lamella.models.potential import Potential
from lamella.types import Graph

__all__ = ["Footprint", "Sizes", "available_memory", "footprint", "is_out_of_memory", "shrink_parts", "sizes_of"]

_PROBES: Final = ((2, 6, 2), (4, 6, 2), (2, 12, 2), (2, 6, 4), (2, 12, 6), (3, 12, 4), (2, 9, 8))
"""Atoms, edges of each, short edges of each: of the graphs that a model is measured on."""

_PEAK: Final = 1.35
"""Peak over what autograd keeps, where nothing is computed again; with what the allocator cannot use."""

_IN_PARTS: Final = {False: (1.5, 4.5), True: (3.3, 3.8)}
"""Peak in parts, without and with a training step: over what autograd keeps of the parts' inputs, and over what one layer of
one part would keep. Measured as resident memory of DPA-3 L6 at 192 and 864 atoms of water (docs/md.md)."""


class Sizes(NamedTuple):
    """What a graph holds: N, E, Q, Σ d², Σ q², with d edges and q short edges of a centre."""

    atoms: int
    edges: int
    short: int
    edge_pairs: int
    short_pairs: int


def sizes_of(graph: Graph) -> Sizes:
    """Of a graph, one or many frames."""
    pairs = torch.stack([(rows.ptr.diff() ** 2).sum() for rows in (graph.src, graph.short_src)]).tolist()
    return Sizes(graph.n_atoms, graph.n_edges, graph.short.shape[0], *pairs)


@dataclass(frozen=True)
class Footprint:
    """Peak memory of a model beyond its weights, as a function of the graph.

    Attributes:
        whole: bytes kept for derivatives: a constant, then for one of each of :class:`Sizes`.
        parts: of a model that can work in parts, bytes of what it keeps then for forces; None where it cannot.
        layers: of such a model, how many share ``whole``.
        training: whether ``whole`` is of a training step.
    """

    whole: tuple[float, ...]
    parts: tuple[float, ...] | None = None
    layers: int = 1
    training: bool = False

    def peak(self, sizes: Sizes, parts: int | None = None) -> float:
        """Bytes for a graph, at once or in so many parts.

        In parts, the inputs of all layers are kept, and the values of one layer of one part.
        """
        kept = float(np.dot(self.whole, (1.0, *sizes)))
        if parts is None or self.parts is None:
            return _PEAK * kept
        inputs, work = _IN_PARTS[self.training]
        return inputs * float(np.dot(self.parts, (1.0, *sizes))) + work * kept / (self.layers * parts)

    def part_rows(self, sizes: Sizes, budget: float) -> int | None:
        """How many edges and angles a part may hold so that the peak is within ``budget``; None where no parts are needed.

        Where even the smallest parts are too much, those are taken.
        """
        if self.parts is None or self.peak(sizes) <= budget:
            return None
        parts = next((k for k in range(4, MOST_PARTS) if self.peak(sizes, k) <= budget), MOST_PARTS)
        return -(-(sizes.edges + sizes.short_pairs) // parts)

    def words(self, sizes: Sizes, budget: float) -> str:
        """The prediction for people: how much, of how much, and in parts where it must be."""
        rows, whole = self.part_rows(sizes, budget), self.peak(sizes)
        if rows is None:
            more = "" if whole <= budget else ", which will not do"
            return f"about {_gigabytes(whole)} of {_gigabytes(budget)}{more}"
        parts = -(-(sizes.edges + sizes.short_pairs) // rows)
        peak = self.peak(sizes, parts)
        more = "" if peak <= budget else ", which will not do"
        return f"about {_gigabytes(peak)} of {_gigabytes(budget)} in {parts} parts (at once {_gigabytes(whole)}){more}"


def footprint(potential: Potential, training: bool = False) -> Footprint:
    """Measure a model; nothing of it changes. Done once for all models of one shape.

    Args:
        potential: on any device.
        training: with the gradient of a loss of energies and forces, and what Adam keeps.
    """
    learned = sum(p.numel() for p in potential.parameters() if p.requires_grad)
    shape = (
        potential.config.model_dump_json(),
        potential.elements,
        len(potential.tasks),
        potential.parameter_count(),
        learned,
    )
    key = (*shape, potential.dtype, training)
    if key not in _KNOWN:
        _KNOWN[key] = _measured(potential, training)
    return _KNOWN[key]


_KNOWN: dict[Any, Footprint] = {}
"""By all that it depends on: copies of a model share it."""


def _measured(potential: Potential, training: bool) -> Footprint:
    graphs = [_probe(potential, *shape) for shape in _PROBES]
    sizes = np.array([(1.0, *sizes_of(graph)) for graph in graphs])
    whole = _factors(sizes, [_kept(potential, graph, training) for graph in graphs])
    if training:
        whole[0] += 3 * sum(p.numel() * p.element_size() for p in potential.parameters() if p.requires_grad) / _PEAK
    backbone = potential.backbone
    if not isinstance(backbone, DPA3):
        return Footprint(tuple(whole))
    before = backbone.part_rows
    backbone.part_rows = int(sizes.max())
    try:
        parts = _factors(sizes, [_kept(potential, graph, False) for graph in graphs])
    finally:
        backbone.part_rows = before
    parts[0] = whole[0]
    return Footprint(tuple(whole), tuple(parts), len(backbone.layers), training)


def _factors(sizes: np.ndarray, kept: list[int]) -> list[float]:
    """The plane through (sizes, bytes)."""
    scale = sizes.max(axis=0) + (sizes.max(axis=0) == 0.0)
    solution = np.linalg.lstsq(sizes / scale, np.array(kept, dtype=np.float64), rcond=1e-9)[0] / scale
    return [float(value) for value in solution]


def _probe(potential: Potential, atoms: int, degree: int, short: int) -> Graph:
    """A graph of that shape with random directions; no structure has to have it."""
    spec, rng = potential.graph_spec, np.random.default_rng(0)
    length = np.full((atoms, degree), 0.9 * spec.cutoff)
    if spec.short_cutoff < spec.cutoff:
        length[:, short:] = 0.5 * (spec.short_cutoff + spec.cutoff)
    length[:, :short] = 0.8 * (spec.short_cutoff or spec.cutoff)
    direction = rng.normal(size=(atoms * degree, 3))
    vec = direction / np.linalg.norm(direction, axis=1, keepdims=True) * length.reshape(-1, 1)
    src = np.repeat(np.arange(atoms), degree)
    dst = rng.integers(0, atoms, len(src))
    species = np.arange(atoms) % min(2, len(spec.numbers))
    inputs = {
        wanted.name: torch.tensor([wanted.default or (0.0,) * wanted.width], dtype=torch.float64) for wanted in spec.inputs
    }
    return graph_from_edges(species, (src, dst, vec), spec, inputs).to(potential.device)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{max(1.0, size / 1e6):.0f} MB"


def _kept(potential: Potential, graph: Graph, training: bool) -> int:
    """Bytes that autograd keeps until the forces, or the gradient of a loss, are there."""
    held: dict[int, Tensor] = {parameter.untyped_storage().data_ptr(): parameter for parameter in potential.parameters()}
    known = len(held)

    def note(value: Tensor) -> Tensor:
        held.setdefault(value.untyped_storage().data_ptr(), value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value), torch.enable_grad():
        vec = graph.vec.clone().requires_grad_()
        energy = potential.atom_energy(graph, vec, potential.tasks[0])
        if training:
            forces_and_virial(edge_gradient(energy, vec, True), vec, graph)
    return sum(value.untyped_storage().nbytes() for value in list(held.values())[known:])


def shrink_parts(potential: Potential, graph: Graph) -> int | None:
    """Let a model work in half of the parts it works in, a quarter of the graph at first: their rows, None if it cannot."""
    backbone, total = potential.backbone, graph.n_edges + graph.n_angles
    if not isinstance(backbone, DPA3):
        return None
    rows = total // 4 if backbone.part_rows is None else min(backbone.part_rows, total) // 2
    if rows * MOST_PARTS < total or rows == 0:
        return None
    backbone.part_rows = rows
    return rows


def available_memory(device: torch.device | str) -> float:
    """Bytes that this process can still get on a device; infinity where nothing tells."""
    place = torch.device(device)
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        return float(free + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    free_kb = next((float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), float("inf"))
    return min(1024.0 * free_kb, _group_limit())


def _group_limit() -> float:
    """Bytes left to the control group of this process, as a container or batch system sets them; else infinity."""
    folder = Path("/sys/fs/cgroup")
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            return float((folder / limit).read_text()) - float((folder / used).read_text())
        except (OSError, ValueError):  # absent, or "max"
            continue
    return float("inf")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not get memory, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error) and "memory" in str(error)
