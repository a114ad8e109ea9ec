"""DPA-2: options, three cutoffs, empty slots, size; numbers are compared in tests/reference and tests/formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from pydantic import ValidationError

from lamella.errors import CheckpointError, RecipeError
from lamella.formats.deepmd import model_config, read, write
from lamella.models.dpa2 import DPA2Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.train.recipe import load_recipe
from lamella.types import Frame

REPINIT = {"cutoff": 4.0, "switch_start": 1.0, "sel": 30, "neurons": (4, 8), "axis": 3, "embedding_dim": 4}
THREE_BODY = {"cutoff": 2.6, "switch_start": 1.2, "sel": 12, "neurons": (2, 4)}
REPFORMER = {
    "cutoff": 3.0,
    "switch_start": 1.4,
    "sel": 15,
    "layers": 3,
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
        "local_attention": True,
        "prod_f": True,
        "update_style": "res_avg",
        "sqrt_norm": False,
        "separate_conv": False,
        "separate_self": False,
    },
}
VARIANTS = {
    "released": {},
    "paper": PAPER,
    "every term": EVERY,
    "stripped": {"repinit": {"embedding_input": "strip", "zero_mean": False}},
    "from distances": {"repformer": {"direct_distance": True, "update_vectors": True}},
    "wide three-body": {"three_body": {"cutoff": 3.6}, **EVERY},
}
ROUGH = {"released, not smooth": {"smooth": False}, "every term, not smooth": {**EVERY, "smooth": False}}


def config(**options) -> DPA2Config:
    merged = dict(options)
    for name, part in (("repinit", REPINIT), ("three_body", THREE_BODY), ("repformer", REPFORMER)):
        given = options.get(name, {})
        merged[name] = None if given is None else {**part, **given}
    return DPA2Config(**merged)


def build(elements=("O", "H", "Cu"), **options) -> Potential:
    torch.manual_seed(1)
    head = HeadConfig(hidden=(8, 8), activation="tanh")
    potential = Potential(ModelConfig(backbone=config(**options), head=head), elements).cast(torch.float64)
    for environment in potential.backbone.environments():
        environment.std.uniform_(0.2, 0.4)
        if not environment.zero_mean:
            environment.mean.uniform_(0.05, 0.2)
    for name, value in potential.named_parameters():
        if ".norm." in name or "steps" in name:
            value.data.normal_(0.6, 0.3)
    return potential


def frame(positions, numbers, cell=None) -> Frame:
    cell = np.zeros((3, 3)) if cell is None else cell
    return Frame(np.array(numbers), np.array(positions, dtype=float), cell, np.full(3, bool(cell.any())))


def droplet(n=7) -> Frame:
    rng = np.random.default_rng(0)
    points: list[np.ndarray] = []
    while len(points) < n:
        point = rng.uniform(-2.4, 2.4, 3)
        if all(np.linalg.norm(point - other) > 1.0 for other in points):
            points.append(point)
    return frame(points, ([8, 1, 1, 29] * n)[:n])


def energy(potential, *frames):
    return potential(potential.graph(frames)).energy


@pytest.mark.parametrize("name", {**VARIANTS, **ROUGH})
def test_width_of_the_rectangle_does_not_change_an_atom(name):
    """A dimer beside a crowd has the numbers it has alone."""
    potential = build(**{**VARIANTS, **ROUGH}[name])
    dimer = frame([[0, 0, 0], [1.1, 0.2, 0]], [8, 1])
    crowd = frame([[0, 0, 0], [1.4, 0.2, 0.1], [0.3, 1.5, 1.2]], [8, 1, 29], np.diag([2.9, 3.1, 3.3]))
    together = energy(potential, crowd, dimer, crowd)
    assert torch.allclose(together[1], energy(potential, dimer)[0], rtol=1e-13, atol=0)
    assert torch.allclose(together[0], energy(potential, crowd)[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", {**VARIANTS, **ROUGH})
def test_order_of_atoms_does_not_matter(name):
    potential = build(**{**VARIANTS, **ROUGH}[name])
    drop = droplet()
    order = np.random.default_rng(2).permutation(len(drop))
    shuffled = frame(drop.positions[order], drop.numbers[order])
    assert torch.allclose(energy(potential, shuffled), energy(potential, drop), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", {**VARIANTS, **ROUGH})
def test_loss_of_forces_has_the_right_gradient(name):
    """Second derivatives: the gradient of Σ F² along a random direction of the weights, against finite differences."""
    potential = build(**{**VARIANTS, **ROUGH}[name])
    graph = potential.graph([droplet(), frame([[0, 0, 0], [9.0, 0, 0]], [8, 1])])

    def loss():
        return potential(graph, create_graph=True).forces.square().sum()

    weights = list(potential.parameters())
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


@pytest.mark.parametrize("name", ["every term", "stripped", "released, not smooth", "every term, not smooth"])
def test_gradients_are_numbers_where_nothing_is_near_and_where_pairs_are_excluded(name):
    potential = build(**{**VARIANTS, **ROUGH}[name], excluded_pairs=(("O", "H"),))
    graph = potential.graph([frame([[0, 0, 0], [1.0, 0, 0], [20.0, 0, 0]], [8, 1, 8]), droplet(4)])
    prediction = potential(graph, create_graph=True)
    weights = list(potential.parameters())
    loss = prediction.forces.square().sum()
    gradient = torch.autograd.grad(loss, weights, materialize_grads=True, allow_unused=True)
    assert torch.isfinite(prediction.forces).all()
    assert all(torch.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("name", {**VARIANTS, **ROUGH})
def test_atoms_without_any_neighbour_have_an_energy(name):
    potential = build(**{**VARIANTS, **ROUGH}[name])
    lone = frame([[0, 0, 0]], [8])
    found = potential(potential.graph([lone, lone]))
    assert torch.isfinite(found.energy).all()
    assert torch.equal(found.forces, torch.zeros(2, 3, dtype=torch.float64))


def step_at(potential, cutoff, gap=1e-5):
    """Half of the jump of the energy where a neighbour of one atom alone crosses a cutoff: the straight part taken off."""
    here = [[0, 0, 0], [-0.9, 0.5, 0.1], [-1.1, -0.8, 0.4], [-1.9, 0.1, -0.9], [-1.5, 0.3, 1.1]]
    sides = (-1.0, 1.0, -2.0, 2.0)
    frames = [frame([*here, [cutoff + side * gap, 0, 0]], [8, 1, 29, 1, 8, 29]) for side in sides]
    a, b, c, d = energy(potential, *frames).tolist()
    return (a - b) - (c - d) / 2


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("slots", [15, 2])
def test_energy_is_smooth_at_every_cutoff_also_with_more_neighbours_than_slots(name, slots):
    options = dict(VARIANTS[name])
    for part in ("repinit", "three_body", "repformer"):
        if options.get(part, {}) is not None:
            options[part] = {**options.get(part, {}), "sel": slots}
    potential = build(**options)
    assert not potential.config.backbone.rough
    assert len(potential.config.backbone.shells) == 3 - (name == "paper")
    for shell in potential.config.backbone.shells:
        assert abs(step_at(potential, shell.end)) < 1e-12, shell.name
        assert abs(step_at(potential, shell.end, 0.3)) > 1e-6, shell.name


def test_without_smoothness_the_energy_jumps_at_the_repformer_cutoff_and_says_so():
    potential = build(smooth=False)
    assert abs(step_at(potential, 3.0)) > 1e-6
    assert abs(step_at(potential, 2.6)) < 1e-12
    assert abs(step_at(potential, 4.0)) < 1e-12
    (sentence,) = potential.config.backbone.rough
    assert "smooth: false" in sentence
    assert "3 Å" in sentence


def test_without_smoothness_a_neighbour_at_the_repformer_cutoff_itself_counts():
    """As in deepmd-kit, which drops what is farther than the cutoff."""
    potential = build(smooth=False)
    rest = [[0, 0, 0], [-0.9, 0.5, 0.1], [-1.1, -0.8, 0.4]]
    frames = [frame([*rest, [r, 0, 0]], [8, 1, 29, 1]) for r in (3.0, 3.0 - 1e-9, 3.0 + 1e-9)]
    at, inside, outside = energy(potential, *frames).tolist()
    assert abs(at - inside) < 1e-8
    assert abs(at - outside) > 1e-6


def test_excluded_pair_feels_no_force():
    potential = build(excluded_pairs=(("H", "O"),), **EVERY)
    pair = potential(potential.graph([frame([[0, 0, 0], [1.0, 0, 0]], [8, 1])]))
    assert torch.equal(pair.forces, torch.zeros(2, 3, dtype=torch.float64))
    other = potential(potential.graph([frame([[0, 0, 0], [1.0, 0, 0]], [8, 29])]))
    assert other.forces.abs().max() > 1e-6


def test_nothing_is_computed_for_pairs_that_nobody_reads():
    potential = build(**EVERY)
    graph = potential.graph([droplet()])
    potential(graph, create_graph=True).forces.square().sum().backward()
    assert potential.backbone.repformer.layers[-1].pairs is None
    without = [name for name, p in potential.named_parameters() if p.grad is None]
    assert without == ["heads.0.nets.0.out.bias"]  # no force depends on it


def test_learned_steps_start_where_the_configuration_says():
    torch.manual_seed(0)
    steps = build_steps("normal")
    assert abs(float(steps.mean())) < 0.01
    assert float(steps.std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal(build_steps("constant"), torch.full_like(steps, 0.1))


def build_steps(start):
    backbone = config(repformer={"update_init": start, "update_step": 0.1, "node_dim": 512, "layers": 2})
    potential = Potential(ModelConfig(backbone=backbone), ("O", "H"))
    return torch.cat([p.data for name, p in potential.named_parameters() if "atoms.steps" in name])


def test_slots_count_the_neighbours_within_each_cutoff():
    potential = build()
    row = frame([[0, 0, 0], [1.4, 0, 0], [2.8, 0, 0], [4.2, 0, 0], [5.6, 0, 0]], [8, 1, 1, 8, 1])
    uses = potential.backbone.slots(potential.graph([row]))
    assert uses == [("repinit.nsel", 4, 30), ("repinit.three_body_sel", 2, 12), ("repformer.nsel", 4, 15)]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"repinit": {"axis": 9}}, "axis"),
        ({"repformer": {"axis": 7}}, "axis"),
        ({"repformer": {"sym_f": False, "sym_g": False}}, "sym_f"),
        ({"repformer": {"switch_start": 3.0}}, "repformer cutoff"),
        ({"three_body": {"cutoff": 4.5}}, "repinit.cutoff"),
        ({"repformer": {"activation": "cosine"}}, "cosine"),
        ({"repformer": {"layers": 10**9}}, "256"),
        ({"repformer": {"attention_heads": 10**9}}, "256"),
        ({"repformer": {"node_dim": 10**9}}, "65536"),
        ({"repinit": {"neurons": (4,) * 40}}, "16"),
        ({"three_body": {"sel": 0}}, "sel"),
        ({"repformer": {"conf": False}}, "conf"),
    ],
)
def test_config_refuses_what_makes_no_model(options, word):
    with pytest.raises((ValidationError, RecipeError), match=word):
        config(**options)


@pytest.mark.parametrize(
    "options",
    [{"repinit": {"zero_mean": False}}, {"repinit": {"zero_mean": False, "embedding_input": "strip"}, "smooth": False}],
)
def test_a_mean_that_would_make_energies_depend_on_the_order_of_atoms_is_refused(options):
    with pytest.raises(RecipeError, match="order of atoms"):
        build(**options)
    assert torch.isfinite(energy(build(("O",), **options), frame([[0, 0, 0], [1.1, 0, 0]], [8, 8])))


@pytest.mark.parametrize(("tasks", "learned", "all_numbers"), [(1, 4_976_467, 5_127_507), (18, 7_514_244, 7_665_284)])
def test_model_of_the_paper_has_as_many_numbers_as_published(tasks, learned, all_numbers):
    """S9: about 5.15 million, 7.68 million with 18 heads; environment statistics counted as deepmd-kit stores them."""
    recipe = load_recipe("dpa2_paper", ["tasks.default.train=embedded:water_gfn2:train"])
    elements = chemical_symbols[1:119]
    with torch.device("meta"):
        potential = Potential(recipe.model, elements, [f"task{k}" for k in range(tasks)])
    statistics = sum(2 * len(elements) * environment.slots * 4 for environment in potential.backbone.environments())
    assert potential.parameter_count() == learned
    assert potential.parameter_count() + statistics == all_numbers


ABLATIONS = [("conv", "sym_f", "sym_g", "local_attention"), ("prod_f", "gate", "attention")]


@pytest.mark.parametrize("chain", ABLATIONS)
def test_ablations_of_table_s5_remove_terms_one_after_the_other(chain):
    data = ["tasks.default.train=embedded:water_gfn2:train"]
    full = load_recipe("dpa2_paper", data).model.backbone.repformer
    for last, term in enumerate(chain):
        ablated = load_recipe(f"dpa2_paper_no_{term}", data)
        removed = dict.fromkeys(chain[: last + 1], False)
        assert ablated.model.backbone.repformer == full.model_copy(update=removed)
        assert ablated.model.backbone.repinit == load_recipe("dpa2_paper", data).model.backbone.repinit


def theirs(**options):
    """deepmd-kit's section with flat names, as before May 2024."""
    flat = {
        "type": "dpa2",
        "repinit_rcut": 9.0,
        "repinit_rcut_smth": 8.0,
        "repinit_nsel": 120,
        "repformer_rcut": 4.0,
        "repformer_rcut_smth": 3.5,
        "repformer_nsel": 40,
        "tebd_dim": 6,
        "repinit_axis_neuron": 12,
        "repinit_activation": "gelu",
        "repformer_axis_dim": 3,
        "repformer_activation": "silu",
        "repformer_attn2_has_gate": True,
        "repformer_add_type_ebd_to_seq": True,
        "repformer_do_bn_mode": "no",
        "repformer_bn_momentum": 0.1,
    }
    return {"type_map": ["O", "H"], "descriptor": {**flat, **options}, "fitting_net": {}}


