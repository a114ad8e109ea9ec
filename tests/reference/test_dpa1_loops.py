"""The loops-only twin and the package agree on DPA-1: energies and node features to 1e-12, forces by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.models.dpa1 import DPA1Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from reference.dpa1_loops import energy
from reference.test_dpa3_loops import relative, structures

# more slots than neighbours in the cluster and the slab, fewer in the crystal
SIZE = {
    "cutoff": 4.0,
    "switch_start": 1.0,
    "sel": 14,
    "neurons": (4, 8, 8),
    "axis": 3,
    "embedding_dim": 5,
    "attention_layers": 2,
    "attention_dim": 6,
    "temperature": None,
}
STRIP = {"embedding_input": "strip", "zero_mean": False}

OPTIONS = {
    "defaults": {},
    "not smooth": {"smooth": False},
    "two-sided": {"one_sided": False},
    "without attention": {"attention_layers": 0},
    "stripped": STRIP,
    "stripped, two-sided, without attention": {**STRIP, "one_sided": False, "attention_layers": 0},
    "stripped, not smooth": {"embedding_input": "strip", "smooth": False, "one_sided": False},
    "no cosine": {"attention_dot": False},
    "no cosine, not smooth": {"attention_dot": False, "smooth": False},
    "not normalised": {"normalize": False, "scaling_factor": 0.3},
    "temperature": {"temperature": 2.0, "norm_eps": 0.1},
    "learned steps": {"timestep": True},
    "shortcut around the first layer": {"neurons": (6, 12), "timestep": True, "attention_layers": 1},
    "descriptor alone": {"concat_embedding": False, "attention_layers": 1},
    "bias": {"embedding_bias": True, "attention_layers": 0, "activation": "silu"},
    "electrons": {"electron_embedding": True, "embedding_bias": True, "attention_layers": 1},
    "electrons, identity": {"electron_embedding": True, "embedding_dim": 118, "attention_layers": 0},
    "identity embedding": {"embedding_dim": 3, "attention_layers": 1},
    "protection": {"protection": 0.3, "attention_layers": 1},
    "second degree": {"max_degree": 2, "attention_layers": 1},
    "fourth degree": {"max_degree": 4, "attention_layers": 0, "one_sided": False, "protection": 0.3},
    "third degree, stripped, excluded pair": {**STRIP, "max_degree": 3, "excluded_pairs": (("H", "C"),)},
    "excluded pair": {"excluded_pairs": (("O", "H"),)},
    "excluded pair, not smooth": {"excluded_pairs": (("H", "H"),), "smooth": False},
    "excluded pair, stripped": {**STRIP, "excluded_pairs": (("H", "O"), ("O", "O"))},
}


def model(options, elements=("O", "H", "C"), tasks=("default",), **head):
    torch.manual_seed(7)
    config = ModelConfig(backbone=DPA1Config(**{**SIZE, **options}), head=HeadConfig(**{"hidden": (9, 9, 18), **head}))
    potential = Potential(config, elements, tasks)
    for name, value in potential.named_parameters():
        # gains of 1, steps of 0.1 would hide errors in what they multiply
        if "timestep" in name or "norm" in name or "gain" in name:
            value.data.normal_(0.5, 0.3)
    potential.cast(torch.float64)
    environment = potential.backbone.environment
    environment.std.uniform_(0.2, 0.5)
    if not config.backbone.zero_mean:
        environment.mean.uniform_(0.05, 0.3)
    potential.baseline.normal_(0.0, 3.0)
    return potential


def compare(potential, numbers, task=0):
    for name, frame in structures(numbers):
        total, atomic, nodes = energy(potential, frame.numbers, frame.positions, frame.cell, frame.pbc, task)
        graph = potential.graph([frame])
        found = potential(graph, potential.tasks[task])
        assert relative(found.energy.numpy(), [total]) <= 1e-12, name
        assert relative(found.atom_energy.numpy(), atomic) <= 1e-12, name
        assert relative(potential.describe(graph).detach().numpy(), nodes) <= 1e-12, name


@pytest.mark.parametrize("name", OPTIONS)
def test_model_equals_loops(name):
    compare(model(OPTIONS[name]), [8, 1, 6, 8, 1])


def test_structures_have_both_fewer_and_more_neighbours_than_slots():
    potential = model({})
    most = [potential.backbone.slots(potential.graph([frame]))[0].most for _, frame in structures([8, 1, 6, 8, 1])]
    assert min(most) < SIZE["sel"] < max(most)


@pytest.mark.parametrize(
    "options", [{}, {"smooth": False, "one_sided": False}, {"embedding_input": "strip", "smooth": False}]
)
def test_empty_slots_of_a_model_of_one_element_are_of_that_element(options):
    compare(model({"zero_mean": False, **options}, ("Si",)), [14] * 5)


def test_every_task_equals_loops():
    potential = model({"attention_layers": 1}, tasks=("pbe", "gfn2"))
    compare(potential, [8, 1, 1, 6, 8], task=1)


@pytest.mark.parametrize(
    "name", ["defaults", "not smooth", "stripped", "excluded pair, not smooth", "third degree, stripped, excluded pair"]
)
def test_forces_are_derivatives_of_the_loops(name):
    potential = model(OPTIONS[name])
    step = 1e-4
    for where, frame in list(structures([8, 1, 6, 8, 1]))[:2]:
        forces = potential(potential.graph([frame])).forces.numpy()
        atom, axis = 1, 2
        values = []
        for n in (-2, -1, 1, 2):
            positions = frame.positions.copy()
            positions[atom, axis] += n * step
            values.append(energy(potential, frame.numbers, positions, frame.cell, frame.pbc)[0])
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        assert abs(forces[atom, axis] + slope) <= 1e-7 * max(np.abs(forces).max(), 1e-2), where


@pytest.mark.parametrize("name", ["defaults", "stripped, two-sided, without attention"])
def test_loops_tell_the_centre_from_the_neighbour(name):
    """The twin would notice a network that reads [centre | neighbour] for [neighbour | centre]."""
    potential = model({**OPTIONS[name], "one_sided": False})
    frame = next(structures([8, 1, 6, 8, 1]))[1]
    known = energy(potential, frame.numbers, frame.positions, frame.cell, frame.pbc)[0]
    neighbors = potential.backbone.neighbors
    weight = (neighbors.type_net or neighbors.net).layers[0].weight.data
    width = SIZE["embedding_dim"]
    weight[-2 * width :] = torch.cat([weight[-width:], weight[-2 * width : -width]])
    found = float(potential(potential.graph([frame])).energy[0])
    assert abs(found - known) > 1e-6 * abs(known)
