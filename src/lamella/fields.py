"""The one table of named quantities: who owns each, its shape, its unit and its sign.

Nothing in lamella guesses the meaning of an array from its shape or from a file's spelling: readers translate to these names
once, and every later part looks the owner up here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIELDS", "LABELS", "Field"]


@dataclass(frozen=True)
class Field:
    """One named quantity.

    Attributes:
        name: the only spelling used inside lamella.
        owner: ``"frame"`` (one value a frame) or ``"atom"`` (one value an atom).
        shape: shape of one value.
        unit: unit inside lamella.
        doc: meaning and sign.
    """

    name: str
    owner: Literal["frame", "atom"]
    shape: tuple[int, ...]
    unit: str
    doc: str


_TABLE = (
    Field("energy", "frame", (), "eV", "Total energy of the frame."),
    Field("forces", "atom", (3,), "eV/Å", "F_i = -∂E/∂r_i."),
    Field("virial", "frame", (3, 3), "eV", "W = -∂E/∂ε for r -> r (1 + ε); equals -volume × stress. Symmetric."),
    Field("atom_energy", "atom", (), "eV", "Energy assigned to an atom; sums to the energy."),
)

FIELDS: dict[str, Field] = {field.name: field for field in _TABLE}
"""Field by name."""

LABELS: tuple[str, ...] = ("energy", "forces", "virial")
"""Quantities that a loss can be taken of."""
