"""The loops-only twin and the package agree: energies and node features to 1e-12, forces by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.types import Frame
from reference.dpa3_loops import energy

SIZE = {
    "layers": 3,
    "node_dim": 8,
    "edge_dim": 6,
    "angle_dim": 4,
    "axis": 3,
    "cutoff": 4.0,
    "switch_start": 3.2,
    "angle_cutoff": 3.0,
    "angle_switch_start": 2.4,
    "edge_sel": 20,
    "angle_sel": 7,
}
HEAD = {"hidden": (9, 9, 18)}

OPTIONS = {
    "defaults": {},
    "order 1": {"update_angle": False},
    "polynomial switch": {"switch": "polynomial"},
    "dynamic sel": {"dynamic_sel": True, "sel_reduction": 7.0},
    "no compression": {"angle_compression": 0},
    "linear compression": {"angle_compression_kind": "linear", "angle_compression": 2, "angle_compression_edge": 3},
    "split compression": {"angle_compression": 2, "angle_compression_edge": 1},
    "two messages": {"messages": 2},
    "res_avg": {"update_style": "res_avg"},
    "res_incr": {"update_style": "res_incr"},
    "sequential": {"sequential": True, "layers": 2},
    "not smooth": {"smooth_edge_update": False},
    "switched inverse": {"edge_init": "switched_inverse", "activation": "silut:3.0"},
    "low threshold": {"activation": "silut:0.4"},
    "silu": {"activation": "silu", "embedding_bias": True},
    "concatenated embedding": {"concat_embedding": True, "layers": 1},
    "identity embedding": {"node_dim": 4, "axis": 2, "angle_compression_kind": "linear"},
}


def model(options, elements=("O", "H", "C"), tasks=("default",), **head):
    torch.manual_seed(7)
    config = ModelConfig(backbone=DPA3Config(**{**SIZE, **options}), head=HeadConfig(**{**HEAD, **head}))
    potential = Potential(config, elements, tasks)
    for name, value in potential.named_parameters():
        # learned steps of 0.1 would hide errors in what they multiply
        if "step_" in name:
            value.data.normal_(0.5, 0.3)
    potential.cast(torch.float64)
    potential.backbone.environment.std.uniform_(0.2, 0.5)
    potential.baseline.normal_(0.0, 3.0)
    return potential


def structures(numbers):
    rng = np.random.default_rng(3)
    places = np.array([[0.0, 0.1, 0.2], [1.1, 0.3, -0.2], [-0.4, 1.3, 0.6], [0.9, 1.6, 1.5], [2.3, -0.4, 1.2]])
    skewed = np.array([[2.9, 0.3, -0.2], [0.7, 3.1, 0.4], [-0.3, 0.8, 3.3]])
    few = np.array([[0.1, 0.2, 0.3], [1.4, 1.6, 1.2]])
    yield (
        "cluster",
        Frame(np.array(numbers[:5]), places + rng.normal(0, 0.05, places.shape), np.zeros((3, 3)), np.zeros(3, bool)),
    )
    yield "crystal", Frame(np.array(numbers[:2]), few, skewed, np.ones(3, bool))
    yield "slab", Frame(np.array(numbers[:2]), few, skewed, np.array([True, False, True]))
    yield "atom", Frame(np.array(numbers[:1]), few[:1], np.zeros((3, 3)), np.zeros(3, bool))


def relative(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() / max(np.abs(b).max(), 1e-3)


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
    elements = ("O", "H", "C", "N") if name == "identity embedding" else ("O", "H", "C")
    compare(model(OPTIONS[name], elements), [8, 1, 6, 8, 1])


@pytest.mark.parametrize("task_dim", [0, 3])
def test_every_task_equals_loops(task_dim):
    potential = model({}, tasks=("pbe", "gfn2"), task_dim=task_dim)
    compare(potential, [8, 1, 1, 6, 8], task=0)
    compare(potential, [8, 1, 1, 6, 8], task=1)


def test_doubling_embedding_adds_the_identity_twice():
    compare(model({}, ("O", "H", "C", "N")), [7, 1, 6, 8, 1])  # node_dim 8 = 2 x 4 elements


@pytest.mark.parametrize("name", ["defaults", "order 1", "linear compression"])
def test_forces_are_derivatives_of_the_loops(name):
    potential = model(OPTIONS[name])
    step = 1e-4
    for where, frame in list(structures([8, 1, 6, 8, 1]))[:2]:
        forces = potential(potential.graph([frame])).forces.numpy()
        for atom, axis in ((0, 0), (1, 2)):
            values = []
            for n in (-2, -1, 1, 2):
                positions = frame.positions.copy()
                positions[atom, axis] += n * step
                values.append(energy(potential, frame.numbers, positions, frame.cell, frame.pbc)[0])
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            assert abs(forces[atom, axis] + slope) <= 1e-8 * max(np.abs(forces).max(), 1e-2), where


def test_loops_tell_swapped_edges_of_an_angle():
    """The twin would notice an angle network that reads [edge j | edge k] for [edge k | edge j]."""
    potential = model({})
    frame = next(structures([8, 1, 6, 8, 1]))[1]
    known = energy(potential, frame.numbers, frame.positions, frame.cell, frame.pbc)[0]
    width = potential.config.backbone.angle_edge_dim
    for layer in potential.backbone.layers:
        for net in (layer.edge_angle_1, layer.angle_self):
            weight = net.weight.data
            weight[-2 * width :] = torch.cat([weight[-width:], weight[-2 * width : -width]])
    found = float(potential(potential.graph([frame])).energy[0])
    assert abs(found - known) > 1e-6 * abs(known)
