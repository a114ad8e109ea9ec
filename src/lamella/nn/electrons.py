"""Electronic configurations as vectors: what an element is described by where a model does not learn it from nothing.

Subshells in the order 1s 2s 2p 3s … 7p hold 59 spatial orbitals, two entries each: (-1, -1) empty, (-1, 1) one electron,
(1, 1) two; Hund's rule fills a subshell, Madelung's rule the subshells, but for the 21 elements of ``_EXCEPTIONS``.
Divided by √118, so that every vector has length 1. The form is deepmd-kit's (``use_econf_tebd``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ase.data import atomic_numbers
from torch import Tensor

__all__ = ["ELECTRON_WIDTH", "electron_vectors"]

_SUBSHELLS = tuple(f"{n}{letter}" for n in range(1, 8) for k, letter in enumerate("spdf") if k < n and n + k <= 8)
_FILLING = tuple(sorted(_SUBSHELLS, key=lambda name: (int(name[0]) + "spdf".index(name[1]), name[0])))
_ORBITALS = {"s": 1, "p": 3, "d": 5, "f": 7}
_EXCEPTIONS = {
    "Cr": {"4s": 1, "3d": 5},
    "Cu": {"4s": 1, "3d": 10},
    "Nb": {"5s": 1, "4d": 4},
    "Mo": {"5s": 1, "4d": 5},
    "Ru": {"5s": 1, "4d": 7},
    "Rh": {"5s": 1, "4d": 8},
    "Pd": {"5s": 0, "4d": 10},
    "Ag": {"5s": 1, "4d": 10},
    "La": {"4f": 0, "5d": 1},
    "Ce": {"4f": 1, "5d": 1},
    "Gd": {"4f": 7, "5d": 1},
    "Pt": {"6s": 1, "5d": 9},
    "Au": {"6s": 1, "5d": 10},
    "Ac": {"5f": 0, "6d": 1},
    "Th": {"5f": 0, "6d": 2},
    "Pa": {"5f": 2, "6d": 1},
    "U": {"5f": 3, "6d": 1},
    "Np": {"5f": 4, "6d": 1},
    "Cm": {"5f": 7, "6d": 1},
    "Ds": {"7s": 1, "6d": 9},
    "Rg": {"7s": 1, "6d": 10},
}

ELECTRON_WIDTH = 2 * sum(_ORBITALS[name[1]] for name in _SUBSHELLS)
"""Entries of a vector: 118."""


def electron_vectors(elements: Sequence[str]) -> Tensor:
    """One unit vector per element, (n, 118) float64, from its chemical symbol (H to Og)."""
    rows = [
        [entry for name in _SUBSHELLS for entry in _subshell(name, _electrons(symbol).get(name, 0))] for symbol in elements
    ]
    # on the CPU also where a model is built without memory, to read its weights into: these numbers are in no file
    vectors = torch.tensor(rows, dtype=torch.float64, device="cpu")
    return vectors.reshape(-1, ELECTRON_WIDTH) / math.sqrt(ELECTRON_WIDTH)


def _electrons(symbol: str) -> dict[str, int]:
    """Electrons in each subshell of the neutral atom."""
    left = atomic_numbers[symbol]
    found = {}
    for name in _FILLING:
        found[name] = min(left, 2 * _ORBITALS[name[1]])
        left -= found[name]
    return {**found, **_EXCEPTIONS.get(symbol, {})}


def _subshell(name: str, electrons: int) -> list[float]:
    """Pairs first, then single electrons, then empty orbitals."""
    orbitals = _ORBITALS[name[1]]
    pairs = max(0, electrons - orbitals)
    singles = electrons - 2 * pairs
    return [1.0, 1.0] * pairs + [-1.0, 1.0] * singles + [-1.0, -1.0] * (orbitals - pairs - singles)
