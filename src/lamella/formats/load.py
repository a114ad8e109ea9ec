"""``lamella.load``: one function for every kind of model that lamella reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import torch

from lamella.allocator import keep_freed_memory
from lamella.errors import CheckpointError, InputError, nearest, shown
from lamella.formats import deepmd
from lamella.formats.published import located, near_miss
from lamella.models.bundle import DESCRIPTION, WEIGHTS, load_model
from lamella.models.potential import Potential

__all__ = ["DTYPES", "as_device", "as_dtype", "load"]

DTYPES: Final[dict[str, torch.dtype]] = {"float32": torch.float32, "float64": torch.float64}
"""Floating-point types a model runs in, by name."""

_POINTERS = ("best", "last")
_RUN_FILES = ("config.yaml", "log.jsonl", *_POINTERS)
_KINDS = (
    f"a run folder (config.yaml, {' or '.join(_POINTERS)}, step folders), a step folder ({WEIGHTS}, {DESCRIPTION}), "
    "a deepmd-kit file (.pt, .pth), or a model by name (lamella models list)"
)


def load(path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Potential:
    """Read a model for inference: weights are frozen and nothing in the file is executed.

    Args:
        path: a run folder (its best step; the last one where none is marked best), a step folder, a deepmd-kit ``.pt``
            (training checkpoint) or ``.pth`` (frozen model); or a name: ``lamella-mini``, which comes with the package, or a
            published model that ``lamella models fetch`` has brought here. What lies on disk wins over a name.
        device: where it runs; the CPU where not given.
        dtype: a torch dtype or its name; that of the checkpoint where not given. Baselines stay float64.

    Raises:
        CheckpointError: there is no such model, or it is damaged, of a newer format, or of a kind lamella does not run.
        InputError: unknown ``device`` or ``dtype``.
    """
    place, kind = as_device(device), as_dtype(dtype)
    keep_freed_memory()
    potential = _read(located(path))
    if kind is not None:
        potential.cast(kind)
    return potential.to(place).eval().requires_grad_(False)


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype of that name; ``None`` stays ``None``.

    Raises:
        InputError: not one that models run in.
    """
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if dtype is None or dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    raise InputError(f"dtype {dtype!r} is not one a model runs in{nearest(str(dtype), DTYPES)}; use {' or '.join(DTYPES)}.")


def as_device(device: str | torch.device | None) -> torch.device:
    """The torch device of that name, known to be there; the CPU where not given.

    Raises:
        InputError: unknown name, or no such device on this machine.
    """
    try:
        place = torch.device("cpu" if device is None else device)
    except RuntimeError:
        raise InputError(f"device {device!r} is unknown; use for example 'cpu', 'cuda' or 'cuda:1'.") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{place}' is not on this machine ({torch.cuda.device_count()} GPUs seen); use 'cpu'.")
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"device '{place}' is not one lamella runs on; use 'cpu' or 'cuda'.")
    return place


def _read(path: Path) -> Potential:
    if path.is_dir():
        return load_model(_step_folder(path))
    if path.is_file():
        if path.name in (WEIGHTS, DESCRIPTION):
            raise CheckpointError(f"{path}: one file of a model folder; load the folder {path.parent} instead.")
        _check_no_settings(path)
        return deepmd.read(path)
    if os.path.lexists(path):
        raise CheckpointError(
            f"{path}: no regular file (a pipe, a device, or a link that leads nowhere); give the model itself."
        )
    near = near_miss(str(path)) or _neighbour(path)
    raise CheckpointError(f"{path}: no such file or folder{near}. lamella loads {_KINDS}.")


def _check_no_settings(path: Path) -> None:
    if path.suffix in (".yaml", ".yml"):
        raise CheckpointError(f"{path}: settings, not a model; train one with: lamella train {path}")
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or not {"model", "training"} <= content.keys():
            raise CheckpointError(f"{path}: a .json file, not a model. lamella loads {_KINDS}.")
        raise CheckpointError(
            f"{path}: an input of deepmd-kit, not a model. lamella convert {path} {path.stem}.yaml makes a recipe of it; "
            "what dp trained with it is model.ckpt.pt beside it."
        )


def _step_folder(folder: Path) -> Path:
    """The folder that holds the weights: ``folder`` itself, or the step that a run marks."""
    if (folder / DESCRIPTION).exists() or (folder / WEIGHTS).exists():
        return folder
    for pointer in _POINTERS:
        marker = folder / pointer
        if not marker.is_file():
            continue
        name = marker.read_text(errors="replace").strip()
        step = folder / name
        if name in ("", "..") or Path(name).name != name or not step.is_dir():
            raise CheckpointError(
                f"{marker}: it names {name[:80]!r}, no step folder of this run; load a step folder directly."
            )
        return step
    if any((folder / name).exists() for name in _RUN_FILES):
        raise CheckpointError(f"{folder}: the run has saved no model yet; wait for its first checkpoint, or train longer.")
    theirs = [folder / "model.ckpt.pt", *sorted(folder.glob("*.pt"), key=lambda file: file.stat().st_mtime, reverse=True)]
    checkpoint = next((file for file in theirs if file.is_file()), None)
    if checkpoint is not None:
        raise CheckpointError(f"{folder}: a folder with deepmd-kit's checkpoints, not a model; name one: {checkpoint}")
    found = ", ".join(shown(name) for name in sorted(item.name for item in folder.iterdir())[:5]) or "nothing"
    raise CheckpointError(f"{folder}: holds no model (found {found}). lamella loads {_KINDS}.")


def _neighbour(path: Path) -> str:
    if path.parent.is_dir():
        return nearest(path.name, [item.name for item in path.parent.iterdir()])
    return f" (there is no folder {path.parent} either)"