def test_flat_names_of_old_configurations_mean_the_model_of_that_time():
    found = model_config(theirs(), "here").backbone
    assert (found.repinit.cutoff, found.repinit.embedding_dim, found.repinit.activation) == (9.0, 6, "gelu")
    assert (found.repformer.axis, found.repformer.activation, found.repformer.gate) == (3, "silu", True)
    assert (found.repformer.sqrt_norm, found.repformer.separate_conv, found.repformer.separate_self) == (False,) * 3
    assert (found.three_body, found.add_embedding, found.embedding_bias) == (None, True, True)


@pytest.mark.parametrize("option", [{"repformer_do_bn_mode": "uniform"}, {"repinit_window": 3}, {"window": 3}])
def test_old_options_that_lamella_does_not_run_are_refused_by_name(option):
    with pytest.raises(CheckpointError, match=next(iter(option)).split("_", 1)[-1]):
        model_config(theirs(**option), "here")


def test_defaults_are_those_of_deepmd_kit():
    section = {"type": "dpa2", **{part: {"rcut": r, "rcut_smth": 0.5, "nsel": n} for part, r, n in PARTS}}
    found = model_config({"type_map": ["O", "H"], "descriptor": section, "fitting_net": {}}, "here").backbone
    part = found.repformer
    assert (found.repinit.neurons, found.repinit.axis, found.repinit.embedding_dim) == ((25, 50, 100), 16, 8)
    assert (found.three_body, found.smooth, found.add_embedding, found.concat_embedding) == (None, True, False, True)
    assert (part.layers, part.node_dim, part.pair_dim, part.axis) == (3, 128, 16, 4)
    assert all((part.conv, part.sym_f, part.sym_g, part.local_attention, part.prod_f, part.attention))
    assert (part.gate, part.update_vectors, part.direct_distance) == (False, False, False)
    assert (part.local_attention_dim, part.attention_dim, part.local_attention_heads) == (64, 16, 4)
    assert (part.update_style, part.update_step, part.update_init) == ("res_avg", 0.001, "normal")
    assert (part.sqrt_norm, part.separate_conv, part.separate_self, part.norm_eps) == (True, True, True, 1e-5)


PARTS = [("repinit", 6.0, 60), ("repformer", 4.0, 20)]


@pytest.mark.parametrize(
    "options",
    [
        {"repformer": {"cutoff": 4.0}},
        {"repformer": {"sel": 30}},
        {"three_body": {"sel": 16}},
        {"three_body": {"cutoff": 3.5}},
    ],
)
def test_what_deepmd_kit_does_not_build_is_not_written(options, tmp_path):
    with pytest.raises(CheckpointError, match="deepmd-kit needs"):
        write(build(**options), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_written_model_reads_as_the_same_model(tmp_path):
    potential = build(**EVERY, smooth=False, excluded_pairs=(("O", "H"),))
    write(potential, tmp_path / "model.pt")
    again = read(tmp_path / "model.pt")
    assert again.config.backbone == potential.config.backbone
    assert all(torch.equal(value, potential.state_dict()[name]) for name, value in again.state_dict().items())
