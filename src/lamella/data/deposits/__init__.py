"""Formats that published data sets lie in and that neither ASE nor dpdata reads, by the name that goes before a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lamella.data.deposits import alloys, matpes, molecules
from lamella.data.keys import ReadReport
from lamella.errors import DataError
from lamella.types import Frame

__all__ = ["READERS"]

READERS: Final[dict[str, Callable[[Path, ReadReport], Iterator[Frame | DataError]]]] = {
    "mlearn/json": alloys.iter_mlearn,
    "mlearn/json-zx": alloys.iter_mlearn_zx,
    "fitsnap/json": alloys.iter_fitsnap,
    "matpes/json": matpes.iter_matpes,
    "comp6/hdf5": molecules.iter_comp6,
    "ani1x/hdf5": molecules.iter_ani1x,
    "transition1x/hdf5": molecules.iter_transition1x,
    "spice/hdf5": molecules.iter_spice,
    "gdml/npz": molecules.iter_gdml,
}
"""Reader by format."""
