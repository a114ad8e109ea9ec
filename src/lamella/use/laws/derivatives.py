"""Laws that forces and virial are derivatives of the energy, and what follows from its invariances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lamella.types import Frame, Prediction
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import line, moved
from lamella.use.laws.subject import EXACT, FINITE_STEP, FLOOR, Subject, explained, predict, relative, worst

__all__ = ["collinear", "forces_law", "force_sum", "torque", "virial_law"]

_STEPS = (1e-4, 3e-5)
"""Å; of the five-point stencil."""

_STRAIN = 5.0
"""Å that a strain of 1 stands for."""

_ROUND_OFF = 4e-15
"""Of an energy, relative to Σ|e|: some twenty units in the last place."""

_STENCIL = ((-2, 1.0 / 12.0), (-1, -2.0 / 3.0), (1, 2.0 / 3.0), (2, -1.0 / 12.0))
_DIRECTIONS = 6


def _slopes(subject: Subject, paths: list[list[Frame]], step: float) -> np.ndarray:
    """dE/dx of each path, given its four frames at the stencil's points; every path has as many atoms as the others."""
    frames = [frame for path in paths for frame in path]
    energies = np.array([p.energy for p in predict(subject.model, frames, subject.task)]).reshape(len(paths), -1)
    return energies @ np.array([weight for _, weight in _STENCIL]) / step


def _unit(direction: np.ndarray) -> np.ndarray:
    return direction / np.abs(direction).max()


def _bound(known: Prediction, size: float, step: float) -> float:
    """What the stencil leaves and what round-off of the energy, divided by the step, adds, relative to ``size``."""
    return FINITE_STEP + _ROUND_OFF * float(np.abs(known.atom_energy).sum()) / (step * max(size, FLOOR))


def _against_differences(
    subject: Subject, known: Prediction, expected: np.ndarray, size: float, along: Callable[[float], list[list[Frame]]]
) -> tuple[float, float]:
    """Violation and bound of expected slopes against finite differences, of the better of two steps.

    A model may bend so sharply that the longer step shows: what it leaves falls with the fourth power, an error of the
    derivative stays.

    Args:
        subject: the model.
        known: its prediction at the middle of all paths.
        expected: dE/dx of each path.
        size: what violations are relative to.
        along: the paths for a step, in the unit of x.
    """
    pairs = []
    for step in _STEPS:
        measured = _slopes(subject, along(step), step)
        pairs.append((relative(measured, expected, size), _bound(known, size, step)))
        if pairs[-1][0] <= pairs[-1][1]:
            break
    return min(pairs, key=_ratio)


def _ratio(pair: tuple[float, float]) -> float:
    return pair[0] / pair[1] if np.isfinite(pair[0]) else np.inf


def _force_violation(subject: Subject, frame: Frame, directions: list[np.ndarray]) -> tuple[float, float]:
    """Violation and bound of directional derivatives of the energy against the forces, relative to the largest force."""
    (known,) = predict(subject.model, [frame], subject.task)
    expected = np.array([-(known.forces * d).sum() for d in directions])

    def along(step: float) -> list[list[Frame]]:
        return [[moved(frame, frame.positions + n * step * d) for n, _ in _STENCIL] for d in directions]

    return _against_differences(subject, known, expected, float(np.abs(known.forces).max()), along)


def forces_law(subject: Subject) -> Check:
    """F = -∂E/∂r along random directions of all atoms and along each axis of one atom."""
    rng, violations = subject.rng(), []
    for frame in subject.frames:
        shape = frame.positions.shape
        directions = [_unit(rng.normal(size=shape)) for _ in range(_DIRECTIONS)]
        for axis in range(3):
            single = np.zeros(shape)
            single[0, axis] = 1.0
            directions.append(single)
        violations.append(_force_violation(subject, frame, directions))
    said = f"Finite differences of the energy along {_DIRECTIONS + 3} directions, relative to the largest force."
    return explained(_worst_row("forces", violations, said), subject.kinks)


