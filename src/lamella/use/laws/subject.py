"""The model under check, its structures, and how violations are measured."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from lamella.geometry.switch import Shell
from lamella.models.potential import Potential
from lamella.nn.activation import KINKED
from lamella.types import Frame, FrameInput, Prediction
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import cluster, crystal

__all__ = [
    "EXACT",
    "FINITE_STEP",
    "FLOOR",
    "Subject",
    "difference",
    "dressed",
    "explained",
    "predict",
    "relative",
    "subject_of",
    "worst",
]

EXACT = 1e-11
"""Bound of laws that are exact but for round-off in float64.

Units in the last place (2e-16) grow by the condition of the network: moving or rotating atoms rounds positions of 10 Å to
2e-15 Å, which changes forces by a curvature times that. Measured: 1e-16 to 2e-14 for random models of 2 to 6 layers; forces
of trained ones bend more.
"""

FINITE_STEP = 1e-8
"""Bound of laws measured by finite steps, besides the round-off of the energy divided by the step.

A five-point stencil of step h = 1e-4 Å leaves h⁴ f⁽⁵⁾/30, about 1e-13; SiLUT's second derivative jumps at its threshold,
which leaves up to h times that jump in the few channels that pass it within a step.
"""

FLOOR = 1e-3
"""Relative errors are taken of this (eV, eV/Å) where the reference is smaller."""


@dataclass(frozen=True)
class Subject:
    """One model and task, with the structures to try it on.

    Attributes:
        model: a float64 copy with zero baselines: what was learned. Baselines are constants of up to 1e5 eV an atom whose
            round-off would hide violations; they have a law of their own.
        original: the caller's model; never changed.
        task: one of its tasks.
        seed: of every random choice.
        crystal: periodic, skewed, narrower than most cutoffs.
        cluster: a molecule without a cell.
        breaks: distances at which the energy is only C², Å.
        rough: sentences on the options of the model that break smoothness, and where.
        kinks: sentences on its activations that are no smooth functions.
    """

    model: Potential
    original: Potential
    task: str
    seed: int
    crystal: Frame
    cluster: Frame
    breaks: tuple[float, ...]
    rough: tuple[str, ...]
    kinks: tuple[str, ...]

    @property
    def shells(self) -> tuple[Shell, ...]:
        """Every cutoff of the model."""
        return self.model.config.backbone.shells

    @property
    def frames(self) -> tuple[Frame, Frame]:
        """The crystal and the cluster."""
        return self.crystal, self.cluster

    def rng(self) -> np.random.Generator:
        """The same random numbers for every law."""
        return np.random.default_rng(self.seed)


def subject_of(model: Potential, task: str, seed: int) -> Subject:
    """A float64 copy of the model and structures of (at most four of) its elements."""
    learned = copy.deepcopy(model).cast(torch.float64).requires_grad_(False).eval()
    learned.baseline = torch.zeros_like(learned.baseline)
    rng = np.random.default_rng(seed)
    breaks = [distance for shell in model.config.backbone.shells for distance in (shell.end, shell.start)]
    kinds = rng.permutation(model.numbers)[:4]
    return Subject(
        model=learned,
        original=model,
        task=task,
        seed=seed,
        crystal=crystal(rng, np.resize(kinds, 6).tolist(), breaks),
        cluster=cluster(rng, np.resize(kinds, 6).tolist(), breaks),
        breaks=tuple(breaks),
        rough=model.config.backbone.rough,
        kinks=_kinks(model.config.model_dump()),
    )


def _kinks(config: Mapping[str, Any], path: str = "") -> tuple[str, ...]:
    """A sentence for every activation that is no smooth function, wherever in the configuration."""
    found: list[str] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _kinks(value, f"{path}{key}.")
        elif key == "activation" and value in KINKED:
            found.append(f"{path}{key}: {value} has a kink, so forces jump wherever a neuron crosses it")
    return tuple(found)


def dressed(model: Potential, frame: Frame, variant: int = 0) -> Frame:
    """The frame with what the model reads beside the geometry, where it does not say so; another variant, other values."""
    given = {wanted.name: _value(model, wanted, variant) for wanted in model.graph_spec.inputs}
    return replace(frame, labels={**given, **frame.labels}) if given else frame


def _value(model: Potential, wanted: FrameInput, variant: int) -> np.ndarray:
    """Something that the input may be: parameters about those the heads are scaled for, small charges and spins."""
    if wanted.name != "frame_params":
        return np.array(1.0 + variant)
    mean, inv_std = (model.get_buffer(f"heads.0.{name}").double() for name in ("frame_mean", "frame_inv_std"))
    return (mean + (0.3 + 0.1 * variant) / inv_std).cpu().numpy()


def explained(row: Check, reasons: Sequence[str]) -> Check:
    """A row that does not hold names what is known to break it."""
    if row.passed or not reasons:
        return row
    return replace(row, sentence=f"{row.sentence} Why: {'; '.join(reasons)}.")


def predict(model: Potential, frames: Sequence[Frame], task: str) -> list[Prediction]:
    """Predictions as numpy arrays, one a frame; all frames in one batch."""
    result = model(model.graph([dressed(model, frame) for frame in frames]), task)
    energy, atom_energy, forces, virial = (value.detach().double().cpu().numpy() for value in result)
    ends = np.cumsum([len(frame) for frame in frames])[:-1]
    parts = zip(energy, np.split(atom_energy, ends), np.split(forces, ends), virial, strict=True)
    return [Prediction(*part) for part in parts]


def relative(a: ArrayLike, b: ArrayLike, scale: float = 0.0) -> float:
    """max|a - b| / max(max|b|, scale, 1e-3); NaN where either holds one."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.size == 0 and b.size == 0:
        return 0.0
    worst = np.abs(a - b).max()
    return float(worst / max(np.abs(b).max(), scale, FLOOR)) if np.isfinite(worst) else float("nan")


def difference(a: Prediction, b: Prediction) -> float:
    """Largest relative difference of two predictions: energy (of Σ|e_i|), atomic energies, forces, virial."""
    return worst(
        [
            relative(a.energy, b.energy, float(np.abs(b.atom_energy).sum())),
            relative(a.atom_energy, b.atom_energy),
            # a force that cancels rounds like the pulls of its edges, whose size the virial tells (edges are some 3 Å long)
            relative(a.forces, b.forces, float(np.abs(b.virial).max()) / (3.0 * len(b.forces))),
            # as a sum of forces times vectors of some Å, the virial rounds like those
            relative(a.virial, b.virial, float(np.abs(b.forces).max(initial=0.0))),
        ]
    )


def worst(violations: Sequence[float]) -> float:
    """The largest, or NaN if any is."""
    return float(np.max(np.asarray(violations, dtype=np.float64), initial=0.0))
