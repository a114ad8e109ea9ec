"""Nested random subsets of labelled frames, written where recipes find them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lamella.data.extxyz import write_frames
from lamella.data.source import Frames
from lamella.errors import InputError
from lamella.train.prepare import open_data
from lamella.use.study.config import LabelledSet
from lamella.use.study.trial import slug

__all__ = ["Subset", "nested_order", "subsets"]

Subset = tuple[int, dict[str, object]]
"""Number of frames, and ``train`` and ``keys`` of a task."""


def subsets(name: str, labelled: LabelledSet, sizes: Sequence[int], whole: bool, seed: int, folder: Path) -> list[Subset]:
    """Training frames of several sizes, each subset part of the next; files that are there are not written again.

    Args:
        name: of the set.
        labelled: the set.
        sizes: numbers of frames; those beyond the set are left out.
        whole: whether the set itself comes last.
        seed: of the draw.
        folder: of the study; files go to ``data/``.

    Raises:
        InputError: no size is left.
    """
    frames = open_data(labelled.train, labelled.keys)
    order = nested_order(frames, seed)
    found: list[Subset] = []
    for size in sorted({size for size in sizes if size < len(frames) or (size == len(frames) and not whole)}):
        path = folder / "data" / f"{slug(name)}-{size}-s{seed}.extxyz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            building = path.with_suffix(".building")
            write_frames(building, (frames[int(index)] for index in np.sort(order[:size])))
            building.replace(path)
        found.append((size, {"train": [str(path.absolute())]}))
    if whole:
        found.append((len(frames), {"train": list(labelled.train), "keys": labelled.keys.model_dump()}))
    if not found:
        raise InputError(f"sizes: {name} has {len(frames)} frames, fewer than each of them; give smaller ones.")
    return found


def nested_order(frames: Frames, seed: int) -> np.ndarray:
    """A random order in which the first frames hold every element, as far as few frames can."""
    order = np.random.default_rng(seed).permutation(len(frames))
    seen: set[int] = set()
    first: list[int] = []
    later: list[int] = []
    for index in order.tolist():
        numbers = set(np.unique(frames[index].numbers).tolist())
        (later if numbers <= seen else first).append(index)
        seen |= numbers
    return np.array(first + later, dtype=np.int64)
