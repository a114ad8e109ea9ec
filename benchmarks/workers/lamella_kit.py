"""lamella's side of a benchmark: one timed step for each line on standard input.

Usage: lamella_kit.py energy CHECKPOINT FRAME.npz | train CHECKPOINT FRAME.npz
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

import lamella
from lamella.allocator import keep_freed_memory
from lamella.formats.deepmd import read_checkpoint
from lamella.types import Frame

Step = Callable[[np.ndarray], tuple[float, np.ndarray]]


def energy_step(checkpoint: str, frame: dict[str, np.ndarray]) -> Step:
    """What a user runs: lamella.Calculator with its defaults; energy, forces and stress."""
    atoms = Atoms(frame["numbers"], frame["positions"], cell=frame["cell"], pbc=True)
    atoms.calc = lamella.Calculator(lamella.load(checkpoint))

    def step(positions: np.ndarray) -> tuple[float, np.ndarray]:
        atoms.positions = positions
        return atoms.get_potential_energy(), atoms.get_forces()

    return step


def train_step(checkpoint: str, frame: dict[str, np.ndarray]) -> Step:
    """Forward, squared loss of energy and forces, backward, clipping, AdamW; neighbour list included, as in deepmd-kit."""
    keep_freed_memory()  # as `lamella train` does
    model = read_checkpoint(Path(checkpoint))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    energy, forces = torch.tensor(frame["energy"]), torch.tensor(frame["forces"])
    atoms = forces.shape[0]

    def step(positions: np.ndarray) -> tuple[float, np.ndarray]:
        optimizer.zero_grad(set_to_none=True)
        graph = model.graph([Frame(frame["numbers"], positions, frame["cell"], np.ones(3, dtype=bool))])
        out = model(graph, create_graph=True)
        loss = 0.2 * ((out.energy - energy) ** 2).sum() / atoms + 100.0 * ((out.forces - forces) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return float(out.energy[0].detach()), out.forces.detach().numpy()

    return step


def serve(step: Step, positions: np.ndarray) -> None:
    """One step per line read: prints seconds, energy, norm of the forces and peak memory in MB."""
    for line in sys.stdin:
        moved = positions + float(line)  # a shift of the origin: same energy, nothing cached
        start = time.perf_counter()
        energy, forces = step(moved)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, energy, float(np.linalg.norm(forces)), peak]), flush=True)


if __name__ == "__main__":
    structure = dict(np.load(sys.argv[3]))
    serve({"energy": energy_step, "train": train_step}[sys.argv[1]](sys.argv[2], structure), structure["positions"])
