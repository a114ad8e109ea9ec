"""The plan that is printed before training: enough to see a wrong recipe before it has cost an hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ase.data import chemical_symbols

from lamella.data.load import make_batch
from lamella.data.sample import Sampler
from lamella.fields import INPUTS, LABELS
from lamella.models.potential import Potential
from lamella.models.words import ARCHITECTURES, cutoffs
from lamella.train.recipe import Recipe
from lamella.train.room import Room
from lamella.train.task_data import TaskData

__all__ = ["plan_lines"]


def plan_lines(
    recipe: Recipe, data: Mapping[str, TaskData], potential: Potential, samplers: Mapping[str, Sampler]
) -> Sequence[str]:
    """Two lines for the model, two for each task: frames and labels, and what its first batch holds."""
    dtype = str(potential.dtype).removeprefix("torch.")
    backbone = potential.config.backbone
    lines = [
        f"model     {ARCHITECTURES[backbone.kind]}, {potential.parameter_count():,} parameters, {dtype} on "
        f"{potential.device}, elements {' '.join(potential.elements)}",
        f"          cutoffs {cutoffs(backbone)}",
        f"run       {recipe.training.steps:,} steps{_draws(recipe)}, {recipe.optimizer.kind}, {recipe.schedule.kind} lr "
        f"{recipe.optimizer.lr:g} to {recipe.schedule.stop_lr:g}",
    ]
    start = potential.metadata.get("start")
    if isinstance(start, dict):
        lines += start["plan"]
    else:
        lines += _untrained(data, potential)
    total = sum(task.config.weight for task in data.values())
    for name, task in data.items():
        carried = ", ".join(f"{task.survey.carries[label]} {label}" for label in LABELS)
        held = f"{len(task.valid)} for validation" if task.valid is not None else "no validation"
        lines.append(
            f"task      {name}: {len(task.train)} training frames ({task.survey.atoms:,} atoms; {carried}), {held}, "
            f"{task.config.weight / total:.3g} of the draws"
        )
        lines += _inputs(task, potential)
        strangers = [chemical_symbols[z] for z in sorted(task.numbers - {*task.survey.numbers})]
        if strangers:
            lines.append(f"          {', '.join(strangers)} occurs in validation only: its energies are not learned")
        frames = [task.train[int(index)] for index in samplers[name].batch(0)]
        graph = make_batch(frames, potential.graph_spec).graph
        lines.append(
            f"          first batch: {graph.n_frames} frames, {graph.n_atoms:,} atoms, {graph.n_edges:,} edges, "
            f"{graph.n_angles:,} angles; peak memory {Room(potential).plan(graph)}{_baseline(potential, name)}"
        )
    return lines + [f"          not smooth: {reason}" for reason in backbone.rough]


def _draws(recipe: Recipe) -> str:
    several = recipe.training.tasks_per_step
    return f" of {several} draws" if several > 1 else ""


def _untrained(data: Mapping[str, TaskData], potential: Potential) -> list[str]:
    """A line on elements of the model that nothing will be learned of."""
    seen = {number for task in data.values() if task.config.weight > 0 for number in task.survey.numbers}
    never = [chemical_symbols[number] for number in potential.numbers if number not in seen]
    if not never:
        return []
    return [f"          no task trains {' '.join(never)}: what the model says of such atoms means nothing"]


def _inputs(task: TaskData, potential: Potential) -> list[str]:
    """Inputs of the frames that the model reads, and those that it does not."""
    read = {wanted.name for wanted in potential.graph_spec.inputs}
    carried = [name for name in INPUTS if task.survey.carries.get(name)]
    lines = [f"          the model reads {name} of each frame" for name in INPUTS if name in read]
    return lines + [f"          frames carry {name}, which the model does not read" for name in carried if name not in read]


def _baseline(potential: Potential, name: str) -> str:
    """How the energies per element were found, where the plan has not said it yet."""
    statistics = potential.metadata["statistics"]
    assert isinstance(statistics, dict)
    return "" if "start" in potential.metadata else f"; baseline {statistics[name]['baseline']}"
