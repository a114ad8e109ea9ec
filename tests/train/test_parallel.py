"""Several tasks a step, several processes a step: the same gradients, the same curve, and one clear end for all."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lamella.train.fit as fit_module
from lamella import cli
from lamella.data.sample import BatchSpec, Sampler
from lamella.formats.load import load
from lamella.train import state
from lamella.train.draw import TaskDraw
from lamella.train.fit import fit
from lamella.train.log import read_log
from lamella.train.loss import frame_terms, total_loss
from lamella.train.parallel.division import TrainingPlan, ValidationPlan
from lamella.train.parallel.packing import packed
from lamella.train.parallel.ranks import ALONE
from lamella.train.recipe import Recipe, dump_recipe
from lamella.train.step import Outcome
from lamella.train.stop import Interrupted
from train import one_step, ranks
from train.same import assert_same, assert_same_curve, everything

MakeRecipe = Callable[..., Recipe]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(1, 3))
def test_the_largest_share_is_within_a_third_of_the_best_division(costs, bins):
    loads = np.bincount(packed(costs, bins), weights=costs, minlength=bins)
    assert loads.sum() == sum(costs)
    divisions = itertools.product(range(bins), repeat=len(costs))
    best = min(np.bincount(division, weights=costs).max() for division in divisions)
    assert loads.max() <= (4 / 3 - 1 / (3 * bins)) * best + 1e-9


def test_the_largest_frame_shares_with_none_that_another_process_could_take():
    assert packed([100, 10, 10, 10, 10], 2).tolist() == [0, 1, 1, 1, 1]
    assert packed([1, 1, 1, 1], 2).tolist() == [0, 1, 0, 1]
    assert packed([0, 0, 0], 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("world", [1, 2, 5])
def test_processes_divide_the_batch_that_one_would_train(world):
    costs = {"a": np.random.default_rng(0).integers(1, 99, (20, 2)), "b": np.random.default_rng(1).integers(1, 9, (7, 2))}
    samplers = {name: Sampler(cost, BatchSpec(frames=6), 3) for name, cost in costs.items()}
    draw = TaskDraw({"a": 2.0, "b": 1.0}, 40, 1, per_step=3)
    whole = TrainingPlan(draw, samplers)
    parts = [TrainingPlan(draw, samplers, rank, world) for rank in range(world)]
    for step in (0, 7, 39):
        expected = whole(step)
        found = [part(step) for part in parts]
        for k, (task, indices) in enumerate(expected):
            assert {choices[k].task for choices in found} == {task}
            assert sorted(np.concatenate([choices[k].indices for choices in found])) == sorted(indices)
    judged = [ValidationPlan(samplers, rank, world) for rank in range(world)]
    seen = [(task, *indices) for plan in judged for item in plan.mine for task, indices in plan(item)]
    assert sorted(seen) == sorted((name, *batch) for name, s in samplers.items() for batch in s.batches(0))


def test_gradient_of_a_step_is_the_mean_over_its_draws():
    """Eq. 44: each draw a mean over its own frames, a task drawn twice counting twice."""
    potential = one_step.model()
    shares = one_step.shares(potential)
    outcome = one_step.step(potential, shares, ALONE)
    found = {name: p.grad for name, p in potential.named_parameters()}
    expected = {name: torch.zeros_like(p) for name, p in potential.named_parameters()}
    again = one_step.model()
    for share, loss in zip(shares, outcome.losses, strict=True):
        again.zero_grad()
        assert share.batch is not None
        config = one_step.LOSSES[share.task]
        terms = frame_terms(again(share.batch.graph, share.task, create_graph=True), share.batch, config)
        value = total_loss(terms, config, one_step.SETTING.decay)
        assert value.item() == pytest.approx(loss, rel=1e-13)
        value.backward()
        for name, p in again.named_parameters():
            expected[name] += 0.0 if p.grad is None else p.grad / 3
    for name, grad in found.items():
        if grad is None:
            assert not expected[name].any()
        else:
            torch.testing.assert_close(grad, expected[name], rtol=1e-11, atol=1e-13)
    assert all(grad is None for name, grad in found.items() if name.startswith("heads.2"))


def test_two_processes_have_the_gradients_of_one_to_round_off_and_blame_the_frames_that_go_bad(tmp_path: Path) -> None:
    assert ended(ranks.fork(lambda: one_step.main(tmp_path), 2, tmp_path)) == [1, 1]
    messages = [(tmp_path / f"err{rank}").read_text() for rank in range(2)]
    alone = one_step.model()
    norm = one_step.step(alone, one_step.shares(alone), ALONE).gradient_norm
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert found["norm"] == pytest.approx(norm, rel=1e-13)
        for name, p in alone.named_parameters():
            if p.grad is None:  # nobody's input: the optimiser must leave it alone in every process
                assert found["grads"][name] is None
            else:
                scale = p.grad.abs().max().item()
                torch.testing.assert_close(found["grads"][name], p.grad, rtol=0, atol=1e-14 * max(scale, 1.0))
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-12)
    both = [torch.load(tmp_path / f"rank{rank}.pt")["weights"] for rank in range(2)]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    for message in messages:
        (line,) = [line for line in message.splitlines() if "lamella.errors.TrainingError: " in line]
        assert "step 7, task" in line
        assert "the loss is inf (forces), in the frames" in line


def several_tasks(files: dict[str, Path], **training: Any) -> dict[str, Any]:
    return {
        "tasks": {
            "a": {"train": str(files["molecules"]), "weight": 2.0, "loss": {"kind": "huber"}},
            "b": {"train": [str(files["crystals"]), str(files["other"])], "valid": str(files["other"])},
        },
        "batch": {"frames": 3},
        "training": {"steps": 20, "valid_every": 10, "save_every": 5, "tasks_per_step": 2, "ema": 0.9, **training},
    }


def command(*words: str) -> None:
    """What ``lamella WORDS`` does in this process."""
    sys.argv = ["lamella", *words]
    cli.main()


def signal_at(monkeypatch: pytest.MonkeyPatch, rank: int, step: int, number: signal.Signals) -> None:
    """A process of several gets a signal in the middle of a step."""
    original = fit_module.train_step

    def train_step(*args: Any) -> Outcome:
        if os.environ.get("RANK") == str(rank) and args[5].number == step:
            os.kill(os.getpid(), number)
        return original(*args)

    monkeypatch.setattr(fit_module, "train_step", train_step)


def ended(processes: list[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def test_runs_stopped_and_killed_go_on_in_any_number_of_processes_along_one_curve(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, one of them asked to stop; then three, one killed; then one; then two."""
    recipe = make_recipe(**several_tasks(files))
    run = tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    with monkeypatch.context() as patched:
        signal_at(patched, 1, 4, signal.SIGTERM)
        pair = ranks.fork(lambda: command("train", str(tmp_path / "recipe.yaml"), "--run", str(run)), 2, tmp_path)
        assert ended(pair) == [143, 143]
    assert "stopped by SIGTERM after step 4 of 20" in (tmp_path / "err0").read_text()
    assert (tmp_path / "err1").read_text() == ""

    with monkeypatch.context() as patched:
        signal_at(patched, 2, 12, signal.SIGKILL)
        began = time.monotonic()
        trio = ranks.fork(lambda: command("train", "--resume", str(run)), 3, tmp_path)
        assert ended(trio) == [1, 1, -signal.SIGKILL]
        assert time.monotonic() - began < 60
    for rank in range(2):
        message = (tmp_path / f"err{rank}").read_text()
        assert message.count("error:") == 1
        assert "rank 2 of 3 is gone" in message
        assert f"lamella train --resume {run}" in message
        assert "Traceback" not in message
    assert (run / "last").read_text().strip() == "step_0000010"
    load(run / "step_0000010")

    with monkeypatch.context() as patched:
        patched.setenv("RANK", "0")
        signal_at(patched, 0, 13, signal.SIGTERM)
        with pytest.raises(Interrupted):
            fit(recipe, run, resume=True)
    assert ended(ranks.fork(lambda: fit(recipe, run, resume=True), 2, tmp_path)) == [0, 0]
    fit(recipe, tmp_path / "whole")
    assert_same_curve(run, tmp_path / "whole")
    drawn = torch.load(run / "step_0000020" / "trainer.pt", weights_only=True)["progress"]["drawn"]
    assert sum(drawn.values()) == 40


