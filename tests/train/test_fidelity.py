"""Twenty steps from a deepmd-kit checkpoint, with the recipe of its ``input.json``, end at deepmd-kit 3.2.0's weights.

Reference: ``dp --pt train input.json --init-model init.pt`` (deepmd-kit 3.2.0, CPU, float64), made by
``shared/reference/make_reference.py`` on 2026-11-21.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.data.load import Share
from lamella.formats.deepmd import read
from lamella.geometry.graph import build_graph
from lamella.models.potential import Potential
from lamella.train import loss as loss_module
from lamella.train.deepmd_input import read_input
from lamella.train.optim import build_optimizer
from lamella.train.schedule import decay, learning_rate
from lamella.train.step import Outcome, StepSetting, train_step
from lamella.types import Batch, Frame

SHARED = Path(os.environ.get("LAMELLA_SHARED", Path(__file__).resolve().parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "training"
RUNS = ["dpa3_dynamic", "dp_se_e2_a", "dpa2_released"]
STEPS = 20

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs {REFERENCE}, which is not part of the repository")


def the_frame() -> Frame:
    folder = REFERENCE / "frame"
    numbers = np.array([{"O": 8, "H": 1}[s] for s in (folder / "type_map.raw").read_text().split()])
    species = np.loadtxt(folder / "type.raw", dtype=int)
    data = {name: np.load(folder / "set.000" / f"{name}.npy")[0].astype(np.float64) for name in ("coord", "box", "force")}
    energy = np.load(folder / "set.000" / "energy.npy").reshape(-1)[0].astype(np.float64)
    labels = {"energy": np.array(energy), "forces": data["force"].reshape(-1, 3)}
    cell = data["box"].reshape(3, 3)
    return Frame(numbers[species], data["coord"].reshape(-1, 3), cell, np.ones(3, dtype=bool), labels, str(folder))


def the_batch(potential: Potential) -> Batch:
    frame = the_frame()
    graph = build_graph(frame, potential.graph_spec)
    energy = torch.tensor([float(frame.labels["energy"])], dtype=torch.float64)
    labels = {"energy": energy, "forces": torch.tensor(frame.labels["forces"])}
    return Batch(graph, labels, {name: torch.tensor([True]) for name in labels}, (frame.source,))


@functools.cache
def unmodified_run(name: str) -> tuple[Potential, list[Outcome], Batch]:
    return run_twenty_steps(name)


def run_twenty_steps(name: str) -> tuple[Potential, list[Outcome], Batch]:
    recipe = read_input(REFERENCE / name / "input.json").recipe
    schedule, config, loss = recipe.schedule, recipe.optimizer, recipe.tasks["default"].loss
    potential = read(REFERENCE / name / "init.pt")
    assert potential.config == recipe.model
    assert recipe.training.steps == STEPS
    batch = the_batch(potential)
    optimizer = build_optimizer(config, potential)
    outcomes = []
    for step in range(STEPS):
        rate, share = (f(schedule, step, STEPS, config.lr) for f in (learning_rate, decay))
        setting = StepSetting(step + 1, rate, share)
        outcomes.append(train_step(potential, optimizer, [Share("default", batch)], {"default": loss}, config, setting))
    return potential, outcomes, batch


def worst_relative_difference(potential: Potential, name: str) -> float:
    reference = read(REFERENCE / name / "after_20_steps.pt").state_dict()
    differences = {}
    for tensor, value in potential.state_dict().items():
        expected = reference[tensor]
        if expected.numel():
            scale = expected.abs().max().item() or 1.0
            differences[tensor] = (value - expected).abs().max().item() / scale
    return max(differences.values())


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_end_at_the_reference_weights(name: str) -> None:
    potential, _, _ = unmodified_run(name)
    assert worst_relative_difference(potential, name) <= 1e-7


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_agree_to_1e12_where_prefactors_are_rounded_as_in_deepmd_kit(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """deepmd-kit 3.2.0 rounds each prefactor (after the learning-rate factor) and 1/N to float32; lamella does not."""
    exact_prefactor, exact_inverse = loss_module.prefactor, loss_module.inverse_atoms
    monkeypatch.setattr(loss_module, "prefactor", lambda *a: float(np.float32(exact_prefactor(*a))))
    monkeypatch.setattr(loss_module, "inverse_atoms", lambda n: exact_inverse(n).float().double())
    potential, _, _ = run_twenty_steps(name)
    assert worst_relative_difference(potential, name) <= 1e-12


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_the_reference_learning_curve(name: str) -> None:
    """Columns: step, sqrt(loss), energy error per atom, force RMSE, learning rate, printed with three digits."""
    curve = np.loadtxt(REFERENCE / name / "lcurve.out")
    _, outcomes, batch = unmodified_run(name)
    energy = [abs((o.predictions[0].energy - batch.labels["energy"]).item()) / 192 for o in outcomes]
    forces = [(o.predictions[0].forces - batch.labels["forces"]).square().mean().sqrt().item() for o in outcomes]
    ours = np.stack([np.sqrt([o.losses[0] for o in outcomes]), energy, forces], axis=1)
    np.testing.assert_allclose(ours, curve[:, 1:4], rtol=6e-3)


def test_parameters_without_a_gradient_stay_untouched() -> None:
    """Edges after the last layer and angles entering it are nobody's input: AdamW must not decay their weights."""
    before = read(REFERENCE / "dpa3_dynamic" / "init.pt").state_dict()
    potential, _, _ = unmodified_run("dpa3_dynamic")
    without = [name for name, p in potential.named_parameters() if p.grad is None]
    assert "backbone.layers.1.edge_angle_1.weight" in without
    assert "backbone.layers.0.angle_self.weight" in without
    assert all(".layers.1." in name or "angle" in name for name in without)
    after = potential.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in without)
    changed = [name for name, p in potential.named_parameters() if p.grad is not None]
    assert not any(torch.equal(before[name], after[name]) for name in changed)
