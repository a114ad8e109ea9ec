"""Every golden checkpoint through lamella and back (part of ``interop.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from golden_models import GOLDEN
from interop_table import Table
from lamella.errors import LamellaError
from lamella.formats import deepmd


def round_trips(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Every golden checkpoint through lamella: its name, its architecture, and what is not the same ("" for nothing)."""
    (folder / "golden").mkdir()
    for path in sorted(GOLDEN.glob("*.pt")):
        if path.stem.startswith("order_"):
            continue
        back = folder / "golden" / path.name
        try:
            potential = deepmd.read(path)
            deepmd.write(potential, back)
            yield path.stem, potential.config.backbone.kind, changed(path, back)
        except LamellaError as error:
            yield path.stem, "refused", str(error)


def changed(before: Path, after: Path) -> str:
    """What differs between two checkpoints."""
    old, new = (torch.load(path, weights_only=True)["model"] for path in (before, after))
    if missing := sorted(old.keys() ^ new.keys()):
        return f"only in one: {missing[:3]}"
    for name, tensor in old.items():
        if name == "_extra_state":
            continue
        if tensor.dtype != new[name].dtype or not torch.equal(tensor, new[name]):
            return f"{name} differs"
    if old["_extra_state"]["model_params"] != new["_extra_state"]["model_params"]:
        return "model_params differ"
    return ""


def golden_jobs(trips: list[tuple[str, str, str]], folder: Path) -> list[dict]:
    """What deepmd-kit shall compute of what came back."""
    names = [name for name, kind, _ in trips if kind != "refused"]
    return [
        {"model": folder / "golden" / f"{name}.pt", "frames": GOLDEN / f"{name}.npz", "tasks": tasks_of(name)}
        | {"out": folder / "golden" / f"{name}.npz"}
        for name in names
    ]


def compare_golden(table: Table, trips: list[tuple[str, str, str]], folder: Path) -> None:
    """The rows of the golden checkpoints."""
    for name, _, found in trips:
        if found:
            print(f"  golden {name}: {found}")
    for kind in dict.fromkeys(kind for _, kind, _ in trips):
        mine = [(name, found) for name, k, found in trips if k == kind]
        good = sum(not found for _, found in mine)
        table.put("golden there and back, tensors", kind, f"{good} of {len(mine)}", good == len(mine))
        worst = max((numbers_change(name, folder) for name, _ in mine if kind != "refused"), default=0.0)
        table.number("golden there and back, numbers", kind, worst, 1e-12)


def numbers_change(name: str, folder: Path) -> float:
    """Worst relative difference of deepmd-kit's numbers before and after the way through lamella."""
    after = folder / "golden" / f"{name}.npz"
    if not after.exists():
        print(f"  golden {name}: {after.with_suffix('.error').read_text()[:300]}")
        return float("inf")
    with np.load(GOLDEN / f"{name}.npz") as old, np.load(after) as new:
        keys = [key for key in old.files if old[key].dtype.kind == "f"]
        return max(float(np.abs(old[key] - new[key]).max() / max(np.abs(old[key]).max(), 1e-3)) for key in keys)


def tasks_of(name: str) -> list[str | None]:
    """The branches of a golden checkpoint."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return list(dict.fromkeys(key.split("/")[0] if key.count("/") == 2 else None for key in stored.files))
