"""Check with deepmd-kit itself that models pass to it and back unchanged, and that both codes train alike.

``make interop``, or ``scripts/interop [--keep FOLDER] [--only se_a ...]``: prints one table, and exits with status 1 where a
check fails. deepmd-kit 3.2.0 lies in .envs/deepmd (``make deepmd``). The rows:

* fresh, trained, two tasks: energies, forces, virial, atomic energies and descriptors of a model of each architecture, as
  deepmd-kit computes them from the ``.pt`` of ``lamella convert``, against lamella's own (worst relative difference);
* ``dp --pt test``: its force RMSE against lamella's; ``dp --pt freeze``: the frozen model's numbers, and its tensors as
  lamella reads them;
* ``dp --pt train --finetune``: three steps run, and lamella reads the result;
* 20 steps: both codes train on one embedded frame from the same weights, with the ``input.json`` that ``lamella convert``
  wrote from the recipe; worst relative difference of a tensor (deepmd-kit rounds loss prefactors to float32: at most 1e-7);
* golden: every checkpoint of tests/golden through lamella and back, tensors bit for bit; and deepmd-kit's numbers from the
  same model written as one of lamella's own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import write as write_atoms

from golden_models import disagreements
from interop_golden import compare_golden, golden_jobs, round_trips
from interop_table import Table
from lamella import datasets
from lamella.data.convert import frame_from_atoms
from lamella.data.load import Share, make_batch
from lamella.formats import deepmd
from lamella.formats.load import load
from lamella.models.bundle import load_model, save_model
from lamella.models.potential import Potential
from lamella.train.fit import fit
from lamella.train.optim import build_optimizer
from lamella.train.prepare import build_potential, count_sel, open_tasks
from lamella.train.recipe import Recipe, checked_recipe, dump_recipe
from lamella.train.schedule import decay, learning_rate
from lamella.train.step import StepSetting, train_step
from lamella.types import Frame

ROOT = Path(__file__).resolve().parents[1]
DEEPMD = ROOT / ".envs" / "deepmd" / "bin"
SAME, ALIKE = 1e-10, 1e-7
STEPS = 20

BACKBONES = {
    "se_a": {"cutoff": 4.5, "neurons": [6, 12, 12], "axis": 3, "one_sided": False},
    "dpa1": {
        "cutoff": 4.5,
        "sel": 64,
        "neurons": [6, 12],
        "axis": 3,
        "embedding_dim": 4,
        "embedding_input": "strip",
        "attention_layers": 2,
        "attention_dim": 8,
        "zero_mean": False,
    },
    "dpa2": {
        "repinit": {"cutoff": 4.5, "sel": 64, "neurons": [6, 12], "axis": 3, "embedding_dim": 4},
        "three_body": {"cutoff": 3.0, "switch_start": 2.0, "sel": 32},
        "repformer": {
            "cutoff": 3.5,
            "switch_start": 2.5,
            "sel": 40,
            "layers": 2,
            "node_dim": 12,
            "pair_dim": 8,
            "update_vectors": True,
            "local_attention": True,
            "prod_f": True,
            "local_attention_dim": 4,
            "attention_dim": 4,
            "attention_heads": 2,
        },
    },
    "dpa3": {
        "cutoff": 4.5,
        "switch_start": 3.9,
        "angle_cutoff": 3.2,
        "angle_switch_start": 2.8,
        "edge_sel": 64,
        "angle_sel": 32,
        "layers": 2,
        "node_dim": 12,
        "edge_dim": 8,
        "angle_dim": 8,
    },
}
KINDS = tuple(BACKBONES)
LOSS = {"energy": [0.2, 20], "forces": [100, 60], "virial": [0.02, 1]}
TASKS = ("pbe", "scan")


def run(command: list[object], folder: Path) -> str:
    """Run a program; its output. Its last lines are shown where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise RuntimeError(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{tail}")
    return done.stdout + done.stderr


def dp(*words: object, folder: Path) -> str:
    """``dp --pt ...``."""
    return run([DEEPMD / "dp", "--pt", *words], folder)


def lamella(*words: object, folder: Path) -> str:
    """``lamella ...``."""
    return run([sys.executable, "-m", "lamella", *words], folder)


def water() -> tuple[list[Atoms], dict[str, Atoms]]:
    """Frames to train on, and four to compare: a box, a small cell, a cluster, a molecule with an atom far away."""
    every = datasets.load("water_gfn2", "train")
    boxes, clusters = [a for a in every if a.pbc.all()], [a for a in every if len(a) in (9, 12)]
    molecule = next(a for a in every if len(a) == 3)
    small = molecule.copy()
    small.set_cell([[3.2, 0, 0], [0.4, 3.3, 0], [-0.3, 0.5, 3.1]])
    small.pbc = True
    apart = Atoms(molecule.symbols[[0, 1, 0]], [[0, 0, 0], [0.9, 0.3, 0], [30, 0, 0]])
    frames = {"periodic": boxes[1], "triclinic_small": small, "cluster": clusters[-1], "isolated": apart}
    return [boxes[0], boxes[2], *clusters[:2]], frames


def write_frames(path: Path, frames: dict[str, Atoms]) -> None:
    """Structures as tests/golden has them."""
    arrays = {}
    for name, atoms in frames.items():
        arrays |= {f"{name}/positions": atoms.positions, f"{name}/symbols": np.array(atoms.get_chemical_symbols())}
        if atoms.pbc.all():
            arrays[f"{name}/cell"] = np.asarray(atoms.cell)
    np.savez_compressed(path, **arrays)


def write_system(folder: Path, atoms: Atoms) -> Frame:
    """One labelled frame as a deepmd/npy folder, and as lamella has it."""
    (frame, _) = (frame_from_atoms(atoms), (folder / "set.000").mkdir(parents=True))
    symbols = atoms.get_chemical_symbols()
    (folder / "type_map.raw").write_text("H\nO\n")
    (folder / "type.raw").write_text("\n".join(str("HO".index(symbol)) for symbol in symbols))
    content = {"coord": frame.positions, "box": frame.cell, "energy": frame.labels["energy"]}
    content |= {"force": frame.labels["forces"], "virial": frame.labels["virial"]}
    for name, value in content.items():
        np.save(folder / "set.000" / f"{name}.npy", np.asarray(value, dtype=np.float64).reshape(1, -1))
    return frame


def recipe_of(kind: str, data: Path, steps: int, tasks: tuple[str, ...] = ("default",)) -> Recipe:
    """A small model on the data; two tasks share a head (dataset encoding) in every other architecture."""
    task_dim = 3 if len(tasks) > 1 and KINDS.index(kind) % 2 else 0
    content: dict[str, Any] = {
        "dtype": "float64",
        "device": "cpu",
        "elements": ["H", "O"],
        "batch": {"frames": 1},
        "model": {"backbone": {"kind": kind, **BACKBONES[kind]}, "head": {"hidden": [16, 16], "task_dim": task_dim}},
        "tasks": {task: {"train": str(data), "valid_fraction": 0.0, "loss": LOSS} for task in tasks},
        "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 1e-3, "clip": 5.0},
        "schedule": {"kind": "exponential", "stop_lr": 1e-4, "decay_steps": 5},
        "training": {"steps": steps, "valid_every": steps, "save_every": steps, "log_every": steps, "tensorboard": False},
    }
    return checked_recipe(content, f"interop {kind}")


def make_models(kind: str, folder: Path) -> None:
    """``KIND/fresh``, ``KIND/trained`` and ``KIND/tasks`` of lamella, and the recipe of the twenty steps."""
    here = folder / kind
    recipe = recipe_of(kind, folder / "train.extxyz", STEPS)
    recipe, _ = count_sel(recipe, open_tasks(recipe))
    BACKBONES[kind] = recipe.model.backbone.model_dump(mode="json", exclude={"kind"})
    for name, tasks in (("fresh", ("default",)), ("tasks", TASKS)):
        (here / name).mkdir(parents=True)
        plan = recipe_of(kind, folder / "train.extxyz", STEPS, tasks)
        save_model(build_potential(plan, open_tasks(plan)), here / name)
    with contextlib.redirect_stdout(io.StringIO()):
        fit(recipe, here / "run")
    (here / "recipe.yaml").write_text(dump_recipe(recipe_of(kind, folder / "frame", STEPS)))


def convert(kind: str, folder: Path) -> None:
    """To deepmd-kit, by the command."""
    here = folder / kind
    lamella("convert", "fresh", "fresh.pt", folder=here)
    lamella("convert", "run", "trained.pt", folder=here)
    lamella("convert", "tasks", "tasks.pt", folder=here)
    lamella("convert", "recipe.yaml", "input.json", folder=here)
    content = json.loads((here / "input.json").read_text())
    content["training"] |= {"numb_steps": 3, "save_freq": 3}
    (here / "finetune.json").write_text(json.dumps(content))


def ask_deepmd(name: str, jobs: list[dict], folder: Path) -> None:
    """Have deepmd-kit evaluate the jobs."""
    (folder / f"{name}.json").write_text(json.dumps(jobs, default=str))
    run([DEEPMD / "python", ROOT / "scripts" / "interop_deepmd.py", folder / f"{name}.json"], ROOT)


def difference(model: Potential, numbers: Path, tasks: tuple[str | None, ...] = (None,)) -> float:
    """Worst relative difference between lamella's and deepmd-kit's numbers; infinite where deepmd-kit has none."""
    if not numbers.exists():
        print(f"  {numbers.stem}: {numbers.with_suffix('.error').read_text()[:300]}")
        return float("inf")
    return max(max(disagreements(model, numbers, task).values()) for task in tasks)


def rmse_of_dp_test(kind: str, folder: Path) -> float:
    """Force RMSE that ``dp test`` prints, eV/Å."""
    said = dp("test", "-m", "trained.pt", "-s", folder / "frame", "-n", "1", folder=folder / kind)
    return float(re.search(r"Force\s+RMSE\s*:\s*([\d.e+-]+)", said)[1])  # type: ignore[index]


def twenty_steps(potential: Potential, recipe: Recipe, frame: Frame) -> Potential:
    """Train lamella on the one frame."""
    potential.requires_grad_(True).train()
    shares = [Share("default", make_batch([frame], potential.graph_spec))]
    losses = {"default": recipe.tasks["default"].loss}
    config, schedule = recipe.optimizer, recipe.schedule
    optimizer = build_optimizer(config, potential)
    for step in range(STEPS):
        rate, share = (f(schedule, step, STEPS, config.lr) for f in (learning_rate, decay))
        train_step(potential, optimizer, shares, losses, config, StepSetting(step + 1, rate, share))
    return potential


def worst_tensor(ours: Potential, theirs: Potential) -> float:
    """Largest relative difference of a tensor."""
    reference = theirs.state_dict()
    pairs = [(value, reference[name]) for name, value in ours.state_dict().items() if value.numel()]
    return max(((a - b).abs().max() / (b.abs().max() or 1.0)).item() for a, b in pairs)


def programs(kind: str, folder: Path) -> list[Callable[[], object]]:
    """The runs of ``dp`` for one architecture."""
    here = folder / kind
    train, tune = here / "dp_train", here / "dp_tune"
    train.mkdir()
    tune.mkdir()
    return [
        lambda: dp("train", "../input.json", "--init-model", "../fresh.pt", "--skip-neighbor-stat", folder=train),
        lambda: dp("train", "../finetune.json", "--finetune", "../trained.pt", "--skip-neighbor-stat", folder=tune),
        lambda: dp("freeze", "-c", "trained.pt", "-o", "frozen.pth", folder=here),
        lambda: rmse_of_dp_test(kind, folder),
    ]


def attempt(program: Callable[[], object]) -> object:
    """Its result, or the error it raised."""
    try:
        return program()
    except Exception as error:
        print(f"  {error}", flush=True)
        return error


def compare_kind(table: Table, kind: str, folder: Path, results: list[object], frame: Frame) -> None:
    """The rows of one architecture."""
    here = folder / kind
    fresh, trained = load(here / "fresh"), load(here / "run")
    table.number("fresh model, numbers", kind, difference(fresh, here / "fresh.npz"), SAME)
    table.number("trained model, numbers", kind, difference(trained, here / "trained.npz"), SAME)
    table.number("two tasks, numbers", kind, difference(load(here / "tasks"), here / "tasks.npz", TASKS), SAME)
    train, tune, freeze, rmse = results
    failed = ("failed", False)
    graph = trained.graph([frame])
    error = trained(graph).forces.numpy() - frame.labels["forces"]
    ours = float(np.sqrt((error**2).mean()))
    if isinstance(rmse, float):
        table.number("dp test, force RMSE", kind, abs(rmse - ours) / ours, 1e-5)
    else:
        table.put("dp test, force RMSE", kind, *failed)
    if isinstance(freeze, Exception):
        table.put("dp freeze", kind, *failed)
    else:
        table.number("dp freeze, numbers", kind, difference(trained, here / "frozen.npz"), SAME)
        table.number("dp freeze -> lamella, tensors", kind, worst_tensor(trained, load(here / "frozen.pth")), 0.0)
    tuned = here / "dp_tune" / "model.ckpt-3.pt"
    well = not isinstance(tune, Exception) and load(tuned).config.backbone.kind == kind
    table.put("dp train --finetune", kind, *(("3 steps", True) if well else failed))
    if isinstance(train, Exception):
        table.put("20 steps of both, weights", kind, *failed)
        return
    recipe = recipe_of(kind, folder / "frame", STEPS)
    ours_after = twenty_steps(load_model(here / "fresh"), recipe, frame)
    theirs_after = deepmd.read(here / "dp_train" / f"model.ckpt-{STEPS}.pt")
    table.number("20 steps of both, weights", kind, worst_tensor(ours_after, theirs_after), ALIKE)


def check(folder: Path, kinds: list[str]) -> bool:
    """Everything, in a folder."""
    table, began = Table(), time.monotonic()
    train, frames = water()
    write_atoms(folder / "train.extxyz", train)
    write_frames(folder / "frames.npz", frames)
    frame = write_system(folder / "frame", train[0])
    trips = list(round_trips(folder))
    for kind in kinds:
        make_models(kind, folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda kind: convert(kind, folder), kinds))
        own = [folder / kind / name for kind in kinds for name in ("fresh.pt", "trained.pt")]
        jobs = [job_of(path, folder) for path in own] + [job_of(folder / kind / "tasks.pt", folder, TASKS) for kind in kinds]
        first = pool.submit(attempt, lambda: ask_deepmd("golden", golden_jobs(trips, folder), folder))
        second = pool.submit(attempt, lambda: ask_deepmd("models", jobs, folder))
        results = {kind: [pool.submit(attempt, program) for program in programs(kind, folder)] for kind in kinds}
        found = {kind: [future.result() for future in futures] for kind, futures in results.items()}
        frozen = [job_of(folder / kind / "frozen.pth", folder) for kind in kinds if (folder / kind / "frozen.pth").exists()]
        ask_deepmd("frozen", frozen, folder)
        first.result()
        second.result()
    for kind in kinds:
        compare_kind(table, kind, folder, found[kind], frame)
    compare_golden(table, trips, folder)
    good = table.show()
    print(f"{time.monotonic() - began:.0f} s")
    return good


def job_of(model: Path, folder: Path, tasks: tuple[str | None, ...] = (None,)) -> dict:
    """What deepmd-kit shall compute of a model."""
    return {"model": model, "frames": folder / "frames.npz", "out": model.with_suffix(".npz"), "tasks": tasks}


def main() -> int:
    """Check, and say so by the exit status."""
    parser = argparse.ArgumentParser(description="Check the way to deepmd-kit and back with deepmd-kit itself.")
    parser.add_argument("--keep", type=Path, help="new folder for the files, kept")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="architectures")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if not (DEEPMD / "dp").exists():
        print("deepmd-kit is not installed: make deepmd")
        return 2
    if chosen.keep:
        chosen.keep.mkdir(parents=True)
        return int(not check(chosen.keep.resolve(), chosen.only))
    with tempfile.TemporaryDirectory() as folder:
        return int(not check(Path(folder), chosen.only))


if __name__ == "__main__":
    raise SystemExit(main())
