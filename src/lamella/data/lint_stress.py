"""Stress of the wrong sign: three tests, each of which sees what the others cannot.

* *From forces.* A crude pair potential is fitted to the forces, φ'(r) = Σ_k c_k b_k(r / (R_i + R_j)) with covalent radii R,
  and its deviatoric virial is compared with the labelled one. The isotropic part is left out: terms that depend on the
  volume alone, as in metals, leave no trace in the forces. Where the fit explains the forces at all, the cosine between the
  two is positive for the right sign (``docs/data.md`` has figures).
* *From energies.* Frames that are the same crystal under strain (same fractional coordinates) obey ΔE = -W:ε; works where
  all forces vanish by symmetry, where the first test is blind.
* *Molecules.* Without periodic images W = Σ r_i ⊗ F_i exactly.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from lamella.data.convert import has_volume
from lamella.errors import StructureError
from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame

__all__ = ["StressSign", "molecular_virial_error"]

_BUMPS = np.linspace(0.6, 2.8, 10)
_WIDTH = 0.25
_REACH = 3.0
"""Reach of the pair potential, in sums of covalent radii."""

_SAMPLE = 64
_FEWEST = 4
_DECIDED = 0.2
"""Cosines nearer to zero than this decide nothing."""

_EXPLAINED = 0.35
"""Fraction of the squared forces that the pair potential must explain before it is believed."""

_SURE = 0.7
"""Cosine above which the pair potential is good enough to judge single frames."""

_CRYSTALS = 400
_LARGEST = 12
"""Atoms per frame in the strain test: strained cells are small."""


@dataclass(frozen=True)
class _Sample:
    source: str
    predicted: np.ndarray  # (3, 3, K), virial of each basis function, per atom
    labelled: np.ndarray  # (3, 3), eV/atom
    normal: np.ndarray  # (K, K)
    right: np.ndarray  # (K,)
    square: float  # of the forces, per atom, (eV/Å)²


class StressSign:
    """Collects a sample of the frames of one file and judges the sign of their virial."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._seen = 0
        self._frames: list[Frame] = []
        self._crystals: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
        self._n_crystals = 0

    def add(self, frame: Frame) -> None:
        """Consider a frame; constant memory (a seeded reservoir of 64, and 400 small crystals)."""
        if "virial" not in frame.labels or not frame.pbc.all() or not has_volume(frame.cell):
            return
        forces = frame.labels.get("forces")
        if forces is not None and np.abs(forces).max() > 1e-3:
            self._seen += 1
            if len(self._frames) < _SAMPLE:
                self._frames.append(frame)
            elif (slot := int(self._random.integers(self._seen))) < _SAMPLE:
                self._frames[slot] = frame
        if len(frame) <= _LARGEST and "energy" in frame.labels and self._n_crystals < _CRYSTALS:
            self._crystals[tuple(frame.numbers.tolist())].append(frame)
            self._n_crystals += 1

    def verdicts(self) -> Iterator[tuple[str | None, str]]:
        """What is wrong: ``(source of the frame or None for all of them, message)``."""
        samples = [sample for frame in self._frames if (sample := _sample(frame)) is not None]
        cosine, single = _from_forces(samples)
        strain, pairs = _from_strain(self._crystals)
        if cosine is not None and cosine < -_DECIDED:
            yield (
                None,
                (
                    f"the virial has the wrong sign: over {len(samples)} frames its cosine with what the forces imply is "
                    f"{cosine:.2f}. Inside lamella virial = -volume × stress; flip the sign of the stress or virial"
                ),
            )
        elif strain is not None and strain < -_DECIDED:
            yield (
                None,
                (
                    f"the virial has the wrong sign: over {pairs} pairs of strained crystals its cosine with the "
                    "change of the energy "
                    f"is {strain:.2f} (ΔE = -W:ε). Inside lamella virial = -volume × stress; flip the sign of the "
                    "stress or virial"
                ),
            )
        elif cosine is not None and cosine > _SURE:
            for source, value in single:
                yield (
                    source,
                    f"its virial points against what its forces imply (cosine {value:.2f}) while the other frames agree",
                )


def molecular_virial_error(frame: Frame) -> str | None:
    """How the virial of a frame without periodicity differs from Σ r_i ⊗ F_i; ``None`` where it agrees or cannot tell."""
    if frame.pbc.any() or not {"forces", "virial"} <= set(frame.labels):
        return None
    exact = (frame.positions - frame.positions.mean(axis=0)).T @ frame.labels["forces"]
    exact = 0.5 * (exact + exact.T)
    given = 0.5 * (frame.labels["virial"] + frame.labels["virial"].T)
    scale = max(float(np.abs(exact).max()), float(np.abs(given).max()))
    error = float(np.abs(exact - given).max())
    if error < 0.02 * scale + 0.02:
        return None
    if float(np.abs(exact + given).max()) < 0.02 * scale + 0.02:
        return "the virial has the wrong sign: for a molecule it equals Σ r ⊗ F, this one is its negative"
    return f"the virial of a molecule equals Σ r ⊗ F, this one differs by {error:.3g} eV"


