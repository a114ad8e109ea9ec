"""The same numbers on a GPU as on the CPU; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lamella
from golden_models import GOLDEN, golden_frames, relative
from lamella.data.load import Share, make_batch
from lamella.formats.deepmd import read
from lamella.train.fit import fit
from lamella.train.loss import LossConfig
from lamella.train.optim import AdamW, build_optimizer
from lamella.train.recipe import load_recipe
from lamella.train.step import StepSetting, train_step
from lamella.types import Frame

pytestmark = pytest.mark.gpu  # tests/conftest.py skips these where there is none


@pytest.mark.parametrize("name", ["dpa3_static", "dpa3_dynamic", "order1"])
def test_golden_models_give_the_reference_numbers(name: str) -> None:
    model = lamella.load(GOLDEN / f"{name}.pt", device="cuda")
    for frame, values in golden_frames(name):
        prediction = model(model.graph([frame]))
        assert relative(prediction.energy[0].cpu(), values["energy"]) <= 1e-10
        assert relative(prediction.forces.cpu(), values["forces"]) <= 1e-10
        assert relative(prediction.atom_energy.cpu(), values["atomic_energy"]) <= 1e-10


def test_laws_hold() -> None:
    checks = lamella.check(lamella.load(GOLDEN / "trained_water", device="cuda"))
    assert checks.passed, f"\n{checks}"


def labelled_frames() -> list[Frame]:
    rng = np.random.default_rng(0)
    frames = []
    for frame, values in golden_frames("dpa3_dynamic"):
        forces = values["forces"] + rng.normal(0.0, 0.1, values["forces"].shape)
        labels = {"energy": values["energy"] + 1.0, "forces": forces}
        frames.append(Frame(frame.numbers, frame.positions, frame.cell, frame.pbc, labels, frame.source))
    return frames


def test_training_steps_end_at_the_weights_of_the_cpu() -> None:
    weights = []
    for device in ("cpu", "cuda"):
        model = read(GOLDEN / "dpa3_dynamic.pt").to(device)
        batch = make_batch(labelled_frames(), model.numbers, model.cutoff, model.angle_cutoff).to(device)
        settings = AdamW(lr=1e-3)
        optimizer = build_optimizer(settings, model)
        for step in range(5):
            shares, losses = [Share("default", batch)], {"default": LossConfig()}
            train_step(model, optimizer, shares, losses, settings, StepSetting(step + 1, 1e-3, 1.0))
        weights.append({name: value.detach().cpu() for name, value in model.named_parameters()})
    for name, expected in weights[0].items():
        assert relative(weights[1][name], expected) <= 1e-7, name


def test_two_runs_give_the_same_bits() -> None:
    model = lamella.load(GOLDEN / "trained_water", device="cuda")
    atoms = lamella.datasets.water_box()
    first, second = (lamella.predict(model, [atoms])[0] for _ in range(2))
    assert first.energy == second.energy and (first.forces == second.forces).all()


def test_trainer_runs_where_the_recipe_asks_for_it(tmp_path: Path) -> None:
    recipe = load_recipe(
        GOLDEN / "trained_water" / "recipe.yaml", ["device=cuda", "training.steps=4", "training.valid_every=4"]
    )
    run = fit(recipe, tmp_path / "run")
    assert lamella.load(run, device="cuda").device.type == "cuda"
