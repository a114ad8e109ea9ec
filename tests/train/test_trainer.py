"""What the loop hands to a step, and which weights it judges and saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import read
from torch import Tensor, nn

import lamella.train.fit as fit_module
from lamella.data.convert import frame_from_atoms
from lamella.data.load import Share, make_batch
from lamella.models.bundle import load_model
from lamella.models.potential import ModelConfig, Potential
from lamella.train.fit import fit
from lamella.train.log import read_log
from lamella.train.loss import LossConfig
from lamella.train.recipe import Recipe
from lamella.train.step import Outcome, StepSetting
from lamella.train.validate import validate
from train.small import MODEL

MakeRecipe = Callable[..., Recipe]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_prefactors_of_a_step_follow_the_schedule_without_its_warm_up(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[StepSetting] = []
    original = fit_module.train_step

    def train_step(*args: Any) -> Outcome:
        settings.extend(argument for argument in args if isinstance(argument, StepSetting))
        return original(*args)

    monkeypatch.setattr(fit_module, "train_step", train_step)
    schedule = {"kind": "wsd", "stop_lr": 1e-4, "warmup_steps": 4, "decay_fraction": 0.5, "decay_shape": "linear"}
    fit(make_recipe(schedule=schedule, optimizer={"lr": 1e-3}), tmp_path / "run")
    assert [setting.number for setting in settings] == list(range(1, 13))
    assert [setting.decay for setting in settings[:7]] == [1.0] * 7
    assert [setting.decay for setting in settings[7:]] == pytest.approx([1 - 0.9 * k / 6 for k in (1, 2, 3, 4, 5)])
    warm = [0.0, 0.25, 0.5, 0.75] + [1.0] * 8
    assert [setting.lr for setting in settings] == pytest.approx(
        [1e-3 * factor * setting.decay for factor, setting in zip(warm, settings, strict=True)]
    )


def test_averaged_weights_are_judged_and_saved(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: list[dict[str, Tensor]] = []
    judged: list[dict[str, Tensor]] = []
    step, judge = fit_module.train_step, fit_module.validate

    def train_step(potential: Potential, *args: Any) -> Outcome:
        if not own:
            own.append(weights_of(potential))
        outcome = step(potential, *args)
        own.append(weights_of(potential))
        return outcome

    def validated(potential: Potential, *args: Any) -> dict[str, dict[str, float]]:
        judged.append(weights_of(potential))
        return judge(potential, *args)

    monkeypatch.setattr(fit_module, "train_step", train_step)
    monkeypatch.setattr(fit_module, "validate", validated)
    run = fit(
        make_recipe(training={"steps": 4, "valid_every": 2, "save_every": 1, "keep": 9, "ema": 0.25}), tmp_path / "run"
    )
    expected = dict(own[0])
    for t in range(1, 5):
        rate = min(0.25, (1 + t) / (10 + t))  # 2/11, then 0.25
        expected = {name: rate * value + (1 - rate) * own[t][name] for name, value in expected.items()}
        saved = weights_of(load_model(run / f"step_{t:07d}"))
        torch.testing.assert_close(saved, expected, rtol=1e-13, atol=1e-15)
        if t % 2 == 0:
            assert all(torch.equal(judged[t // 2 - 1][name], value) for name, value in saved.items())
    assert len(judged) == 2


def test_score_of_a_step_is_the_mean_over_tasks_by_weight(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    tasks = {
        "a": {"train": str(files["molecules"]), "weight": 3.0},
        "b": {"train": str(files["other"]), "weight": 1.0},
        "idle": {"train": str(files["crystals"]), "weight": 0.0, "valid_fraction": 0.5},
    }
    elements = ["H", "C", "N", "O", "Na", "Cl"]  # the idle task's own too, known untrained
    run = fit(make_recipe(tasks=tasks, elements=elements, training={"steps": 4}), tmp_path / "run")
    log = read_log(run)
    scores = {record["task"]: record["score"] for record in log if record["event"] == "valid"}
    assert scores.keys() == tasks.keys()
    (best,) = (record for record in log if record["event"] == "best")
    assert best["score"] == pytest.approx(0.75 * scores["a"] + 0.25 * scores["b"], rel=1e-14)


@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(kind="huber", energy=(1, 0), forces=(2, 0), virial=(3, 0))])
def test_validation_does_not_depend_on_how_frames_are_batched(files: dict[str, Path], loss: LossConfig) -> None:
    """Also where only some frames carry a label: three of the six have a virial."""
    torch.manual_seed(0)
    potential = Potential(ModelConfig.model_validate(MODEL), ["Na", "Cl"]).double()
    frames = [frame_from_atoms(atoms) for atoms in read(files["crystals"], ":")]
    assert sum("virial" in frame.labels for frame in frames) == 3

    def judged(*groups: list[int]) -> dict[str, float]:
        stream = (make_batch([frames[index] for index in group], potential.graph_spec) for group in groups)
        return validate(potential, ([Share("default", batch)] for batch in stream), {"default": loss})["default"]

    whole = judged([0, 1, 2, 3, 4, 5])
    assert whole["frames"] == 6
    assert whole["score"] > 0
    assert {"energy_rmse", "forces_mae", "virial_rmse"} < whole.keys()
    for groups in ([[0], [1], [2], [3], [4], [5]], [[5, 0, 3], [4, 1], [2]]):
        assert judged(*groups) == pytest.approx(whole, rel=1e-11)