def test_two_processes_that_were_stopped_in_an_epoch_go_on_to_the_same_bits(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several tasks a step, packed batches, moving average, worker processes: every position is taken up."""
    sections = several_tasks(files, steps=9, workers=1, valid_every=4) | {"batch": {"frames": 4, "edges": 700}}
    recipe = make_recipe(**sections)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    together = ranks.fork(lambda: fit(recipe, whole), 2, tmp_path)
    assert ended(together) == [0, 0]
    with monkeypatch.context() as patched:
        signal_at(patched, 0, 3, signal.SIGTERM)
        assert ended(ranks.fork(lambda: fit(recipe, cut), 2, tmp_path)) == [1, 1]  # Interrupted, which the command reports
    assert (cut / "last").read_text().strip() == "step_0000003"
    assert ended(ranks.fork(lambda: fit(recipe, cut, resume=True), 2, tmp_path)) == [0, 0]
    assert_same(everything(cut), everything(whole))


def test_a_process_that_fails_says_why_in_all_of_them(
    tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is noticed by the process that writes; the others must not wait for it."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(make_recipe(**several_tasks(files, steps=2000))))
    written = state._write_synced

    def full(*args: Any) -> None:
        if os.environ["RANK"] == "0":
            raise OSError(28, "No space left on device")
        written(*args)

    monkeypatch.setattr(state, "_write_synced", full)
    words = ("train", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run"))
    assert ended(ranks.fork(lambda: command(*words), 2, tmp_path)) == [1, 1]
    said = [(tmp_path / f"err{rank}").read_text() for rank in range(2)]
    assert all(message.count("the disk is full") == 1 for message in said), said
    assert "rank 0 of 2 stopped:" in said[1]


def test_torchrun_starts_it(tmp_path: Path, files: dict[str, Path], make_recipe: MakeRecipe) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(make_recipe(**several_tasks(files, steps=4, valid_every=2))))
    command = [
        "--nproc-per-node=2",
        "-m",
        "--",
        "lamella",
        "train",
        str(tmp_path / "recipe.yaml"),
        "--run",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ranks     2 processes share every batch" in done.stdout
    assert done.stdout.count("done:") == 1
    assert math.isfinite(read_log(tmp_path / "run")[-1]["score"])
