"""From a recipe and its data to what training starts with: a model with weights, baselines and statistics; batches."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from lamella.data.baseline import fit_baseline, given_baseline, isolated_atom_baseline
from lamella.data.load import check_inputs
from lamella.data.sample import BatchSpec, Sampler, check_has_edges, frame_costs
from lamella.data.source import Frames, Selection
from lamella.data.statistics import environment_statistics
from lamella.errors import DataError, RecipeError
from lamella.models.heads import EnergyHead
from lamella.models.potential import Potential
from lamella.train.adapt.start import started_potential
from lamella.train.parallel.ranks import ALONE, Ranks
from lamella.train.paths import open_data
from lamella.train.recipe import Recipe, checked_recipe, recipe_content
from lamella.train.sel import SEL_CUTOFFS, most_neighbors, nested, place_auto, rounded_sel
from lamella.train.task_data import TaskData, data_record, each, elements_of, open_tasks, task_seed

__all__ = ["TaskData", "build_potential", "count_sel", "make_sampler", "open_data", "open_tasks"]

_SEARCH = 1.5
"""Radius of the search for atoms on top of each other, Å: one within less spends its time on empty cells."""

_SMALLEST_SPREAD = 1e-2
"""Of a frame parameter; a smaller one counts as this (deepmd-kit's ``data_stat_protect``)."""

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def count_sel(recipe: Recipe, data: Mapping[str, TaskData]) -> tuple[Recipe, list[str]]:
    """The recipe with numbers in place of every ``sel: auto``, and a line on each.

    Neighbours are counted in the training frames of all tasks that are trained; see :mod:`lamella.train.sel`.
    """
    ratios = recipe.sel_from_data
    if not ratios:
        return recipe, []
    elements = elements_of(recipe, data)
    backbone = recipe_content(recipe)["model"]["backbone"]
    cutoffs = {field: float(nested(backbone, SEL_CUTOFFS[backbone["kind"]][field])) for field in ratios}
    frames = (frame for task in data.values() if task.config.weight > 0 for frame in each(task.train))
    most = most_neighbors(frames, cutoffs.values(), elements)
    values: dict[str, Any] = {}
    lines = []
    for field, ratio in ratios.items():
        counts = most[cutoffs[field]]
        if backbone["kind"] == "se_a":
            values[field] = {symbol: rounded_sel(int(n), ratio) for symbol, n in zip(elements, counts[:-1], strict=True)}
            found = ", ".join(f"{n} {symbol}" for symbol, n in zip(elements, counts[:-1], strict=True))
        else:
            values[field], found = max(rounded_sel(int(counts[-1]), ratio), 1), str(counts[-1])
        shown = values[field] if isinstance(values[field], int) else " ".join(f"{s} {n}" for s, n in values[field].items())
        lines.append(
            f"sel       {field} {shown}: auto, at most {found} neighbours within {cutoffs[field]:g} Å, × {ratio:g}, rounded "
            "up to a multiple of 4"
        )
    content = recipe_content(recipe)
    content["model"]["backbone"] = place_auto(backbone, values)
    return checked_recipe(content, "recipe with counted sel"), lines


def build_potential(recipe: Recipe, data: Mapping[str, TaskData]) -> Potential:
    """The model that the first step trains, with the baselines of every task: a loaded one where the recipe starts from it.

    Otherwise a new one: seeded weights, environment scales where the recipe takes them from data.

    The weights of the backbone depend on the seed alone, those of a task's head on the seed and the task's name. A
    ``sel: auto`` is counted first (:func:`count_sel`).
    """
    if recipe.start is not None:
        potential, notes = started_potential(recipe, data, _set_baseline)
        _check_inputs(potential, data)
    else:
        potential, notes = _new_potential(recipe, data)
    potential.metadata |= {
        "recipe": recipe.model_dump(mode="json"),
        "data": data_record(data),
        "statistics": {
            name: {"labels": dict(task.survey.carries), "atoms": task.survey.atoms, "baseline": notes[name]}
            for name, task in data.items()
        },
        "versions": {"lamella": version("lamella"), "torch": str(torch.__version__), "python": platform.python_version()},
    }
    return potential


def _new_potential(recipe: Recipe, data: Mapping[str, TaskData]) -> tuple[Potential, dict[str, str]]:
    """Random weights, and how each task's baseline was found."""
    recipe, _ = count_sel(recipe, data)
    elements = elements_of(recipe, data)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        potential = Potential(recipe.model, elements, tuple(recipe.tasks))
        if not recipe.model.head.serves_all:
            for name, head in zip(potential.tasks, potential.heads, strict=True):
                torch.manual_seed(task_seed(recipe.seed, name))
                backbone = recipe.model.backbone
                fresh = EnergyHead(recipe.model.head, backbone.output_dim, elements, backbone.element_heads)
                head.load_state_dict(fresh.state_dict())
    trained_first = sorted(recipe.tasks, key=lambda name: recipe.tasks[name].weight == 0)
    # one of weight 0 must not take the place in the dataset encoding that another has without it
    potential.task_code = potential.task_code[[trained_first.index(name) for name in recipe.tasks]]
    potential.cast(_DTYPES[recipe.dtype])
    notes = {}
    for name, task in data.items():
        try:
            notes[name] = _set_baseline(potential, name, task)
        except (DataError, RecipeError) as error:
            raise type(error)(f"tasks.{name}.baseline: {str(error).removeprefix('baseline: ')}") from None
    _check_inputs(potential, data)
    _set_environments(potential, data)
    _set_frame_params(potential, data)
    return potential, notes


def _check_inputs(potential: Potential, data: Mapping[str, TaskData]) -> None:
    for frames in (part for task in data.values() for part in (task.train, task.valid) if part is not None):
        check_inputs(frames, potential.graph_spec)


def make_sampler(
    frames: Frames, spec: BatchSpec, potential: Potential, seed: int, workers: int, ranks: Ranks = ALONE
) -> Sampler:
    """A sampler of batches.

    Atoms, edges and angles are counted only where batches are limited by them or divided among several processes by them.
    """
    atoms = np.array([len(frame) for frame in each(frames)]) if spec.counts_atoms else None
    costs: np.ndarray | int = len(frames)
    if spec.counts_edges or ranks.world > 1:
        costs = _costs_by_all(frames, potential, workers, ranks)
        check_has_edges(costs, potential.cutoff)
    else:
        # a frame without a graph must stop the run here, not after hours; a short search is enough to find it
        frame_costs(frames, min(_SEARCH, potential.cutoff), 0.0, workers)
        _check_some_edge(frames, potential)
    return Sampler(costs, spec, seed, lambda index: frames[index].source, atoms)


def _costs_by_all(frames: Frames, potential: Potential, workers: int, ranks: Ranks) -> np.ndarray:
    """Edges and angles of every frame, each process counting its part of them."""
    mine = np.arange(ranks.rank, len(frames), ranks.world)
    costs = torch.zeros(len(frames), 2, dtype=torch.int64)
    counted = frame_costs(Selection(frames, mine), potential.cutoff, potential.angle_cutoff, workers)
    costs[torch.from_numpy(mine)] = torch.from_numpy(counted)
    return ranks.sum(costs).numpy()


def _check_some_edge(frames: Frames, potential: Potential) -> None:
    """Look at frames until one has an edge: usually the first."""
    for index in range(len(frames)):
        if frame_costs(Selection(frames, [index]), potential.cutoff, 0.0)[0, 0]:
            return
    check_has_edges(np.zeros((len(frames), 2)), potential.cutoff)


def _set_environments(potential: Potential, data: Mapping[str, TaskData]) -> None:
    """Means and scales of every environment matrix that takes them from data: all tasks that are trained, together."""
    for environment in potential.backbone.environments():
        if not environment.from_data:
            continue
        training = (frame for task in data.values() if task.config.weight > 0 for frame in each(task.train))
        mean, std = environment_statistics(
            training, potential.elements, environment.shell, environment.slots, environment.protection, environment.excluded
        )
        environment.std = torch.from_numpy(std).to(potential.dtype)
        if not environment.zero_mean:
            environment.mean = torch.from_numpy(mean).to(potential.dtype)


def _set_frame_params(potential: Potential, data: Mapping[str, TaskData]) -> None:
    """Mean and scale of the frame parameters that heads read: of a task's own frames, or of all for a shared head."""
    config = potential.config.head
    if not config.frame_params:
        return
    rows = {
        name: [frame.labels.get("frame_params", config.default_frame_params) for frame in each(task.train)]
        for name, task in data.items()
    }
    for index, head in enumerate(potential.heads):
        trained = [row for name, row in rows.items() if data[name].config.weight > 0]
        own = rows[potential.tasks[index]] if len(potential.heads) > 1 else list(chain(*trained))
        values = np.array([row for row in own if row is not None], dtype=np.float64).reshape(-1, config.frame_params)
        if len(values):
            std = np.maximum(values.std(axis=0), _SMALLEST_SPREAD)
            head.frame_mean = torch.from_numpy(values.mean(axis=0)).to(potential.dtype)
            head.frame_inv_std = torch.from_numpy(1.0 / std).to(potential.dtype)


def _set_baseline(potential: Potential, name: str, task: TaskData) -> str:
    """Find and set the task's energy per element; returns a sentence that says how."""
    choice = task.config.baseline
    present = [chemical_symbols[number] for number in task.survey.numbers]
    if isinstance(choice, dict):
        energies = given_baseline(choice, [*dict.fromkeys([*present, *choice])])
        strange = [symbol for symbol in choice if symbol not in potential.elements]
        if strange:
            raise RecipeError(f"{', '.join(strange)} is not an element of the model; remove it.")
        potential.set_baseline(name, energies)
        return "given in the recipe"
    if choice == "isolated_atoms":
        held_back = task.valid if task.config.valid is None else None  # chance may have put an atom there
        frames = chain(each(task.train), each(held_back) if held_back is not None else ())
        potential.set_baseline(name, isolated_atom_baseline(frames, present))
        return "from frames of one atom"
    if not task.survey.carries["energy"]:
        return "zero: no training frame carries an energy"
    fit = fit_baseline(each(task.train), present)
    potential.set_baseline(name, fit.energies)
    return " ".join(["by least squares,", f"{1e3 * fit.rms:.4g} meV/atom left to learn.", fit.message]).strip()
