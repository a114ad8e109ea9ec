"""Golden models (tests/golden): where they are, their frames, and how two arrays are compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from lamella.types import Frame

GOLDEN = Path(__file__).parent / "golden"


def relative(got: object, want: object) -> float:
    """max|a - b| / max(max|b|, 1e-3) over one array; infinite where a number is missing or the shapes differ."""
    a, b = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


def golden_frames(name: str, task: str | None = None) -> Iterator[tuple[Frame, dict[str, np.ndarray]]]:
    """Every frame of a golden file with the values deepmd-kit gave it."""
    prefix = f"{task}/" if task else ""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        for frame in ("periodic", "triclinic_small", "cluster", "isolated"):
            start = f"{prefix}{frame}/"
            values = {key.removeprefix(start): stored[key] for key in stored.files if key.startswith(start)}
            cell = values.get("cell", np.zeros((3, 3)))
            numbers = np.array([atomic_numbers[symbol] for symbol in values["symbols"]])
            yield Frame(numbers, values["positions"], cell, np.full(3, bool(cell.any())), source=f"{name}:{frame}"), values
