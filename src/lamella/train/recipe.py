"""Recipes: everything a training run depends on, in one frozen tree that is saved with the run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lamella.data.keys import LabelKeys
from lamella.data.sample import BatchSpec
from lamella.errors import RecipeError, nearest
from lamella.models.potential import ModelConfig
from lamella.train.adapt.config import StartConfig
from lamella.train.adapt.settle import completed
from lamella.train.explain import explain
from lamella.train.loss import LossConfig
from lamella.train.optim import AdamW, OptimizerConfig
from lamella.train.paths import EMBEDDED, Paths
from lamella.train.schedule import ExponentialSchedule, ScheduleConfig
from lamella.train.sel import auto_text, lift_auto, place_auto

__all__ = [
    "EMBEDDED",
    "Baseline",
    "Recipe",
    "TaskConfig",
    "TrainingConfig",
    "checked_recipe",
    "dump_recipe",
    "load_recipe",
    "read_mapping",
    "recipe_content",
    "recipe_file",
    "set_key",
]

_PACKAGED: Final = Path(__file__).resolve().parents[1] / "recipes"


Baseline = Literal["least_squares", "isolated_atoms", "keep"] | dict[str, float]
"""How the energy per element is found: fitted to the training energies, taken from one-atom frames, given in eV, or that of
the model that training starts from."""


def _checked_symbols(symbols: tuple[str, ...]) -> tuple[str, ...]:
    strange = [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) < 1]
    if strange:
        raise ValueError(f"{strange[0]!r} is no chemical symbol")
    if not symbols or len(set(symbols)) < len(symbols):
        raise ValueError(f"each symbol once, at least one; got {', '.join(symbols) or 'none'}")
    return symbols


Symbols = Annotated[tuple[str, ...], AfterValidator(_checked_symbols)]
"""Chemical symbols, each once."""


class TaskConfig(BaseModel):
    """One label source: its data, its weight in the sampling, its baseline and its loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    train: Paths
    valid: Paths | None = None
    """Validation data; null takes ``valid_fraction`` of the training data."""
    valid_fraction: float = Field(0.1, ge=0, lt=1)
    keys: LabelKeys = LabelKeys()
    weight: float = Field(1.0, ge=0)
    """Probability of the task in a step, up to normalisation."""
    elements: Symbols | None = None
    """Chemical symbols its frames may hold; null takes those that they do. The model knows the elements of all tasks."""
    baseline: Baseline = "least_squares"
    loss: LossConfig = LossConfig()
    batch: BatchSpec | None = None
    """Batches of this task; null for those of the recipe."""


class TrainingConfig(BaseModel):
    """Length of a run, and what it writes how often (in steps)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(1_000_000, ge=1)
    tasks_per_step: int = Field(1, ge=1, le=4096)
    """Tasks drawn for each step, with replacement; their gradients are averaged (DPA-2 paper Eq. 44)."""
    valid_every: int = Field(1000, ge=1)
    log_every: int = Field(100, ge=1)
    save_every: int = Field(1000, ge=1)
    keep: int = Field(3, ge=1)
    """Newest checkpoints kept, besides the best."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the moving average of weights, e.g. 0.999; null for none. Validation and the saved model use the average."""
    workers: int = Field(0, ge=0)
    """Processes that build neighbour lists; 0 builds them in the training process."""
    tensorboard: bool = True


class Recipe(BaseModel):
    """A training run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(1, ge=0)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "auto"
    """``auto``: the first GPU where there is one, else the CPU."""
    elements: Symbols | None = None
    """Chemical symbols the model knows; null takes those of the tasks that are trained."""
    model: ModelConfig = ModelConfig()
    tasks: dict[str, TaskConfig]
    optimizer: OptimizerConfig = AdamW()
    schedule: ScheduleConfig = ExponentialSchedule()
    batch: BatchSpec = BatchSpec(frames=8)
    training: TrainingConfig = TrainingConfig()
    start: StartConfig | None = None
    """The model that training starts from; null for random weights."""
    sel_from_data: dict[str, float] = Field({}, exclude=True)
    """Ratio by field of the backbone that says ``auto`` and stands for no number yet; empty in a recipe that ran."""

    @model_validator(mode="before")
    @classmethod
    def _without_auto(cls, content: Any) -> Any:
        model = content.get("model") if isinstance(content, dict) else None
        if not isinstance(model, dict) or not isinstance(model.get("backbone"), dict):
            return content
        plain, ratios = lift_auto(model["backbone"])
        return {**content, "model": {**model, "backbone": plain}, "sel_from_data": ratios} if ratios else content

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.tasks:
            raise ValueError("tasks: give at least one task, with a name and its data: tasks: {NAME: {train: [...]}}")
        nameless = [name for name in self.tasks if not name.strip() or not name.isprintable()]
        if nameless:
            raise ValueError(f"tasks: {nameless[0]!r} is no name; use letters, digits, - and _")
        if not any(task.weight > 0 for task in self.tasks.values()):
            raise ValueError("tasks: the weights sum to zero; at least one task needs a weight above 0")
        if not math.isfinite(sum(task.weight for task in self.tasks.values())):
            raise ValueError("tasks: the sum of the weights is not finite; give smaller ones")
        if self.schedule.stop_lr > self.optimizer.lr:
            raise ValueError(f"schedule.stop_lr {self.schedule.stop_lr} must not exceed optimizer.lr {self.optimizer.lr}")
        kept = [name for name, task in self.tasks.items() if task.baseline == "keep"]
        if kept and self.start is None:
            raise ValueError(f"tasks.{kept[0]}.baseline: keep needs a model that training starts from (start.model)")
        if self.schedule.warmup_steps >= self.training.steps:
            raise ValueError("schedule.warmup_steps must be fewer than training.steps")
        return self


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; reading it gives the same recipe."""
    return yaml.safe_dump(recipe_content(recipe), sort_keys=False, allow_unicode=True)


