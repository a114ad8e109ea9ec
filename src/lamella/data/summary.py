"""What a data set holds, in one pass and constant memory: frames, elements, sizes, labels and which keys they came from."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from lamella.data.digest import combine, frame_digest
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.read import iter_frames
from lamella.data.statistics import LabelMoments
from lamella.fields import FIELDS, INPUTS
from lamella.types import Frame

__all__ = ["InputRange", "Summary", "summarise"]


@dataclass(frozen=True)
class InputRange:
    """What the frames say of one input: frame_params, charge or spin.

    Attributes:
        frames: number of frames that carry it.
        low: smallest value, by component.
        high: largest value, by component.
    """

    frames: int
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Summary:
    """One file or folder.

    Attributes:
        path: as given.
        frames: number of frames.
        atoms: smallest, mean and largest number of atoms in a frame.
        elements: number of frames by chemical symbol, in order of atomic number.
        periodic: number of frames by periodicity, e.g. ``"T T T"``.
        labels: number of frames that carry each label.
        inputs: frames and range of each input of a model that frames carry.
        std: standard deviation of the labels: energy and virial per atom, forces by component.
        keys: what was read as which label, and what was not used.
        content_hash: see :mod:`lamella.data.digest`.
    """

    path: str
    frames: int
    atoms: tuple[int, float, int]
    elements: dict[str, int]
    periodic: dict[str, int]
    labels: dict[str, int]
    inputs: dict[str, InputRange]
    std: dict[str, float]
    keys: list[str]
    content_hash: str


def summarise(path: str | os.PathLike[str], keys: LabelKeys | None = None) -> Summary:
    """Read a file or folder once and describe it.

    Raises:
        DataError: see :func:`lamella.data.read.iter_frames`.
    """
    report = ReadReport()
    moments = LabelMoments()
    elements: Counter[int] = Counter()
    periodic: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    inputs = _InputRanges()
    sizes: list[int] = []
    digests: list[bytes] = []
    for frame in iter_frames(path, keys, report=report):
        sizes.append(len(frame))
        elements.update(np.unique(frame.numbers).tolist())
        periodic[" ".join("T" if flag else "F" for flag in frame.pbc)] += 1
        labels.update(name for name in frame.labels if name in FIELDS)
        inputs.add(frame)
        moments.add(frame)
        digests.append(frame_digest(frame))
    return Summary(
        path=os.fspath(path),
        frames=len(sizes),
        atoms=(min(sizes), float(np.mean(sizes)), max(sizes)),
        elements={chemical_symbols[number]: elements[number] for number in sorted(elements)},
        periodic=dict(periodic.most_common()),
        labels=dict(labels),
        inputs=inputs.ranges(),
        std=moments.std(),
        keys=report.lines(),
        content_hash=combine(digests),
    )


class _InputRanges:
    """Running range of every input that frames carry."""

    def __init__(self) -> None:
        self._ranges: dict[str, InputRange] = {}

    def add(self, frame: Frame) -> None:
        """Take in the inputs of one frame; a list of another length than before counts, but has no place in the range."""
        for name in (name for name in INPUTS if name in frame.labels):
            value = np.ravel(frame.labels[name]).tolist()
            before = self._ranges.get(name, InputRange(0, value, value))
            same = len(before.low) == len(value)
            low = [min(pair) for pair in zip(before.low, value, strict=True)] if same else before.low
            high = [max(pair) for pair in zip(before.high, value, strict=True)] if same else before.high
            self._ranges[name] = InputRange(before.frames + 1, low, high)

    def ranges(self) -> dict[str, InputRange]:
        """Range by name, in the order of the table of fields."""
        return {name: self._ranges[name] for name in INPUTS if name in self._ranges}
