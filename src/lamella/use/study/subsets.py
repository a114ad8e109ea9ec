"""Nested random subsets of labelled frames, written where recipes find them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from ase.data import chemical_symbols

from lamella.data.extxyz import write_frames
from lamella.data.source import Frames
from lamella.errors import InputError
from lamella.train.prepare import open_data
from lamella.types import Frame
from lamella.use.study.config import LabelledSet
from lamella.use.study.trial import slug

__all__ = ["Subset", "nested_order", "subsets"]

Subset = tuple[int, dict[str, object]]
"""Number of frames, and ``train`` and ``keys`` of a task."""

_NEW: Final = 1e-6
"""A composition of length 1 is no combination of others where so much of it is left beside them."""


def subsets(name: str, labelled: LabelledSet, sizes: Sequence[int], whole: bool, seed: int, folder: Path) -> list[Subset]:
    """Training frames of several sizes, each subset part of the next.

    Args:
        name: of the set.
        labelled: the set.
        sizes: numbers of frames; those beyond the set are left out.
        whole: whether the set itself comes last.
        seed: of the draw.
        folder: of the study; files go to ``data/``.

    Raises:
        InputError: no size is left, or the folder holds other frames.
    """
    frames = open_data(labelled.train, labelled.keys)
    order = nested_order(frames, seed)
    found: list[Subset] = []
    for size in sorted({size for size in sizes if size < len(frames) or (size == len(frames) and not whole)}):
        path = folder / "data" / f"{slug(name)}-{size}-s{seed}.extxyz"
        _write_once(path, (frames[int(index)] for index in np.sort(order[:size])))
        found.append((size, {"train": [str(path.absolute())]}))
    if whole:
        found.append((len(frames), {"train": list(labelled.train), "keys": labelled.keys.model_dump()}))
    if not found:
        raise InputError(f"sizes: {name} has {len(frames)} frames, fewer than each of them; give smaller ones.")
    return found


def nested_order(frames: Frames, seed: int) -> np.ndarray:
    """A random order in which each of the first frames determines one more energy per element.

    They are those whose composition is no combination of compositions before it, as the order meets them: so even small
    subsets hold every element, and the least squares that give a model its energies have one solution where they can.
    """
    order = np.random.default_rng(seed).permutation(len(frames))
    basis = np.zeros((0, len(chemical_symbols)))
    first: list[int] = []
    later: list[int] = []
    for index in order.tolist():
        counts = np.bincount(frames[index].numbers, minlength=basis.shape[1]).astype(float)
        left = counts / np.linalg.norm(counts)
        for _ in range(2):  # once more, for the rounding of the first time
            left = left - (basis @ left) @ basis
        new = float(np.linalg.norm(left)) > _NEW
        if new:
            basis = np.vstack([basis, left / np.linalg.norm(left)])
        (first if new else later).append(index)
    return np.array(first + later, dtype=np.int64)


def _write_once(path: Path, frames: Iterable[Frame]) -> None:
    """Write a subset, unless it is there; a file with other frames would be trained on in its place.

    Raises:
        InputError: there is such a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_suffix(".building")
    write_frames(building, frames)
    if path.exists() and path.read_bytes() != building.read_bytes():
        building.unlink()
        raise InputError(
            f"{path}: it holds other frames than are drawn from the training set now; choose another folder with --out, or "
            "remove the folder of the study."
        )
    building.replace(path)
