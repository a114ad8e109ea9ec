"""Errors of a task on labelled frames, with the energies per element refitted or not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from torch import Tensor

from lamella.data.load import make_batch
from lamella.data.source import Frames, Selection
from lamella.errors import DataError
from lamella.fields import LABELS
from lamella.models.potential import Potential
from lamella.train.adapt.refit import Refit, refit
from lamella.types import Batch, Frame

__all__ = ["Judged", "judge", "of_known_elements", "some_frames", "source_frames"]

_ATOMS: Final = 256
"""A batch takes frames until it holds so many atoms."""

_SOURCE: Final = 64
"""Frames of each task of the model: enough to see a change of some per cent, few enough for models of many tasks."""


@dataclass(frozen=True)
class Judged:
    """What a task makes of frames.

    Attributes:
        frames: how many.
        elements: chemical symbols of the model.
        counts: (F, S) atoms of each element in each frame that carries an energy.
        energy: (F,) label less prediction, eV.
        labels: (F,) label of the energy, eV.
        squares: of forces and virial (that per atom), sums of squared errors, of squared labels, and how many numbers.
    """

    frames: int
    elements: tuple[str, ...]
    counts: np.ndarray
    energy: np.ndarray
    labels: np.ndarray
    squares: Mapping[str, tuple[float, float, int]]

    def refit(self) -> Refit:
        """The change of the energies per element that suits these frames best."""
        return refit(self.counts, self.energy, self.elements)

    def shifted(self, shift: np.ndarray) -> Judged:
        """The same with ``shift`` added to the energies per element."""
        return replace(self, energy=self.energy - self.counts @ shift) if len(self.energy) else self

    def errors(self, shift: np.ndarray | None = None) -> dict[str, float]:
        """RMSE by label: energy and virial in eV/atom, forces in eV/Å.

        Args:
            shift: (S,) added to the energies per element; None for none.
        """
        table: dict[str, float] = {}
        if len(self.energy):
            left = self.energy if shift is None else self.energy - self.counts @ shift
            table["energy"] = float(np.sqrt(np.mean((left / self.counts.sum(axis=1)) ** 2)))
        return table | {name: math.sqrt(square / count) for name, (square, _, count) in self.squares.items()}

    def scale(self) -> dict[str, float]:
        """RMSE of a model without a network: nothing but energies per element, fitted to these labels."""
        table: dict[str, float] = {}
        if len(self.labels):
            bare = refit(self.counts, self.labels, self.elements)
            left = self.labels - self.counts @ bare.shift
            table["energy"] = float(np.sqrt(np.mean((left / self.counts.sum(axis=1)) ** 2)))
        return table | {name: math.sqrt(square / count) for name, (_, square, count) in self.squares.items()}


def judge(potential: Potential, frames: Frames, task: str) -> Judged:
    """Predict every frame with one task, and compare.

    Raises:
        StructureError: a frame that the model cannot read.
        DataError: a prediction that is not finite.
    """
    counts, residuals, labels = [], [], []
    squares = {name: (0.0, 0.0, 0) for name in LABELS if name != "energy"}
    column = {number: index for index, number in enumerate(potential.numbers)}
    for members in _packed(frames):
        batch = make_batch(members, potential.graph_spec).to(potential.device)
        prediction = potential(batch.graph, task)
        energies = prediction.energy.cpu().numpy()
        for frame, energy in zip(members, energies.tolist(), strict=True):
            if not math.isfinite(energy):
                raise DataError(f"{frame.source}: the model predicts {energy} eV; look at the frame (lamella data lint).")
            if "energy" in frame.labels:
                labels.append(float(frame.labels["energy"]))
                residuals.append(labels[-1] - energy)
                counts.append(np.bincount([column[z] for z in frame.numbers.tolist()], minlength=len(column)))
        for name, (error, label, count) in squares.items():
            if name in batch.labels:
                more = _squares(name, getattr(prediction, name), batch)
                squares[name] = (error + more[0], label + more[1], count + more[2])
    return Judged(
        len(frames),
        potential.elements,
        np.array(counts, dtype=np.float64).reshape(-1, len(column)),
        np.array(residuals),
        np.array(labels),
        {name: sums for name, sums in squares.items() if sums[2]},
    )


def some_frames(frames: Frames, limit: int, seed: int) -> Frames:
    """At most ``limit`` frames drawn at random, and beyond that one for each element they would miss; in order."""
    if len(frames) <= limit:
        return frames
    order = np.random.default_rng(seed).permutation(len(frames))
    chosen, seen = list(order[:limit]), set[int]()
    for index in chosen:
        seen.update(frames[int(index)].numbers.tolist())
    for index in order[limit:]:
        if not seen.issuperset(numbers := frames[int(index)].numbers.tolist()):
            chosen.append(index)
            seen.update(numbers)
    return Selection(frames, np.sort(chosen))


def source_frames(frames: Frames, numbers: Sequence[int]) -> Frames:
    """The frames of a task of the model on which forgetting is measured: at most some, always the same."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(frames))[:_SOURCE])
    return of_known_elements(Selection(frames, chosen), numbers)


def of_known_elements(frames: Frames, numbers: Sequence[int]) -> Frames:
    """The frames that hold none but the given elements."""
    known = np.array(numbers)
    kept = [index for index in range(len(frames)) if np.isin(frames[index].numbers, known).all()]
    return frames if len(kept) == len(frames) else Selection(frames, kept)


def _packed(frames: Frames) -> Iterator[list[Frame]]:
    """Frames in batches of some atoms, in order."""
    members: list[Frame] = []
    for index in range(len(frames)):
        members.append(frames[index])
        if sum(len(frame) for frame in members) >= _ATOMS:
            yield members
            members = []
    if members:
        yield members


def _squares(name: str, predicted: Tensor, batch: Batch) -> tuple[float, float, int]:
    """Sums of squared errors and squared labels over what carries the label, and how many numbers that are."""
    label, carries_F = batch.labels[name], batch.carries[name]
    error = predicted.double() - label
    if name == "forces":
        known_N = carries_F[batch.graph.frame.index]
        error, label = error[known_N], label[known_N]
    else:
        atoms_F = batch.graph.frame.ptr.diff().double().reshape(-1, *[1] * (label.dim() - 1))
        error, label = (error / atoms_F)[carries_F], (label / atoms_F)[carries_F]
    return float(error.square().sum()), float(label.square().sum()), error.numel()
