"""DPA-1: its options, its empty slots, and its size; numbers are compared in tests/reference and tests/formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from pydantic import ValidationError

from lamella.errors import RecipeError
from lamella.models.dpa1 import DPA1Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.types import Frame

SIZE = {
    "cutoff": 4.0,
    "switch_start": 2.0,
    "sel": 30,
    "neurons": (6, 12),
    "axis": 4,
    "embedding_dim": 5,
    "attention_layers": 2,
    "attention_dim": 10,
}
STRIP = {"embedding_input": "strip", "zero_mean": False}
VARIANTS = {
    "smooth": {},
    "not smooth": {"smooth": False},
    "stripped": STRIP,
    "without attention": {"attention_layers": 0},
    "stripped, without attention": {**STRIP, "attention_layers": 0},
    "fourth degree": {"max_degree": 4, "attention_layers": 1},
    "stripped, third degree": {**STRIP, "max_degree": 3, "attention_layers": 0},
}


def build(elements=("O", "H", "Cu"), **options):
    torch.manual_seed(1)
    config = ModelConfig(backbone=DPA1Config(**{**SIZE, **options}), head=HeadConfig(hidden=(8, 8), activation="tanh"))
    potential = Potential(config, elements).cast(torch.float64)
    environment = potential.backbone.environment
    environment.std.uniform_(0.2, 0.4)
    if not config.backbone.zero_mean:
        environment.mean.uniform_(0.05, 0.2)
    for name, value in potential.named_parameters():
        if ".norm." in name or "degree_gain" in name:
            value.data.normal_(0.6, 0.3)
    return potential


def frame(positions, numbers, cell=None):
    cell = np.zeros((3, 3)) if cell is None else cell
    return Frame(np.array(numbers), np.array(positions, dtype=float), cell, np.full(3, bool(cell.any())))


def droplet(n=7, seed=0):
    rng = np.random.default_rng(seed)
    points = []
    while len(points) < n:
        point = rng.uniform(-2.4, 2.4, 3)
        if all(np.linalg.norm(point - other) > 1.0 for other in points):
            points.append(point)
    return frame(points, ([8, 1, 1, 29] * n)[:n])


def energy(potential, *frames):
    return potential(potential.graph(frames)).energy


@pytest.mark.parametrize("name", VARIANTS)
def test_width_of_the_rectangle_does_not_change_an_atom(name):
    """A dimer beside a crowd has the numbers it has alone."""
    potential = build(**VARIANTS[name])
    dimer = frame([[0, 0, 0], [1.1, 0.2, 0]], [8, 1])
    crowd = frame([[0, 0, 0], [1.4, 0.2, 0.1], [0.3, 1.5, 1.2]], [8, 1, 29], np.diag([2.9, 3.1, 3.3]))
    alone = energy(potential, dimer)
    together = energy(potential, crowd, dimer, crowd)
    assert torch.allclose(together[1], alone[0], rtol=1e-13, atol=0)
    assert torch.allclose(together[0], energy(potential, crowd)[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_order_of_atoms_does_not_matter(name):
    potential = build(**VARIANTS[name])
    drop = droplet()
    order = np.random.default_rng(2).permutation(len(drop))
    shuffled = frame(drop.positions[order], drop.numbers[order])
    assert torch.allclose(energy(potential, shuffled), energy(potential, drop), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_of_forces_has_the_right_gradient(name):
    """Second derivatives: the gradient of Σ F² along a random direction of the weights, against finite differences."""
    potential = build(**VARIANTS[name])
    graph = potential.graph([droplet(), frame([[0, 0, 0], [9.0, 0, 0]], [8, 1])])

    def loss():
        return potential(graph, create_graph=True).forces.square().sum()

    weights = [
        p for key, p in potential.named_parameters() if "out.bias" not in key and not key.endswith("heads.0.nets.0.out.bias")
    ]
    gradient = torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True)
    torch.manual_seed(4)
    step = [torch.randn_like(p) for p in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, step, strict=True))
    found, size = [], 1e-5
    for sign in (1.0, -2.0):
        for p, d in zip(weights, step, strict=True):
            p.data.add_(d, alpha=sign * size)
        found.append(float(loss().detach()))
    assert slope == pytest.approx((found[0] - found[1]) / (2 * size), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"smooth": False}, STRIP])
def test_gradients_are_numbers_where_nothing_is_near_and_where_pairs_are_excluded(options):
    potential = build(**options, excluded_pairs=(("O", "H"),))
    graph = potential.graph([frame([[0, 0, 0], [1.0, 0, 0], [20.0, 0, 0]], [8, 1, 8]), droplet(4)])
    prediction = potential(graph, create_graph=True)
    gradient = torch.autograd.grad(
        prediction.forces.square().sum(), list(potential.parameters()), materialize_grads=True, allow_unused=True
    )
    assert torch.isfinite(prediction.forces).all()
    assert all(torch.isfinite(g).all() for g in gradient)


def test_excluded_pair_feels_no_force():
    potential = build(excluded_pairs=(("H", "O"),))
    pair = potential(potential.graph([frame([[0, 0, 0], [1.0, 0, 0]], [8, 1])]))
    assert torch.equal(pair.forces, torch.zeros(2, 3, dtype=torch.float64))
    other = potential(potential.graph([frame([[0, 0, 0], [1.0, 0, 0]], [8, 29])]))
    assert other.forces.abs().max() > 1e-6


def crossing(potential, gap):
    """Difference of energy with a neighbour of one atom alone ``gap`` Å inside and outside the cutoff."""
    here = [[0, 0, 0], [-0.9, 0.5, 0.1], [-1.1, -0.8, 0.4], [-2.2, 0.1, -0.9], [-1.5, 0.3, 1.4]]
    frames = [frame([*here, [4.0 + side * gap, 0, 0]], [8, 1, 29, 1, 8, 29]) for side in (-1.0, 1.0)]
    values = energy(potential, *frames)
    return float(values[0] - values[1])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "not smooth"])
@pytest.mark.parametrize("sel", [30, 2])
def test_energy_is_smooth_at_the_cutoff_also_with_more_neighbours_than_slots(name, sel):
    potential = build(**{**VARIANTS[name], "sel": sel})
    assert not potential.config.backbone.rough
    assert abs(crossing(potential, 1e-6)) < 1e-12
    assert abs(crossing(potential, 0.2)) > 1e-7


def test_unsmooth_attention_jumps_at_the_cutoff_and_says_so():
    potential = build(smooth=False)
    assert abs(crossing(potential, 1e-6)) > 1e-6
    (sentence,) = potential.config.backbone.rough
    assert "smooth: false" in sentence
    assert "4 Å" in sentence


def test_excluded_neighbours_of_a_centred_environment_jump_at_the_cutoff_and_it_says_so():
    potential = build(**STRIP, excluded_pairs=(("O", "Cu"),))
    assert abs(crossing(potential, 1e-6)) > 1e-6
    (sentence,) = potential.config.backbone.rough
    assert "excluded_pairs with zero_mean: false" in sentence
    assert not build(excluded_pairs=(("O", "Cu"),)).config.backbone.rough


@pytest.mark.parametrize("options", [{}, {"embedding_input": "strip"}])
def test_without_attention_nothing_is_rough(options):
    potential = build(smooth=False, attention_layers=0, **options)
    assert not potential.config.backbone.rough
    assert abs(crossing(potential, 1e-6)) < 1e-12


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"axis": 13}, "axis"),
        ({"switch_start": 4.0}, "switch_start"),
        ({"activation": "cosine"}, "cosine"),
        ({"attention_layers": 10**9}, "256"),
        ({"neurons": (10**9,)}, "65536"),
        ({"neurons": (4,) * 40}, "32"),
        ({"sel": 0}, "sel"),
        ({"max_degree": 0}, "max_degree"),
        ({"max_degree": 5}, "max_degree"),
    ],
)
def test_config_refuses_what_makes_no_model(options, word):
    with pytest.raises((ValidationError, RecipeError), match=word):
        DPA1Config(**{**SIZE, **options})


@pytest.mark.parametrize("options", [{}, {"embedding_input": "strip", "smooth": False}, {"smooth": False}])
def test_a_mean_that_lets_energies_depend_on_the_order_of_atoms_is_refused(options):
    with pytest.raises(RecipeError, match="order of atoms"):
        build(zero_mean=False, **options)
    assert build(("Si",), zero_mean=False, **options).config.backbone.zero_mean is False


def test_distilled_model_has_as_many_numbers_as_published():
    """DPA-2 paper S9: about 0.53 million with the environment statistics, which deepmd-kit stores once per slot."""
    backbone = DPA1Config(
        attention_layers=0,
        embedding_input="strip",
        one_sided=False,
        axis=12,
        neurons=(25, 50, 100),
        embedding_dim=8,
        sel=120,
    )
    config = ModelConfig(backbone=backbone, head=HeadConfig(hidden=(240, 240, 240)))
    elements = chemical_symbols[1:119]
    with torch.device("meta"):
        potential = Potential(config, elements)
    assert potential.parameter_count() == 420_780
    assert potential.parameter_count() + 2 * len(elements) * backbone.sel * 4 == 534_060


def test_higher_degrees_tell_apart_what_lower_ones_confuse():
    """Directions of a square and of a tetrahedron add up alike in degrees 0 and 1, not in 2."""
    square = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3.0)
    shapes = [frame(np.concatenate([[[0, 0, 0]], 1.5 * corners]), [29, 1, 1, 1, 1]) for corners in (square, tetrahedron)]

    def apart(degree):
        potential = build(max_degree=degree, attention_layers=0)
        first, second = (potential.describe(potential.graph([shape]))[0] for shape in shapes)
        return float((first - second).detach().abs().max())

    assert apart(1) < 1e-15
    assert apart(2) > 1e-6


def test_slots_tell_the_most_neighbours():
    potential = build()
    (use,) = potential.backbone.slots(potential.graph([frame([[0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]], [8, 1, 1, 8])]))
    assert use == ("sel", 2, 30)
