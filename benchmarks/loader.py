"""The loader beside ready-made batches: the same training steps, fed from stores on the disk and fed from memory, in turn.

    python benchmarks/loader.py                        # prints the figures; --out FILE.json keeps them

Embedded data sets are written as stores, one task each, two tasks a step. "From memory" trains on batches that were built
before: graphs, labels and all. Each pair of stretches gives one ratio of their times; the median counts. Of the wall clock,
that means little on a busy machine; of the processor time of the training process, it is what that process gets with a core
to itself and another for its workers. Then, what it spends on a step's batches that a worker has ready, and the peak memory
of drawing from large sets (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from lamella.data.load import Share, batches
from lamella.data.sample import BatchSpec, Sampler
from lamella.data.store import write_store
from lamella.models.potential import Potential
from lamella.train.draw import TaskDraw
from lamella.train.optim import build_optimizer
from lamella.train.parallel.division import TrainingPlan
from lamella.train.paths import open_data
from lamella.train.prepare import build_potential, make_sampler
from lamella.train.recipe import Recipe
from lamella.train.step import StepSetting, train_step
from lamella.train.task_data import open_tasks, task_seed

SETS = ("molecules_pbe", "lif_gfn1", "water_gfn2")
BACKBONE = {"layers": 3, "node_dim": 64, "edge_dim": 32, "angle_dim": 16}
"""A small DPA-3: the smaller the model, the harder for the loader."""

_TAKEN = 12
"""Steps whose batches are taken from a worker that has them ready."""

MANY = (10_000, 100_000, 1_000_000)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stretches", type=int, default=7, help="pairs of stretches")
    parser.add_argument("--steps", type=int, default=10, help="steps of a stretch")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.memory:
        print(peak(settings.memory))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = speed(Path(folder), settings)
    held = {}
    for frames in MANY:
        command = [sys.executable, __file__, "--memory", str(frames)]
        held[frames] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{frames:>10,} frames: {held[frames]:.0f} MB at most")
    content = {"machine": f"{platform.processor()}, {os.cpu_count()} cores", "torch": torch.__version__, "speed": rows}
    if settings.out is not None:
        settings.out.write_text(json.dumps(content | {"peak_MB": held}, indent=1))
    return 0


def speed(folder: Path, settings: argparse.Namespace) -> list[dict[str, float]]:
    """The ratio of both ways for each number of workers."""
    for name in SETS:
        frames = open_data([f"embedded:{name}"])
        write_store(folder / name, (frames[k] for k in range(len(frames))))
    recipe = Recipe.model_validate(
        {
            "model": {"backbone": {"kind": "dpa3", **BACKBONE}},
            "tasks": {name: {"train": str(folder / name)} for name in SETS},
            "batch": {"frames": 4, "edges": 8000},
        }
    )
    data = open_tasks(recipe)
    potential = build_potential(recipe, data).to(settings.device)
    samplers = {
        name: make_sampler(task.train, recipe.batch, potential, task_seed(1, name), 0) for name, task in data.items()
    }
    total = max(settings.steps * (settings.stretches + 1), 2 * _TAKEN)
    plan = TrainingPlan(TaskDraw(dict.fromkeys(SETS, 1.0), total, 1, per_step=2), samplers)
    trainer = Trainer(recipe, potential)
    frames = {name: task.train for name, task in data.items()}
    built = time.process_time()
    ready = list(batches(frames, plan, potential.graph_spec, range(total), 0))
    built = (time.process_time() - built) / total
    edges = statistics.mean(share.batch.graph.n_edges for shares in ready for share in shares if share.batch)
    taken = receiving(lambda workers: batches(frames, plan, potential.graph_spec, range(total), workers))
    print(f"{potential.parameter_count():,} parameters; a draw has {edges:.0f} edges on average")
    print(f"a step's batches take {1e3 * built:.1f} ms to build, {1e3 * taken:.1f} ms to take from a worker (CPU time)")
    rows = []
    for workers in settings.workers:
        with closing(batches(frames, plan, potential.graph_spec, range(total), workers)) as stream:
            pairs = []
            for stretch in range(settings.stretches + 1):
                members = range(stretch * settings.steps, (stretch + 1) * settings.steps)
                from_disk = trainer.timed(next(stream) for _ in members)
                pairs.append((trainer.timed(ready[step] for step in members), from_disk))
        del pairs[0]  # it starts the workers
        step = statistics.median(memory[1] for memory, _ in pairs) / settings.steps
        row = {"workers": workers, "step_s": step, "build_s": built, "take_s": taken}
        for index, clock in enumerate(("wall clock", "processor time")):
            ratios = [memory[index] / disk[index] for memory, disk in pairs]
            row[clock] = statistics.median(ratios)
            print(
                f"workers {workers}: {100 * row[clock]:.0f} % of the speed from memory by {clock} (pairs "
                f"{100 * min(ratios):.0f} to {100 * max(ratios):.0f}), {1e3 * step:.0f} ms of processor time a step"
            )
        rows.append(row)
    return rows


def receiving(stream_with: Callable[[int], Generator[list[Share]]]) -> float:
    """CPU seconds of this process for a step's batches that a worker built long ago."""
    spent = []
    with closing(stream_with(1)) as stream:
        for _ in range(_TAKEN):
            next(stream)
            time.sleep(0.5)  # the worker is two steps ahead by now
            began = time.process_time()
            next(stream)
            spent.append(time.process_time() - began)
    return statistics.median(spent)


class Trainer:
    """Makes steps on whatever it is fed."""

    def __init__(self, recipe: Recipe, potential: Potential) -> None:
        self.recipe, self.potential = recipe, potential
        self.optimizer = build_optimizer(recipe.optimizer, potential)
        self.losses = {name: task.loss for name, task in recipe.tasks.items()}

    def timed(self, steps: Iterable[Sequence[Share]]) -> tuple[float, float]:
        """Seconds of the wall clock and of this process's processor time for these steps, their feeding included."""
        began = time.perf_counter(), time.process_time()
        for shares in steps:
            placed = [Share(task, batch and batch.to(self.potential.device)) for task, batch in shares]
            setting = StepSetting(1, 1e-4, 1.0)
            train_step(self.potential, self.optimizer, placed, self.losses, self.recipe.optimizer, setting)
        if self.potential.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began[0], time.process_time() - began[1]


def peak(frames: int) -> float:
    """Megabytes that drawing batches out of so many frames takes at most, the program itself included."""
    rng = np.random.default_rng(0)
    costs = rng.integers(100, 1000, (frames, 2))
    sampler = Sampler(costs, BatchSpec(edges=4000), 1)
    for epoch in range(2):
        sampler.batches(epoch)
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


if __name__ == "__main__":
    sys.exit(main())
