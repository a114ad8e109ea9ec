"""Which atoms an atlas shows: a seeded sample, even over elements and, within an element, over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lamella.data.source import Frames
from lamella.errors import DataError
from lamella.types import Frame
from lamella.use.atlas.config import AtlasConfig

__all__ = ["SCANNED", "Sample", "sample_atoms"]

SCANNED: Final = 20_000
"""At most so many frames are looked at for their elements; of more, a random choice."""


@dataclass(frozen=True)
class Sample:
    """N atoms of F structures.

    Attributes:
        frames: the structures, data set by data set.
        tasks: (F,) which data set each is from.
        frame: (N,) int64, the structure an atom is in, a position in ``frames``; ascending.
        atom: (N,) int64, its position in the structure, from 0.
        available: how many atoms of each element the frames looked at have.
        scanned: how many frames were looked at.
        total: how many frames the data have.
    """

    frames: Sequence[Frame]
    tasks: Sequence[str]
    frame: np.ndarray
    atom: np.ndarray
    available: Mapping[str, int]
    scanned: int
    total: int

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int64, atomic numbers."""
        return np.array([self.frames[f].numbers[a] for f, a in zip(self.frame, self.atom, strict=True)], dtype=np.int64)

    @property
    def symbols(self) -> np.ndarray:
        """(N,) chemical symbols."""
        return np.array(chemical_symbols)[self.numbers]

    @property
    def task(self) -> np.ndarray:
        """(N,) name of the data set."""
        return np.array(self.tasks)[self.frame]

    def rows(self, per_frame: Sequence[np.ndarray]) -> np.ndarray:
        """(N, ...) of the sampled atoms, from an array over all atoms for each structure."""
        return np.stack([per_frame[f][a] for f, a in zip(self.frame, self.atom, strict=True)])


def sample_atoms(data: Mapping[str, Frames], config: AtlasConfig) -> Sample:
    """Choose atoms, the same ones for the same data and configuration.

    An element's share is drawn from random structures that contain it, so that few structures need be described. Memory
    does not grow with the data.

    Args:
        data: frames by name of the data set.
        config: ``atoms``, ``structures``, ``elements`` and ``seed`` are read.

    Raises:
        DataError: no frames, or no atom of the elements wanted.
    """
    rng = np.random.default_rng(config.seed)
    strata, scanned = _scan(data, config.elements, rng)
    if not strata:
        wanted = f" of {', '.join(config.elements)}" if config.elements else ""
        raise DataError(f"{', '.join(data) or 'no data'}: there are no atoms{wanted} to show; check the paths.")
    chosen: dict[tuple[str, int], np.ndarray] = {}
    frames: dict[tuple[str, int], Frame] = {}
    quotas = _quotas(strata, config.atoms)
    for (number, name), quota in quotas.items():
        if quota == 0:
            continue
        indices, counts = strata[number, name]
        budget = max(1, round(config.structures * quota / sum(quotas.values())))
        order = rng.permutation(len(indices))
        enough = int(np.searchsorted(np.cumsum(counts[order]), quota)) + 1
        picked = np.sort(indices[order[: max(budget, enough)]])
        for index in picked:
            if (name, int(index)) not in frames:
                frames[name, int(index)] = data[name][int(index)]
        found = [np.flatnonzero(frames[name, int(index)].numbers == number) for index in picked]
        owner, atoms = np.repeat(picked, [len(each) for each in found]), np.concatenate(found)
        kept = rng.choice(len(owner), size=quota, replace=False)
        for index in np.unique(owner[kept]):
            key, more = (name, int(index)), atoms[kept[owner[kept] == index]]
            chosen[key] = np.sort(np.concatenate([chosen.get(key, more[:0]), more]))
    names = list(data)
    keys = sorted(chosen, key=lambda key: (names.index(key[0]), key[1]))
    return Sample(
        frames=[frames[key] for key in keys],
        tasks=[name for name, _ in keys],
        frame=np.repeat(np.arange(len(keys)), [len(chosen[key]) for key in keys]),
        atom=np.concatenate([chosen[key] for key in keys]),
        available=_totals(strata),
        scanned=scanned,
        total=sum(len(part) for part in data.values()),
    )


_Strata = dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]
"""By atomic number and data set: the frames (m,) that have the element, and how many atoms of it each has (m,)."""


def _scan(data: Mapping[str, Frames], elements: Sequence[str], rng: np.random.Generator) -> tuple[_Strata, int]:
    """Where each element is, over all frames or a random :data:`SCANNED` of them, and how many were looked at."""
    wanted = {atomic_numbers[symbol] for symbol in elements}
    shares = _even(np.array([len(part) for part in data.values()]), SCANNED)
    rows: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for (name, part), share in zip(data.items(), shares, strict=True):
        whole = share == len(part)
        for index in range(len(part)) if whole else np.sort(rng.choice(len(part), size=share, replace=False)):
            numbers, counts = np.unique(part[int(index)].numbers, return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                if not wanted or number in wanted:
                    rows.setdefault((number, name), []).append((int(index), count))
    found = {}
    for key in sorted(rows):  # not in the order of the files: that of elements decides the draw
        table = np.array(rows[key], dtype=np.int64)
        found[key] = table[:, 0], table[:, 1]
    return found, int(shares.sum())


def _quotas(strata: _Strata, atoms: int) -> dict[tuple[int, str], int]:
    """Atoms of each element and data set: even over elements, then over the data sets that have it."""
    numbers = sorted({number for number, _ in strata})
    totals = [sum(int(counts.sum()) for (n, _), (_, counts) in strata.items() if n == number) for number in numbers]
    quotas: dict[tuple[int, str], int] = {}
    for number, share in zip(numbers, _even(np.array(totals), atoms), strict=True):
        own = [key for key in strata if key[0] == number]
        parts = _even(np.array([int(strata[key][1].sum()) for key in own]), int(share))
        quotas |= {key: int(part) for key, part in zip(own, parts, strict=True)}
    return quotas


def _even(available: np.ndarray, total: int) -> np.ndarray:
    """``total`` shared out evenly; what one cannot give the others give, until all is given (n,)."""
    shares = np.zeros(len(available), dtype=np.int64)
    left = total
    for rank, index in enumerate(np.argsort(available, kind="stable")):
        shares[index] = min(int(available[index]), -(-left // (len(available) - rank)))
        left -= int(shares[index])
    return shares


def _totals(strata: _Strata) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (number, _), (_, counts) in strata.items():
        symbol = chemical_symbols[number]
        totals[symbol] = totals.get(symbol, 0) + int(counts.sum())
    return totals
