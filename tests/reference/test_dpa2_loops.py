"""The loops-only twin and the package agree on DPA-2: energies and node features to 1e-12, forces by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.models.dpa2 import DPA2Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from reference.dpa2_loops import energy
from reference.test_dpa3_loops import relative, structures

# more slots than neighbours in the cluster and the slab, fewer in the crystal
REPINIT = {"cutoff": 4.0, "switch_start": 1.0, "sel": 14, "neurons": (4, 8), "axis": 3, "embedding_dim": 4}
THREE_BODY = {"cutoff": 2.6, "switch_start": 1.2, "sel": 3, "neurons": (2, 4)}
REPFORMER = {
    "cutoff": 3.0,
    "switch_start": 1.4,
    "sel": 6,
    "layers": 2,
    "node_dim": 8,
    "pair_dim": 6,
    "axis": 2,
    "local_attention_dim": 5,
    "local_attention_heads": 3,
    "attention_dim": 4,
    "attention_heads": 2,
}
EVERY = {"repformer": {"local_attention": True, "prod_f": True, "update_vectors": True}}
PAPER = {
    "three_body": None,
    "add_embedding": True,
    "repformer": {
        "layers": 3,
        "local_attention": True,
        "prod_f": True,
        "update_style": "res_avg",
        "sqrt_norm": False,
        "separate_conv": False,
        "separate_self": False,
    },
}
STRIP = {"repinit": {"embedding_input": "strip", "zero_mean": False}}

OPTIONS = {
    "released": {},
    "paper": PAPER,
    "every term": EVERY,
    "every term, not smooth": {**EVERY, "smooth": False},
    "paper, not smooth": {**PAPER, "smooth": False},
    "stripped": STRIP,
    "stripped, not smooth": {"repinit": {"embedding_input": "strip"}, "smooth": False},
    "one-sided": {"repinit": {"one_sided": True, "timestep": True, "neurons": (5, 5, 10)}},
    "stripped, one-sided": {"repinit": {**STRIP["repinit"], "one_sided": True}},
    "wide three-body": {"three_body": {"cutoff": 3.6, "sel": 20, "neurons": (9, 9)}, "smooth": False},
    "learned steps": {"repinit": {"timestep": True}, "three_body": {"neurons": (9, 18)}},
    "from distances": {"repformer": {"direct_distance": True, "update_vectors": True}},
    "no gate": {"repformer": {"gate": False, "update_step": 0.3}},
    "no attention, vectors": {"repformer": {"attention": False, "update_vectors": True, "update_style": "res_incr"}},
    "no conv": {"repformer": {"conv": False}},
    "no sym_f": {"repformer": {"sym_f": False, "separate_conv": False, "sqrt_norm": False}},
    "no sym_g": {"repformer": {"sym_g": False, "separate_self": False, "update_style": "res_incr"}},
    "atoms alone": {"repformer": {"conv": False, "sym_f": False, "sym_g": False, "separate_self": False}},
    "one layer": {"repformer": {"layers": 1, "activation": "silu", "zero_mean": False}},
    "no projection": {"three_body": None, "repinit": {"axis": 1}, "repformer": {"node_dim": 8}},
    "descriptor alone": {"concat_embedding": False, "embedding_bias": True},
    "electrons": {"electron_embedding": True},
    "protection": {"protection": 0.3, "repformer": {"norm_eps": 0.1}},
    "excluded pair": {"excluded_pairs": (("O", "H"),), **EVERY},
    "excluded pair, not smooth": {"excluded_pairs": (("H", "H"),), "smooth": False, **EVERY},
    "excluded pair, stripped": {"excluded_pairs": (("H", "O"), ("O", "O")), **STRIP},
}


def model(options, elements=("O", "H", "C"), tasks=("default",)):
    torch.manual_seed(7)
    parts = {"repinit": REPINIT, "three_body": THREE_BODY, "repformer": REPFORMER}
    merged = {
        name: None if options.get(name, {}) is None else {**part, **options.get(name, {})} for name, part in parts.items()
    }
    backbone = DPA2Config(**{**options, **merged})
    potential = Potential(ModelConfig(backbone=backbone, head=HeadConfig(hidden=(9, 9, 18))), elements, tasks)
    for name, value in potential.named_parameters():
        # gains of 1, steps of 0.01 would hide errors in what they multiply
        if "step" in name or "norm" in name:
            value.data.normal_(0.5, 0.3)
    potential.cast(torch.float64)
    for environment in potential.backbone.environments():
        environment.std.uniform_(0.2, 0.5)
        if not environment.zero_mean:
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


@pytest.mark.parametrize("options", [{}, {"repinit": {"embedding_input": "strip"}, "smooth": False}])
def test_model_of_one_element_equals_loops_with_a_mean_in_every_form(options):
    options = {**options, "repinit": {**options.get("repinit", {}), "zero_mean": False}}
    compare(model(options, ("O",)), [8] * 5)


def test_every_task_equals_loops():
    compare(model({}, tasks=("pbe", "gfn2")), [8, 1, 1, 6, 8], task=1)


def test_structures_have_both_fewer_and_more_neighbours_than_slots():
    potential = model({})
    graphs = [potential.graph([frame]) for _, frame in structures([8, 1, 6, 8, 1])]
    for uses in zip(*map(potential.backbone.slots, graphs), strict=True):
        assert min(use.most for use in uses) < uses[0].sel < max(use.most for use in uses), uses[0].name


@pytest.mark.parametrize("name", ["released", "paper", "every term", "every term, not smooth", "stripped", "from distances"])
def test_forces_are_derivatives_of_the_loops(name):
    potential = model(OPTIONS[name])
    step = 1e-4
    for where, frame in list(structures([8, 1, 6, 8, 1]))[:1]:
        forces = potential(potential.graph([frame])).forces.numpy()
        atom, axis = 1, 2
        values = []
        for n in (-2, -1, 1, 2):
            positions = frame.positions.copy()
            positions[atom, axis] += n * step
            values.append(energy(potential, frame.numbers, positions, frame.cell, frame.pbc)[0])
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        assert abs(forces[atom, axis] + slope) <= 1e-7 * max(np.abs(forces).max(), 1e-2), where


@pytest.mark.parametrize("tensor", ["atoms.steps.0", "atoms.local.heads.weight", "pairs.value.heads.weight"])
def test_loops_tell_what_belongs_to_which_place(tensor):
    """The twin would notice steps of two updates swapped, and heads read in another order."""
    potential = model(OPTIONS["every term"])
    frame = next(structures([8, 1, 6, 8, 1]))[1]
    known = energy(potential, frame.numbers, frame.positions, frame.cell, frame.pbc)[0]
    weights = dict(potential.named_parameters())
    name = f"backbone.repformer.layers.0.{tensor}"
    if tensor.endswith("steps.0"):
        other = weights[name.replace("steps.0", "steps.1")]
        first, second = weights[name].data.clone(), other.data.clone()
        weights[name].data, other.data = second, first
    else:
        heads = 3 if "local" in tensor else 2
        rows, width = weights[name].shape
        shape = (rows // heads, heads, width)
        weights[name].data = weights[name].data.view(shape).transpose(0, 1).reshape(rows, width).contiguous()
    found = float(potential(potential.graph([frame])).energy[0].detach())
    assert abs(found - known) > 1e-6 * abs(known)
