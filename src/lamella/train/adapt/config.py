"""The part of a recipe that says which model training starts from, and what of it may change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lamella.train.paths import Paths, absolute

__all__ = ["BEST", "RANDOM", "LowRankConfig", "StartConfig"]

BEST: Final = "best"
RANDOM: Final = "random"

Freeze = Annotated[int, Field(ge=0)] | Literal["backbone"]


def _model(path: str) -> str:
    """What lies on disk by its absolute path, since the saved recipe is read again from elsewhere; a name stays a name."""
    return absolute(path) if Path(path).expanduser().exists() else path


class LowRankConfig(BaseModel):
    """Low-rank updates in place of whole matrices (:class:`lamella.nn.low_rank.LowRank`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(8, ge=1, le=4096)
    """r; a matrix with a side no longer than this stays frozen."""
    alpha: float = Field(8.0, gt=0)
    """α; the update is scaled by α/r."""
    matrices: tuple[str, ...] = Field(("backbone.*",), min_length=1)
    """Patterns (``*``, ``?``) of names of matrices that get one, such as ``backbone.layers.0.node_self.weight``."""


class StartConfig(BaseModel):
    """The model that training starts from.

    Tasks of the recipe that the model has go on with their head. Others are new: they get the head that ``head`` names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Annotated[str, AfterValidator(_model)]
    """A run or step folder, a deepmd-kit file, or the name of a published model."""
    head: str = BEST
    """Where the head of a new task comes from: a task of the model; ``best``, the one with the lowest error on the training
    frames once its energies per element are refitted; or ``random``."""
    only: bool = False
    """Leave out tasks of the model that the recipe does not name; otherwise their heads stay as they are."""
    add_elements: tuple[str, ...] = ()
    """Chemical symbols that the model does not know yet."""
    freeze: Freeze | None = None
    """``backbone`` trains heads alone; a number n freezes what comes before layer n + 1 of the backbone; null nothing."""
    lora: LowRankConfig | None = None
    """Train the backbone by low-rank updates alone, folded into its matrices in whatever is saved."""
    frames: int = Field(256, ge=1)
    """Errors before step 0 are taken, and heads ranked, on at most so many training frames."""
    sources: dict[str, Paths] = {}
    """Frames by task of the model, on which the report on forgetting measures what became of it."""
    allow_jump: bool = False
    """Start although errors before step 0 are above zero-shot."""
