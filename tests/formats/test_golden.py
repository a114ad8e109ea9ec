"""Golden numbers: lamella computes what deepmd-kit 3.2.0 computes from its checkpoints (origin: tests/golden/README.md)."""

from __future__ import annotations

import functools
import zipfile

import numpy as np
import pytest
import torch

from golden_models import GOLDEN, disagreements, golden_frames, relative
from lamella.errors import CheckpointError
from lamella.formats.load import load

REFUSED = ("order_concat", "order_strip", "order_dpa2")
SINGLE_PRECISION = ("float32",)


@functools.cache
def tasks_of(name: str) -> tuple[str | None, ...]:
    """The branches of a golden checkpoint, in its order; (None,) where it has one model."""
    heads: dict[str | None, None] = {}
    with zipfile.ZipFile(GOLDEN / f"{name}.npz") as arrays:
        for member in arrays.namelist():
            heads[member.split("/")[0] if member.count("/") == 2 else None] = None
    return tuple(heads)


NAMES = sorted(path.stem for path in GOLDEN.glob("*.pt") if path.with_suffix(".npz").exists())
EXACT = [name for name in NAMES if name not in (*REFUSED, *SINGLE_PRECISION)]
CASES = [(name, task) for name in EXACT for task in tasks_of(name)]
FROZEN = sorted(path.stem for path in GOLDEN.glob("*.pth"))


@pytest.mark.parametrize(("name", "task"), CASES, ids=[name if task is None else f"{name}-{task}" for name, task in CASES])
def test_predictions_equal_those_of_deepmd_kit(name, task):
    model = load(GOLDEN / f"{name}.pt")
    assert model.dtype == torch.float64
    assert set(model.tasks) == {head or "default" for head in tasks_of(name)}
    worst = disagreements(model, name, task)
    assert max(worst.values()) < 1e-10, worst


@pytest.mark.parametrize("name", FROZEN)
def test_predictions_of_frozen_models_equal_those_of_deepmd_kit(name):
    model = load(GOLDEN / f"{name}.pth")
    assert model.dtype == torch.float64
    worst = disagreements(model, name)
    assert max(worst.values()) < 1e-10, worst


def test_every_architecture_has_golden_models_of_every_kind():
    assert len(EXACT) >= 30
    for kind in ("se_a", "dpa1", "dpa2", "dpa3"):
        assert sum(kind in name for name in EXACT) >= 4, kind
        assert any(len(tasks_of(name)) > 1 for name in EXACT if name.startswith(kind)), kind


@pytest.mark.parametrize("name", [name for name in EXACT if len(tasks_of(name)) > 1])
def test_tasks_differ(name):
    model = load(GOLDEN / f"{name}.pt")
    first, second = tasks_of(name)[:2]
    frame, want = next(golden_frames(name, first))
    assert relative(model(model.graph([frame]), second).energy[0], want["energy"]) > 1e-3


@pytest.mark.parametrize("name", REFUSED)
def test_energies_that_depend_on_the_order_of_atoms_are_refused(name):
    with pytest.raises(CheckpointError, match="order of"):
        load(GOLDEN / f"{name}.pt")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_precision_checkpoint_agrees_within_single_precision(dtype):
    model = load(GOLDEN / "float32.pt", dtype=dtype)
    assert load(GOLDEN / "float32.pt").dtype == torch.float32
    worst = disagreements(model, "float32")
    assert max(worst.values()) < 1e-5, worst


@pytest.mark.parametrize("name", ["dpa3_dynamic", "dp_se_e2_a", "dpa1_attn3_strip", "dpa2_every_term"])
def test_batch_of_golden_frames_equals_deepmd_kit(name):
    model = load(GOLDEN / f"{name}.pt")
    frames, wanted = zip(*golden_frames(name), strict=True)
    got = model(model.graph(frames))
    assert relative(got.energy, np.array([want["energy"] for want in wanted])) < 1e-10
    assert relative(got.forces, np.concatenate([want["forces"] for want in wanted])) < 1e-10
