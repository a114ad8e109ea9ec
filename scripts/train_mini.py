"""Train lamella-mini, the small multi-task model that comes with the package.

    python scripts/train_mini.py prepare --data DATA --out WORK              # splits and filters, about two minutes
    python scripts/train_mini.py train   --out WORK --minutes 55             # the trunk at a constant learning rate
    python scripts/train_mini.py finish  --out WORK --steps 4000 --name mini # decays the learning rate from its last step
    python scripts/train_mini.py bundle  --out WORK --name mini --to FOLDER  # the model alone, without paths of this machine

DATA holds one folder of extended XYZ files per set, as listed in mini_data.py. ``train`` starts WORK/trunk or goes on with
it, as often as one likes; it stops after so many minutes, or on Ctrl-C or SIGTERM, with everything saved. ``finish`` leaves
the trunk as it is and decays the learning rate in a copy, so that there is a good model at any time and a longer trunk
afterwards; it too goes on where it stopped. Errors of the result: scripts/evaluate_mini.py.

WORK/data.json says which frames train, which test, and which were left out and why; WORK/data/train and WORK/data/test hold
them as lamella stores. Everything is a function of DATA, the seed and the number of steps.
"""

import argparse
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from lamella.data.baseline import fit_baseline
from lamella.data.digest import combine, frame_digest
from lamella.data.sample import frame_costs
from lamella.data.source import FrameList
from lamella.data.store import write_store
from lamella.models.bundle import load_model, save_model
from lamella.train.fit import CONFIG, fit
from lamella.train.recipe import Recipe, dump_recipe, load_recipe
from lamella.train.state import pointed, write_file
from lamella.train.stop import Interrupted
from lamella.types import Frame
from mini_data import LARGEST_FORCE, LARGEST_PRESSURE, SEED, TASKS, Book, Task, collect, pressure

CALM_FORCE, CALM_PRESSURE = 10.0, 30.0  # frames that a task's energies per element are fitted to

MODEL: dict[str, Any] = {
    "backbone": {
        "kind": "dpa3",
        "layers": 3,
        "node_dim": 96,
        "edge_dim": 32,
        "angle_dim": 16,
        "cutoff": 5.0,
        "switch_start": 0.8,
        "angle_cutoff": 3.4,
        "angle_switch_start": 0.8,
        "switch": "polynomial",
        "edge_init": "switched_inverse",
        "edge_sel": 2,
        "angle_sel": 1,
        "update_step": 0.3,
    },
    "head": {"hidden": [96, 96, 96], "task_dim": 16},
}
LOSS = {"kind": "squared", "energy": [5.0, 20.0], "forces": [100.0, 60.0], "virial": [0.1, 1.0]}
"""Squares, the tails being cut by the filter and by ``clip``: with absolute errors a new model stays at forces of zero."""
OPTIMIZER = {"kind": "adam", "lr": 1.0e-3, "clip": 5.0}
WARMUP = 100
ENDLESS = 1_000_000  # steps of the trunk, which is stopped from outside
STOP_LR = 1.0e-5


def prepare(data: Path, out: Path) -> None:
    """Split, filter and store the frames of every task; write the recipe and the record of the data."""
    record: dict[str, Any] = {"seed": SEED, "largest_force": LARGEST_FORCE, "largest_pressure_GPa": LARGEST_PRESSURE}
    tasks: dict[str, Any] = {}
    for name, task in TASKS.items():
        book = collect(task, data)
        frames = _affordable(book, task.edges)
        write_store(out / "data" / "train" / name, frames)
        for part, test in book.tests.items():
            write_store(out / "data" / "test" / name / part.replace(" ", "_"), test)
        record[name] = {
            "method": task.method,
            "train": len(frames),
            "hash": combine(frame_digest(frame) for frame in frames),
            "tests": {
                part: {"frames": len(test), "hash": combine(frame_digest(frame) for frame in test)}
                for part, test in book.tests.items()
            },
            "left_out": dict(book.left_out),
            "lint": book.problems,
        }
        tasks[name] = _task_recipe(task, frames, out / "data" / "train" / name)
        print(name, {key: value for key, value in record[name].items() if key != "hash"}, flush=True)
    (out / "data.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    content = {
        "seed": SEED,
        "dtype": "float32",
        "device": "cpu",
        "model": MODEL,
        "tasks": tasks,
        "optimizer": OPTIMIZER,
        "schedule": {"kind": "wsd", "stop_lr": STOP_LR, "warmup_steps": WARMUP, "decay_shape": "linear"},
        "batch": {"edges": 6000},
        "training": {"steps": ENDLESS, "valid_every": 1000, "log_every": 20, "save_every": 250, "keep": 2, "ema": 0.999}
        | {"tensorboard": False},
    }
    write_file(out / "recipe.yaml", dump_recipe(Recipe.model_validate(content)))


