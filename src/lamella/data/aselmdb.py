"""``.aselmdb``: ASE's database in an LMDB file, of OMat24, sAlex and OMol25; the package ase-db-backends reads it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ase.db
from ase import Atoms

from lamella.data.refusal import unreadable
from lamella.errors import DataError

__all__ = ["SUFFIX", "iter_atoms"]

SUFFIX: Final = ".aselmdb"

_PACKAGE: Final = "ase_db_backends"


def iter_atoms(path: Path) -> Iterator[Atoms | DataError]:
    """Every row as Atoms, or the error that stands in its place.

    What a row has under ``data`` (OMol25's charge and spin, say) goes to ``info``, as fairchem does it. The
    file is opened for reading only, and one row is in memory at a time.

    Raises:
        DataError: the package is not installed, or the file is no such database.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise DataError(
            f"{path}: an ASE database in LMDB, which the package ase-db-backends reads; `pip install ase-db-backends`."
        )
    try:
        base = ase.db.connect(path, type="aselmdb", use_lock_file=False, readonly=True)
        ids = list(base.ids)
    except Exception as error:  # lmdb's own errors, and those of whatever the bytes decode to
        raise unreadable(str(path), "an ASE database in LMDB", error) from None
    try:
        for index, row_id in enumerate(ids):
            try:
                row = base.get(row_id)
                atoms = row.toatoms()
                atoms.info.update(row.data)
            except Exception as error:
                yield unreadable(f"{path}#{index}", "a row of an ASE database", error)
                continue
            yield atoms
    finally:
        base.close()
