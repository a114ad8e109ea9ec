"""lamella: large atomistic models (DeepPot-SE, DPA-1, DPA-2, DPA-3) trained, evaluated and run.

The public names are imported when they are first used, so that ``import lamella`` and ``lamella --help`` load neither torch
nor ASE.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella import datasets, errors
    from lamella.formats.load import load
    from lamella.use.calculator import Calculator
    from lamella.use.laws import check
    from lamella.use.predict import describe, predict

__version__ = "0.1.0"

__all__ = ["Calculator", "__version__", "check", "datasets", "describe", "errors", "load", "predict"]

_HOMES = {
    "Calculator": "lamella.use.calculator",
    "check": "lamella.use.laws",
    "describe": "lamella.use.predict",
    "load": "lamella.formats.load",
    "predict": "lamella.use.predict",
}
"""Module of each public name that is a function or class."""

_MODULES = ("datasets", "errors")
"""Public names that are modules."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"lamella.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lamella' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
