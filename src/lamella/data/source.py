"""Data sets: any number of files as one sequence of frames. Stores stay on disk, everything else is read into memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from lamella.data.digest import combine, frame_digest
from lamella.data.keys import LabelKeys, ReadReport, check_named
from lamella.data.read import iter_frames, log_report
from lamella.data.store import Store, is_store
from lamella.errors import DataError
from lamella.types import Frame

__all__ = ["Chain", "FrameList", "Frames", "Selection", "open_frames", "split_fraction"]


class Frames(Protocol):
    """Frames by index."""

    @property
    def content_hash(self) -> str:
        """Hash of all frames in order; independent of where they lie."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Frame: ...

    def digest(self, index: int, /) -> bytes:
        """SHA-256 of one frame."""
        ...


class FrameList:
    """Frames in memory."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Frame:
        return self._frames[index]

    def digest(self, index: int) -> bytes:
        """SHA-256 of one frame."""
        return frame_digest(self._frames[index])

    @cached_property
    def content_hash(self) -> str:
        """Hash of all frames in order."""
        return _hash(self)


class Selection:
    """Some frames of another sequence, in a given order."""

    def __init__(self, frames: Frames, indices: Sequence[int] | np.ndarray) -> None:
        self._frames = frames
        self.indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Frame:
        return self._frames[int(self.indices[index])]

    def digest(self, index: int) -> bytes:
        """SHA-256 of one frame."""
        return self._frames.digest(int(self.indices[index]))

    @cached_property
    def content_hash(self) -> str:
        """Hash of the selected frames in order."""
        return _hash(self)


class Chain:
    """Several sequences, one after the other."""

    def __init__(self, parts: Sequence[Frames]) -> None:
        self._parts = list(parts)
        self._first = np.cumsum([0] + [len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Frame:
        part, row = self._locate(index)
        return part[row]

    def digest(self, index: int) -> bytes:
        """SHA-256 of one frame."""
        part, row = self._locate(index)
        return part.digest(row)

    @cached_property
    def content_hash(self) -> str:
        """Hash of all frames in order."""
        return _hash(self)

    def _locate(self, index: int) -> tuple[Frames, int]:
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        part = int(np.searchsorted(self._first, i, side="right")) - 1
        return self._parts[part], i - int(self._first[part])


def open_frames(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    keys: LabelKeys | None = None,
    report: ReadReport | None = None,
) -> Frames:
    """All frames of some files as one sequence, in the order given.

    Args:
        paths: see :func:`lamella.data.read.iter_frames`.
        keys: which key is which label; ``None`` guesses all and reports.
        report: where to count the keys used and not used; ``None`` logs them.

    Raises:
        DataError: no paths, a file without frames, a frame that cannot be used, or a named key that occurs nowhere.
    """
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not listed:
        raise DataError("no data files are given; name at least one.")
    total = ReadReport()
    parts: list[Frames] = []
    for path in listed:
        if is_store(path):
            parts.append(Store(path))
            continue
        own = ReadReport()
        parts.append(FrameList(iter_frames(path, keys, report=own)))
        total.add(own)
        if report is None:
            log_report(os.fspath(path), own)
    in_memory = [part for part in parts if isinstance(part, FrameList)]
    if keys is not None and in_memory:
        check_named(keys, total, listed)
    if report is not None:
        report.add(total)
    return parts[0] if len(parts) == 1 else Chain(parts)


def split_fraction(frames: Frames, fraction: float, seed: int) -> tuple[Frames, Frames]:
    """A seeded split: ``(rest, held out)``, the held-out part having ``fraction`` of the frames (at least one).

    Both keep the order of the frames. The split depends on the number of frames, the fraction and the seed alone.

    Raises:
        DataError: fewer than two frames, or a fraction outside (0, 1).
    """
    n = len(frames)
    if not 0.0 < fraction < 1.0:
        raise DataError(f"the validation fraction is {fraction}; it must lie between 0 and 1.")
    if n < 2:
        raise DataError(f"{n} frame cannot be split into training and validation; give at least two, or a validation file.")
    held = min(max(round(n * fraction), 1), n - 1)
    order = np.random.default_rng(seed).permutation(n)
    return Selection(frames, np.sort(order[held:])), Selection(frames, np.sort(order[:held]))


def _hash(frames: Frames) -> str:
    return combine(frames.digest(index) for index in range(len(frames)))
