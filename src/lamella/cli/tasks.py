"""``lamella tasks``: which tasks a model has; adding and dropping some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cli.use import Key, ModelPath, Overwrite

if TYPE_CHECKING:
    from lamella.models.potential import Potential

__all__ = ["add", "drop", "listing"]

Target = Annotated[Path, typer.Option("--to", metavar="OUT", help="New folder for the changed model.")]


def listing(model: ModelPath) -> None:
    """List a model's tasks, one a line: whether their head is their own, and how their energies per element were found."""
    from lamella.formats.load import load

    potential = load(model)
    shared = len(potential.heads) < len(potential.tasks)
    statistics = potential.metadata.get("statistics")
    for task in potential.tasks:
        entry = statistics.get(task) if isinstance(statistics, dict) else None
        said = str(entry["baseline"]) if isinstance(entry, dict) and "baseline" in entry else "not recorded"
        print(f"{task}: {'shared head' if shared else 'own head'}; {_energies(said)}")


def add(
    model: ModelPath,
    name: Annotated[str, typer.Argument(help="Name of the new task.")],
    to: Target,
    like: Annotated[
        str | None, typer.Option(help="Task of the model that it starts as a copy of; a random head where not given.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Labelled structures to which its energies per element are fitted.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a random head.")] = 1,
    overwrite: Overwrite = False,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
) -> None:
    """Add a task to a model; what it says of the others stays as it is. Train it with `lamella finetune --task NAME`."""
    from lamella.cli.terminal import labelled_frames
    from lamella.data.keys import LabelKeys
    from lamella.formats.load import load
    from lamella.train.tasks import add_task

    _check(to, overwrite)
    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    frames = labelled_frames(data, keys) if data else None
    changed, said = add_task(load(model), name, like, frames, seed)
    _save(changed, to)
    head = "a copy of " + like if like is not None else "random"
    print(f"{name}: its head is {head}; {_energies(said)}")


def drop(
    model: ModelPath,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Tasks to drop.")],
    to: Target,
    overwrite: Overwrite = False,
) -> None:
    """Drop tasks from a model, with their heads; what it says of the others stays as it is."""
    from lamella.formats.load import load
    from lamella.train.tasks import drop_tasks

    _check(to, overwrite)
    _save(drop_tasks(load(model), names), to)


def _energies(said: str) -> str:
    """What is said of energies per element, with the subject once: a refit says it itself."""
    subject = "energies per element"
    return said if said.startswith(subject) else f"{subject}: {said}"


def _check(to: Path, overwrite: bool) -> None:
    """Refuse a place that is taken before anything is computed."""
    from lamella.cli.terminal import check_output
    from lamella.errors import InputError
    from lamella.models.bundle import DESCRIPTION

    check_output(to, overwrite)
    if to.exists() and not (to / DESCRIPTION).is_file():
        raise InputError(f"{to}: is no lamella model, so it is not replaced; choose another folder.")


def _save(potential: Potential, to: Path) -> None:
    from lamella.models.bundle import save_model

    to.mkdir(exist_ok=True)
    save_model(potential, to)
    print(f"{to}: a lamella model with the task{'s' if len(potential.tasks) > 1 else ''} {', '.join(potential.tasks)}")
