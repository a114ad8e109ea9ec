"""DeepPot-SE: sizes, options, empty slots, smoothness, derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lamella.errors import RecipeError
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeA, SeAConfig
from lamella.types import Frame

SMALL = {"cutoff": 4.0, "switch_start": 1.0, "sel": {"O": 20, "H": 30}, "neurons": (3, 6), "axis": 2}


def small(mean: float = 0.1, **options) -> Potential:
    torch.manual_seed(1)
    config = ModelConfig(backbone=SeAConfig(**{**SMALL, **options}), head=HeadConfig(hidden=(4, 4), activation="tanh"))
    potential = Potential(config, ("O", "H")).cast(torch.float64)
    environment = potential.backbone.environment
    environment.std.uniform_(0.1, 0.3)
    if not config.backbone.zero_mean:
        environment.mean.fill_(mean)
    return potential


def line_of(numbers: list[int], distances: list[float]) -> Frame:
    positions = np.zeros((len(numbers), 3))
    positions[:, 0] = distances
    return Frame(np.array(numbers), positions, np.zeros((3, 3)), np.zeros(3, bool))


def energy_of(potential: Potential, frame: Frame) -> float:
    return float(potential(potential.graph([frame])).energy[0])


def test_released_water_example_has_as_many_parameters_as_in_deepmd_kit():
    backbone = SeAConfig(sel={"O": 46, "H": 92})
    potential = Potential(ModelConfig(backbone=backbone, head=HeadConfig(activation="tanh")), ("O", "H"))
    embedding = (1 + 1) * 25 + (25 + 1) * 50 + (50 + 1) * 100
    fitting = (1600 + 1) * 240 + 2 * (240 + 1 + 1) * 240 + (240 + 1)
    assert potential.parameter_count() == 2 * (embedding + fitting) == 1_014_182
    assert backbone.output_dim == 1600


@pytest.mark.parametrize(("one_sided", "count"), [(True, 3), (False, 9)])
def test_networks_are_one_per_neighbour_or_one_per_pair(one_sided, count):
    config = SeAConfig(**{**SMALL, "sel": {"O": 1, "H": 1, "C": 1}, "one_sided": one_sided})
    assert len(SeA(config, ("O", "H", "C")).nets) == count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"axis": 7}, "axis"),
        ({"switch_start": 4.0}, "switch_start"),
        ({"sel": {"O": 0, "H": 0}}, "sel"),
        ({"sel": {"O": -1, "H": 9}}, "sel"),
        ({"neurons": ()}, "neurons"),
        ({"neurons": (3, 10**9)}, "neurons"),
        ({"rcut": 6.0}, "rcut"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options, words):
    with pytest.raises(ValidationError, match=words):
        SeAConfig(**{**SMALL, **options})


def test_unknown_activation_is_refused_by_name():
    with pytest.raises(RecipeError, match="tanj"):
        SeAConfig(**{**SMALL, "activation": "tanj"})


@pytest.mark.parametrize(
    ("sel", "word"), [({"O": 5}, "no number for H"), ({"O": 5, "H": 5, "C": 5}, "names C"), ("auto", "auto")]
)
def test_sel_must_name_exactly_the_elements_of_the_model(sel, word):
    with pytest.raises(RecipeError, match=word):
        SeA(SeAConfig(**{**SMALL, "sel": sel}), ("O", "H"))


@pytest.mark.parametrize("mean", [0.0, 0.1])
def test_energy_is_smooth_where_a_neighbour_crosses_the_cutoff(mean):
    """The curvature changes little from step to step; a jump in energy, force or curvature would be seen in it."""
    potential = small(mean, sel={"O": 1, "H": 1})
    places = [4.0 + n * 1e-3 for n in range(-4, 5)]
    curve = [energy_of(potential, line_of([8, 1, 1, 8], [0.0, 1.0, 2.1, place])) for place in places]
    curvature = np.diff(curve, 2)
    assert np.abs(np.diff(curvature)).max() < 0.05 * np.abs(curvature).max()


@pytest.mark.parametrize("zero_mean", [True, False])
def test_excluded_neighbour_at_the_cutoff_is_rough_only_with_a_mean(zero_mean):
    potential = small(zero_mean=zero_mean, excluded_pairs=(("O", "H"),))
    inside, outside = (energy_of(potential, line_of([8, 1], [0.0, 4.0 + shift])) for shift in (-1e-9, 1e-9))
    rough = potential.config.backbone.rough
    assert (abs(inside - outside) < 1e-8) == (not rough) == zero_mean
    assert zero_mean or "4 Å" in rough[0]


def test_defaults_are_smooth():
    assert SeAConfig().rough == ()


@pytest.mark.parametrize("order", [("O", "H"), ("H", "O")])
def test_excluded_elements_feel_no_force_from_each_other(order):
    potential = small(excluded_pairs=(order,))
    forces = potential(potential.graph([line_of([8, 1], [0.0, 1.3])])).forces
    assert torch.equal(forces, torch.zeros_like(forces))
    assert small()(small().graph([line_of([8, 1], [0.0, 1.3])])).forces.abs().max() > 1e-3


def test_atom_alone_is_described_by_its_empty_slots():
    with_mean, without = small(0.1), small(0.0)
    graph = with_mean.graph([line_of([8], [0.0])])
    assert with_mean.describe(graph).abs().max() > 1e-3
    assert not without.describe(graph).any()


def test_slots_count_neighbours_of_each_element_excluded_ones_too():
    potential = small(sel={"O": 3, "H": 2}, excluded_pairs=(("O", "H"),))
    graph = potential.graph([line_of([8, 1, 1, 1, 8], [0.0, 1.0, 2.0, 3.0, 30.0])])
    uses = potential.backbone.slots(graph)
    assert [(use.name, use.most, use.sel) for use in uses] == [("sel of O", 1, 3), ("sel of H", 3, 2)]


@pytest.mark.parametrize("one_sided", [True, False])
def test_networks_of_absent_elements_have_a_zero_gradient(one_sided):
    """Zero and not missing: deepmd-kit's optimiser goes on moving such weights, by momentum and decay."""
    potential = small(0.0, one_sided=one_sided)
    potential(potential.graph([line_of([8, 8], [0.0, 1.5])]), create_graph=True).forces.square().sum().backward()
    nets = potential.backbone.nets
    assert all(p.grad is not None for p in nets.parameters())
    assert nets[0].layers[0].weight.grad.abs().max() > 0.0
    assert not any(p.grad.any() for p in nets[-1].parameters())


