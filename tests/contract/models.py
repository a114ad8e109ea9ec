"""Small models of every architecture, with random weights or trained a little."""

from __future__ import annotations

import copy

import numpy as np
import torch

from lamella import datasets
from lamella.data.convert import frame_from_atoms
from lamella.models.potential import ModelConfig, Potential

SIZE = {
    "dpa3": {
        "layers": 2,
        "node_dim": 12,
        "edge_dim": 8,
        "angle_dim": 6,
        "axis": 3,
        "cutoff": 5.0,
        "switch_start": 4.4,
        "angle_cutoff": 3.6,
        "angle_switch_start": 3.1,
        "edge_sel": 40,
        "angle_sel": 10,
    },
    "se_a": {"cutoff": 5.0, "switch_start": 3.0, "neurons": (6, 12), "axis": 4},
    "dpa1": {
        "cutoff": 5.0,
        "switch_start": 3.0,
        "sel": 40,
        "neurons": (6, 12),
        "axis": 4,
        "embedding_dim": 5,
        "attention_layers": 1,
        "attention_dim": 10,
    },
    "dpa2": {
        "repinit": {"cutoff": 5.0, "switch_start": 3.0, "sel": 40, "neurons": (6, 12), "axis": 4, "embedding_dim": 5},
        "three_body": {"cutoff": 3.8, "switch_start": 2.6, "sel": 20, "neurons": (3, 6)},
        "repformer": {
            "cutoff": 3.6,
            "switch_start": 2.4,
            "sel": 20,
            "layers": 2,
            "node_dim": 12,
            "pair_dim": 8,
            "axis": 3,
            "local_attention_dim": 6,
            "local_attention_heads": 2,
            "attention_dim": 5,
            "attention_heads": 2,
        },
    },
}
"""Hyper-parameters of a small model of each architecture."""

POLYNOMIAL = {"switch": "polynomial", "switch_start": 3.0, "angle_switch_start": 2.0}
"""For DPA-3; the others have no other switch."""


def build(kind=Potential, elements=("O", "H", "Cu"), tasks=("default",), seed=0, model=None, **options):
    """A small model with random weights, ``options`` of its backbone (DPA-3 unless ``kind=`` says another), ``model`` of
    the rest: heads, excluded pairs and atoms."""
    torch.manual_seed(seed)
    name = options.pop("architecture", "dpa3")
    content = {"backbone": {"kind": name, **merged(SIZE[name], options)}, "head": {"hidden": (16, 16)}}
    if name == "se_a":
        content["backbone"].setdefault("sel", dict.fromkeys(elements, 14))
    potential = kind(ModelConfig.model_validate(merged(content, model or {})), elements, tasks)
    potential.cast(torch.float64)
    return stirred(potential)


def stirred(potential):
    """Everything that starts as a constant (baselines, learned steps, statistics) set at random."""
    potential.baseline.normal_(0.0, 500.0)
    for name, value in potential.named_parameters():
        if "step_" in name:
            value.data.normal_(0.4, 0.2)
    for environment in potential.backbone.environments():
        if environment.from_data:
            environment.std.uniform_(0.1, 0.3)
        if not environment.zero_mean:
            environment.mean.uniform_(0.02, 0.06)
    return potential


def trained(potential, steps=30):
    """Some steps of Adam towards the forces on three embedded molecules."""
    known = [atoms for atoms in datasets.load("molecules_gfn2") if set(atoms.symbols) <= set(potential.elements)]
    frames = [frame_from_atoms(atoms) for atoms in known[:: len(known) // 3]]
    graph = potential.graph(frames)
    forces = torch.tensor(np.concatenate([frame.labels["forces"] for frame in frames]))
    optimizer = torch.optim.Adam(potential.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (potential(graph, create_graph=True).forces - forces).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses) < 0.97 * losses[0], f"nothing was learned: {losses}"
    return potential.requires_grad_(False)


def merged(base, options):
    """A mapping with another laid over it, at every depth."""
    deeper = {key: merged(base[key], value) for key, value in options.items() if isinstance(value, dict) and base.get(key)}
    return {**base, **options, **deeper}


def twin_of(model):
    """A copy, to see that the original stays as it is."""
    return copy.deepcopy(model)
