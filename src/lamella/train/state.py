"""Checkpoints of a run: written whole or not at all, and everything needed to go on bit by bit.

::

    run/step_0000100/   model.safetensors, model.json (what validation used: the averaged weights where EMA is on)
                        trainer.pt (optimiser, EMA, step, random state; read with weights_only=True)
    run/last, run/best  the name of a step folder
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from lamella.errors import CheckpointError, TrainingError
from lamella.models.bundle import save_model
from lamella.models.potential import Potential
from lamella.nn.low_rank import is_adapted
from lamella.train.optim import MovingAverage, copy_weights

__all__ = [
    "Progress",
    "load_trainer",
    "point",
    "pointed",
    "prune",
    "save_checkpoint",
    "step_name",
    "write_file",
]

FORMAT: Final = 1
TRAINER: Final = "trainer.pt"
_PREFIX: Final = "step_"
_TEMPORARY: Final = ".saving-"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps made.
        seconds: time spent training, over all sessions.
        validated: step of the last validation; 0 before the first.
        best_step: step of the best validation so far; 0 before the first.
        best_score: its score.
        drawn: how often each task was drawn: where its sampler stands.
    """

    step: int = 0
    seconds: float = 0.0
    validated: int = 0
    best_step: int = 0
    best_score: float = float("inf")
    drawn: dict[str, int] = field(default_factory=dict)


def step_name(step: int) -> str:
    """Folder of a step."""
    return f"{_PREFIX}{step:07d}"


def save_checkpoint(
    run: Path,
    potential: Potential,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
    progress: Progress,
) -> Path:
    """Write the folder of the current step: built beside, flushed to the disk, then renamed into place.

    Raises:
        TrainingError: it cannot be written (disk full, no permission); earlier checkpoints are intact.
    """
    final = run / step_name(progress.step)
    building = run / f"{_TEMPORARY}{final.name}-{os.getpid()}"
    content: dict[str, Any] = {
        "format": FORMAT,
        "progress": asdict(progress),
        "optimizer": optimizer.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    adapted = is_adapted(potential)  # then the model's files hold what the weights amount to, not what is trained
    if average is not None or adapted:
        content["weights"] = {name: p.detach().cpu() for name, p in potential.named_parameters()}
    if average is not None and adapted:
        content["average"] = {name: value.cpu() for name, value in average.average.items()}
    with _writing(final, building):
        building.mkdir(parents=True)
        if average is None:
            save_model(potential, building)
        else:
            with average.applied(potential):
                save_model(potential, building)
        # through memory: torch's own file writer reports a full disk as an unspecific RuntimeError
        buffer = io.BytesIO()
        torch.save(content, buffer)
        _write_synced(building / TRAINER, buffer.getvalue())
        _sync(building)
        if final.exists():
            # made again after a resume, to the same bits: file by file, so that there is a whole checkpoint at every moment
            for file in building.iterdir():
                file.replace(final / file.name)
            building.rmdir()
            _sync(final)
        else:
            building.replace(final)
        _sync(run)
    return final


def write_file(path: Path, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    building = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    with _writing(path, building):
        _write_synced(building, text.encode())
        building.replace(path)
        _sync(path.parent)


def point(run: Path, pointer: str, step: int) -> None:
    """Make ``best`` or ``last`` name the folder of ``step``."""
    write_file(run / pointer, step_name(step) + "\n")


def pointed(run: Path, pointer: str) -> Path | None:
    """The step folder that ``best`` or ``last`` names; None where there is none."""
    file = run / pointer
    if not file.is_file():
        return None
    folder = run / file.read_text(encoding="utf-8").strip()
    return folder if folder != run and folder.is_dir() else None


def prune(run: Path, keep: int, best_step: int) -> None:
    """Remove all but the ``keep`` newest step folders and the best one, and what interrupted saves left behind."""
    found = (folder for folder in run.glob(f"{_PREFIX}*") if folder.is_dir())
    steps = sorted(found, key=lambda folder: (len(folder.name), folder.name))  # seven digits, more from step 10⁷ on
    spared = {step_name(best_step), *(pointer.name for name in ("best", "last") if (pointer := pointed(run, name)))}
    for folder in steps[:-keep]:
        if folder.name not in spared:
            shutil.rmtree(folder)
    for leftover in run.glob(f"{_TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def load_trainer(
    folder: Path, potential: Potential, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> Progress:
    """Put the trainer's state back: optimiser, weights, their average, random state.

    Args:
        folder: of a step.
        potential: that of the folder, on its device; gets the weights that were being trained.
        optimizer: over its parameters.
        average: made from the folder's model, which holds the averaged weights; those of low-rank updates are put back.

    Raises:
        CheckpointError: the file is missing, damaged, or of a newer format.
    """
    path = folder / TRAINER
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content["format"]
        if version > FORMAT:
            raise CheckpointError(f"{path}: format {version} is newer than this lamella reads ({FORMAT}); upgrade lamella.")
        if "weights" in content:
            copy_weights(potential, content["weights"])
        if average is not None and "average" in content:
            average.take(content["average"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["torch_rng"])
        return Progress(**content["progress"])
    except (CheckpointError, MemoryError):
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, so training cannot go on from here; use another step folder.") from None
    except Exception as error:  # a damaged file may fail in any way inside torch.load
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{path}: damaged or cut short ({reason}); write the name of an earlier step folder into "
            f"{folder.parent / 'last'} and resume from there."
        ) from None


@contextmanager
def _writing(target: Path, building: Path) -> Iterator[None]:
    """Turn a failure to write into one sentence, and leave nothing half-written behind."""
    try:
        yield
    except (OSError, CheckpointError) as error:
        if building.is_dir():
            shutil.rmtree(building, ignore_errors=True)
        else:
            building.unlink(missing_ok=True)
        full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "space left" in str(error)
        reason = "the disk is full" if full else str(error)
        raise TrainingError(
            f"{target}: cannot be written ({reason}). Earlier checkpoints are intact: free space and go on with "
            f"`lamella train --resume {target.parent}`."
        ) from None


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