@pytest.mark.parametrize("options", [{"one_sided": False, "timestep": True}, {"excluded_pairs": (("O", "H"),)}])
def test_second_derivatives_match_finite_differences(options):
    backbone = small(**options).backbone
    rng = np.random.default_rng(0)
    numbers, places = np.array([8, 1, 1, 8]), rng.normal(0.0, 1.5, (4, 3))
    potential = small(**options)
    graph = potential.graph([Frame(numbers, places, np.zeros((3, 3)), np.zeros(3, bool))])
    weight = backbone.nets[0].layers[1].weight

    def features(vec_E3: torch.Tensor, weight_CC: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(backbone, {"nets.0.layers.1.weight": weight_CC}, (graph, vec_E3))

    inputs = (graph.vec.clone().requires_grad_(), weight.detach().clone().requires_grad_())
    assert torch.autograd.gradgradcheck(features, inputs)


def test_single_precision_agrees_to_its_rounding():
    rng = np.random.default_rng(0)
    frame = Frame(np.array([8, 1, 1] * 4), rng.uniform(0.0, 4.0, (12, 3)), np.eye(3) * 6.0, np.ones(3, bool))
    potential = small()
    exact = potential(potential.graph([frame]))
    rounded = potential.cast(torch.float32)(potential.graph([frame]))
    assert abs(float((rounded.energy - exact.energy)[0])) < 1e-5 * 12
    assert (rounded.forces - exact.forces).abs().max() < 1e-4 * exact.forces.abs().max()
