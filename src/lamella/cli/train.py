"""``lamella train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lamella.train.recipe import Recipe

__all__ = ["train", "trained"]


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML or JSON file, or the name of a recipe that comes with lamella.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the recipe: training.steps=1000"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="New folder for the run; runs/RECIPE where not given.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
) -> None:
    """Train a model; stop it at any moment and go on with --resume."""
    from lamella.errors import RecipeError
    from lamella.train.fit import CONFIG
    from lamella.train.recipe import load_recipe

    if resume is not None:
        if recipe is not None or run is not None:
            raise RecipeError("--resume goes on with the run's own recipe: give no recipe, no settings and no --run.")
        if not (resume / CONFIG).is_file():
            raise RecipeError(f"{resume}: no run to resume (no {CONFIG} in it); give the folder that `lamella train` wrote.")
        settings, folder = load_recipe(resume / CONFIG), resume
    elif recipe is None:
        raise RecipeError(
            "give a recipe (`lamella train RECIPE.yaml`) or an interrupted run (`lamella train --resume RUN`)."
        )
    else:
        settings = load_recipe(recipe, overrides or [])
        folder = run if run is not None else Path("runs") / Path(recipe).stem
    trained(settings, folder, resume is not None)


def trained(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Train, and report what a model that started from another has forgotten."""
    from lamella.train.adapt.forgetting import forgetting, forgetting_lines
    from lamella.train.adapt.gate import JumpError
    from lamella.train.fit import fit
    from lamella.train.parallel.ranks import rank_of_this_process
    from lamella.train.parallel.watch import PeerLost
    from lamella.train.stop import Interrupted

    first = rank_of_this_process() == 0
    try:
        fit(recipe, folder, resume)
    except PeerLost:
        raise typer.Exit(1) from None  # said already
    except Interrupted as stopped:
        if first:
            print(stopped, file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
    except JumpError as jumped:
        if first:
            print("\n".join(jumped.plan), flush=True)
        raise
    if first and recipe.start is not None:
        for line in forgetting_lines(folder, forgetting(folder)):
            print(line)
