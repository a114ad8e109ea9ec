"""An atlas: the same atoms seen by one or several models, with maps of their representations, traits and separations."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamella.data.source import Frames
from lamella.errors import DataError, InputError
from lamella.models.potential import Potential
from lamella.use.atlas.config import AtlasConfig, Color
from lamella.use.atlas.maps import METHODS, Map, require_enough
from lamella.use.atlas.representation import last_update, represent
from lamella.use.atlas.sample import Sample, sample_atoms
from lamella.use.atlas.separation import Separation, separations
from lamella.use.atlas.traits import Trait, predicted, static
from lamella.use.predict import runnable

__all__ = ["NEEDED", "Atlas", "Sheet", "build_atlas", "require_extra"]

NEEDED: Final = ("sklearn", "threadpoolctl", "chemiscope")
"""Packages of the extra ``explain``, by the names they are imported under."""

_PREDICTED: Final = frozenset({"energy", "force", "force-error"})


@dataclass(frozen=True)
class Sheet:
    """One model's view of the atoms.

    Attributes:
        model: its name.
        channels: how many numbers represent an atom.
        maps: by method.
        traits: by name; those a model predicts differ between sheets.
        separations: how well the representations tell atoms apart.
    """

    model: str
    channels: int
    maps: Mapping[str, Map]
    traits: Mapping[str, Trait]
    separations: tuple[Separation, ...]


@dataclass(frozen=True)
class Atlas:
    """What :func:`build_atlas` makes.

    Attributes:
        config: how it was made.
        sample: the atoms.
        colors: of the picture: those of the configuration, or those that tell something.
        sheets: one per model.
        cutoff: Å, the longest of the models.
    """

    config: AtlasConfig
    sample: Sample
    colors: tuple[Color, ...]
    sheets: tuple[Sheet, ...]
    cutoff: float


def build_atlas(
    models: Mapping[str, Potential],
    data: Mapping[str, Frames],
    config: AtlasConfig | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """Choose atoms, represent them, lay them out, and measure how well they separate.

    The result depends on models, data and configuration alone: layouts are computed on one thread.

    Args:
        models: by name; one, or several to be compared on the same atoms. Not mutated.
        data: labelled or unlabelled frames by name of the data set. One that is named like a task of a model is predicted
            by that task, where predictions are asked for.
        config: the defaults where not given.
        on_progress: called with (structures done, structures in all), over all models.

    Raises:
        InputError: a package is missing; fewer atoms than t-SNE needs; equal representations; unknown task.
        DataError: no atoms to show, or no labels for a force error.
        StructureError: a structure that a model cannot read; the message says which and why.
    """
    chosen = AtlasConfig() if config is None else config
    require_extra()
    from threadpoolctl import threadpool_limits

    _check(models, data, chosen)
    sample = sample_atoms(data, chosen)
    require_enough(len(sample), chosen)
    traits = static(sample, chosen.distance_from)
    passes = 2 if _PREDICTED & set(chosen.colors) else 1
    total, done = passes * len(models) * len(sample.frames), 0

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        if on_progress is not None:
            on_progress(done, total)

    sheets = []
    for name, model in models.items():
        potential = runnable(model)
        x_NC = represent(potential, sample, chosen.representation, advance)
        known = dict(traits)
        if passes == 2:
            known |= _predicted(potential, sample, chosen, advance)
        with threadpool_limits(limits=1):
            maps: dict[str, Map] = {method: METHODS[method](x_NC, chosen) for method in chosen.methods}
            points = {method: each.points for method, each in maps.items()}
            answers = separations(x_NC, points, known, chosen.neighbors)
        sheets.append(Sheet(name, x_NC.shape[1], maps, known, tuple(answers)))
    colors = chosen.colors or _telling(traits)
    return Atlas(chosen, sample, colors, tuple(sheets), max(model.cutoff for model in models.values()))


def require_extra() -> None:
    """Refuse, before anything is read, where the packages of the extra are not installed.

    Raises:
        InputError: naming them and the command that installs them.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join({"sklearn": "scikit-learn"}.get(name, name) for name in missing)
        raise InputError(f"maps of representations need {names}, not installed here; run: pip install 'lamella[explain]'")


def _telling(traits: Mapping[str, Trait]) -> tuple[Color, ...]:
    """Colours of which each says more than the one before it."""
    elements, groups, tasks = (len(traits[name].classes or ()) for name in ("element", "group", "task"))
    several: dict[Color, bool] = {
        "element": elements > 1,
        "group": 1 < groups < elements,
        "task": tasks > 1,
        "distance": True,
    }
    return tuple(name for name, tells in several.items() if tells)


def _check(models: Mapping[str, Potential], data: Mapping[str, Frames], config: AtlasConfig) -> None:
    """Refuse, before anything is computed, what cannot be done."""
    if not models:
        raise InputError("no model is given; name one.")
    for model in models.values():
        if config.representation == "update":
            last_update(model)
        if _PREDICTED & set(config.colors):
            for task in _tasks(model, data, config).values():
                model.task_index(task)


def _tasks(model: Potential, data: Mapping[str, Frames], config: AtlasConfig) -> dict[str, str | None]:
    return {name: name if name in model.tasks else config.task for name in data}


def _predicted(
    potential: Potential, sample: Sample, config: AtlasConfig, advance: Callable[[int], None]
) -> dict[str, Trait]:
    tasks = {name: name if name in potential.tasks else config.task for name in dict.fromkeys(sample.tasks)}
    made = predicted(potential, sample, tasks, advance)
    if "force-error" in config.colors and np.isnan(made["force-error"].values).all():
        raise DataError(
            "force-error: no structure that was chosen carries forces; name the key they are under (--forces-key), or "
            "choose another colour."
        )
    return made
