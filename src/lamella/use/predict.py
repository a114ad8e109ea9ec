"""Predictions and descriptors of structures, many at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from lamella.data.convert import structure_from_atoms
from lamella.data.source import Frames
from lamella.errors import InputError
from lamella.formats.load import as_device, as_dtype, load
from lamella.geometry.graph import build_graph, collate
from lamella.models.memory import Sizes, sizes_of
from lamella.models.potential import Potential
from lamella.types import Frame, Graph, Prediction
from lamella.use.bounded import Bounded
from lamella.use.inputs import warn_of_ignored_inputs, warn_of_unseen_elements

__all__ = ["batch_plan", "describe", "describe_frames", "predict", "predict_frames", "runnable"]

MAX_EDGES: Final = 60_000
"""A batch is closed before its edges exceed this; a frame with more goes alone."""

MAX_ANGLES: Final = 150_000
"""The same for angles: about 1.1 GB of intermediate values at DPA-3's L6 size in float32."""

Model = Potential | str | Path


def predict(model: Model, structures: Sequence[Atoms], task: str | None = None) -> list[Prediction]:
    """Energy, atomic energies, forces and virial of every structure, as numpy arrays in float64.

    Structures are batched by their number of edges and angles; any number of any size is fine, and a structure's result does
    not depend on the others.

    Args:
        model: what :func:`lamella.load` returns, or a path it reads.
        structures: list of ASE Atoms, periodic or not; not mutated. An attached calculator is neither asked nor replaced.
            Where the model reads them, ``info`` holds ``charge``, ``spin`` and ``frame_params``.
        task: which labels to predict; may be left out where the model has one task.

    Returns:
        One :class:`lamella.types.Prediction` per structure: energy (eV, a float), atom_energy (n,) eV, forces (n, 3) eV/Å,
        virial (3, 3) eV.

    Raises:
        InputError: not a list of Atoms; unknown task, or several and none named.
        StructureError: a structure that has no energy; the message says which and why.
    """
    potential = runnable(model)
    name = potential.tasks[potential.task_index(task)]
    predictions, said = [], set[str]()
    for frame, prediction in predict_frames(potential, _frames(structures), name):
        warn_of_unseen_elements(frame, potential, name, said)
        predictions.append(prediction)
    return predictions


def describe(model: Model, structures: Sequence[Atoms], task: str | None = None) -> list[np.ndarray]:
    """Node features (n, d) of every structure in the model's dtype: what the head reads, before the task's code.

    Args:
        model: what :func:`lamella.load` returns, or a path it reads.
        structures: list of ASE Atoms; not mutated.
        task: may be left out where the model has one task. Features do not depend on it.

    Raises:
        InputError: not a list of Atoms; unknown task, or several and none named.
        StructureError: a structure that has no energy; the message says which and why.
    """
    potential = runnable(model)
    potential.task_index(task)
    return [features for _, features in describe_frames(potential, _frames(structures), potential.describe)]