def recipe_content(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain mappings, lists and numbers, every default written out."""
    content = recipe.model_dump(mode="json")
    automatic = {field: auto_text(ratio) for field, ratio in recipe.sel_from_data.items()}
    content["model"]["backbone"] = place_auto(content["model"]["backbone"], automatic)
    return content


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML or JSON file, or the name of a recipe that comes with the package (``dpa3_l6``).
        overrides: ``key=value`` with a dotted key and a YAML value, e.g. ``training.steps=100``; they win over the file.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; the message names the full key.
    """
    file = recipe_file(path)
    content = read_mapping(file)
    for override in overrides:
        set_key(content, override)
    return checked_recipe(content, str(file))


def checked_recipe(content: dict[str, Any], source: str) -> Recipe:
    """The recipe of some content.

    Raises:
        RecipeError: a key or value is wrong; the message names ``source`` and the full key.
    """
    content = completed(content, source)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise explain(error, Recipe, content, source) from None


def read_mapping(file: Path) -> dict[str, Any]:
    """What a YAML or JSON file holds; nothing in it is executed, and no key may occur twice.

    Raises:
        RecipeError: the file cannot be read or holds no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":  # YAML takes JSON's 1e-3 for a text
            content = json.loads(text, object_pairs_hook=_unique_pairs)
        else:
            content = yaml.load(text, Loader=_UniqueKeys)  # a SafeLoader: nothing is executed
    except _TwiceError as error:
        raise RecipeError(f"{file}: the key {error}: two tasks or settings of one name; rename or remove one.") from None
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        raise RecipeError(f"{file}: neither YAML nor JSON ({' '.join(str(error).split())}); correct that line.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read ({error}); give a text file.") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: a recipe is a mapping of keys to values, at least `tasks`; this file holds none.")
    return content


def recipe_file(path: str | Path) -> Path:
    """The file of a recipe: the path itself, or that of a recipe that comes with the package.

    Raises:
        RecipeError: there is no such file.
    """
    given = Path(path)
    if given.is_file():
        return given
    packaged = sorted(file.stem for file in _PACKAGED.glob("*.yaml"))
    if str(path) in packaged:
        return _PACKAGED / f"{path}.yaml"
    around = [item.name for item in given.parent.iterdir()] if given.parent.is_dir() else []
    near = nearest(given.name, [*around, *packaged])
    raise RecipeError(f"{path}: no such recipe file{near}; give a YAML file or one of {', '.join(packaged)}.")


def set_key(content: dict[str, Any], override: str) -> None:
    """Set one ``key=value``, its key dotted and its value YAML, in the nested mapping of a recipe.

    Raises:
        RecipeError: it is no setting.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"{override!r} is no setting; write key=value, for example training.steps=1000.")
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
    except _TwiceError as error:
        raise RecipeError(f"{override!r}: the key {error}; rename or remove one.") from None
    except yaml.YAMLError:
        raise RecipeError(f"{override!r}: the value is no YAML; quote it.") from None
    node = content
    for depth, part in enumerate(parts[:-1]):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise RecipeError(f"{override!r}: {'.'.join(parts[: depth + 1])} holds {node!r}, not keys; set it as a whole.")
        if depth == 0 and part == "tasks" and parts[1] not in node and len(parts) > 2:
            known = f"it has {', '.join(map(str, node))}; a new one is added" if node else "it has none; add one"
            near = nearest(parts[1], map(str, node))
            raise RecipeError(f"{override!r}: the recipe has no task {parts[1]!r}{near}; {known} in the file.")
    node[parts[-1]] = value


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of JSON, its keys seen once each."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"{twice!r} occurs twice")
    return content


class _TwiceError(yaml.YAMLError):
    """A key is given twice."""


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error: the parser would drop the first silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, its keys seen once each."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):  # others the parser refuses itself
            if key.value in seen:
                raise _TwiceError(f"{key.value!r} occurs twice (again on line {key.start_mark.line + 1})")
            seen.add(key.value)
        return super().construct_mapping(node, deep)
