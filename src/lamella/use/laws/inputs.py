"""Laws about what goes in and comes out: inputs are left alone, bad ones refused, precision and files keep the numbers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from lamella.errors import InputError
from lamella.models.bundle import load_model, save_model
from lamella.models.potential import Potential
from lamella.types import Frame, Graph, Incidence
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import frame_of
from lamella.use.laws.subject import Subject, difference, dressed, explained, predict, relative, worst

__all__ = ["inputs_kept", "non_contiguous", "save_and_load", "single_precision", "unknown_element"]

SINGLE = 1e-4
"""Bound of float32 against float64.

One operation rounds to 6e-8; some hundred dependent operations and sums over some hundred edges make 1e-7 to 2e-6 of it in
random models of 2 to 6 layers. Trained weights and activations are larger, and atomic energies what is left of larger terms.
"""


def inputs_kept(subject: Subject) -> Check:
    """Predicting changes neither the frame, nor the graph, nor the model."""
    model, frame = subject.model, dressed(subject.model, subject.crystal)
    graph = model.graph([frame])
    before = [value.copy() for value in _arrays(frame)], [value.clone() for value in _tensors(graph, model)]
    model(graph, subject.task)
    model(model.graph([frame]), subject.task)
    after = _arrays(frame), _tensors(graph, model)
    changed = sum(not np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    changed += sum(not torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    changed += int(graph.vec.requires_grad)
    count = len(before[0]) + len(before[1])
    said = f"{count} arrays of frame, graph and model keep their bits; the graph does not ask for gradients."
    return Check("inputs kept", float(changed), 0.0, said)


def _arrays(frame: Frame) -> list[np.ndarray]:
    return [frame.numbers, frame.positions, frame.cell, frame.pbc, *frame.labels.values()]


def _tensors(graph: Graph, model: Potential) -> list[torch.Tensor]:
    values = [getattr(graph, item.name) for item in fields(graph)]
    parts: list[torch.Tensor] = []
    for value in values:
        parts += value if isinstance(value, Incidence) else value.values() if isinstance(value, Mapping) else (value,)
    return parts + [value.detach() for value in model.state_dict().values()]


def non_contiguous(subject: Subject) -> Check:
    """Strided, transposed and reversed arrays mean the same numbers, to the last bit."""
    frame = subject.crystal
    wide = np.full((len(frame), 6), np.nan)
    wide[:, ::2] = frame.positions
    variants = [
        replace(frame, positions=wide[:, ::2], cell=np.asfortranarray(frame.cell)),
        replace(
            frame, positions=np.ascontiguousarray(frame.positions[::-1])[::-1], numbers=np.repeat(frame.numbers, 2)[::2]
        ),
    ]
    (known,) = predict(subject.model, [frame], subject.task)
    found = [predict(subject.model, [variant], subject.task)[0] for variant in variants]
    said = "Strided, column-major and reversed arrays: the same bits."
    return Check("non-contiguous inputs", worst([difference(one, known) for one in found]), 0.0, said)


def unknown_element(subject: Subject) -> Check:
    """An element the model does not know is refused by an error that names it."""
    unknown = [z for z in range(1, len(chemical_symbols)) if z not in subject.model.numbers]
    if not unknown:
        return Check("unknown element", 0.0, 0.0, "The model knows every element; there is none to refuse.")
    symbol = chemical_symbols[unknown[-1]]
    try:
        subject.model.graph([frame_of([unknown[-1]], [[0.0, 0.0, 0.0]])])
    except InputError as error:
        named = symbol in str(error)
        return Check(
            "unknown element", float(not named), 0.0, f"{symbol} is refused{' by name' if named else ', without its name'}."
        )
    return Check("unknown element", 1.0, 0.0, f"{symbol}, which the model does not know, was accepted.")


def single_precision(subject: Subject) -> Check:
    """The model in float32 says what it says in float64, to what float32 can hold."""
    rounded = copy.deepcopy(subject.model).cast(torch.float32)
    exact = predict(copy.deepcopy(rounded).cast(torch.float64), subject.frames, subject.task)
    found = predict(rounded, subject.frames, subject.task)
    # an energy below 10 meV an atom is what is left of larger terms
    sizes = [max(float(np.abs(b.atom_energy).sum()), 0.01 * len(b.atom_energy)) for b in exact]
    energy = [relative(a.energy, b.energy, size) for a, b, size in zip(found, exact, sizes, strict=True)]
    forces = [relative(a.forces, b.forces) for a, b in zip(found, exact, strict=True)]
    said = (
        f"Same weights in float32: energy off by {worst(energy):.1e} of Σ|e|, forces by {worst(forces):.1e} of the largest."
    )
    return explained(Check("float32 against float64", worst([*energy, *forces]), SINGLE, said), subject.kinks)


def save_and_load(subject: Subject) -> Check:
    """Saved and loaded again, a model has the same bits and predicts the same bits."""
    model = subject.original
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        loaded = load_model(Path(folder)).to(model.device)
    old, new = model.state_dict(), loaded.state_dict()
    same = old.keys() == new.keys() and all(_same_bits(old[name], new[name]) for name in old)
    same = same and loaded.tasks == model.tasks and loaded.elements == model.elements
    before, after = (predict(which, subject.frames, subject.task) for which in (model, loaded))
    moved_by = worst([difference(a, b) for a, b in zip(after, before, strict=True)])
    said = f"{len(old)} tensors {'keep' if same else 'do not keep'} their bits through a file, and so do predictions."
    return Check("save and load", moved_by if same else worst([moved_by, 1.0]), 0.0, said)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b.to(a.device))