def describe_frames(
    potential: Potential, frames: Iterable[Frame], read: Callable[[Graph], Tensor]
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Each frame with what ``read`` makes of its atoms (n, ...), in order; frames are read as they are needed.

    Args:
        potential: whose graph is built, within the budget of edges and angles.
        frames: labels are not looked at.
        read: graph of many frames -> (N, ...), most often ``potential.describe``; no gradient is taken.
    """
    for batch, graph in _batches(potential, frames):
        with torch.no_grad():
            values = read(graph)
        yield from zip(batch, _split(values, batch), strict=True)


def predict_frames(
    potential: Potential, frames: Iterable[Frame], task: str | None = None
) -> Iterator[tuple[Frame, Prediction]]:
    """Each frame with its prediction (numpy, float64), in order; frames are read as they are needed.

    Args:
        potential: best from :func:`runnable`; weights that require gradients cost memory.
        frames: labels are not looked at.
        task: which labels to predict.
    """
    run = Bounded(potential)
    for batch, graph in _batches(potential, frames):
        prediction = run(graph, task)
        energy = prediction.energy.double().cpu().numpy()
        virial = prediction.virial.double().cpu().numpy()
        atom_energy = _split(prediction.atom_energy.double(), batch)
        forces = _split(prediction.forces.double(), batch)
        for index, frame in enumerate(batch):
            yield frame, Prediction(float(energy[index]), atom_energy[index], forces[index], virial[index])


def batch_plan(potential: Potential, frames: Sequence[Frame] | Frames) -> str:
    """What memory the largest batch of predictions will take, for people, if all frames are like the first.

    Raises:
        StructureError: the first frame has no energy.
    """
    first = build_graph(frames[0], potential.graph_spec)
    fill = min([MAX_EDGES / max(first.n_edges, 1), MAX_ANGLES / max(first.n_angles, 1), float(len(frames))])
    sizes = Sizes(*(int(max(fill, 1.0) * count) for count in sizes_of(first)))
    return Bounded(runnable(potential)).plan(sizes)


def runnable(model: Model, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None) -> Potential:
    """The model to run: read where a path is given, with frozen weights, in another dtype or on another device where asked.

    The caller's model is not touched. Weights are shared with it where neither dtype nor device changes, copied otherwise.

    Raises:
        InputError: not a model; unknown dtype or device.
        CheckpointError: a path that holds no model.
    """
    if isinstance(model, str | Path):
        return load(model, device, dtype)
    if not isinstance(model, Potential):
        raise InputError(
            f"model: a {type(model).__name__} is none; give what lamella.load returned, or a path that it reads."
        )
    kind, place = as_dtype(dtype), model.device if device is None else as_device(device)
    twin = _twin(model)
    if kind is not None and kind != model.dtype:
        twin.cast(kind)
    return twin.to(place).eval()


def _twin(model: Potential) -> Potential:
    """The same model over the same memory, with parameters of its own that need no gradient."""
    shared: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    shared |= {id(model.metadata): model.metadata, id(model.config): model.config}
    return copy.deepcopy(model, shared)


def _frames(structures: Sequence[Atoms] | Atoms) -> Iterator[Frame]:
    if isinstance(structures, Atoms):  # a likely slip, and Atoms iterate over their atoms
        raise InputError("structures: one Atoms was given where a list is needed; write [atoms].")
    return (structure_from_atoms(_checked(atoms, index), f"structure {index}") for index, atoms in enumerate(structures))


def _checked(atoms: Atoms, index: int) -> Atoms:
    if not isinstance(atoms, Atoms):
        raise InputError(f"structure {index}: a {type(atoms).__name__} is no ase.Atoms; read it with ase.io.read first.")
    return atoms


def _batches(potential: Potential, frames: Iterable[Frame]) -> Iterator[tuple[list[Frame], Graph]]:
    """Consecutive frames with the graph of them all, within the budget of edges and angles."""
    batch: list[Frame] = []
    graphs: list[Graph] = []
    spec = potential.graph_spec
    said: set[str] = set()
    edges = angles = 0
    for frame in frames:
        warn_of_ignored_inputs(frame, spec, said)
        graph = build_graph(frame, spec)
        edges, angles = edges + graph.n_edges, angles + graph.n_angles
        if batch and (edges > MAX_EDGES or angles > MAX_ANGLES):
            yield batch, collate(graphs).to(potential.device)
            batch, graphs = [], []
            edges, angles = graph.n_edges, graph.n_angles
        batch.append(frame)
        graphs.append(graph)
    if batch:
        yield batch, collate(graphs).to(potential.device)


def _split(values: Tensor, frames: Sequence[Frame]) -> list[np.ndarray]:
    """(N, …) over all frames as one array per frame, each with memory of its own."""
    ends = np.cumsum([len(frame) for frame in frames])
    return [part.copy() for part in np.split(values.cpu().numpy(), ends[:-1])]
