"""The loops-only twin and the package agree: energies and node features to 1e-12, forces by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeAConfig
from lamella.types import Frame
from reference.se_a_loops import energy

SIZE = {"cutoff": 4.0, "switch_start": 2.0, "neurons": (3, 6, 5), "axis": 3}
SEL = {"O": 30, "H": 45, "C": 25}

OPTIONS = {
    "one-sided": {},
    "two-sided": {"one_sided": False},
    "timesteps": {"timestep": True, "one_sided": False},
    "doubling and equal layers": {"neurons": (2, 2, 4, 8), "axis": 8, "timestep": True},
    "one layer": {"neurons": (4,), "axis": 1},
    "protected": {"protection": 0.3},
    "excluded pairs": {"excluded_pairs": (("O", "H"), ("C", "C")), "one_sided": False},
    "excluded pairs, one-sided": {"excluded_pairs": (("H", "H"),)},
    "zero mean": {"zero_mean": True},
    "more neighbours than slots": {"sel": {"O": 3, "H": 1, "C": 2}},
    "switched from the centre on": {"switch_start": 0.0},
    "relu6": {"activation": "relu6"},
    "gelu": {"activation": "gelu"},
    "softplus": {"activation": "softplus"},
    "sigmoid": {"activation": "sigmoid"},
    "silu": {"activation": "silu"},
    "silut": {"activation": "silut:0.4"},
    "linear": {"activation": "linear"},
}


def model(options, elements=("O", "H", "C"), tasks=("default",), **head):
    torch.manual_seed(7)
    backbone = SeAConfig(**{**SIZE, "sel": {symbol: SEL[symbol] for symbol in elements}, **options})
    head = {"hidden": (5, 5, 10), "activation": "tanh", **head}
    potential = Potential(ModelConfig(backbone=backbone, head=HeadConfig(**head)), elements, tasks)
    for name, value in potential.named_parameters():
        # learned steps of 0.1 would hide errors in what they multiply
        if name.endswith("timestep"):
            value.data.normal_(0.5, 0.3)
    potential.cast(torch.float64)
    potential.backbone.environment.std.uniform_(0.1, 0.3)
    if not backbone.zero_mean:
        potential.backbone.environment.mean.uniform_(0.02, 0.2)
    potential.baseline.normal_(0.0, 3.0)
    return potential


def structures(numbers):
    rng = np.random.default_rng(3)
    places = np.array([[0.0, 0.1, 0.2], [1.1, 0.3, -0.2], [-0.4, 1.3, 0.6], [0.9, 1.6, 1.5], [2.3, -0.4, 1.2]])
    skewed = np.array([[2.9, 0.3, -0.2], [0.7, 3.1, 0.4], [-0.3, 0.8, 3.3]])
    few = np.array([[0.1, 0.2, 0.3], [1.4, 1.6, 1.2]])
    none, every = np.zeros(3, bool), np.ones(3, bool)
    yield "cluster", Frame(np.array(numbers[:5]), places + rng.normal(0, 0.05, places.shape), np.zeros((3, 3)), none)
    yield "crystal", Frame(np.array(numbers[:2]), few, skewed, every)
    yield "slab", Frame(np.array(numbers[:2]), few, skewed, np.array([True, False, True]))
    yield "atom", Frame(np.array(numbers[:1]), few[:1], np.zeros((3, 3)), none)


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
    compare(model(OPTIONS[name]), [8, 1, 6, 8, 1])


@pytest.mark.parametrize("one_sided", [True, False])
def test_model_of_one_element_equals_loops(one_sided):
    compare(model({"one_sided": one_sided}, ("C",)), [6, 6, 6, 6, 6])


@pytest.mark.parametrize("task_dim", [0, 3])
def test_every_task_equals_loops(task_dim):
    potential = model({}, tasks=("pbe", "gfn2"), task_dim=task_dim)
    compare(potential, [8, 1, 1, 6, 8], task=0)
    compare(potential, [8, 1, 1, 6, 8], task=1)


@pytest.mark.parametrize("name", ["one-sided", "two-sided", "excluded pairs", "protected", "more neighbours than slots"])
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


def test_loops_tell_swapped_elements_of_a_pair():
    """The twin would notice a network of (neighbour, centre) used for (centre, neighbour)."""
    potential = model(OPTIONS["two-sided"])
    frame = next(structures([8, 1, 6, 8, 1]))[1]
    known = energy(potential, frame.numbers, frame.positions, frame.cell, frame.pbc)[0]
    nets = list(potential.backbone.nets)
    potential.backbone.nets = torch.nn.ModuleList(nets[3 * (k % 3) + k // 3] for k in range(9))
    found = float(potential(potential.graph([frame])).energy[0])
    assert abs(found - known) > 1e-6 * abs(known)


def test_empty_slots_count_where_the_mean_is_not_zero():
    potential = model({})
    frame = next(structures([8, 1, 6, 8, 1]))[1]
    known = float(potential(potential.graph([frame])).energy[0])
    config = potential.config.backbone
    fuller = model({"sel": {symbol: count + 5 for symbol, count in config.sel.items()}})
    assert abs(float(fuller(fuller.graph([frame])).energy[0]) - known) > 1e-6 * abs(known)
