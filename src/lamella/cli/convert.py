"""``lamella convert``: models and recipes to and from deepmd-kit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.errors import InputError

if TYPE_CHECKING:
    from lamella.models.potential import Potential

__all__ = ["convert"]


_SETTINGS = (".json", ".yaml", ".yml")
"""Endings of recipes and of deepmd-kit's inputs."""


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Any model that lamella loads: a run or step folder, a deepmd-kit .pt or .pth. Or an input.json, or "
            "a recipe (a file, or the name of one that comes with lamella).",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="A deepmd-kit checkpoint (NAME.pt), or a new folder for a lamella model. For settings: a recipe (.yaml) or "
            "an input.json.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over a recipe's: elements=[H,O]"),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Of a model of several tasks (branches): the one to take; all where not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Replace OUT where it exists.")] = False,
) -> None:
    """Convert a model, or the settings of a training, to deepmd-kit's form or to lamella's.

    Models become checkpoints that deepmd-kit tests, freezes and fine-tunes, or lamella models. Of settings (input.json <->
    recipe) every key is translated, or listed with the reason why it is left out, or refused by name.
    """
    from lamella.cli.terminal import check_output

    _check_apart(source, target)
    check_output(target, overwrite)
    if target.suffix in _SETTINGS:
        if task is not None:
            raise InputError(f"--task {task}: of a model, and {target} would hold settings; leave it out.")
        _settings(source, target, overrides or [])
        return
    if overrides:
        raise InputError(f"{overrides[0]!r}: settings belong to recipes, and OUT is {target}; leave them out.")
    potential = _model(source, task)
    _say_left_out(source, potential)
    if target.suffix == ".pt":
        _to_deepmd(potential, target)
    elif target.suffix:
        raise InputError(
            f"{target}: lamella converts models to .pt (deepmd-kit) or to a folder (its own), settings to .json or .yaml; "
            "name one of these."
        )
    else:
        _to_folder(potential, target)


def _check_apart(source: Path, target: Path) -> None:
    """What is read must not be written over, whatever ``--overwrite`` says: not through a link, nor a step of a run."""
    if not (source.exists() and target.exists()):
        return
    if source.samefile(target) or (source.is_dir() and target.resolve().is_relative_to(source.resolve())):
        raise InputError(f"{target}: OUT is IN, or a part of it, and is not written over; choose another name.")


def _say_left_out(source: Path, potential: Potential) -> None:
    from lamella.formats.deepmd.read import LEFT_OUT
    from lamella.formats.published import located
    from lamella.train.state import TRAINER

    path = located(source)
    if path.is_file():
        there = potential.metadata.get("optimizer") == LEFT_OUT
    else:
        there = (path / TRAINER).is_file() or any(path.glob(f"*/{TRAINER}"))
    if there:
        print(f"the state of the optimiser in {source} is not carried over: training from OUT begins with fresh moments.")


def _settings(source: Path, target: Path, overrides: list[str]) -> None:
    """``input.json`` to recipe or recipe to ``input.json``, whichever ``source`` is."""
    import json

    import yaml

    from lamella.train.deepmd_input import is_input, read_input, write_input
    from lamella.train.recipe import load_recipe, read_mapping
    from lamella.use.save import replacing

    if source.is_dir() or source.suffix in (".pt", ".pth"):
        raise InputError(f"{source} is a model and {target} would hold settings; name a .pt file or a folder as OUT.")
    if source.is_file() and is_input(read_mapping(source)):
        if overrides:
            raise InputError(f"{overrides[0]!r}: settings belong to recipes; give them to `lamella train {target}`.")
        translation = read_input(source)
        content, notes, what = translation.content, translation.notes, "a recipe of lamella"
    else:
        content, notes = write_input(load_recipe(source, overrides))
        what = "an input of deepmd-kit (dp --pt train)"
    with replacing(target) as file:
        if target.suffix == ".json":
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        else:
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)
    print(f"{target}: {what}, from {source}")
    for line in notes:
        print(f"  {line}")


def _model(source: Path, task: str | None) -> Potential:
    from lamella.formats import deepmd
    from lamella.formats.load import load
    from lamella.formats.published import located
    from lamella.models.extend import only_tasks

    if task is None:
        return load(source)
    path = located(source)
    return deepmd.read(path, task) if path.is_file() else only_tasks(load(path), [task])


def _to_deepmd(potential: Potential, target: Path) -> None:
    from lamella.formats import deepmd

    deepmd.write(potential, target)
    head = "" if len(potential.tasks) == 1 else f" --head {shlex.quote(potential.tasks[0])}"
    frozen = target.with_suffix(".pth")
    print(f"{target}: a checkpoint for deepmd-kit 3.2.0. For LAMMPS: dp --pt freeze -c {target} -o {frozen}{head}")
    for part, slots in deepmd.slots_of(potential).items():
        print(
            f"deepmd-kit keeps the nearest {slots} neighbours of an atom in {part} and drops the rest; lamella drops none."
        )


def _to_folder(potential: Potential, target: Path) -> None:
    from lamella.models.bundle import DESCRIPTION, save_model

    if target.exists() and not (target / DESCRIPTION).is_file() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"{target}: holds something other than a lamella model; choose another folder.")
    target.mkdir(exist_ok=True)
    save_model(potential, target)
    print(f"{target}: a lamella model ({potential.parameter_count():,} parameters, tasks {', '.join(potential.tasks)})")
