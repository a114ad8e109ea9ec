"""The loop: learning, stopping and going on to the same bits, refusals that lose nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

import lamella.train.fit as fit_module
from lamella.errors import CheckpointError, DataError, InputError, RecipeError, TrainingError
from lamella.formats.load import load
from lamella.models.bundle import load_model
from lamella.train.draw import TaskDraw
from lamella.train.fit import fit
from lamella.train.log import read_log
from lamella.train.recipe import Recipe, dump_recipe, load_recipe
from lamella.train.state import pointed
from lamella.train.step import Outcome, StepSetting
from lamella.train.stop import Interrupted
from train.same import assert_same, everything
from train.small import MODEL

MakeRecipe = Callable[..., Recipe]


def setting_of(arguments: tuple[Any, ...]) -> StepSetting:
    """What the schedule says, among the arguments of ``train_step``."""
    (setting,) = (argument for argument in arguments if isinstance(argument, StepSetting))
    return setting


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Deliver a signal in the middle of a step."""
    original = fit_module.train_step

    def train_step(*args: Any) -> Outcome:
        if setting_of(args).number == step:
            signal.raise_signal(number)
        return original(*args)

    monkeypatch.setattr(fit_module, "train_step", train_step)


def rich(files: dict[str, Path]) -> dict[str, Any]:
    """Everything that has a state: several tasks, EMA, AdamW, warm-up, packed batches, worker processes."""
    return {
        "tasks": {
            "a": {"train": str(files["molecules"]), "weight": 2.0, "loss": {"kind": "huber"}},
            "b": {"train": [str(files["crystals"]), str(files["other"])], "valid": str(files["other"])},
        },
        "schedule": {"kind": "cosine", "stop_lr": 1e-4, "warmup_steps": 3},
        "batch": {"frames": 4, "edges": 700},
        "training": {"ema": 0.9, "keep": 2, "tasks_per_step": 2},
    }


