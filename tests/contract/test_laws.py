"""Every model obeys every law, and every law can fail."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lamella
from contract.models import MUTANTS, POLYNOMIAL, FlatCutoff, NotANumber, build, twin_of
from golden_models import GOLDEN
from lamella.errors import InputError
from lamella.formats.load import load
from lamella.models.bundle import save_model
from lamella.use.laws import LAWS, check_law

KINDS = {
    "defaults": {},
    "order 1": {"update_angle": False, **POLYNOMIAL},
    "polynomial, dynamic sel": {**POLYNOMIAL, "dynamic_sel": True, "activation": "silu"},
    "linear compression, two messages": {"angle_compression_kind": "linear", "messages": 2, "activation": "silut:3.0"},
    "no compression, res_avg": {"angle_compression": 0, "update_style": "res_avg", "edge_init": "switched_inverse"},
    "res_incr, low threshold": {
        **POLYNOMIAL,
        "update_style": "res_incr",
        "activation": "silut:1.0",
        "concat_embedding": True,
    },
}
NOT_SMOOTH = ("smooth at the angle cutoff", "continuity")


@pytest.mark.parametrize("name", KINDS)
def test_random_models_obey_every_law(name):
    checks = lamella.check(build(**KINDS[name]))
    assert checks.passed, f"\n{checks}"
    assert [row.law for row in checks.rows] == list(LAWS)


@pytest.mark.parametrize("task_dim", [0, 2])
def test_every_task_obeys_every_law(task_dim):
    checks = lamella.check(build(elements=("H", "C"), tasks=("pbe", "gfn2"), task_dim=task_dim, layers=1))
    assert checks.passed, f"\n{checks}"


@pytest.mark.parametrize("path", [*sorted(GOLDEN.glob("*.pt")), GOLDEN / "trained_water"], ids=lambda path: path.stem)
def test_golden_models_obey_every_law(path):
    model = load(path)
    backbone = model.config.backbone
    checks = lamella.check(model, model.tasks[0])
    expected = () if backbone.smooth_edge_update or not backbone.update_angle else NOT_SMOOTH
    assert checks.failed == expected, f"\n{checks}"


@pytest.mark.parametrize("switch", [{}, POLYNOMIAL])
def test_unsmooth_edge_update_is_reported_with_the_place(switch):
    checks = lamella.check(build(smooth_edge_update=False, **switch))
    assert checks.failed == NOT_SMOOTH, f"\n{checks}"
    assert "at 3.6 Å" in checks["smooth at the angle cutoff"].sentence


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, kinds in MUTANTS.items() for mutant in kinds])
def test_broken_models_break_their_law(law, mutant):
    row = check_law(law, build(mutant, **POLYNOMIAL))
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
    row = check_law("smooth at the angle cutoff", build(angle_cutoff=4.0, angle_switch_start=3.5))
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
