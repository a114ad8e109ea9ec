"""``.aselmdb`` files: rows as frames, whatever a row's ``data`` says of charge and spin, and what is wrong by its row."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.jsondb import JSONDatabase

from lamella.data.keys import ReadReport
from lamella.data.read import iter_frames, iter_items
from lamella.errors import DataError

INSTALLED = importlib.util.find_spec("ase_db_backends") is not None


class StandIn(JSONDatabase):
    """ASE's JSON database under the name and with the two things of the package that lamella uses beyond ASE's interface."""

    def __init__(self, filename: Any, use_lock_file: bool = True, readonly: bool = False) -> None:
        super().__init__(str(filename), use_lock_file=use_lock_file, serial=True)
        self.ids = [row.id for row in self.select()] if Path(filename).exists() else []

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(params=["package", "stand-in"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "package":
        pytest.importorskip("ase_db_backends", reason="needs the package ase-db-backends")
        return str(request.param)
    package, module = types.ModuleType("ase_db_backends"), types.ModuleType("ase_db_backends.aselmdb")
    package.__spec__ = importlib.util.spec_from_loader("ase_db_backends", None)
    module.LMDBDatabase = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ase_db_backends", package)
    monkeypatch.setitem(sys.modules, "ase_db_backends.aselmdb", module)
    return str(request.param)


def written(path: Path) -> Path:
    """A crystal with a stress, and an ion with charge and spin in its ``data`` as OMol25 has them."""
    copper, ion = bulk("Cu", cubic=True), molecule("OH")
    copper.calc = SinglePointCalculator(copper, energy=-1.5, forces=np.ones((4, 3)), stress=np.arange(6.0) / 1000)
    ion.calc = SinglePointCalculator(ion, energy=-75.0, forces=np.zeros((2, 3)))
    base = ase.db.connect(path, type="aselmdb", use_lock_file=False)
    base.write(copper)
    base.write(ion, data={"charge": -1, "spin": 1, "source": "somewhere", "homo_energy": [-3.0]})
    base.close()
    return path


def test_rows_are_frames_with_their_labels_and_inputs(reader: str, tmp_path: Path) -> None:
    path = written(tmp_path / "val.aselmdb")
    before = sorted(tmp_path.iterdir())
    copper, ion = iter_frames(path)
    assert float(copper.labels["energy"]) == -1.5
    expected = -np.linalg.det(copper.cell) * np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]]) / 1000
    np.testing.assert_allclose(copper.labels["virial"], expected, rtol=1e-12)
    assert (float(ion.labels["charge"]), float(ion.labels["spin"])) == (-1.0, 1.0)
    assert ion.source == f"{path}#1"
    assert sorted(tmp_path.iterdir()) == before, "reading writes nothing"


def test_row_that_cannot_be_read_is_named_and_reading_goes_on(reader: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = written(tmp_path / "val.aselmdb")
    database = importlib.import_module("ase_db_backends.aselmdb").LMDBDatabase
    intact = database.get
    monkeypatch.setattr(database, "get", lambda base, row: intact(base, row if row > 1 else 99))
    first, second = iter_items(path, None, None, ReadReport())
    assert isinstance(first, DataError)
    assert "val.aselmdb#0" in str(first)
    assert not isinstance(second, DataError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the package, of a file it could not open
def test_other_bytes_are_refused(reader: str, tmp_path: Path) -> None:
    (tmp_path / "val.aselmdb").write_bytes(b"{" * 9000)
    with pytest.raises(DataError, match=r"val.aselmdb: cannot be read as an ASE database in LMDB"):
        list(iter_frames(tmp_path / "val.aselmdb"))


@pytest.mark.skipif(INSTALLED, reason="the package is installed")
def test_without_the_package_the_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "val.aselmdb").write_bytes(b"anything")
    with pytest.raises(DataError, match="pip install ase-db-backends"):
        list(iter_frames(tmp_path / "val.aselmdb"))
