"""Golden models (tests/golden): where they are, their frames, and how lamella's numbers are compared with theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from lamella.models.potential import Potential
from lamella.types import Frame

GOLDEN = Path(__file__).parent / "golden"

FRAMES = ("periodic", "triclinic_small", "cluster", "isolated")


def relative(got: object, want: object) -> float:
    """max|a - b| / max(max|b|, 1e-3) over one array; infinite where a number is missing or the shapes differ."""
    a, b = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


def golden_frames(name: str | Path, task: str | None = None) -> Iterator[tuple[Frame, dict[str, np.ndarray]]]:
    """Every frame of a golden file (a name in tests/golden, or a path) with the values deepmd-kit gave it."""
    prefix = f"{task}/" if task else ""
    path = name if isinstance(name, Path) else GOLDEN / f"{name}.npz"
    with np.load(path) as stored:
        for frame in FRAMES:
            start = f"{prefix}{frame}/"
            values = {key.removeprefix(start): stored[key] for key in stored.files if key.startswith(start)}
            cell = values.get("cell", np.zeros((3, 3)))
            numbers = np.array([atomic_numbers[symbol] for symbol in values["symbols"]])
            pbc = np.full(3, bool(cell.any()))
            source = f"{path.stem}:{frame}"
            yield Frame(numbers, values["positions"], cell, pbc, inputs_of(values), source), values


def inputs_of(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What else the frame carries, under lamella's names."""
    out = {}
    if "fparam" in values:
        out["frame_params"] = values["fparam"]
    if "charge_spin" in values:
        out["charge"], out["spin"] = values["charge_spin"]
    return out


def disagreements(model: Potential, name: str | Path, task: str | None = None) -> dict[str, float]:
    """Relative difference between lamella and deepmd-kit of every array of every frame of a golden file."""
    out = {}
    for frame, want in golden_frames(name, task):
        graph = model.graph([frame])
        got = model(graph, task)
        pairs = {
            "energy": (got.energy[0], want["energy"]),
            "forces": (got.forces, want["forces"]),
            "atomic_energy": (got.atom_energy, want["atomic_energy"]),
            "descriptor": (model.describe(graph), want["descriptor"]),
        }
        if "virial" in want:
            virial = got.virial[0].numpy()
            pairs["virial"] = (virial + virial.T, want["virial"] + want["virial"].T)
        out |= {f"{frame.source}:{key}": relative(*pair) for key, pair in pairs.items()}
    return out
