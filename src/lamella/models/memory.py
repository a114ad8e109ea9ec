"""How much memory a model takes for a graph, before it runs; and a way on when there is not enough.

Peak memory grows in proportion to what a graph holds: atoms, edges, short edges, and pairs of edges (attention) or of short
edges (angles) of one centre. The six factors are not written down for each architecture but measured: the model runs on a
few small graphs while every array that comes and goes is counted, and a plane is put through the peaks.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lamella.geometry.derive import edge_gradient, forces_and_virial
from lamella.geometry.graph import graph_from_edges
from lamella.geometry.parts import MOST_PARTS
from lamella.models.dpa3 import DPA3
from lamella.models.potential import Potential
from lamella.types import Graph

__all__ = ["Footprint", "Sizes", "Watch", "available_memory", "footprint", "is_out_of_memory", "sizes_of"]

_PROBES: Final = ((4, 16, 4), (8, 16, 4), (4, 32, 4), (4, 16, 12), (8, 32, 12), (4, 40, 24), (6, 24, 16))
"""Atoms, edges of each, short edges of each: of the graphs that a model is measured on."""

_PART_PROBE: Final = (6, 60, 24)
"""The same, of the graph on which parts are compared with the whole."""


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
        factors: bytes: a constant, then one for each of :class:`Sizes`.
        kept: of a model that can work in parts, the share of the peak that remains however many parts there are; else 1.
        worked: of such a model, the share that is divided by the number of parts.
    """

    factors: tuple[float, ...]
    kept: float
    worked: float

    def peak(self, sizes: Sizes, parts: int | None = None) -> float:
        """Bytes for a graph, at once or in parts."""
        whole = float(np.dot(self.factors, (1.0, *sizes)))
        return whole if parts is None else whole * (self.kept + self.worked / parts)

    def part_rows(self, sizes: Sizes, budget: float) -> int | None:
        """How many edges and angles a part may hold so that the peak is within ``budget``; None where no parts are needed.

        Where even the smallest parts are too much, those are taken.
        """
        if self.kept == 1.0 or self.peak(sizes) <= budget:
            return None
        parts = next((k for k in range(4, MOST_PARTS) if self.peak(sizes, k) <= budget), MOST_PARTS)
        return -(-(sizes.edges + sizes.short_pairs) // parts)


class Watch(TorchDispatchMode):
    """Counts the bytes of arrays that are made inside it and not yet freed, and remembers the most.

    Scratch space inside an operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def freed(_: Any) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def footprint(potential: Potential, training: bool = False) -> Footprint:
    """Measure a model; nothing of it changes.

    Args:
        potential: on any device; what is counted does not depend on it.
        training: with the gradient of a loss of energies and forces, and what Adam keeps.
    """
    known = _KNOWN.setdefault(potential, {})
    key = (training, potential.dtype, potential.device)
    if key not in known:
        known[key] = _measured(potential, training)
    return known[key]


_KNOWN: weakref.WeakKeyDictionary[Potential, dict[Any, Footprint]] = weakref.WeakKeyDictionary()


def _measured(potential: Potential, training: bool) -> Footprint:
    graphs = [_probe(potential, *shape) for shape in _PROBES]
    rows = np.array([(1.0, *sizes_of(graph)) for graph in graphs])
    peaks = np.array([_peak(potential, graph, training) for graph in graphs], dtype=np.float64)
    used = rows.any(axis=0)
    scale = rows[:, used].max(axis=0)
    factors = np.zeros(rows.shape[1])
    factors[used] = np.linalg.lstsq(rows[:, used] / scale, peaks, rcond=1e-9)[0] / scale
    if training:
        factors[0] += 3 * sum(p.numel() * p.element_size() for p in potential.parameters() if p.requires_grad)
    backbone = potential.backbone
    if not isinstance(backbone, DPA3):
        return Footprint(tuple(factors.tolist()), 1.0, 0.0)
    graph, before = _probe(potential, *_PART_PROBE), backbone.part_rows
    shares = []
    try:
        for parts in (None, 3, 6):
            backbone.part_rows = None if parts is None else -(-(graph.n_edges + graph.n_angles) // parts)
            shares.append(_peak(potential, graph, training))
    finally:
        backbone.part_rows = before
    whole, few, many = shares
    worked = max(0.0, (few - many) * 6.0 / whole)
    return Footprint(tuple(factors.tolist()), min(1.0, many / whole - worked / 6.0), worked)


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


def _peak(potential: Potential, graph: Graph, training: bool) -> int:
    """Most bytes at a time while the graph is predicted, or a gradient taken."""
    with Watch() as watch, torch.enable_grad():
        vec = graph.vec.clone().requires_grad_()
        energy = potential.atom_energy(graph, vec, potential.tasks[0])
        slope = edge_gradient(energy, vec, training)
        forces, virial = forces_and_virial(slope, vec, graph)
        if training:
            learned = [p for p in potential.parameters() if p.requires_grad]
            loss = (forces**2).sum() + energy.sum() ** 2 + (virial**2).sum()
            torch.autograd.grad(loss, learned, allow_unused=True)
    return watch.peak


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
    """Bytes left to the control group of this process, as containers and batch systems set them; infinity without a limit."""
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
