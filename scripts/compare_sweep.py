"""Compare lamella with the cases that ``make_sweep.py`` drew, and print the worst relative error of every architecture.

``PYTHONPATH=tests .venv/bin/python scripts/compare_sweep.py FOLDER [NAME ...]``; exit status 1 where a case fails. What
fails or is refused is listed, the worst first.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from golden_models import disagreements
from lamella.errors import CheckpointError, LamellaError
from lamella.formats.deepmd import read
from lamella.formats.load import load
from lamella.models.potential import Potential

BOUND = 1e-10


def read_tasks(path: Path, tasks: list[str | None]) -> dict[str | None, Potential]:
    """The model of each task: one for all, or each alone where the branches share less than a descriptor."""
    try:
        model = load(path)
    except CheckpointError as error:
        if "do not share" not in str(error):
            raise
        return {task: read(path, task).eval().requires_grad_(False) for task in tasks}
    return dict.fromkeys(tasks, model)


def worst_of(path: Path) -> tuple[float, str]:
    """Largest relative error of a checkpoint over tasks, frames and quantities, and where; infinite with the reason."""
    with np.load(path.with_suffix(".npz")) as stored:
        tasks = {key.split("/")[0] if key.count("/") == 2 else None for key in stored.files}
    try:
        models = read_tasks(path, sorted(tasks, key=str))
        found = {
            f"{task or ''} {where}": error
            for task, model in models.items()
            for where, error in disagreements(model, path.with_suffix(".npz"), task).items()
        }
    except LamellaError as error:
        return float("inf"), f"refused: {error}"
    except Exception as error:
        return float("inf"), f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    where = max(found, key=lambda key: found[key])
    return found[where], where


def main() -> int:
    """Compare, print, and say whether all agree."""
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    paths = sorted(
        p
        for p in folder.iterdir()
        if p.suffix in (".pt", ".pth") and p.with_suffix(".npz").exists() and (not names or p.stem in names)
    )
    results = {path.name: worst_of(path) for path in paths}
    by_kind = defaultdict(list)
    for name, (error, _) in results.items():
        by_kind[name.rpartition("_")[0]].append(error)
    for kind, errors in sorted(by_kind.items()):
        agree = sum(error < BOUND for error in errors)
        worst = max((error for error in errors if np.isfinite(error)), default=0.0)
        print(f"{kind:8} {agree:4} of {len(errors):4} within {BOUND:g}; worst of those that ran {worst:.1e}")
    for name, (error, where) in sorted(results.items(), key=lambda item: -item[1][0]):
        if error >= BOUND:
            print(f"  {name}: {error:.1e} {where}")
    return int(any(error >= BOUND for error, _ in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
