"""``training_data`` and ``validation_data``: systems and batch sizes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lamella.data.sample import BatchSpec
from lamella.data.systems import find_systems
from lamella.errors import RecipeError
from lamella.train.deepmd_input.section import Notes, Section, refusal
from lamella.train.recipe import EMBEDDED, TaskConfig

__all__ = ["read_task_data", "system_count", "write_batch_size", "write_task_data"]

_MORE_OFTEN: Final = "name a system twice in systems to draw it twice as often"
_HDF5: Final = (".hdf5", ".h5")


def read_task_data(section: Section) -> dict[str, Any]:
    """Our keys of a task's data: ``train``, ``valid``, ``valid_fraction``, ``batch``.

    Args:
        section: ``training``, or one task of ``training.data_dict``; its other keys stay.
    """
    train = section.inner("training_data")
    task: dict[str, Any] = {"train": _systems(train), "valid_fraction": 0.0, "batch": _batch(train)}
    train.neutral(
        "min_pair_dist", (0, 0.0), "lamella drops no frames", "remove such frames (`lamella data lint` finds them)"
    )
    train.end()
    if "validation_data" in section:
        valid = section.inner("validation_data")
        task["valid"] = _systems(valid)
        valid.ignore("lamella validates on every frame", "numb_btch", "numb_batch", "batch_size")
        valid.end()
    section.ignore("lamella computes statistics anew, of all training frames", "stat_file", "stat_file_mode")
    return task


def _systems(section: Section) -> list[str]:
    systems = section.take("systems")
    where = section.full("systems")
    listed = [systems] if isinstance(systems, str) else systems
    if not isinstance(listed, list) or not listed or not all(isinstance(path, str) for path in listed):
        raise refusal(where, systems, "not a path nor a list of paths", "give one")
    lmdb = [path for path in listed if path.rstrip("/").endswith(".lmdb")]
    if lmdb:
        raise refusal(where, lmdb[0], "lamella reads no LMDB", "give the deepmd/npy folders or HDF5 file it was made from")
    section.neutral("rglob_patterns", (), "lamella takes all systems below a folder", "list the systems you want")
    section.neutral("set_prefix", ("set",), "lamella reads folders named set.*, as deepmd-kit 3 does", "rename them")
    _even_chance(section, listed)
    return listed


def _even_chance(section: Section, listed: list[str]) -> None:
    """Refuse what draws frames of one system more often than those of another."""
    shares = section.take("sys_probs", None, ("sys_weights",))
    if shares is not None and (len(listed) > 1 or shares != [1.0]):
        raise refusal(section.full("sys_probs"), shares, "lamella draws every frame equally often", _MORE_OFTEN)
    rule = section.take("auto_prob", "prob_sys_size", ("auto_prob_style",))
    if rule != "prob_sys_size" and not (rule == "prob_uniform" and system_count(listed) == 1):
        raise refusal(section.full("auto_prob"), rule, "lamella draws every frame equally often", _MORE_OFTEN)


def system_count(paths: Sequence[str]) -> int | None:
    """How many systems the paths hold; None where one of them cannot be looked into."""
    count = 0
    for path in paths:
        found = len(find_systems(Path(path))) if os.path.isdir(path) else 0
        if not found:
            return None
        count += found
    return count


def _batch(section: Section) -> dict[str, int]:
    """Our bounds of a batch."""
    size, where = section.take("batch_size", "auto"), section.full("batch_size")
    if isinstance(size, list) and size:
        if any(each != size[0] for each in size):
            raise refusal(where, size, "lamella's batches know no systems", "give one number, or auto:N for N atoms or more")
        size = size[0]
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return {"frames": size}
    rule, _, number = size.partition(":") if isinstance(size, str) else ("", "", "")
    number = "32" if size == "auto" else number
    if rule not in ("auto", "mixed", "max", "filter") or not number.isdecimal() or not int(number):
        raise refusal(
            where, size, "not a batch size of deepmd-kit", "give a number, auto, auto:N, mixed:N, max:N or filter:N"
        )
    if rule == "mixed":  # TensorFlow's word for what our batches are: N frames of any systems
        return {"frames": int(number)}
    if rule == "auto":
        return {"full_atoms": int(number)}
    larger = "drops them" if rule == "filter" else "makes a batch of each"
    section.notes.add(section.key("batch_size"), f"a frame of more than {number} atoms will be refused; deepmd-kit {larger}")
    return {"atoms": int(number)}


def write_task_data(task: TaskConfig, batch: BatchSpec, where: str, notes: Notes) -> dict[str, Any]:
    """Their ``training_data`` and ``validation_data``.

    Args:
        task: of the recipe.
        batch: bounds of its batches.
        where: its dotted key.
        notes: where to name data that deepmd-kit cannot read.

    Raises:
        RecipeError: something of it that deepmd-kit does not have.
    """
    if task.valid is None and task.valid_fraction > 0.0:
        raise refusal(
            f"{where}.valid_fraction",
            task.valid_fraction,
            "deepmd-kit holds no frames back",
            "name validation data, or set it to 0 to train on all",
        )
    if task.keys != type(task.keys)():
        raise refusal(
            f"{where}.keys",
            {name: key for name, key in task.keys.model_dump().items() if key is not None},
            "deepmd-kit knows its own file names only",
            "convert the data to deepmd/npy and remove the keys",
        )
    size = write_batch_size(batch, where)
    content: dict[str, Any] = {"training_data": {"systems": _written(task.train, where, notes), "batch_size": size}}
    if task.valid is not None:
        content["validation_data"] = {"systems": _written(task.valid, where, notes), "batch_size": size}
    return content


def write_batch_size(batch: BatchSpec, where: str) -> int | str:
    """Their ``batch_size``.

    Raises:
        RecipeError: another bound than one of frames or atoms, or several.
    """
    bounds = {name: bound for name, bound in batch.model_dump().items() if bound is not None}
    if set(bounds) == {"frames"}:
        return int(bounds["frames"])
    if set(bounds) == {"atoms"}:
        return f"max:{bounds['atoms']}"
    if set(bounds) == {"full_atoms"}:
        return f"auto:{bounds['full_atoms']}"
    raise refusal(f"{where}.batch", bounds, "deepmd-kit has no such bound", "bound frames, atoms or full_atoms, one of them")


def _written(paths: Sequence[str], where: str, notes: Notes) -> list[str]:
    """Paths for deepmd-kit; those below the working folder relative to it."""
    for path in paths:
        if not _readable(path):
            notes.add(
                f"{where}: {path}", "deepmd-kit reads deepmd/npy folders and HDF5 only; write it as one and put its path"
            )
    return [path if path.startswith(EMBEDDED) else shown_path(path) for path in paths]


def _readable(path: str) -> bool:
    """Whether deepmd-kit reads it, as far as can be seen from here."""
    file = path.partition("#")[0]
    if os.path.isdir(file):
        return bool(find_systems(Path(file)))
    return file.endswith(_HDF5) or not (path.startswith(EMBEDDED) or os.path.exists(file) or Path(file).suffix)


def shown_path(path: str) -> str:
    """A path relative to the working folder where it lies below it."""
    folder = f"{Path.cwd()}{os.sep}"
    return path.removeprefix(folder)


def checked_weight(value: Any, where: str) -> float:
    """A probability of a task."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < float("inf"):
        raise RecipeError(f"{where} = {value!r}: not a probability; give a number of 0 or more.")
    return float(value)
