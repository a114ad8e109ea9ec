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
    """Every golden checkpoint through lamella: its name, its architecture, and what is not the same ("" for nothing).

    A frozen model comes back as the checkpoint it was frozen from, as far as that lies beside it. ``NAME_anew.pt`` is the
    model as lamella writes one of its own, with nothing remembered of the file it came from.
    """
    (folder / "golden").mkdir()
    for path in sorted([*GOLDEN.glob("*.pt"), *GOLDEN.glob("*.pth")]):
        if path.stem.startswith("order_"):
            continue
        back = folder / "golden" / f"{path.name.replace('.', '_')}.pt"
        try:
            potential = deepmd.read(path)
            deepmd.write(potential, back)
            potential.metadata = {}
            deepmd.write(potential, back.with_stem(f"{back.stem}_anew"))
        except LamellaError as error:
            yield path.name, "refused", str(error)
            continue
        before = path.with_suffix(".pt")
        yield path.name, potential.config.backbone.kind, changed(before, back) if before.exists() else ""


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


def numbers_of(name: str) -> Path:
    """The numbers of a golden file."""
    return (GOLDEN / name).with_suffix(".npz")


def golden_jobs(trips: list[tuple[str, str, str]], folder: Path) -> list[dict]:
    """What deepmd-kit shall compute of what lamella wrote anew."""
    names = [name for name, kind, _ in trips if kind != "refused"]
    return [
        {
            "model": folder / "golden" / f"{name.replace('.', '_')}_anew.pt",
            "frames": numbers_of(name),
            "tasks": tasks_of(name),
        }
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
        table.number("golden written anew, numbers", kind, worst, 1e-12)


def numbers_change(name: str, folder: Path) -> float:
    """Worst relative difference of deepmd-kit's numbers of the original and of what lamella wrote anew."""
    after = folder / "golden" / f"{name}.npz"
    if not after.exists():
        print(f"  golden {name}: {after.with_suffix('.error').read_text()[:300]}")
        return float("inf")
    with np.load(numbers_of(name)) as old, np.load(after) as new:
        keys = [key for key in old.files if old[key].dtype.kind == "f"]
        return max(float(np.abs(old[key] - new[key]).max() / max(np.abs(old[key]).max(), 1e-3)) for key in keys)


def tasks_of(name: str) -> list[str | None]:
    """The branches of a golden checkpoint."""
    with np.load(numbers_of(name)) as stored:
        return list(dict.fromkeys(key.split("/")[0] if key.count("/") == 2 else None for key in stored.files))