def virial_law(subject: Subject) -> Check:
    """W = -∂E/∂ε for r -> r (1 + ε), and W = Wᵀ."""
    rng, violations = subject.rng(), []
    for frame in subject.frames:
        (known,) = predict(subject.model, [frame], subject.task)
        strains = [_unit(rng.normal(size=(3, 3))) for _ in range(_DIRECTIONS)]
        violations.append(_virial_violation(subject, frame, known, strains))
        violations.append((relative(known.virial, known.virial.T), EXACT))
    said = f"Finite strains in {_DIRECTIONS} random directions, relative to the largest component; the virial is symmetric."
    return explained(_worst_row("virial", violations, said), subject.kinks)


def _virial_violation(subject: Subject, frame: Frame, known: Prediction, strains: list[np.ndarray]) -> tuple[float, float]:
    expected = np.array([-(known.virial * strain).sum() for strain in strains]) / _STRAIN

    def along(step: float) -> list[list[Frame]]:
        return [[_strained(frame, n * step / _STRAIN * strain) for n, _ in _STENCIL] for strain in strains]

    return _against_differences(subject, known, expected, float(np.abs(known.virial).max()) / _STRAIN, along)


def _worst_row(law: str, violations: list[tuple[float, float]], said: str) -> Check:
    """The row of the (violation, bound) that comes nearest to failing, or fails most."""
    violation, bound = max(violations, key=_ratio)
    return Check(law, violation, bound, said)


def _strained(frame: Frame, strain: np.ndarray) -> Frame:
    deformation = np.eye(3) + strain
    return replace(frame, positions=frame.positions @ deformation, cell=frame.cell @ deformation)


def force_sum(subject: Subject) -> Check:
    """Σ_i F_i = 0, since translation changes nothing."""
    known = predict(subject.model, subject.frames, subject.task)
    violation = worst([float(np.abs(p.forces.sum(axis=0)).max() / max(np.abs(p.forces).max(), FLOOR)) for p in known])
    return Check("sum of forces", violation, EXACT, "Forces of a frame add to zero, relative to the largest.")


def torque(subject: Subject) -> Check:
    """Σ_i r_i × F_i = 0 without a cell, since rotation changes nothing."""
    frame = subject.cluster
    (known,) = predict(subject.model, [frame], subject.task)
    arms = frame.positions - frame.positions.mean(axis=0)
    total = np.cross(arms, known.forces).sum(axis=0)
    size = np.abs(arms).max() * max(np.abs(known.forces).max(), FLOOR)
    return Check(
        "torque", float(np.abs(total).max() / size), EXACT, "Torques on a cluster add to zero, relative to the largest."
    )


def collinear(subject: Subject) -> Check:
    """Angles of 0° and 180°, where an arc cosine would have no derivative, give finite and right forces."""
    frame = line(np.resize(subject.cluster.numbers, 4).tolist(), _spacing(subject))
    (known,) = predict(subject.model, [frame], subject.task)
    finite = all(np.isfinite(value).all() for value in known)
    rng = subject.rng()
    directions = [_unit(rng.normal(size=frame.positions.shape)) for _ in range(_DIRECTIONS)]
    violation, bound = _force_violation(subject, frame, directions) if finite else (float("nan"), FINITE_STEP)
    said = "Four atoms on a straight line: everything is finite, and forces are those of finite differences."
    return explained(Check("collinear angles", violation, bound, said), subject.kinks)


def _spacing(subject: Subject) -> float:
    """Distance between atoms on a line such that no multiple of it comes near a cutoff."""
    candidates = np.linspace(1.2, 1.6, 41)
    clear = [min(abs(n * d - r) for n in (1, 2, 3) for r in subject.breaks) for d in candidates]
    return float(candidates[int(np.argmax(clear))])
