"""Learning curves on real water, lamella beside deepmd-kit 3.2.0: the same model, data, loss, schedule and number of steps.

    python benchmarks/learning/water.py train --out runs/learning      # both codes at once, one thread each; tens of minutes
    python benchmarks/learning/water.py table --out runs/learning      # table.json, curve.svg and a Markdown table

Needs ../shared/data (PBE0+TS water) and deepmd-kit in .envs/deepmd (`make deepmd`). Every 200 steps both codes save a
checkpoint; lamella evaluates all of them, deepmd-kit's too, on all 80 validation frames, so that one ruler measures both.
Both start from the same random weights and baseline; the order of the frames is each code's own. deepmd-kit does no
validation of its own; lamella's time includes its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from lamella.data.source import open_frames
from lamella.formats.deepmd import read_checkpoint
from lamella.formats.load import load
from lamella.train.fit import CONFIG
from lamella.train.optim import build_optimizer
from lamella.train.prepare import build_potential, open_tasks
from lamella.train.recipe import dump_recipe, load_recipe
from lamella.train.state import Progress, point, save_checkpoint, write_file
from lamella.use.evaluate import evaluate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPE = HERE / "water_pbe0ts.yaml"
DEEPMD_INPUT = HERE / "water_pbe0ts_deepmd.json"


def main() -> None:
    """Train, or make the table from what was trained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("train", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--deepmd", type=Path, default=ROOT / ".envs" / "deepmd" / "bin" / "dp")
    settings = parser.parse_args()
    if settings.stage == "train":
        train(settings.out, settings.shared.resolve(), settings.deepmd)
    else:
        make_table(settings.out, settings.shared.resolve())


def train(out: Path, shared: Path, deepmd: Path) -> None:
    """Both codes from the same weights, at once, one thread each, so that they share the machine fairly."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS"), "1")
    environment = {**os.environ, **threads}
    (out / "dp").mkdir(parents=True)
    settings = json.loads(DEEPMD_INPUT.read_text())
    settings["training"]["training_data"]["systems"] = [str(shared / f"data/water_pbe0ts_npy/data_{k}") for k in range(3)]
    (out / "dp" / "input.json").write_text(json.dumps(settings, indent=1))
    (out / "dp" / "model.json").write_text(json.dumps(settings["model"]))
    maker = [deepmd.with_name("python").absolute(), HERE.parent / "workers" / "deepmd_kit.py", "make"]
    subprocess.run([*maker, out / "dp" / "init.pt", out / "dp" / "model.json"], check=True, capture_output=True)
    start_from(out / "dp" / "init.pt", out / "lam", shared)
    with open(out / "dp" / "dp.log", "w") as dp_log, open(out / "lam.log", "w") as lam_log:
        theirs = subprocess.Popen(
            [deepmd.absolute(), "--pt", "train", "input.json", "--init-model", "init.pt", "--skip-neighbor-stat"],
            cwd=out / "dp", env=environment, stdout=dp_log, stderr=dp_log,
        )  # fmt: skip
        ours = subprocess.Popen(
            [Path(sys.executable).parent / "lamella", "train", "--resume", out / "lam"],
            env=environment, stdout=lam_log, stderr=lam_log,
        )  # fmt: skip
        if ours.wait() or theirs.wait():
            raise SystemExit(f"a run failed; see {out / 'lam.log'} and {out / 'dp' / 'dp.log'}")


def start_from(checkpoint: Path, run: Path, shared: Path) -> None:
    """A run of lamella at step 0 with the weights of ``checkpoint``, which gets the baseline that lamella fitted."""
    data = [f"tasks.water.{key}=[{shared}/data/water_pbe0ts/{key}.extxyz]" for key in ("train", "valid")]
    recipe = load_recipe(RECIPE, data)
    potential = build_potential(recipe, open_tasks(recipe))
    weights = read_checkpoint(checkpoint).state_dict()
    potential.load_state_dict({**weights, "baseline": potential.baseline})
    run.mkdir()
    write_file(run / CONFIG, dump_recipe(recipe))
    save_checkpoint(run, potential, build_optimizer(recipe.optimizer, potential), None, Progress())
    point(run, "last", 0)
    content = torch.load(checkpoint, weights_only=True)
    content["model"]["model.Default.atomic_model.out_bias"][0, :, 0] = potential.baseline[0]
    torch.save(content, checkpoint)


def make_table(out: Path, shared: Path) -> None:
    """Errors of every checkpoint on all validation frames, against steps and wall time."""
    frames = open_frames([shared / "data" / "water_pbe0ts" / "valid.extxyz"])
    paths = {
        "lamella": sorted((out / "lam").glob("step_*"))[1:],
        "deepmd-kit": sorted((out / "dp").glob("model.ckpt-*.pt"), key=lambda path: int(path.stem.split("-")[1])),
    }
    seconds = {"lamella": lamella_seconds(out / "lam" / "log.jsonl"), "deepmd-kit": deepmd_seconds(out / "dp" / "dp.log")}
    curves: dict[str, list[dict[str, float]]] = {}
    for code, checkpoints in paths.items():
        curves[code] = []
        for path in checkpoints:
            step = int(re.findall(r"\d+", path.name)[-1])
            result: Any = evaluate(load(path), frames)
            row = {
                "step": step,
                "minutes": seconds[code][step] / 60,
                "forces_rmse": result.errors["forces"].rmse,
                "energy_rmse": result.errors["energy"].rmse,
            }
            curves[code].append(row)
            print(code, row, flush=True)
    std = float(np.concatenate([frames[i].labels["forces"].ravel() for i in range(len(frames))]).std())
    (out / "table.json").write_text(json.dumps({"forces_std": std, "curves": curves}, indent=1) + "\n")
    draw(curves, std, out / "curve.svg")
    print(markdown(curves, std))


def lamella_seconds(log: Path) -> dict[int, float]:
    """Wall seconds since the start of training at each logged step."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return {r["step"]: r["seconds"] for r in records if r["event"] == "train"}


def deepmd_seconds(log: Path) -> dict[int, float]:
    """The same from the times that deepmd-kit's log prints; its clock starts at the first step."""
    pattern = re.compile(r"\[([^]]+),\d+\] DEEPMD INFO +Batch +(\d+): total wall time = ([\d.]+)")
    rows = [(datetime.fromisoformat(time), int(step), float(took)) for time, step, took in pattern.findall(log.read_text())]
    start = rows[0][0].timestamp() - rows[0][2]
    return {step: time.timestamp() - start for time, step, _ in rows}


def draw(curves: dict[str, list[dict[str, float]]], std: float, path: Path) -> None:
    """Force error against steps and against wall time."""
    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, key, label in zip(axes, ("step", "minutes"), ("training step", "wall time / min"), strict=True):
        for code, rows in curves.items():
            axis.plot([r[key] for r in rows], [1e3 * r["forces_rmse"] for r in rows], marker="o", ms=3, label=code)
        axis.axhline(250 * std, color="0.6", lw=1, ls="--", label="a quarter of the label std")
        axis.set(xlabel=label, yscale="log")
        for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            set_formatter(ticker.FormatStrFormatter("%g"))
    axes[0].set_ylabel("validation force RMSE / meV/Å")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def markdown(curves: dict[str, list[dict[str, float]]], std: float) -> str:
    """The curves as a table."""
    lines = [
        f"Force label std {1e3 * std:.0f} meV/Å; a quarter of it {250 * std:.0f} meV/Å.",
        "",
        "| step | lamella F RMSE, meV/Å | lamella min | deepmd-kit F RMSE, meV/Å | deepmd-kit min |",
        "|---|---|---|---|---|",
    ]
    theirs = {row["step"]: row for row in curves["deepmd-kit"]}
    for ours in curves["lamella"]:
        other = theirs.get(ours["step"])
        cells = (f"{1e3 * other['forces_rmse']:.0f}", f"{other['minutes']:.1f}") if other else ("", "")
        lines.append(
            f"| {ours['step']:.0f} | {1e3 * ours['forces_rmse']:.0f} | {ours['minutes']:.1f} | {cells[0]} | {cells[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