def _sample(frame: Frame) -> _Sample | None:
    """Normal equations of the pair potential on one frame, and its virial per basis function."""
    radius = covalent_radii[frame.numbers]
    reach = _REACH * 2.0 * float(radius.max())
    try:
        src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, min(reach, 6.0), frame.source)
    except StructureError:
        return None
    distance = np.linalg.norm(vec, axis=1)
    scaled = distance / (radius[src] + radius[dst])
    near = scaled < _REACH
    src, vec, distance, scaled = src[near], vec[near], distance[near], scaled[near]
    fade = (1.0 - (scaled / _REACH) ** 2) ** 2
    slope = np.exp(-(((scaled[:, None] - _BUMPS) / _WIDTH) ** 2)) * fade[:, None]
    unit = vec / distance[:, None]
    design = np.zeros((len(frame), 3, len(_BUMPS)))
    np.add.at(design, src, unit[:, :, None] * slope[:, None, :])
    virial = -0.5 * np.einsum("ea,eb,ek->abk", unit, vec, slope)
    flat = design.reshape(-1, len(_BUMPS))
    n = len(frame)
    return _Sample(
        frame.source,
        virial / n,
        0.5 * (frame.labels["virial"] + frame.labels["virial"].T) / n,
        flat.T @ flat / n,
        flat.T @ frame.labels["forces"].ravel() / n,
        float((frame.labels["forces"] ** 2).sum()) / n,
    )


def _from_forces(samples: list[_Sample]) -> tuple[float | None, list[tuple[str, float]]]:
    """Cosine over all frames between labelled and implied deviatoric virial, and frames that point the other way."""
    if len(samples) < _FEWEST:
        return None, []
    normal = np.sum([sample.normal for sample in samples], axis=0)
    right = np.sum([sample.right for sample in samples], axis=0)
    ridge = 1e-6 * np.trace(normal) / len(normal)
    coefficient = np.linalg.solve(normal + ridge * np.eye(len(normal)), right)
    square = np.array([sample.square for sample in samples])
    unexplained = square.sum() - 2.0 * coefficient @ right + coefficient @ normal @ coefficient
    if unexplained > (1.0 - _EXPLAINED) * square.sum():
        return None, []
    implied = _deviator(np.stack([sample.predicted @ coefficient for sample in samples]))
    labelled = _deviator(np.stack([sample.labelled for sample in samples]))
    size = np.sqrt((implied**2).sum(axis=1) * (labelled**2).sum(axis=1))
    dot = (implied * labelled).sum(axis=1)
    total = float(np.sqrt((implied**2).sum() * (labelled**2).sum()))
    if total == 0.0:
        return None, []
    # in a frame of small forces other things than these make the virial, e.g. the strain of a perfect crystal
    strong = (square > 0.25 * square.mean()) & ((implied**2).sum(axis=1) > 0.25 * (labelled**2).sum(axis=1))
    strong &= (labelled**2).sum(axis=1) > 0.25 * (labelled**2).sum(axis=1).mean()
    single = [
        (sample.source, float(d / s))
        for sample, d, s, is_strong in zip(samples, dot, size, strong, strict=True)
        if is_strong and s > 0.0 and d / s < -0.9
    ]
    return float(dot.sum() / total), single


def _deviator(matrices: np.ndarray) -> np.ndarray:
    trace = np.trace(matrices, axis1=1, axis2=2)[:, None, None]
    return (matrices - trace / 3.0 * np.eye(3)).reshape(len(matrices), -1)


def _from_strain(crystals: dict[tuple[int, ...], list[Frame]]) -> tuple[float | None, int]:
    """Cosine between ΔE and -W:ε over pairs of frames that differ by a small homogeneous strain."""
    change: list[float] = []
    implied: list[float] = []
    for frames in crystals.values():
        ordered = sorted(frames, key=lambda frame: abs(np.linalg.det(frame.cell)))
        for a, b in itertools.pairwise(ordered):
            strain = _strain(a, b)
            if strain is None:
                continue
            stretch, turn = strain
            # the second virial in the axes of the first
            mean = 0.5 * (a.labels["virial"] + turn @ b.labels["virial"] @ turn.T)
            change.append(float(b.labels["energy"] - a.labels["energy"]) / len(a))
            implied.append(-float((0.5 * (mean + mean.T) * stretch).sum()) / len(a))
    size = float(np.linalg.norm(change) * np.linalg.norm(implied)) if change else 0.0
    if len(change) < _FEWEST or size == 0.0:
        return None, len(change)
    return float(np.dot(change, implied)) / size, len(change)


def _strain(a: Frame, b: Frame) -> tuple[np.ndarray, np.ndarray] | None:
    """Strain ε and rotation R with cell_b = cell_a (1 + ε) R; ``None`` where it is not one crystal under a small strain."""
    inverse = np.linalg.inv(a.cell)
    shift = a.positions @ inverse - b.positions @ np.linalg.inv(b.cell)
    shift -= shift[0]
    if np.abs(shift - np.round(shift)).max() > 1e-3:
        return None
    left, stretch, right = np.linalg.svd(inverse @ b.cell)
    if not 1e-4 < np.abs(stretch - 1.0).max() < 0.1:
        return None
    return left @ np.diag(stretch - 1.0) @ left.T, left @ right
