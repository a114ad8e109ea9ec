"""The one table of named quantities: who owns each, its shape, its unit and its sign.

Nothing in lamella guesses the meaning of an array from its shape or from a file's spelling: readers translate to these names
once, and every later part looks the owner up here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIELDS", "INPUTS", "LABELS", "QUANTITIES", "Field"]


@dataclass(frozen=True)
class Field:
    """One named quantity.

    Attributes:
        name: the only spelling used inside lamella.
        owner: ``"frame"`` (one value a frame) or ``"atom"`` (one value an atom).
        shape: shape of one value; -1 stands for any length, the same in all frames of a data set.
        unit: unit inside lamella.
        doc: meaning and sign.
    """

    name: str
    owner: Literal["frame", "atom"]
    shape: tuple[int, ...]
    unit: str
    doc: str


_OUTPUTS = (
    Field("energy", "frame", (), "eV", "Total energy of the frame."),
    Field("forces", "atom", (3,), "eV/Å", "F_i = -∂E/∂r_i."),
    Field("virial", "frame", (3, 3), "eV", "W = -∂E/∂ε for r -> r (1 + ε); equals -volume × stress. Symmetric."),
    Field("atom_energy", "atom", (), "eV", "Energy assigned to an atom; sums to the energy."),
)

_INPUTS = (
    Field("frame_params", "frame", (-1,), "", "Numbers given with the frame: an electronic temperature, …"),
    Field("charge", "frame", (), "e", "Total charge of the frame, a whole number."),
    Field("spin", "frame", (), "", "Spin state of the frame, a whole number, as the model was trained (most often 2S + 1)."),
)

FIELDS: dict[str, Field] = {field.name: field for field in _OUTPUTS}
"""Quantities that a model predicts, by name."""

INPUTS: dict[str, Field] = {field.name: field for field in _INPUTS}
"""Quantities of a frame that a model may read beside its geometry, by name. No loss is taken of them."""

QUANTITIES: dict[str, Field] = {**FIELDS, **INPUTS}
"""Everything that a frame may carry, by name."""

LABELS: tuple[str, ...] = ("energy", "forces", "virial")
"""Quantities that a loss can be taken of."""