def test_stop_during_validation_saves_at_once_and_validates_on_resuming(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(**rich(files))
    fit(recipe, tmp_path / "whole")
    original = fit_module.validate
    for call, step in ((1, 4), (3, 12)):  # the second batch of frames is never looked at
        calls = itertools.count(1)

        def validate(potential: Any, batches: Any, *args: Any, calls: Any = calls, call: int = call) -> Any:
            def interrupted(shares: Any) -> Any:
                signal.raise_signal(signal.SIGTERM)
                return shares

            return original(potential, map(interrupted, batches) if next(calls) == call else batches, *args)

        with monkeypatch.context() as patched:
            patched.setattr(fit_module, "validate", validate)
            with pytest.raises(Interrupted, match=f"after step {step} of 12"):
                fit(recipe, tmp_path / "cut", resume=step > 4)
        assert read_log(tmp_path / "cut")[-1]["event"] == "train"
    fit(recipe, tmp_path / "cut", resume=True)
    assert_same(everything(tmp_path / "cut"), everything(tmp_path / "whole"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    recipe = make_recipe(**rich(files))
    fit(recipe, tmp_path / "whole")
    for step in (3, 7):
        with monkeypatch.context() as patched:
            stop_after(patched, step, number)
            with pytest.raises(Interrupted, match=rf"after step {step} of 12.*--resume") as stopped:
                fit(recipe, tmp_path / "cut", resume=step > 3)
        assert stopped.value.exit_code == 128 + number
        assert (tmp_path / "cut" / "last").read_text().strip() == f"step_{step:07d}"
    fit(load_recipe(tmp_path / "cut" / "config.yaml"), tmp_path / "cut", resume=True)
    assert_same(everything(tmp_path / "cut"), everything(tmp_path / "whole"))
    assert {record["task"] for record in read_log(tmp_path / "cut") if record["event"] == "train"} == {"a", "b"}


def test_worker_processes_change_no_bit(tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe) -> None:
    sections = rich(files)
    fit(make_recipe(**sections), tmp_path / "none")
    sections["training"]["workers"] = 2
    fit(make_recipe(**sections), tmp_path / "two")
    assert_same(everything(tmp_path / "two"), everything(tmp_path / "none"))


def start(recipe: Recipe, folder: Path) -> subprocess.Popen[bytes]:
    """``lamella train`` as a process of its own, to be stopped from outside."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "lamella", "train", str(folder / "recipe.yaml"), "--run", str(folder / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )


def wait_for_step(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    while not any(record["step"] >= step for record in read_log(run)):
        if process.poll() is not None:
            raise AssertionError(f"ended before step {step}: {process.communicate()[1].decode()}")
        time.sleep(0.02)


def test_processes_that_are_terminated_or_killed_go_on_to_the_same_bits(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    """Both runs are stopped by real signals wherever they happen to be, then resumed here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        recipe = make_recipe(training={"steps": 150, "valid_every": 45, "save_every": 10, "ema": 0.9})
        ends = {number: start(recipe, tmp_path / number.name) for number in (signal.SIGTERM, signal.SIGKILL)}
        for number, process in ends.items():
            wait_for_step(process, tmp_path / number.name / "run", 25)
            process.send_signal(number)
        messages = {number: process.communicate(timeout=60)[1].decode() for number, process in ends.items()}
        assert ends[signal.SIGTERM].returncode == 143, messages
        assert "lamella train --resume" in messages[signal.SIGTERM]
        assert ends[signal.SIGKILL].returncode == -signal.SIGKILL, messages
        results = []
        for number in ends:
            run = tmp_path / number.name / "run"
            fit(load_recipe(run / "config.yaml"), run, resume=True)
            results.append(everything(run))
        fit(recipe, tmp_path / "whole")
        for result in results:
            assert_same(result, everything(tmp_path / "whole"))
    finally:
        torch.set_num_threads(threads)


def test_training_learns_and_records_what_it_did(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(training={"steps": 120, "valid_every": 30, "keep": 1}, optimizer={"lr": 1e-2})
    run = fit(recipe, tmp_path / "run")
    log = read_log(run)
    scores = [record["score"] for record in log if record["event"] == "valid"]
    assert [record["step"] for record in log if record["event"] == "train"] == list(range(1, 121))
    assert scores[-1] < 0.5 * scores[0]
    best = [record for record in log if record["event"] == "best"][-1]
    assert best["score"] == min(scores)
    potential = load(run)
    assert potential.metadata["step"] == best["step"]
    assert potential.metadata["score"] == best["score"]
    data = potential.metadata["data"]["lj"]
    assert (data["train"]["frames"], data["valid"]["frames"]) == (11, 1)
    assert len({data["train"]["hash"], data["valid"]["hash"]}) == 2
    assert potential.metadata["versions"]["torch"] == torch.__version__
    assert Recipe.model_validate(potential.metadata["recipe"]) == recipe
    assert load_recipe(run / "config.yaml") == recipe
    assert potential.dtype == torch.float64
    newest = [path.name for path in sorted(run.glob("step_*"))]
    assert newest == sorted({best_name(best), "step_0000120"})


def best_name(record: dict[str, Any]) -> str:
    return f"step_{record['step']:07d}"


def test_baseline_is_set_before_the_first_step(tmp_path: Path, make_recipe: MakeRecipe, files: dict[str, Path]) -> None:
    given = {"H": -3.5, "C": -4.0, "O": -5.0}
    task = {"train": str(files["molecules"]), "baseline": given}
    run = fit(make_recipe(tasks={"lj": task}, training={"steps": 1}), tmp_path / "given")
    potential = load_model(run / "step_0000001")
    assert dict(zip(potential.elements, potential.baseline[0].tolist(), strict=True)) == given
    task = {"train": str(files["molecules"]), "valid_fraction": 0.0}
    run = fit(make_recipe(tasks={"lj": task}, training={"steps": 1}), tmp_path / "fitted")
    fitted = load_model(run / "step_0000001")
    frames = read(files["molecules"], ":")
    counts = np.array([[atoms.symbols.formula.count().get(s, 0) for s in fitted.elements] for atoms in frames])
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    least_norm = np.linalg.lstsq(counts.astype(float), energies)[0]
    np.testing.assert_allclose(fitted.baseline[0].numpy(), least_norm, rtol=1e-10)


def test_isolated_atoms_are_found_also_where_the_split_held_them_back(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    energies = {"H": -13.6, "C": -1000.0, "O": -2000.0}
    alone = []
    for symbol, energy in energies.items():
        atom = Atoms(symbol)
        atom.calc = SinglePointCalculator(atom, energy=energy, forces=np.zeros((1, 3)))
        alone.append(atom)
    write(tmp_path / "data.xyz", [*read(files["molecules"], ":"), *alone])
    task = {"train": str(tmp_path / "data.xyz"), "valid_fraction": 0.5, "baseline": "isolated_atoms"}
    for seed in (1, 2, 3):
        run = fit(make_recipe(seed=seed, tasks={"lj": task}, training={"steps": 1}), tmp_path / f"run{seed}")
        potential = load_model(run / "step_0000001")
        assert dict(zip(potential.elements, potential.baseline[0].tolist(), strict=True)) == energies


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ("isolated_atoms", "no isolated-atom frame for H, C, O"),
        ({"H": -1.0, "C": -2.0}, "no energy for O"),
        ({"H": -1.0, "C": -2.0, "O": -3.0, "N": -4.0}, "N is not an element of the model"),
    ],
)
def test_baseline_that_cannot_be_used_is_refused_with_its_task(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, baseline: Any, words: str
) -> None:
    tasks = {"fine": {"train": str(files["other"])}, "lj": {"train": str(files["molecules"]), "baseline": baseline}}
    with pytest.raises(InputError, match=rf"^tasks\.lj\.baseline: {words}"):
        fit(make_recipe(tasks=tasks), tmp_path / "run")


def test_environment_scale_comes_from_the_data_where_asked(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    model = make_recipe().model.model_dump(mode="json")
    model["backbone"]["env_std"] = 0.0
    run = fit(make_recipe(model=model, training={"steps": 1}), tmp_path / "run")
    std = load_model(run / "step_0000001").backbone.environment.std
    assert (std >= 0.01).all()
    assert len(std.unique()) == std.numel()


@pytest.mark.parametrize(
    ("head", "training"),
    [
        ({}, {}),
        ({}, {"tasks_per_step": 2, "ema": 0.9, "workers": 1}),
        ({"task_dim": 2}, {"tasks_per_step": 2}),
        ({"shared": True}, {}),
    ],
)
def test_a_task_of_weight_zero_changes_nothing_for_the_others(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, head: dict[str, Any], training: dict[str, Any]
) -> None:
    """Nor does it take the place in the dataset encoding that another has without it, nor enter statistics or `sel`."""
    alone = {"a": {"train": str(files["molecules"])}}
    idle = {"idle": {"train": str(files["other"]), "weight": 0.0}}
    backbone = MODEL["backbone"] | {"env_std": 0.0, "edge_sel": "auto"}
    sections: dict[str, Any] = {
        "model": {"backbone": backbone, "head": MODEL["head"] | head},
        "batch": {"edges": 100},
        "training": training,
    }
    fit(make_recipe(tasks=alone, **sections), tmp_path / "alone")
    fit(make_recipe(tasks=idle | alone, **sections), tmp_path / "both")
    logs = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in read_log(tmp_path / name) if r.get("task") != "idle"]
        for name in ("alone", "both")
    ]
    assert logs[0] == logs[1]  # losses, gradients, validation, the best step
    one, two = (load_model(tmp_path / name / "step_0000012") for name in ("alone", "both"))
    assert_same(one.backbone.state_dict(), two.backbone.state_dict())
    assert_same(one.heads[0].state_dict(), two.heads[-1].state_dict())
    validated = {r["task"] for r in read_log(tmp_path / "both") if r["event"] == "valid"}
    assert validated == {"a", "idle"}


def test_elements_that_only_an_untrained_task_has_are_refused_or_called_untrained(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {"a": {"train": str(files["molecules"])}, "idle": {"train": str(files["crystals"]), "weight": 0.0}}
    with pytest.raises(RecipeError, match=r"tasks\.idle: Na, Cl occurs in no task that is trained.*weight 0"):
        fit(make_recipe(tasks=tasks), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    elements = ["H", "C", "O", "Na", "Cl", "Xe"]
    fit(make_recipe(tasks=tasks, elements=elements, training={"steps": 1}), tmp_path / "run")
    assert "no task trains Na Cl Xe: what the model says of such atoms means nothing" in capsys.readouterr().out


def test_rare_tasks_are_in_the_log_as_often_as_they_are_drawn(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    tasks = {"often": {"train": str(files["molecules"]), "weight": 9.0}, "rare": {"train": str(files["other"])}}
    run = fit(make_recipe(tasks=tasks, training={"steps": 60, "log_every": 10, "valid_every": 60}), tmp_path / "run")
    draw = TaskDraw({"often": 9.0, "rare": 1.0}, 60, 1)
    seen = [record["step"] for record in read_log(run) if record["event"] == "train" and record["task"] == "rare"]
    assert seen == [step + 1 for step in range(60) if draw.draws(step)[0].task == "rare"]
    often = [record for record in read_log(run) if record["event"] == "train" and record["task"] == "often"]
    assert len(often) in (draw.drawn(60)["often"] // 9, draw.drawn(60)["often"] // 9 + 1)


def test_tasks_are_drawn_by_weight_and_more_steps_extend_the_sequence() -> None:
    weights = {"a": 3.0, "idle": 0.0, "b": 1.0}
    for per_step in (1, 3):
        draw, longer = TaskDraw(weights, 5000, 5, per_step), TaskDraw(weights, 9000, 5, per_step)
        drawn = [draw.draws(step) for step in range(5000)]
        assert drawn[::50] == [longer.draws(step) for step in range(0, 5000, 50)]
        names = [task for draws in drawn for task, _ in draws]
        assert len(names) == 5000 * per_step
        assert set(names) == {"a", "b"}
        assert abs(names.count("a") / len(names) - 0.75) < 0.02
        for task in ("a", "b"):  # the batches of a task come one after the other
            numbers = [number for draws in drawn for name, number in draws if name == task]
            assert numbers == list(range(len(numbers)))
        for step in (0, 1000, 4097, 5000):
            assert longer.drawn(step) == {name: names[: step * per_step].count(name) for name in ("a", "b")}
        assert drawn[:20] != [TaskDraw(weights, 20, 6, per_step).draws(step) for step in range(20)]
    assert TaskDraw(weights, 9, 5).draws(3)[0].task == TaskDraw(weights | {"a": 6.0, "b": 2.0}, 9, 5).draws(3)[0].task


def test_batches_of_a_task_go_on_where_they_were_when_its_weight_changes() -> None:
    before = TaskDraw({"a": 1.0, "b": 1.0}, 50, 1)
    after = TaskDraw({"a": 9.0, "b": 1.0, "new": 2.0}, 100, 1, per_step=2)
    after.go_on(50, before.drawn(50))
    seen = before.drawn(50) | {"new": 0}
    for step in range(50, 100):
        for task, number in after.draws(step):
            assert number == seen[task]
            seen[task] += 1
    assert after.drawn(100) == seen


def test_folder_in_use_is_refused(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"not empty.*--resume"):
        fit(make_recipe(), tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_data_that_changed_since_the_run_began_is_refused(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    copy = tmp_path / "data.xyz"
    copy.write_bytes(files["molecules"].read_bytes())
    recipe = make_recipe(tasks={"lj": {"train": str(copy)}}, training={"steps": 4})
    fit(recipe, tmp_path / "run")
    frames = read(copy, ":")
    frames[0].positions[0] += 0.1
    write(copy, frames)
    with pytest.raises(DataError, match=r"tasks\.lj\.(train|valid): the data changed"):
        fit(recipe, tmp_path / "run", resume=True)


def test_nonfinite_loss_names_step_and_frames_and_keeps_the_last_checkpoint(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fit_module.train_step

    def train_step(potential: Any, *args: Any) -> Outcome:
        if setting_of((potential, *args)).number == 7:
            with torch.no_grad():
                potential.heads[0].nets[0].out.weight.fill_(torch.nan)
        return original(potential, *args)

    monkeypatch.setattr(fit_module, "train_step", train_step)
    with pytest.raises(TrainingError, match=r"step 7, task lj: the loss is nan .*in the frames .*molecules\.xyz#\d+"):
        fit(make_recipe(), tmp_path / "run")
    last = pointed(tmp_path / "run", "last")
    assert last is not None
    assert last.name == "step_0000005"
    assert all(torch.isfinite(p).all() for p in load(last).parameters())


def test_disk_full_while_saving_keeps_the_last_checkpoint_and_resumes(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    fit(recipe, tmp_path / "whole")
    original = os.fsync
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")
        original(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(TrainingError, match=r"the disk is full.*--resume"):
            fit(recipe, tmp_path / "run")
    last = pointed(tmp_path / "run", "last")
    assert last is not None
    load(last)
    fit(recipe, tmp_path / "run", resume=True)
    assert_same(everything(tmp_path / "run"), everything(tmp_path / "whole"))


def test_resuming_from_a_step_that_is_gone_is_refused_rather_than_begun_anew(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    run = fit(make_recipe(), tmp_path / "run")
    (run / "last").write_text("step_0000099")
    with pytest.raises(CheckpointError, match=r"last: names no step folder of this run \(there are: step_.*step_0000012\)"):
        fit(make_recipe(), run, resume=True)


def test_element_that_is_not_listed_is_refused(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"elements: C occurs in the data of task lj"):
        fit(make_recipe(elements=["H", "O"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_no_graph_can_be_built_of_is_refused_before_anything_is_written(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    apart = Atoms("H2", [[0, 0, 0], [0, 0, 9.0]])
    apart.calc = SinglePointCalculator(apart, energy=1.0, forces=np.zeros((2, 3)))
    write(tmp_path / "apart.xyz", [apart, apart])
    with pytest.raises(DataError, match="neighbour"):
        fit(make_recipe(tasks={"lj": {"train": str(tmp_path / "apart.xyz")}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_frame_without_a_graph_is_found_before_the_first_step(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    """Found when its turn comes, it would cost the steps since the last checkpoint."""
    faults = ((np.zeros((3, 3)), "#1: periodic, but the cell has no volume"), (None, "#1: .* on top of each other"))
    for fault, words in faults:
        frames = read(files["molecules"], index=":")[:3]
        bad = frames[1].copy()
        if fault is None:
            bad.positions[1] = bad.positions[0]
        else:
            bad.cell, bad.pbc = fault, True
        bad.calc = SinglePointCalculator(bad, energy=1.0, forces=np.zeros((len(bad), 3)))
        write(tmp_path / "bad.xyz", [frames[0], bad, frames[2]], format="extxyz")
        for part in ("train", "valid"):
            other = {"train": str(files["molecules"]), "valid": str(files["molecules"])}
            with pytest.raises(InputError, match=words):
                fit(make_recipe(tasks={"lj": other | {part: str(tmp_path / "bad.xyz")}}), tmp_path / "run")
            assert not (tmp_path / "run").exists()


def test_data_without_the_labels_of_the_loss_is_refused(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    task = {"train": str(files["molecules"]), "loss": {"energy": 0, "forces": 0, "virial": 1}}
    with pytest.raises(DataError, match=r"tasks\.lj: the loss is of virial, but the training frames carry energy, forces"):
        fit(make_recipe(tasks={"lj": task}), tmp_path / "run")


def test_validation_data_without_the_labels_that_judge_is_refused(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe
) -> None:
    """Every step would score 0, so that the first one would stay the best for ever."""
    frames = read(files["other"], ":")
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    write(tmp_path / "energies.xyz", frames)
    task = {"train": str(files["molecules"]), "valid": str(tmp_path / "energies.xyz"), "loss": {"energy": [1, 0]}}
    with pytest.raises(
        DataError, match=r"lj: steps are judged by forces, virial, but the 9 validation frames carry energy;"
    ):
        fit(make_recipe(tasks={"lj": task}), tmp_path / "run")
    fit(make_recipe(tasks={"lj": task | {"loss": {"energy": [0, 1]}}}, training={"steps": 2}), tmp_path / "run")


def test_log_survives_a_line_cut_short(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    run = fit(make_recipe(training={"steps": 5}), tmp_path / "run")
    whole = (run / "log.jsonl").read_text()
    with (run / "log.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    fit(make_recipe(training={"steps": 5}), run, resume=True)
    assert (run / "log.jsonl").read_text() == whole
    assert all(json.loads(line) for line in whole.splitlines())


def test_a_group_wide_sigterm_stops_at_a_step_boundary_with_workers(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    """As ``timeout``, batch systems and container runtimes send it: to the worker processes too."""
    process = start(make_recipe(training={"steps": 2000, "workers": 2}), tmp_path / "x")
    wait_for_step(process, tmp_path / "x" / "run", 25)
    os.killpg(process.pid, signal.SIGTERM)
    message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143, message
    assert "stopped by SIGTERM after step" in message
