"""Laws about what an atom may feel: what is in reach, of its own frame, and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import torch

from lamella.models.potential import Potential
from lamella.types import Prediction
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import crystal, frame_of, merged, moved
from lamella.use.laws.subject import EXACT, Subject, difference, dressed, predict, relative, worst

__all__ = ["baseline", "batching", "distant_fragments", "frame_gradient", "isolated_atoms", "one_atom"]


def distant_fragments(subject: Subject) -> Check:
    """Fragments with no edge between them: E(A + B) = E(A) + E(B), each with its own forces."""
    rng = subject.rng()
    first = subject.cluster
    second = moved(first, first.positions[::-1] * np.array([1.0, -1.0, 0.9]))
    gap = (
        np.ptp(first.positions[:, 0]) / 2 + np.ptp(second.positions[:, 0]) / 2 + subject.model.cutoff + rng.uniform(0.1, 1.0)
    )
    centres = [(frame.positions[:, 0].max() + frame.positions[:, 0].min()) / 2 for frame in (first, second)]
    apart = moved(second, second.positions + np.array([gap + centres[0] - centres[1], 0.0, 0.0]))
    a, b, both = predict(subject.model, [first, apart, merged(first, apart)], subject.task)
    total = Prediction(
        a.energy + b.energy,
        np.concatenate([a.atom_energy, b.atom_energy]),
        np.concatenate([a.forces, b.forces]),
        a.virial + b.virial,
    )
    said = "Two clusters farther apart than the cutoff: energies add, forces and atomic energies stay."
    return Check("distant fragments", difference(both, total), EXACT, said)


def isolated_atoms(subject: Subject) -> Check:
    """An atom out of reach of all others feels no force; its energy depends on its element and the task only."""
    model, far = subject.model, 3.0 * subject.model.cutoff
    numbers = list(model.numbers)[:20]
    alone = predict(model, [frame_of([z], [[0.3, -2.0, 1.0]]) for z in numbers], subject.task)
    boxed = predict(model, [frame_of([z], [[9.0, 1.0, 4.0]], far * np.eye(3)) for z in numbers], subject.task)
    places = np.array([[far * n, 0.0, 0.0] for n in range(len(numbers))])
    (together,) = predict(model, [frame_of(numbers[::-1], places)], subject.task)
    energies = np.array([p.energy for p in alone])
    violation = worst(
        [
            relative([p.energy for p in boxed], energies),
            relative(together.atom_energy[::-1], energies),
            *(float(np.abs(p.forces).max()) for p in [*alone, *boxed, together]),
            *(float(np.abs(p.virial).max()) for p in [*alone, *boxed, together]),
        ]
    )
    said = f"{len(numbers)} elements, each alone, in a large cell, and all in one frame out of reach: same energy, no force."
    return Check("isolated atoms", violation, EXACT, said)


def one_atom(subject: Subject) -> Check:
    """A frame without any edge has a prediction of the right shapes, all finite, zero force and virial."""
    (found,) = predict(subject.model, [frame_of([subject.model.numbers[0]], [[0.0, 0.0, 0.0]])], subject.task)
    shapes = (np.shape(found.energy), found.atom_energy.shape, found.forces.shape, found.virial.shape)
    right = shapes == ((), (1,), (1, 3), (3, 3)) and np.isfinite(found.energy)
    violation = (
        worst([relative(found.energy, found.atom_energy.sum()), float(np.abs(found.forces).max())]) if right else np.nan
    )
    said = f"A single atom, no edges: finite energy, zero force, right shapes ({'yes' if right else f'no: {shapes}'})."
    return Check("one atom", float(violation), EXACT, said)


def batching(subject: Subject) -> Check:
    """A batch of frames of any size, periodic or not, gives each what it has alone, in any order."""
    rng = subject.rng()
    numbers = subject.crystal.numbers.tolist()
    frames = [
        *subject.frames,
        crystal(rng, numbers[:2], subject.breaks, (True, True, False)),
        frame_of(numbers[:1], [[0.0, 0.0, 0.0]]),
        crystal(rng, numbers[:3], subject.breaks),
    ]
    frames = [dressed(subject.model, frame, variant) for variant, frame in enumerate(frames)]
    singles = [predict(subject.model, [frame], subject.task)[0] for frame in frames]
    violations = []
    for order in (np.arange(len(frames)), rng.permutation(len(frames)), np.arange(len(frames))[::-1]):
        batch = predict(subject.model, [frames[n] for n in order], subject.task)
        violations += [difference(found, singles[n]) for found, n in zip(batch, order, strict=True)]
    largest = max(map(len, frames))
    said = f"{len(frames)} frames of 1 to {largest} atoms, periodic, slab and free, in three orders, as each alone."
    return Check("batch equals singles", worst(violations), EXACT, said)


def frame_gradient(subject: Subject) -> Check:
    """∂E_a/∂vec is exactly zero for every edge of another frame."""
    frames = [dressed(subject.model, frame) for frame in (subject.cluster, subject.crystal, subject.cluster)]
    graph = subject.model.graph(frames)
    edge_frame = graph.frame.index[graph.src.index]
    leak = 0.0
    for n in range(len(frames)):
        vec = graph.vec.detach().clone().requires_grad_()
        atoms = subject.model.atom_energy(graph, vec, subject.task)
        (grad,) = torch.autograd.grad(atoms[graph.frame.index == n].sum(), vec)
        others = grad[edge_frame != n].abs()
        leak = worst([leak, float(others.max()) if others.numel() else 0.0])
    return Check(
        "no gradient across frames", leak, 0.0, "An energy's derivative with respect to other frames' edges is exactly zero."
    )


def baseline(subject: Subject) -> Check:
    """Predicted energy = learned energy + Σ baseline of the elements; forces and virial do not see the baseline."""
    model, task = subject.original, subject.task
    energies = model.baseline[model.task_index(task)].cpu().numpy()
    counted = {z: s not in model.config.excluded_atoms for z, s in zip(model.numbers, model.elements, strict=True)}
    place = {z: n for n, z in enumerate(model.numbers)}
    violations = []
    dressed = predict(_dressed(subject), subject.frames, task)
    for frame, bare, full in zip(subject.frames, predict(subject.model, subject.frames, task), dressed, strict=True):
        sums = np.array([energies[place[z]] * counted[z] for z in frame.numbers.tolist()])
        size = float(np.abs(sums).sum() + np.abs(bare.atom_energy).sum())
        violations += [
            relative(full.energy, bare.energy + sums.sum(), size),
            relative(full.atom_energy, bare.atom_energy + sums, size),
            relative(full.forces, bare.forces),
            relative(full.virial, bare.virial),
        ]
    return Check(
        "baseline", worst(violations), EXACT, "Energies are what was learned plus the baseline of each element, in float64."
    )


def _dressed(subject: Subject) -> Potential:
    """The float64 copy with the caller's baselines."""
    model = copy.deepcopy(subject.model)
    model.baseline = subject.original.baseline.detach().clone()
    return model
