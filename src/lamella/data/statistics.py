"""Statistics of a data set: scale of the environment matrix, standard deviation of the labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from ase.data import atomic_numbers

from lamella.errors import DataError
from lamella.fields import FIELDS
from lamella.geometry.graph import species_index
from lamella.geometry.neighbors import neighbor_edges
from lamella.geometry.switch import Shell, polynomial_switch
from lamella.types import Frame

__all__ = ["LabelMoments", "environment_statistics", "label_std"]

_SMALLEST = 1e-2
_ABSENT = 0.1


def environment_statistics(
    frames: Iterable[Frame],
    elements: Sequence[str],
    shell: Shell,
    slots: int,
    protection: float = 0.0,
    excluded: Sequence[tuple[int, int]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n_species,) of the radial column and standard deviations (n_species, 2) of radial and angular columns.

    Of the environment matrix before normalisation (w/(r + p), w r_α/(r + p)²), by element of the centre, over all centres
    and ``slots`` neighbour slots each, an empty slot or an excluded pair counting as zero; with the polynomial switch,
    whichever the model uses. A deviation is at least 0.01; an element that does not occur has mean 0 and deviation 0.1.
    Source: deepmd-kit's input statistics.

    Args:
        frames: a sample of the data.
        elements: chemical symbols, in the model's order.
        shell: cutoff and switch.
        slots: neighbours the reference normalises for (deepmd-kit's ``sel``).
        protection: p, Å.
        excluded: pairs of species, either way round, that do not see each other.
    """
    seen = np.ones((len(elements), len(elements)))
    for a, b in excluded:
        seen[a, b] = seen[b, a] = 0.0
    numbers = [atomic_numbers[symbol] for symbol in elements]
    centres = np.zeros(len(elements))
    sums = np.zeros((len(elements), 2))
    squares = np.zeros((len(elements), 2))
    for frame in frames:
        species = species_index(frame.numbers, numbers, frame.source)
        src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, shell.end, frame.source)
        distance = np.linalg.norm(vec, axis=1)
        switch = polynomial_switch(torch.from_numpy(distance), shell.start, shell.end).numpy()
        radial = switch * seen[species[src], species[dst]] / (distance + protection)
        angular = (radial / (distance + protection))[:, None] * vec
        centres += np.bincount(species, minlength=len(elements))
        np.add.at(sums, species[src], np.stack([radial, angular.sum(axis=1)], axis=1))
        np.add.at(squares, species[src], np.stack([radial**2, (angular**2).sum(axis=1)], axis=1))
    values = np.maximum(centres, 1.0)[:, None] * slots * np.array([1.0, 3.0])
    mean = sums / values
    std = np.sqrt(np.maximum(squares / values - mean**2, 0.0))
    return mean[:, 0], np.where(centres[:, None] > 0, np.maximum(std, _SMALLEST), _ABSENT)


class LabelMoments:
    """Running mean and spread of every label, free of cancellation (Chan's update)."""

    def __init__(self) -> None:
        self._moments: dict[str, np.ndarray] = {}

    def add(self, frame: Frame) -> None:
        """Take in the labels of one frame: energy and virial per atom."""
        for name, value in ((name, value) for name, value in frame.labels.items() if name in FIELDS):
            scaled = np.ravel(value) / (len(frame) if FIELDS[name].owner == "frame" else 1)
            chunk = np.array([scaled.size, scaled.mean(), ((scaled - scaled.mean()) ** 2).sum()])
            self._moments[name] = _merged(self._moments[name], chunk) if name in self._moments else chunk

    def std(self) -> dict[str, float]:
        """Standard deviation by label."""
        return {name: float(np.sqrt(square / count)) for name, (count, _, square) in self._moments.items()}


def label_std(frames: Iterable[Frame]) -> dict[str, float]:
    """Standard deviation of each label that occurs: what a model that predicts the mean would be wrong by.

    ``energy``: of E/N, eV/atom (composition included: see :attr:`BaselineFit.rms` for what is left after the baseline);
    ``forces``: of all components, eV/Å; ``virial``: of all components of W/N, eV/atom.

    Raises:
        DataError: no frame carries any label.
    """
    moments = LabelMoments()
    for frame in frames:
        moments.add(frame)
    std = moments.std()
    if not std:
        raise DataError("no frame carries a label; name the label keys of the file.")
    return std


def _merged(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count, mean and sum of squared deviations of two samples together (Chan's update: no cancellation)."""
    count = a[0] + b[0]
    shift = b[1] - a[1]
    return np.array([count, a[1] + shift * b[0] / count, a[2] + b[2] + shift**2 * a[0] * b[0] / count])