def train(out: Path, minutes: float | None) -> None:
    """Start or go on with the trunk."""
    _run(out / "trunk", lambda: load_recipe(out / "recipe.yaml"), minutes)


def finish(out: Path, name: str, steps: int, minutes: float | None) -> None:
    """Decay the learning rate over ``steps`` steps in a copy of the trunk's last step, WORK/NAME."""
    run = out / name
    if not run.exists():
        last = pointed(out / "trunk", "last")
        if last is None:
            raise SystemExit(f"{out / 'trunk'}: no step to begin from; run `train` first.")
        building = out / f".{name}"
        shutil.copytree(last, building / last.name)
        for file in ("last", "log.jsonl"):
            shutil.copy(out / "trunk" / file, building / file)
        first = int(last.name.rpartition("_")[2])
        settings = [f"training.steps={first + steps}", f"schedule.decay_fraction={steps / (first + steps)!r}"]
        recipe = load_recipe(out / "trunk" / CONFIG, settings)
        write_file(building / CONFIG, dump_recipe(recipe))
        building.rename(run)
    _run(run, None, minutes)


def bundle(out: Path, name: str, target: Path) -> None:
    """Write the last step of WORK/NAME as a bundle: weights, hyper-parameters, and where it comes from."""
    last = pointed(out / name, "last")
    if last is None:
        raise SystemExit(f"{out / name}: no step to take; run `finish` first.")
    model = load_model(last)
    model.metadata = _without_folder(model.metadata, f"{out}{os.sep}")
    model.metadata["sources"] = {task: [part.name for part in TASKS[task].parts] for task in model.tasks}
    target.mkdir(parents=True, exist_ok=True)
    save_model(model, target)


def _without_folder(value: Any, folder: str) -> Any:
    """The same mappings and lists with ``folder`` taken off the front of every text."""
    if isinstance(value, dict):
        return {key: _without_folder(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folder(item, folder) for item in value]
    return value.removeprefix(folder) if isinstance(value, str) else value


def _run(run: Path, start: Callable[[], Recipe] | None, minutes: float | None) -> None:
    """Train until done, stopped, or out of time."""
    timer = threading.Timer(60.0 * (minutes or 0.0), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    if minutes is not None:
        timer.start()
    resume = (run / CONFIG).exists()
    try:
        fit(load_recipe(run / CONFIG) if resume or start is None else start(), run, resume)
    except Interrupted as stop:
        print(stop)
    timer.cancel()


def _affordable(book: Book, edges: int) -> list[Frame]:
    """Training frames that fit into a batch."""
    costs = frame_costs(FrameList(book.train), MODEL["backbone"]["cutoff"], 0.0)[:, 0]
    book.left_out[f"more than {edges} edges"] += int((costs > edges).sum())
    return [frame for frame, cost in zip(book.train, costs, strict=True) if cost <= edges]


def _task_recipe(task: Task, frames: Sequence[Frame], store: Path) -> dict[str, Any]:
    """A task of the recipe; its energies per element are fitted to frames near equilibrium where these determine them."""
    present = sorted({int(number) for frame in frames for number in frame.numbers})
    calm = [f for f in frames if np.abs(f.labels["forces"]).max() < CALM_FORCE and pressure(f) < CALM_PRESSURE]
    settled = sorted({int(number) for frame in calm for number in frame.numbers})
    energies = fit_baseline(frames, [chemical_symbols[number] for number in present]).energies
    near = fit_baseline(calm, [chemical_symbols[number] for number in settled])
    energies |= near.energies
    return {
        "train": [str(store)],
        "valid_fraction": task.valid / len(frames),
        "weight": task.weight,
        "baseline": {symbol: round(energy, 6) for symbol, energy in energies.items()},
        "loss": LOSS,
        "batch": {"edges": task.edges},
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("prepare", "train", "finish", "bundle"))
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--data", type=Path, help="folder of the data sets (prepare)")
    parser.add_argument("--minutes", type=float, help="stop after so long (train, finish)")
    parser.add_argument("--steps", type=int, default=4000, help="length of the decay (finish)")
    parser.add_argument("--name", default="mini", help="run folder below --out (finish, bundle)")
    parser.add_argument("--to", type=Path, help="folder of the bundle (bundle)")
    given = parser.parse_args()
    out = given.out.resolve()
    if given.command == "prepare":
        if given.data is None:
            parser.error("prepare needs --data")
        prepare(given.data.resolve(), out)
    elif given.command == "train":
        train(out, given.minutes)
    elif given.command == "bundle":
        if given.to is None:
            parser.error("bundle needs --to")
        bundle(out, given.name, given.to)
    else:
        finish(out, given.name, given.steps, given.minutes)


if __name__ == "__main__":
    main()
