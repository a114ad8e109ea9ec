"""One training step of a fixed model on a fixed batch of two tasks, in as many processes as started it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk, molecule

from lamella.data.convert import frame_from_atoms
from lamella.data.load import Share, make_batch
from lamella.models.potential import ModelConfig, Potential
from lamella.train.loss import LossConfig
from lamella.train.optim import AdamW, build_optimizer
from lamella.train.parallel.packing import packed
from lamella.train.parallel.ranks import Ranks, joined
from lamella.train.step import Outcome, StepSetting, train_step
from lamella.types import Batch, Frame
from train.small import MODEL, labelled

LOSSES = {"a": LossConfig(kind="huber", huber_delta=0.1), "b": LossConfig(), "idle": LossConfig()}
SETTING = StepSetting(7, 1e-3, 0.6)


def frames() -> dict[str, list[Frame]]:
    """Of every size, some without energy or virial; ``b`` has a single frame, which only one process can have."""
    crystal = bulk("NaCl", "rocksalt", a=4.2, cubic=True)
    atoms = [labelled(molecule("H2O"), 0), labelled(molecule("CH4"), 1), labelled(molecule("H2O"), 2), labelled(crystal, 3)]
    made = [frame_from_atoms(each) for each in atoms]
    without = {name: value for name, value in made[1].labels.items() if name != "energy"}
    made[1] = Frame(made[1].numbers, made[1].positions, made[1].cell, made[1].pbc, without, made[1].source)
    return {"a": made, "b": [frame_from_atoms(labelled(molecule("C2H6"), 4))]}


def model() -> Potential:
    torch.manual_seed(0)
    return Potential(ModelConfig.model_validate(MODEL), ["H", "C", "O", "Na", "Cl"], ("a", "b", "idle")).double()


def shares(potential: Potential, rank: int = 0, world: int = 1) -> list[Share]:
    """Draws a, b, a again; every process its part of each."""
    known = frames()
    draws = [("a", known["a"]), ("b", known["b"]), ("a", known["a"][:1])]
    holder = packed(np.concatenate([[len(frame) for frame in listed] for _, listed in draws]), world)
    made, first = [], 0
    for task, listed in draws:
        mine = [frame for frame, owner in zip(listed, holder[first:], strict=False) if owner == rank]
        first += len(listed)
        batch: Batch | None = make_batch(mine, potential.graph_spec) if mine else None
        made.append(Share(task, batch))
    return made


def step(potential: Potential, given: Sequence[Share], ranks: Ranks) -> Outcome:
    config = AdamW(clip=None)
    return train_step(potential, build_optimizer(config, potential), given, LOSSES, config, SETTING, ranks)


def main(folder: Path) -> None:
    """Save gradients and new weights; then take a step with one weight infinite, and say what is said of that."""
    with joined("cpu") as ranks:
        potential = model()
        outcome = step(potential, shares(potential, ranks.rank, ranks.world), ranks)
        grads = {name: p.grad for name, p in potential.named_parameters()}
        content = {"grads": grads, "weights": potential.state_dict(), "norm": outcome.gradient_norm}
        torch.save(content, folder / f"rank{ranks.rank}.pt")
        known = shares(potential, ranks.rank, ranks.world)
        if ranks.rank == 1:  # its label of forces goes bad
            for share in known:
                if share.batch is not None:
                    share.batch.labels["forces"].fill_(torch.inf)
        step(potential, known, ranks)
