"""A suite: data sets with their weights, and the models that are compared on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lamella.data.keys import LabelKeys
from lamella.train.explain import explain
from lamella.train.paths import Paths
from lamella.train.recipe import read_mapping

__all__ = ["BASELINES", "Baseline", "PredictionsConfig", "SetConfig", "SuiteConfig", "load_suite"]

Baseline = Literal["refit", "keep"]

BASELINES: Final[dict[Baseline, str]] = {
    "refit": "energies per element refitted to the set by least squares, for every model alike (zero-shot)",
    "keep": "energies as the model gives them",
}
"""What happens to a model's energies before they are compared, in words."""


class SetConfig(BaseModel):
    """One row of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: Paths
    weight: float = Field(1.0, ge=0)
    """In the weighted averages."""
    domain: str = "all"
    """Group of sets that the normalised error averages first."""
    keys: LabelKeys = LabelKeys()
    baseline: Baseline = "refit"
    fit: Paths | None = None
    """Frames to which energies per element are refitted; null takes those of the set itself."""
    task: str | dict[str, str] | None = None
    """Task that answers: of every model that has it, or by model. Null takes the task of the set's name, or the only one."""


class PredictionsConfig(BaseModel):
    """A model that is known by its predictions alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    predictions: str
    """A file that holds the frames of a set in their order; ``{set}`` in it stands for the set's name."""
    keys: LabelKeys | None = None
    """Where its predictions are; null takes ``lamella_energy`` … where the file has them, else what reads as labels."""


class SuiteConfig(BaseModel):
    """Sets, and models where the suite names some."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sets: dict[str, SetConfig] = Field(min_length=1)
    models: dict[str, str | PredictionsConfig] = {}
    """By the name it has in the table; a text is read as on the command line."""


def load_suite(path: Path) -> SuiteConfig:
    """Read a suite from YAML or JSON.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; the message names it.
    """
    content: dict[str, Any] = read_mapping(path)
    try:
        return SuiteConfig.model_validate(content)
    except ValidationError as error:
        raise explain(error, SuiteConfig, content, str(path)) from None
