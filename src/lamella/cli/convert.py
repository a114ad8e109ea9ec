"""``lamella convert``: a model to and from deepmd-kit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.errors import InputError

if TYPE_CHECKING:
    from lamella.models.potential import Potential

__all__ = ["convert"]


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Any model that lamella loads: a run or step folder, a deepmd-kit .pt or .pth.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="A deepmd-kit checkpoint (NAME.pt), or a new folder for a lamella model.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Of a multi-task deepmd-kit checkpoint: the one branch to take; all where not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Replace OUT where it exists.")] = False,
) -> None:
    """Convert a model: to a checkpoint that deepmd-kit tests, freezes and fine-tunes, or to a lamella model."""
    from lamella.cli.terminal import check_output

    check_output(target, overwrite)
    potential = _model(source, task)
    if target.suffix == ".pt":
        _to_deepmd(potential, target)
    elif target.suffix:
        raise InputError(f"{target}: lamella converts to .pt (deepmd-kit) or to a folder (its own models); name one of these.")
    else:
        _to_folder(potential, target)


def _model(source: Path, task: str | None) -> Potential:
    from lamella.formats import deepmd
    from lamella.formats.load import load

    if task is None:
        return load(source)
    if not source.is_file():
        raise InputError(f"{source}: --task takes one branch of a deepmd-kit checkpoint, and this is none; leave it out.")
    return deepmd.read(source, task)


def _to_deepmd(potential: Potential, target: Path) -> None:
    from lamella.formats import deepmd

    deepmd.write(potential, target)
    head = "" if len(potential.tasks) == 1 else f" --head {potential.tasks[0]}"
    frozen = target.with_suffix(".pth")
    print(f"{target}: a checkpoint for deepmd-kit 3.2.0. For LAMMPS: dp --pt freeze -c {target} -o {frozen}{head}")
    for part, slots in deepmd.slots_of(potential).items():
        print(f"deepmd-kit keeps the nearest {slots} neighbours of an atom in {part} and drops the rest; lamella drops none.")


def _to_folder(potential: Potential, target: Path) -> None:
    from lamella.models.bundle import DESCRIPTION, save_model

    if target.exists() and not (target / DESCRIPTION).is_file() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"{target}: holds something other than a lamella model; choose another folder.")
    target.mkdir(exist_ok=True)
    save_model(potential, target)
    print(f"{target}: a lamella model ({potential.parameter_count():,} parameters, tasks {', '.join(potential.tasks)})")
