"""What the settings of all studies are made of: architectures, labelled sets, and how they become recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lamella.data.keys import LabelKeys
from lamella.errors import RecipeError
from lamella.train.paths import Paths, absolute
from lamella.train.recipe import Recipe, checked_recipe, read_mapping, recipe_file, set_key
from lamella.use.study.trial import slug
from lamella.use.table.config import SetConfig
from lamella.use.table.reference import absolute_reference

__all__ = [
    "STRICT",
    "Found",
    "LabelledSet",
    "Distinct",
    "Recipes",
    "Reference",
    "Size",
    "Source",
    "StudyConfig",
    "content_of",
    "finished",
    "recipe_of",
    "short_run",
]


STRICT: Final = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
"""Of every class of settings: nothing unknown, nothing infinite, nothing changed."""


def _found(path: str) -> str:
    """What lies on disk by its absolute path, so that the saved study can be read from elsewhere; a name stays a name."""
    return absolute(path) if Path(path).expanduser().exists() else path


Found = Annotated[str, AfterValidator(_found)]
"""A path, or the name of something that comes with the package or was published."""


Reference = Annotated[str, AfterValidator(absolute_reference)]
"""A model in the words of ``lamella table``."""


def _distinct(table: dict[str, Any]) -> dict[str, Any]:
    """Names become those of files."""
    known: dict[str, str] = {}
    for name in table:
        if slug(name) in known:
            raise ValueError(
                f"{known[slug(name)]!r} and {name!r} would share their files ({slug(name)}); choose names that differ in "
                "letters and digits"
            )
        known[slug(name)] = name
    return table


Distinct = AfterValidator(_distinct)
"""Of settings by name."""

Size = Annotated[int, Field(ge=1)]
"""A number of frames or steps."""


class Recipes(BaseModel):
    """An architecture and how it is trained: a recipe, and settings that win over it."""

    model_config = STRICT

    recipe: Found
    """A file, or the name of a recipe that comes with the package. Its first task lends loss, baseline and batches."""
    set: tuple[str, ...] = ()
    """``key=value``."""


def _source(value: Any) -> Any:
    return {"recipe": value} if isinstance(value, str) else value


Source = Annotated[Recipes, BeforeValidator(_source)]
"""``{recipe: dpa2_small, set: [optimizer.lr=1e-3]}``, or the recipe alone."""


class LabelledSet(BaseModel):
    """Frames to train on, and frames to be judged by."""

    model_config = STRICT

    train: Paths
    test: Paths
    keys: LabelKeys = LabelKeys()
    weight: float = Field(1.0, ge=0)
    """In the averages over sets, and in the sampling where several sets train one model."""

    def row(self) -> SetConfig:
        """The test frames as a row of a table; models that were trained on this label source keep their energies."""
        return SetConfig(data=self.test, keys=self.keys, weight=self.weight, baseline="keep")


def _once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands there twice: the same training would count as two")
    return seeds


class StudyConfig(BaseModel):
    """What every study takes."""

    model_config = STRICT

    steps: int = Field(1000, ge=1)
    """Of every training."""
    loss: dict[str, Any] | None = None
    """Of every training; null for that of each recipe."""
    set: tuple[str, ...] = ()
    """Settings of every recipe, ``key=value``; they win over those of each."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_once)] = Field((1,), min_length=1)
    """A training each; tables show their mean and standard deviation."""


TaskPart = Mapping[str, Any]
"""Of a task of a recipe: what the study says of it; the rest comes from the recipe's first task."""


def recipe_of(
    source: Recipes, tasks: Mapping[str, TaskPart], study: StudyConfig, seed: int, elements: Sequence[str] | None = None
) -> Recipe:
    """The recipe of one training.

    Args:
        source: architecture.
        tasks: by name, keys that replace those of the recipe's first task.
        study: length, loss and common settings.
        seed: of weights and batches.
        elements: chemical symbols the model knows; those of the data where not given.

    Raises:
        RecipeError: a key or value that is wrong.
    """
    content = content_of(source)
    own = content.get("tasks")
    template = next(iter(own.values()), None) if isinstance(own, Mapping) else None
    lent = {key: value for key, value in (template or {}).items() if key in ("loss", "baseline", "batch")}
    content["tasks"] = {name: {**lent, **part} for name, part in tasks.items()}
    content["seed"] = seed
    if elements is not None:
        content["elements"] = list(elements)
    training = content.setdefault("training", {})
    for key, value in short_run(study.steps, training).items():
        training[key] = value
    return finished(content, study, source.recipe)


def finished(content: dict[str, Any], study: StudyConfig, source: str) -> Recipe:
    """With what the study says of all trainings.

    Raises:
        RecipeError: a key or value that is wrong.
    """
    if study.loss is not None:
        for task in content["tasks"].values():
            task["loss"] = study.loss
    for override in study.set:
        set_key(content, override)
    return checked_recipe(content, source)


def content_of(source: Recipes) -> dict[str, Any]:
    """What the recipe's file holds, with the source's own settings.

    Raises:
        RecipeError: no such recipe, or a setting that is none.
    """
    content = read_mapping(recipe_file(source.recipe))
    for override in source.set:
        set_key(content, override)
    parts: dict[str, Any] = {key: content[key] for key in ("tasks", "training") if key in content}
    tasks = parts.get("tasks")
    parts |= {f"tasks.{name}": task for name, task in tasks.items()} if isinstance(tasks, Mapping) else {}
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise RecipeError(f"{source.recipe}: {key} holds {part!r}, not keys; write them below it, or leave it out.")
    return content


def short_run(steps: int, training: Mapping[str, Any]) -> dict[str, Any]:
    """Lengths that suit a run of so many steps: one checkpoint kept, and not fewer than fifty lines in the log."""
    most = {"log_every": (100, steps // 50), "save_every": (1000, steps), "valid_every": (1000, steps)}
    every = {key: training.get(key, usual) for key, (usual, _) in most.items()}  # what is no number, the recipe refuses
    every |= {key: max(1, min(n, most[key][1])) for key, n in every.items() if isinstance(n, int)}
    return {"steps": steps, **every, "keep": 1, "tensorboard": False}
