"""Settings of an atlas."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["AtlasConfig", "Color", "Method", "Representation"]

Method = Literal["tsne", "pca"]
"""Keys of :data:`lamella.use.atlas.maps.METHODS`."""

Representation = Literal["features", "update"]
"""What stands for an atom: what the head reads, or what the last layer changed of it (Fig. 5 of the DPA-2 paper)."""

Color = Literal["element", "group", "period", "task", "coordination", "distance", "energy", "force", "force-error"]
"""Keys of :attr:`lamella.use.atlas.atlas.Atlas.traits`; the last three need predictions."""


class AtlasConfig(BaseModel):
    """Which atoms, which representation of them, how it is laid out and coloured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[Method, ...] = Field(("tsne", "pca"), min_length=1)
    colors: tuple[Color, ...] = ()
    """Of the picture, a column each. ``task`` is the data set that an atom is from. Where none is named: element, group,
    task, each where it differs among the atoms and says more than the one before, and distance."""
    representation: Representation = "features"
    atoms: int = Field(2000, ge=2)
    """At most so many, the same number of every element where there are as many."""
    structures: int = Field(400, ge=1)
    """The atoms are of about so many structures, of more where an element is rare in each."""
    elements: tuple[str, ...] = ()
    """Only atoms of these; of all where none is named."""
    distance_from: tuple[str, ...] = ()
    """``distance`` is to the nearest other atom of these elements; of any element where none is named."""
    task: str | None = None
    """Which task predicts energies and forces of a data set that has not the name of a task itself."""
    perplexity: float = Field(30.0, gt=1, allow_inf_nan=False)
    """Of t-SNE: about how many neighbours each atom is to stay close to."""
    neighbors: int = Field(10, ge=1)
    """k of the k nearest neighbours that separation is measured by."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the choice of atoms and of t-SNE."""

    @field_validator("elements", "distance_from")
    @classmethod
    def _symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from ase.data import chemical_symbols  # here, so that `lamella --help` needs no ASE

        for symbol in value:
            if symbol not in chemical_symbols[1:]:
                raise ValueError(f"{symbol!r} is no chemical symbol")
        return value

    @field_validator("methods", "colors")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))
