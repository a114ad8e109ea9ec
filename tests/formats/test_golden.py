"""Golden numbers: lamella computes what deepmd-kit 3.2.0 computes from its checkpoints (origin: tests/golden/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golden_models import GOLDEN, golden_frames, relative
from lamella.formats.load import load

SINGLE = [
    *("dpa3_static.pt", "dpa3_dynamic.pt", "order1.pt", "reference_defaults.pt"),
    *("dynamic_mixed.pt", "res_avg.pt", "identity2.pt", "frozen.pth"),
]


def disagreements(model, name, task=None):
    """Relative difference of every array of every frame."""
    out = {}
    for frame, want in golden_frames(name, task):
        graph = model.graph([frame])
        got = model(graph, task)
        pairs = {
            "energy": (got.energy[0], want["energy"]),
            "forces": (got.forces, want["forces"]),
            "atomic_energy": (got.atom_energy, want["atomic_energy"]),
            "descriptor": (model.describe(graph), want["descriptor"]),
        }
        if "virial" in want:
            virial = got.virial[0].numpy()
            pairs["virial"] = (virial + virial.T, want["virial"] + want["virial"].T)
        out |= {f"{frame.source}:{key}": relative(*pair) for key, pair in pairs.items()}
    return out


@pytest.mark.parametrize("file", SINGLE)
def test_predictions_equal_those_of_deepmd_kit(file):
    model = load(GOLDEN / file)
    assert model.dtype == torch.float64
    assert model.tasks == ("default",)
    worst = disagreements(model, file.partition(".")[0])
    assert max(worst.values()) < 1e-10, worst


@pytest.mark.parametrize("name", ["dpa3_multitask_case", "dpa3_multitask_heads"])
def test_every_task_of_a_multitask_checkpoint_equals_deepmd_kit(name):
    model = load(GOLDEN / f"{name}.pt")
    assert model.tasks == ("pbe", "scan")
    for task in model.tasks:
        worst = disagreements(model, name, task)
        assert max(worst.values()) < 1e-10, worst
    frame, want = next(golden_frames(name, "pbe"))
    assert relative(model(model.graph([frame]), "scan").energy[0], want["energy"]) > 1e-3, "the two tasks must differ"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_precision_checkpoint_agrees_within_single_precision(dtype):
    model = load(GOLDEN / "float32.pt", dtype=dtype)
    assert load(GOLDEN / "float32.pt").dtype == torch.float32
    worst = disagreements(model, "float32")
    assert max(worst.values()) < 1e-5, worst


def test_batch_of_golden_frames_equals_deepmd_kit():
    model = load(GOLDEN / "dpa3_dynamic.pt")
    frames, wanted = zip(*golden_frames("dpa3_dynamic"), strict=True)
    got = model(model.graph(frames))
    assert relative(got.energy, np.array([want["energy"] for want in wanted])) < 1e-10
    assert relative(got.forces, np.concatenate([want["forces"] for want in wanted])) < 1e-10
