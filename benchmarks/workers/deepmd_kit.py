"""deepmd-kit's side of a benchmark: runs in deepmd-kit's own environment, one timed step for each line on standard input.

Usage: deepmd_kit.py make CHECKPOINT CONFIG.json | energy CHECKPOINT FRAME.npz | train CHECKPOINT FRAME.npz
"""

import copy
import json
import resource
import sys
import time

import numpy as np
import torch
from deepmd.infer.deep_pot import DeepPot
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper


def make(checkpoint, config):
    """A training checkpoint with deepmd-kit's own random weights."""
    with open(config) as file:
        params = json.load(file)
    torch.manual_seed(0)
    model = get_model(copy.deepcopy(params))
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict(), "optimizer": {}}, checkpoint)


def energy_step(checkpoint, frame):
    """What a user runs: DeepPot.eval, energy, forces and virial; .pt checkpoints are scripted on loading."""
    potential = DeepPot(checkpoint, auto_batch_size=False)

    def step(positions):
        energy, forces, _ = potential.eval(positions[None], frame["cell"].reshape(1, 9), frame["species"])
        return float(energy.reshape(())), forces.reshape(-1, 3)

    return step


def train_step(checkpoint, frame):
    """Forward, squared loss of energy and forces, backward, clipping, AdamW, as deepmd-kit's trainer does in eager mode."""
    state = torch.load(checkpoint, weights_only=True)["model"]
    params = state["_extra_state"]["model_params"]
    wrapper = ModelWrapper(get_model(copy.deepcopy(params)), model_params=params)
    wrapper.load_state_dict(state)
    optimizer = torch.optim.AdamW(wrapper.parameters(), lr=0.0)
    cell = torch.tensor(frame["cell"].reshape(1, 9))
    species = torch.tensor(frame["species"][None])
    energy, forces = torch.tensor(frame["energy"]), torch.tensor(frame["forces"])
    atoms = forces.shape[0]

    def step(positions):
        optimizer.zero_grad(set_to_none=True)
        out = wrapper.model["Default"](torch.tensor(positions[None], requires_grad=True), species, cell)
        loss = 0.2 * ((out["energy"] - energy) ** 2).sum() / atoms + 100.0 * ((out["force"][0] - forces) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wrapper.parameters(), 5.0)
        optimizer.step()
        return float(out["energy"].detach().reshape(())), out["force"][0].detach().numpy()

    return step


def serve(step, positions):
    """One step per line read: prints seconds, energy, norm of the forces and peak memory in MB."""
    for line in sys.stdin:
        moved = positions + float(line)  # a shift of the origin: same energy, nothing cached
        start = time.perf_counter()
        energy, forces = step(moved)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, energy, float(np.linalg.norm(forces)), peak]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3])
    else:
        structure = dict(np.load(sys.argv[3]))
        build = {"energy": energy_step, "train": train_step}[sys.argv[1]]
        serve(build(sys.argv[2], structure), structure["positions"])
