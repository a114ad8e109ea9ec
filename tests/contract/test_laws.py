"""Every model obeys every law, and every law can fail."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lamella
from contract.models import POLYNOMIAL, build, trained, twin_of
from contract.mutants import MUTANTS, FlatCutoff, NotANumber, Truncated
from golden_models import GOLDEN
from lamella.errors import InputError
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.use.laws import LAWS, check_law

PAIRS = [("O", "H")]
FEW = {"O": 1, "H": 2, "Cu": 1}
"""Fewer slots than the structures have neighbours: nothing may be cut away, and the number of empty slots is negative."""

KINDS = {
    "dpa3": {},
    "dpa3, order 1": {"update_angle": False, **POLYNOMIAL},
    "dpa3, polynomial, dynamic sel": {**POLYNOMIAL, "dynamic_sel": True, "activation": "silu"},
    "dpa3, linear compression, two messages": {
        "angle_compression_kind": "linear",
        "messages": 2,
        "activation": "silut:3.0",
    },
    "dpa3, no compression, res_avg": {"angle_compression": 0, "update_style": "res_avg", "edge_init": "switched_inverse"},
    "dpa3, res_incr, low threshold": {
        **POLYNOMIAL,
        "update_style": "res_incr",
        "activation": "silut:1.0",
        "concat_embedding": True,
    },
    "dpa3, sequential": {"sequential": True, "update_style": "res_residual", **POLYNOMIAL},
    "dpa3, charge and spin, few slots": {"charge_spin": True, "edge_sel": 4, "angle_sel": 2, "env_std": 0.0},
    "dpa3, excluded": {
        "excluded_pairs": PAIRS,
        "protection": 0.1,
        "model": {"excluded_atoms": ["Cu"], "head": {"frame_params": 2, "subtract_vacuum": ["O"]}},
    },
    "se_a, two-sided, few slots": {"architecture": "se_a", "one_sided": False, "sel": FEW},
    "se_a, zero mean, excluded": {"architecture": "se_a", "zero_mean": True, "excluded_pairs": PAIRS},
    "se_a, steps, excluded by the model": {
        "architecture": "se_a",
        "timestep": True,
        "protection": 0.1,
        "activation": "silut:3.0",
        "model": {"excluded_pairs": PAIRS, "head": {"timestep": True, "frame_params": 1, "subtract_vacuum": ["O", "H"]}},
    },
    "dpa1, no attention": {"architecture": "dpa1", "attention_layers": 0},
    "dpa1, no attention, stripped, few slots": {
        "architecture": "dpa1",
        "attention_layers": 0,
        "embedding_input": "strip",
        "zero_mean": False,
        "sel": 4,
    },
    "dpa1, no attention, stripped, not smooth": {
        "architecture": "dpa1",
        "attention_layers": 0,
        "embedding_input": "strip",
        "smooth": False,
    },
    "dpa1": {"architecture": "dpa1", "excluded_pairs": PAIRS},
    "dpa1, two layers, few slots": {"architecture": "dpa1", "attention_layers": 2, "sel": 4},
    "dpa1, two layers, stripped, mean, few slots": {
        "architecture": "dpa1",
        "attention_layers": 2,
        "embedding_input": "strip",
        "zero_mean": False,
        "sel": 4,
    },
    "dpa1, fourth degree, few slots": {"architecture": "dpa1", "max_degree": 4, "sel": 4},
    "dpa1, plain attention": {
        "architecture": "dpa1",
        "attention_dot": False,
        "normalize": False,
        "temperature": None,
        "scaling_factor": 2.0,
        "one_sided": False,
        "timestep": True,
        "embedding_bias": True,
        "electron_embedding": True,
        "concat_embedding": False,
    },
    "dpa2": {"architecture": "dpa2"},
    "dpa2, no three-body term, stripped, mean, few slots": {
        "architecture": "dpa2",
        "three_body": None,
        "repinit": {"embedding_input": "strip", "zero_mean": False, "sel": 4},
        "repformer": {"sel": 3, "zero_mean": False},
    },
    "dpa2, every term": {
        "architecture": "dpa2",
        "repformer": {"local_attention": True, "prod_f": True, "update_vectors": True, "sel": 3},
    },
    "dpa2, merged terms, excluded": {
        "architecture": "dpa2",
        "excluded_pairs": PAIRS,
        "add_embedding": True,
        "repformer": {
            "separate_conv": False,
            "separate_self": False,
            "sqrt_norm": False,
            "local_attention": True,
            "update_style": "res_incr",
        },
    },
    "dpa2, one cutoff for all, distances": {
        "architecture": "dpa2",
        "three_body": {"cutoff": 5.0, "switch_start": 3.0},
        "repformer": {"cutoff": 5.0, "switch_start": 3.0, "direct_distance": True, "update_style": "res_avg"},
    },
}
"""Variants that are C² through every cutoff."""

CROSSED = ("smooth at the cutoff", "continuity")
INNER = ("smooth at inner cutoffs", "continuity")
ROUGH = {
    "dpa3": ({"smooth_edge_update": False}, INNER, "smooth_edge_update: false", "angle cutoff, 3.6 Å"),
    "dpa3, polynomial": (
        {"smooth_edge_update": False, **POLYNOMIAL},
        INNER,
        "smooth_edge_update: false",
        "angle cutoff, 3.6 Å",
    ),
    "dpa1": ({"architecture": "dpa1", "smooth": False}, CROSSED, "smooth: false", "cutoff, 5 Å"),
    "dpa1, stripped, two layers": (
        {"architecture": "dpa1", "smooth": False, "attention_layers": 2, "embedding_input": "strip"},
        CROSSED,
        "smooth: false",
        "cutoff, 5 Å",
    ),
    "dpa2": ({"architecture": "dpa2", "smooth": False}, INNER, "smooth: false", "repformer cutoff, 3.6 Å"),
    "dpa2, excluded, mean": (
        {
            "architecture": "dpa2",
            "excluded_pairs": PAIRS,
            "repinit": {"embedding_input": "strip", "zero_mean": False},
        },
        CROSSED,
        "excluded_pairs with ",
        "cutoff, 5 Å",
    ),
    "se_a, excluded, mean": (
        {"architecture": "se_a", "excluded_pairs": PAIRS},
        CROSSED,
        "excluded_pairs with zero_mean: false",
        "cutoff, 5 Å",
    ),
    "dpa1, excluded, mean": (
        {
            "architecture": "dpa1",
            "excluded_pairs": PAIRS,
            "attention_layers": 0,
            "embedding_input": "strip",
            "zero_mean": False,
        },
        CROSSED,
        "excluded_pairs with zero_mean: false",
        "cutoff, 5 Å",
    ),
    "se_a, relu": ({"architecture": "se_a", "activation": "relu"}, ("continuity",), "backbone.activation: relu", "a kink"),
}
"""Variants that are not: laws that fail, the option that breaks them, and where."""

ARCHITECTURES = ("se_a", "dpa1", "dpa2", "dpa3")


@pytest.mark.parametrize("name", KINDS)
def test_random_models_obey_every_law(name):
    checks = lamella.check(build(**KINDS[name]))
    assert checks.passed, f"\n{checks}"
    assert [row.law for row in checks.rows] == list(LAWS)


@pytest.mark.parametrize(
    "name",
    [
        "se_a, two-sided, few slots",
        "dpa1, two layers, stripped, mean, few slots",
        "dpa2, every term",
        "dpa3",
    ],
)
def test_trained_models_obey_every_law(name):
    checks = lamella.check(trained(build(elements=("H", "C", "O"), **relabelled(KINDS[name]))))
    assert checks.passed, f"\n{checks}"


def relabelled(options):
    """The same for hydrogen, carbon and oxygen."""
    return {**options, **({"sel": {"H": 2, "C": 1, "O": 1}} if isinstance(options.get("sel"), dict) else {})}


@pytest.mark.parametrize(("architecture", "task_dim"), [("dpa3", 0), ("dpa3", 2), ("se_a", 0), ("dpa1", 2), ("dpa2", 0)])
def test_every_task_obeys_every_law(architecture, task_dim):
    model = {"head": {"task_dim": task_dim}}
    checks = lamella.check(build(elements=("H", "C"), tasks=("pbe", "gfn2"), model=model, architecture=architecture))
    assert checks.passed, f"\n{checks}"


LOADED = [path for path in sorted(GOLDEN.glob("*.pt")) if not path.stem.startswith("order_")]  # those are refused


@pytest.mark.parametrize("path", [*LOADED, GOLDEN / "trained_water"], ids=lambda path: path.stem)
def test_golden_models_obey_every_law(path):
    model = load(path)
    checks = lamella.check(model, model.tasks[0])
    rough = model.config.backbone.rough
    assert bool(checks.failed) == bool(rough), f"{rough}\n{checks}"
    assert set(checks.failed) <= {*CROSSED, *INNER}, f"\n{checks}"


@pytest.mark.parametrize("name", ROUGH)
def test_variants_that_are_not_smooth_are_reported_with_option_place_and_jump(name):
    options, laws, option, place = ROUGH[name]
    checks = lamella.check(build(**options))
    assert checks.failed == laws, f"\n{checks}"
    for law in laws:
        assert f"Why: {option}" in checks[law].sentence, checks[law].sentence
        assert " eV, " in checks[law].sentence, "the size of the jump"
    assert place in checks[laws[0]].sentence


def test_a_model_that_cuts_its_neighbours_to_sel_is_not_continuous():
    for architecture in ARCHITECTURES:
        row = check_law("continuity", build(Truncated, architecture=architecture))
        assert not row.passed, f"{architecture}: {row.sentence}"
        assert check_law("continuity", build(architecture=architecture)).passed, architecture


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, kinds in MUTANTS.items() for mutant in kinds])
def test_broken_models_break_their_law(law, mutant):
    row = check_law(law, build(mutant, **POLYNOMIAL))
    assert not row.passed, f"{row.violation} <= {row.bound}: {row.sentence}"


@pytest.mark.parametrize("law", MUTANTS)
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "dpa3"])
def test_every_architecture_can_break_every_law(architecture, law):
    model = build(MUTANTS[law][0], architecture=architecture)
    if law == "smooth at inner cutoffs" and len(model.config.backbone.shells) == 1:
        pytest.skip("no inner cutoff")
    row = check_law(law, model)
    assert not row.passed, f"{row.violation} <= {row.bound}: {row.sentence}"


def test_every_law_has_a_model_that_breaks_it():
    assert set(MUTANTS) == set(LAWS)


def test_edge_term_that_is_twice_differentiable_at_the_cutoff_passes():
    row = check_law("smooth at the cutoff", build(FlatCutoff, **POLYNOMIAL))
    assert row.passed, row.sentence


def test_exponential_switch_prints_what_it_leaves_at_the_cutoff():
    row = check_law("smooth at the cutoff", build(cutoff=6.0, switch_start=5.3))
    assert row.passed, row.sentence
    assert "w 8.0e-07" in row.sentence
    row = check_law("smooth at inner cutoffs", build(angle_cutoff=4.0, angle_switch_start=3.5))
    assert row.passed, row.sentence
    assert "w 2.7e-08" in row.sentence


def test_no_number_passes_nothing_that_reads_energies():
    checks = lamella.check(build(NotANumber, layers=1))
    assert {"translation", "forces", "virial", "supercell", "distant fragments", "float32 against float64"} <= set(
        checks.failed
    )


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(1, 2**31))
@pytest.mark.parametrize("law", ["rotation", "reflection", "translation", "forces", "other cell vectors"])
def test_laws_hold_for_any_structure(law, seed):
    row = check_law(law, build(layers=1, elements=("Si",), **POLYNOMIAL), seed=seed)
    assert row.passed, row.sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_check_leaves_the_model_alone(dtype):
    model = build(layers=1).cast(dtype)
    before = twin_of(model)
    assert lamella.check(model).passed
    assert model.dtype == dtype
    assert model.training == before.training
    for (name, value), old in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old), name
    assert all(value.requires_grad and value.grad is None for value in model.parameters())


def test_same_seed_same_figures():
    model = build(layers=1)
    assert lamella.check(model, seed=3) == lamella.check(model, seed=3)


def test_a_path_is_a_model_too_and_anything_else_is_refused(tmp_path):
    model = build(layers=1)
    save_model(model, tmp_path)
    assert lamella.check(str(tmp_path)) == lamella.check(model)
    with pytest.raises(InputError, match="a NoneType is none"):
        lamella.check(None)


def test_unknown_task_and_law_are_refused_with_the_nearest_name():
    model = build(layers=1, tasks=("pbe", "gfn2"))
    with pytest.raises(InputError, match="gfn2"):
        lamella.check(model, "gfn")
    with pytest.raises(InputError, match="rotation"):
        check_law("rotations", model, "pbe")
