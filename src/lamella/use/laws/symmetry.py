"""Laws that the same structure, said in another way, has the same energy, forces and virial."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lamella.geometry.graph import graph_from_edges, species_index
from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame, Prediction
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import crystal, moved, rotation, supercell
from lamella.use.laws.subject import EXACT, Subject, difference, dressed, predict, worst

__all__ = [
    "edge_order",
    "left_handed_cells",
    "mixed_periodicity",
    "permutation",
    "reflection",
    "rotation_law",
    "supercells",
    "translation",
    "wrapping",
]


def _compare(subject: Subject, law: str, said: str, pairs: list[tuple[Frame, Prediction]]) -> Check:
    """Row for frames whose predictions are known otherwise."""
    found = predict(subject.model, [frame for frame, _ in pairs], subject.task)
    violation = worst([difference(a, b) for a, (_, b) in zip(found, pairs, strict=True)])
    return Check(law, violation, EXACT, said)


def _references(subject: Subject) -> list[tuple[Frame, Prediction]]:
    return list(zip(subject.frames, predict(subject.model, subject.frames, subject.task), strict=True))


def translation(subject: Subject) -> Check:
    """E(r + t) = E(r)."""
    shift = subject.rng().uniform(-20.0, 20.0, 3)
    pairs = [(moved(frame, frame.positions + shift), known) for frame, known in _references(subject)]
    return _compare(subject, "translation", "All atoms moved by one vector of up to 20 Å: nothing changes.", pairs)


def _turned(frame: Frame, known: Prediction, matrix: np.ndarray) -> tuple[Frame, Prediction]:
    turned = replace(frame, positions=frame.positions @ matrix.T, cell=frame.cell @ matrix.T)
    return turned, known._replace(forces=known.forces @ matrix.T, virial=matrix @ known.virial @ matrix.T)


def rotation_law(subject: Subject) -> Check:
    """E(Q r) = E(r), F(Q r) = Q F(r), W(Q r) = Q W(r) Qᵀ."""
    rng = subject.rng()
    pairs = [_turned(*pair, rotation(rng)) for pair in _references(subject) for _ in range(2)]
    return _compare(subject, "rotation", "Turned at random: energies stay, forces and virial turn along.", pairs)


def reflection(subject: Subject) -> Check:
    """The same for improper rotations: a mirror image, cell included, has the same energy."""
    rng = subject.rng()
    pairs = [_turned(*pair, -rotation(rng)) for pair in _references(subject) for _ in range(2)]
    return _compare(subject, "reflection", "Mirror images: energies stay, forces and virial are mirrored.", pairs)


def permutation(subject: Subject) -> Check:
    """Numbering the atoms differently renumbers atomic energies and forces, and nothing else."""
    rng = subject.rng()
    pairs = []
    for frame, known in _references(subject):
        order = rng.permutation(len(frame))
        renumbered = replace(frame, numbers=frame.numbers[order], positions=frame.positions[order])
        pairs.append((renumbered, known._replace(atom_energy=known.atom_energy[order], forces=known.forces[order])))
    return _compare(subject, "permutation of atoms", "Atoms listed in another order: values follow their atoms.", pairs)


def edge_order(subject: Subject) -> Check:
    """The order in which a centre's edges are listed means nothing."""
    model, rng, violations = subject.model, subject.rng(), []
    for frame, known in _references(subject):
        species = species_index(frame.numbers, model.numbers)
        src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, model.cutoff)
        order = np.lexsort((rng.random(len(src)), src))
        inputs = model.graph([dressed(model, frame)]).inputs
        graph = graph_from_edges(species, (src, dst[order], vec[order]), model.graph_spec, inputs).to(model.device)
        found = Prediction(*(value.detach().double().cpu().numpy() for value in model(graph, subject.task)))
        violations.append(difference(found._replace(energy=found.energy[0], virial=found.virial[0]), known))
    said = "Edges, and with them angles, listed in another order within each centre: nothing changes."
    return Check("permutation of edges", worst(violations), EXACT, said)


def supercells(subject: Subject) -> Check:
    """A cell repeated n times has n times its energy and virial, and the same forces; also one narrower than the cutoff."""
    rng = subject.rng()
    tiny = crystal(rng, np.resize(subject.cluster.numbers, 2).tolist(), subject.breaks)
    pairs = []
    for frame, repeat in ((subject.crystal, (2, 1, 1)), (tiny, (2, 1, 2)), (tiny, (1, 3, 1))):
        (known,) = predict(subject.model, [frame], subject.task)
        n = int(np.prod(repeat))
        atoms = np.tile(known.atom_energy, n)
        pairs.append(
            (supercell(frame, repeat), Prediction(n * known.energy, atoms, np.tile(known.forces, (n, 1)), n * known.virial))
        )
    width = 1.0 / np.linalg.norm(np.linalg.inv(tiny.cell), axis=0).min()
    cutoff = subject.model.cutoff
    said = f"A cell repeated n times has n times its energy; the smallest is {width:.1f} Å wide, the cutoff {cutoff:g} Å."
    return _compare(subject, "supercell", said, pairs)


def wrapping(subject: Subject) -> Check:
    """An atom moved by lattice vectors is the same atom."""
    frame, known = _references(subject)[0]
    shifts = subject.rng().integers(-3, 4, (len(frame), 3))
    pairs = [(moved(frame, frame.positions + shifts @ frame.cell), known)]
    return _compare(
        subject, "wrapping", "Atoms moved by up to three lattice vectors, out of the cell: nothing changes.", pairs
    )


def left_handed_cells(subject: Subject) -> Check:
    """A crystal does not depend on which vectors its lattice is described by."""
    frame, known = _references(subject)[0]
    bases = {
        "left-handed": np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        "inverted": np.diag([-1, -1, -1]),
        "skewed": np.array([[1, 3, 0], [0, 1, 0], [-2, 0, 1]]),
        "skewed, left-handed": np.array([[0, 1, 4], [1, 0, 0], [0, 0, 1]]),
    }
    pairs = [(replace(frame, cell=basis @ frame.cell), known) for basis in bases.values()]
    return _compare(
        subject, "other cell vectors", f"The same lattice by other vectors ({', '.join(bases)}): nothing changes.", pairs
    )


def mixed_periodicity(subject: Subject) -> Check:
    """A slab and a wire equal the fully periodic structure with more vacuum than any edge spans."""
    rng, pairs = subject.rng(), []
    for pbc in ((True, True, False), (False, True, False)):
        frame = crystal(rng, subject.crystal.numbers.tolist(), subject.breaks, pbc)
        (known,) = predict(subject.model, [frame], subject.task)
        free = ~np.array(pbc)
        # a vector that leaves the periodic ones where they are, long enough that no image is seen
        cell = frame.cell.copy()
        span = np.ptp(frame.positions, axis=0).sum() + 3.0 * subject.model.cutoff
        _, _, normals = np.linalg.svd(frame.cell[~free])
        cell[free] = normals[len(frame.cell[~free]) :] * span
        pairs.append((replace(frame, cell=cell, pbc=np.ones(3, dtype=bool)), known))
    return _compare(subject, "mixed periodicity", "A slab and a wire equal periodic ones padded with vacuum.", pairs)
