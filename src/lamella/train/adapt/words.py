"""The plan of a run that starts from a model: what loads, what is new, what is frozen, and the errors before step 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lamella.models.potential import Potential
from lamella.models.words import ARCHITECTURES
from lamella.train.adapt.config import RANDOM
from lamella.train.adapt.gate import jumps
from lamella.train.adapt.kinship import likened
from lamella.train.adapt.tables import error_table, some
from lamella.train.adapt.tensors import Fates
from lamella.train.adapt.trainable import Part, part_name

if TYPE_CHECKING:
    from lamella.train.adapt.start import Start
    from lamella.train.recipe import Recipe

__all__ = ["plan"]

_MANY: Final = 12
"""Elements and tasks are listed up to so many."""


def plan(recipe: Recipe, start: Start, potential: Potential, fate: Fates, parts: Sequence[Part]) -> list[str]:
    """Lines for a person, in the form of the plan of every run."""
    source, config = start.source, start.config
    kind = ARCHITECTURES[source.config.backbone.kind]
    elements = " ".join(source.elements) if len(source.elements) <= _MANY else f"{len(source.elements)} elements"
    count = f"task{'s' if len(source.tasks) > 1 else ''} {some(source.tasks, _MANY)}"
    lines = [f"start     {config.model}: {kind}, {elements}, {count}", *_tensors(start, potential, fate)]
    for name in recipe.tasks:
        lines += _head(start, name)
    lines += _others(start, recipe, potential)
    for trained, word in ((False, "frozen"), (True, "trained")):
        listed = [part for part in parts if part.trained == trained]
        total = sum(part.numbers for part in listed)
        names = ", ".join(f"{part.name} {part.numbers:,}" for part in listed)
        lines.append(f"{word:<10}{total:,} numbers: {names}" if listed else f"{word:<10}nothing")
    lines += [f"baseline  {name}: {sentence}" for name, sentence in start.baseline.items()]
    for name, entry in start.errors.items():
        lines += [*_errors(name, entry), *_verdict(start, name, entry)]
    if start.sources:
        rows = [(f"{name}, {entry['frames']} frames", entry["before"]) for name, entry in start.sources.items()]
        lines += error_table("knows     its own tasks, now; measured again at the end", rows)
    unknown = [name for name in start.source.tasks if name in potential.tasks and name not in start.sources]
    if unknown:
        lines.append(
            f"{'' if start.sources else 'knows':<10}not measured: {some(unknown, _MANY)}, of which no frames are at hand; "
            "--source TASK=PATH gives some"
        )
    return lines


def _tensors(start: Start, potential: Potential, fate: Fates) -> list[str]:
    """What became of every tensor of the model."""
    whole = len(fate.loaded) + len(fate.widened)
    lines = [f"loads     {whole} of {whole + len(fate.new)} tensors from the model, {fate.numbers:,} numbers, bit for bit"]
    likeness = likened(start.config.add_elements, start.source.elements)
    if likeness:
        said = ", ".join(f"{symbol} (begins like {origin})" for symbol, origin in likeness.items())
        lines.append(f"adds      {said}: outputs for other elements stay the same")
    for name, count in fate.widened.items():
        why = "new elements" if name.startswith("backbone.") else "the code of the new task"
        lines.append(f"          {name}: {count:,} of its numbers are for {why}")
    if fate.new:
        places = some(dict.fromkeys(part_name(potential, name) for name in fate.new), _MANY)
        total = sum(fate.new.values())
        lines.append(f"new       {len(fate.new)} tensors, {total:,} numbers, are drawn at random: {places}")
    else:
        lines.append("new       no tensor is re-initialised")
    if fate.dropped:
        lines.append(f"leaves    {len(fate.dropped)} tensors of the model, of heads that are not kept")
    return lines


def _head(start: Start, name: str) -> list[str]:
    """Where the head of a task comes from, and how the model's tasks did."""
    what = "code" if start.source.config.head.task_dim else "head"
    best = start.chosen.get(name)
    if name in start.source.tasks:
        return [f"head      {name}: a task of the model, goes on with its own"]
    if start.config.head == RANDOM:
        return [f"head      {name}: a random {what}, as asked{'' if best is None else f'; {best.task} would be the best'}"]
    origin = start.origin(name)
    ranking = start.ranking.get(name)
    if not ranking:
        return [f"head      {name}: its {what} begins as a copy of that of {origin}"]
    scores = some([f"{head.task} {head.score:.3g}" for head in ranking], 5)
    return [
        f"head      {name}: its {what} begins as a copy of that of {origin}, the best of {len(ranking)} on your frames",
        f"          score (error / error without a network; 0 perfect, 1 no use): {scores}",
    ]


def _others(start: Start, recipe: Recipe, potential: Potential) -> list[str]:
    """Tasks of the model that the recipe does not train."""
    kept = [name for name in potential.tasks if name not in recipe.tasks]
    if not kept:
        return []
    if len(potential.heads) == 1:
        fate = "share the head that is trained, so their errors change; --replay limits that, --only leaves them out"
    elif start.config.freeze == "backbone":
        fate = "heads and backbone stay as they are, so their errors do"
    else:
        fate = "heads stay as they are, but the backbone changes and so do their errors; --replay limits that"
    return [f"kept      {some(kept, _MANY)}: {fate}"]


def _errors(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Errors on the user's frames, training and validation."""
    rows: list[tuple[str, Mapping[str, float] | None]] = [(f"{entry['frames']} training frames", None)]
    rows.append(("  no network: energies per element alone", entry["scale"]))
    if entry["zero_shot"]:
        rows.append((f"  zero-shot: task {entry['head']} as loaded", entry["zero_shot"]))
    rows.append(("  step 0: what training begins with", entry["before"]))
    more = entry.get("with_new_elements")
    if more:
        rows.append((f"  step 0, all {more['frames']} frames with new elements", more["before"]))
    valid = entry.get("valid")
    if valid:
        rows.append((f"{valid['frames']} validation frames", None))
        if "zero_shot" in valid:
            rows.append((f"  zero-shot: task {entry['head']} as loaded", valid["zero_shot"]))
        rows.append(("  step 0: what training begins with", valid["before"]))
    return error_table(f"errors    {name}, energies per element refitted", rows)


def _verdict(start: Start, name: str, entry: Mapping[str, Any]) -> list[str]:
    """What the errors before step 0 mean."""
    if not entry["zero_shot"]:
        return ["          no frame is of known elements alone, so there is no zero-shot error to compare with"]
    worse = jumps(entry["zero_shot"], entry["before"])
    if worse:
        return [f"          JUMP: {' and '.join(worse)} at step 0 above zero-shot"]
    lines = ["          step 0 is as good as zero-shot: nothing was lost on the way"]
    if start.chosen[name].score >= 1.0:
        lines.append("          but zero-shot is no better than energies per element alone: most is still to be learned")
    return lines
