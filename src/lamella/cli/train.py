"""``lamella train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


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
    from lamella.train.fit import CONFIG, fit
    from lamella.train.parallel.ranks import rank_of_this_process
    from lamella.train.parallel.watch import PeerLost
    from lamella.train.recipe import load_recipe
    from lamella.train.stop import Interrupted

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
    try:
        fit(settings, folder, resume is not None)
    except PeerLost:
        raise typer.Exit(1) from None  # said already
    except Interrupted as stopped:
        if rank_of_this_process() == 0:
            print(stopped, file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
