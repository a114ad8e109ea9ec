"""The plan of a run that starts from a model: what loads, what is new, what is frozen, and the errors before step 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamella.models.potential import Potential
from lamella.models.words import ARCHITECTURES
from lamella.train.adapt.config import RANDOM
from lamella.train.adapt.gate import in_words
from lamella.train.adapt.kinship import likened
from lamella.train.adapt.tensors import Fates
from lamella.train.adapt.trainable import Part

if TYPE_CHECKING:
    from lamella.train.adapt.start import Start
    from lamella.train.recipe import Recipe

__all__ = ["plan"]


def plan(recipe: Recipe, start: Start, potential: Potential, fate: Fates, parts: Sequence[Part]) -> list[str]:
    """Lines for a person, in the form of the plan of every run."""
    source, config = start.source, start.config
    kind = ARCHITECTURES[source.config.backbone.kind]
    tasks = f"task{'s' if len(source.tasks) > 1 else ''} {', '.join(source.tasks)}"
    lines = [
        f"start     {config.model}: {kind}, {tasks}; elements {' '.join(source.elements)}",
        f"loads     {len(fate.loaded) + len(fate.grown)} tensors, {fate.numbers:,} numbers",
        *_new(start, potential, fate),
        *[f"head      {name}: {_head(start, name)}" for name in recipe.tasks],
        *_others(start, recipe, potential),
    ]
    for trained, word in ((False, "frozen"), (True, "trained")):
        listed = [part for part in parts if part.trained == trained]
        total = sum(part.numbers for part in listed)
        names = ", ".join(f"{part.name} ({part.tensors} tensors, {part.numbers:,})" for part in listed)
        lines.append(f"{word:<10}{total:,} numbers{': ' + names if names else ''}")
    lines += [f"baseline  {name}: {sentence}" for name, sentence in start.baseline.items()]
    for name, entry in start.errors.items():
        lines += _errors(name, entry)
    for name, entry in start.sources.items():
        lines.append(
            f"source    {name}, {entry['frames']} frames: {in_words(entry['before'])} now; measured again at the end"
        )
    return lines


def _new(start: Start, potential: Potential, fate: Fates) -> list[str]:
    lines = []
    likeness = likened(start.config.add_elements, start.source.elements)
    if likeness:
        said = ", ".join(f"{symbol} (begins like {origin})" for symbol, origin in likeness.items())
        lines.append(f"adds      {said}: outputs for other elements stay the same")
    if fate.grown:
        names = ", ".join(f"{name} (+{count:,} numbers)" for name, count in fate.grown.items())
        lines.append(f"grows     {names}")
    if fate.new:
        why = "the head is random" if start.config.head == RANDOM else "networks of new elements, or a code of the new task"
        lines.append(f"new       {len(fate.new)} tensors: {_some(fate.new)}: {why}")
    else:
        lines.append("new       no tensor is re-initialised")
    if fate.dropped:
        lines.append(f"leaves    {len(fate.dropped)} tensors of the model: {_some(fate.dropped)} (tasks not kept)")
    return lines


def _head(start: Start, name: str) -> str:
    """Where the head of a task comes from."""
    if name in start.source.tasks:
        return "goes on with its own"
    if start.config.head == RANDOM:
        best = start.chosen.get(name)
        return f"random, as asked{'' if best is None else f'; compared below with that of {best.task}'}"
    chosen = start.chosen.get(name)
    if chosen is None:
        return f"that of {start.config.head if start.config.head in start.source.tasks else start.source.tasks[0]}"
    ranking = start.ranking.get(name)
    if not ranking:
        return f"that of {chosen.task}"
    listed = ", ".join(f"{head.task} {head.score:.3g}" for head in ranking[:5])
    more = f" and {len(ranking) - 5} more" if len(ranking) > 5 else ""
    return f"that of {chosen.task}, the best of {len(ranking)} (error as a share of the labels' spread: {listed}{more})"


def _others(start: Start, recipe: Recipe, potential: Potential) -> list[str]:
    """Tasks of the model that the recipe does not train."""
    kept = [name for name in potential.tasks if name not in recipe.tasks]
    if not kept:
        return []
    return [
        f"kept      {', '.join(kept)}: {'its head is' if len(kept) == 1 else 'their heads are'} saved too, but not trained: "
        "errors there change with the backbone, unless it is frozen or these tasks are replayed"
    ]


def _errors(name: str, entry: Mapping[str, Any]) -> list[str]:
    rows = [("before step 0", entry["before"]), ("no network", entry["scale"])]
    if entry["zero_shot"]:
        rows.insert(0, (f"zero-shot, {entry['head']}", entry["zero_shot"]))
    if "with_new_elements" in entry:
        rows.append((f"all {entry['with_new_elements']['frames']}, step 0", entry["with_new_elements"]["before"]))
    valid = entry.get("valid")
    if valid:
        if "zero_shot" in valid:
            rows.append((f"{valid['frames']} validation, zero-shot", valid["zero_shot"]))
        rows.append((f"{valid['frames']} validation, step 0", valid["before"]))
    width = max(len(title) for title, _ in rows)
    head = f"errors    {name}, {entry['frames']} training frames, energies per element refitted:"
    if not entry["zero_shot"]:
        head = f"errors    {name}, {entry['frames']} training frames (none of known elements alone, so no zero-shot):"
    return [head, *(f"          {title:<{width}}  {in_words(errors)}" for title, errors in rows)]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
