"""Inputs that structures carry and a model does not read: said once, so that nobody believes they were heeded."""

from __future__ import annotations

import warnings

from lamella.fields import INPUTS
from lamella.types import Frame, GraphSpec

__all__ = ["warn_of_ignored_inputs"]

_NEUTRAL = {"charge": (0.0,), "spin": (0.0, 1.0)}
"""Values that say nothing special: a neutral frame, a closed shell counted as 2S or as 2S + 1."""


def warn_of_ignored_inputs(frame: Frame, spec: GraphSpec, said: set[str]) -> None:
    """Warn of charge, spin or parameters of a frame that the model does not read; not of a neutral closed shell.

    Args:
        frame: any structure.
        spec: what the model reads.
        said: names warned of before; those warned of now are added.
    """
    if not frame.labels:
        return
    read = {wanted.name for wanted in spec.inputs}
    for name in INPUTS:
        if name in frame.labels and name not in read and name not in said and not _neutral(frame, name):
            said.add(name)
            warnings.warn(
                f"{frame.source} carries {name}, which the model does not read: energies and forces do not depend on it.",
                stacklevel=3,
            )


def _neutral(frame: Frame, name: str) -> bool:
    return name in _NEUTRAL and float(frame.labels[name]) in _NEUTRAL[name]
