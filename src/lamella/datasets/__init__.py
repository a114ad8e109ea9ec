"""Small labelled data sets that come with the package: water, molecules and a solid.

Every label was computed by ``scripts/label_datasets.py``; ``docs/datasets.md`` describes the sets.
"""

from __future__ import annotations

import copy
import functools
import json
import pathlib

from ase import Atoms
from ase.io import read

from lamella.errors import InputError, nearest

FILES = pathlib.Path(__file__).resolve().parent / "files"
SPLITS = ("train", "test")

__all__ = ["card", "load", "names", "path", "water_box"]


def names() -> tuple[str, ...]:
    """The names of the data sets."""
    return tuple(sorted(p.name.removesuffix(".extxyz.gz") for p in FILES.glob("*.extxyz.gz")))


def path(name: str) -> pathlib.Path:
    """The gzipped extended XYZ file of a data set."""
    known = names()
    if name not in known:
        raise InputError(f"There is no data set {name!r}{nearest(str(name), known)}; the names are {', '.join(known)}.")
    return FILES / f"{name}.extxyz.gz"


@functools.cache
def _frames(name: str) -> tuple[Atoms, ...]:
    return tuple(read(path(name), index=":", format="extxyz"))


def load(name: str, split: str | None = None) -> list[Atoms]:
    """The frames of a data set, with energy, forces and (periodic frames) stress as results.

    ``split`` is ``'train'``, ``'test'`` or ``None`` for both.  Each frame has ``info['split']`` and
    ``info['config_type']``.  Units: eV, eV/Angstrom, eV/Angstrom^3 (ASE's sign and Voigt order).
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"There is no split {split!r}: use 'train', 'test' or None.")
    chosen = [a for a in _frames(name) if split is None or a.info["split"] == split]
    return [_copy(a) for a in chosen]


def _copy(atoms: Atoms) -> Atoms:
    """A copy that keeps the labels (``Atoms.copy`` drops the calculator)."""
    out = atoms.copy()
    out.calc = type(atoms.calc)(out, **copy.deepcopy(atoms.calc.results))
    return out


def card(name: str) -> dict:
    """What a data set is: method, engine and versions, seeds, elements, frames, reference, checks."""
    return json.loads(path(name).with_name(f"{name}.json").read_text(encoding="utf-8"))


def water_box() -> Atoms:
    """A periodic box of liquid water near 300 K (48 atoms), to start molecular dynamics from.

    The last frame of the 300 K, 1 g/cm3 GFN2-xTB trajectory of ``water_gfn2``; it has no calculator
    and no velocities.
    """
    late = [a for a in _frames("water_gfn2") if a.info["config_type"] == "box_md_gfn2" and a.info["trajectory"] == 0]
    atoms = late[-1].copy()
    atoms.info = {}
    return atoms
