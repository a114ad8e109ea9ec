"""Formats of published sets: units, signs and orders, checked with texts from the sets themselves and against each other.

The texts are first frames of the published files; what they must give are the frames that were converted from the same
files independently, virial = -volume × stress in eV.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import Bohr, GPa, Hartree, kcal, mol

from lamella.data.keys import ReadReport
from lamella.data.read import iter_frames, iter_items
from lamella.errors import DataError
from lamella.types import Frame

# FitSNAP, Ta_Linear_JCP2014/JSON/Elastic_BCC/BCC_deformed_11.json
TANTALUM = """# A test JSON file for QM data
{"Dataset": {"Data": [{"Stress": [[3143.69, 1764.08, -3057.70], [1764.08, 4618.12, 2493.02], [-3057.70, 2493.02, 2546.3]],
"Positions": [[0.0, 0.0, 0.0], [1.6605, 1.6498, 1.6585]], "Energy": -23.68952, "AtomTypes": ["Ta", "Ta"],
"Lattice": [[3.31509995461, 0.0, 0.0], [-0.0077999997884, 3.31060004234, 0.0],
[0.0136000001803, -0.0110999997705, 3.31699991226]], "NumAtoms": 2,
"Forces": [[0.000443, 0.000443, -1e-06], [-0.000443, -0.000443, 1e-06]]}], "PositionsStyle": "angstrom",
"AtomTypeStyle": "chemicalsymbol", "Label": "one configuration", "StressStyle": "bar", "LatticeStyle": "angstrom",
"EnergyStyle": "electronvolt", "ForcesStyle": "electronvoltperangstrom"}}"""

# materialsvirtuallab/snap, NbMoTaW/training/W_Elastic.json: strain xy and strain yz of the same size
SHEARED = [
    ([[3.202874, 0, 0], [-0.285943, 3.17714, 0], [0, 0, 3.189981]], [-9.05268, 26.04943, 23.58402, 128.33699, 0, 0]),
    ([[3.189981, 0, 0], [0, 3.189981, -0.318998], [0, 0, 3.189981]], [28.87677, 18.33829, 3.81849, 0, 144.55262, 0]),
    ([[3.189981, 0, 0.287098], [0, 3.189981, 0], [0, 0, 3.189981]], [14.144, 23.58391, 2.85277, 0, 0, -129.40816]),
]


def tungsten(key: str = "stress") -> list[dict[str, object]]:
    frames = []
    for lattice, stress in SHEARED:
        middle = (np.sum(lattice, axis=0) / 2).tolist()
        sites = [{"species": [{"element": "W", "occu": 1}], "xyz": xyz} for xyz in ([0.0, 0.0, 0.0], middle)]
        outputs = {"energy": -25.8, "forces": [[0.0] * 3] * 2, key: stress}
        frames.append({"structure": {"lattice": {"matrix": lattice}, "sites": sites}, "outputs": outputs})
    return frames


def frames(format: str, path: Path | str, report: ReadReport | None = None) -> list[Frame]:
    return list(iter_frames(f"{format}:{path}", report=report))


def test_fitsnap_file_gives_the_frame_that_was_converted_from_it(tmp_path):
    (tmp_path / "a.json").write_text(TANTALUM)
    report = ReadReport()
    (frame,) = frames("fitsnap/json", tmp_path / "a.json", report)
    assert frame.numbers.tolist() == [73, 73]
    assert float(frame.labels["energy"]) == -23.68952
    assert frame.cell[1, 0] == -0.0077999997884, "rows are vectors"
    volume = np.linalg.det(frame.cell)
    np.testing.assert_allclose(frame.labels["virial"][0] / volume, [0.00196213, 0.00110106, -0.00190847], rtol=1e-4)
    assert frame.pbc.all()
    assert report.used["virial", "Stress"] == 1


def test_fitsnap_folder_is_read_in_order(tmp_path):
    for name in ("b/2.json", "a/1.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(TANTALUM)
    assert [frame.source.removeprefix(str(tmp_path)) for frame in frames("fitsnap/json", tmp_path)] == [
        "/a/1.json#0",
        "/b/2.json#0",
    ]


@pytest.mark.parametrize("key", ["stress", "virial_stress"])
def test_mlearn_stress_has_the_sign_and_order_of_its_strain(tmp_path, key):
    (tmp_path / "w.json").write_text(json.dumps(tungsten(key)))
    sheared = frames("mlearn/json", tmp_path / "w.json")
    for frame, (row, column) in zip(sheared, [(0, 1), (1, 2), (2, 0)], strict=True):
        strain = np.linalg.solve(np.eye(3) * 3.189981, frame.cell) - np.eye(3)
        shear = (strain + strain.T)[row, column]
        off = np.abs(frame.labels["virial"] - np.diag(np.diag(frame.labels["virial"])))
        assert off.argmax() in (3 * row + column, 3 * column + row), "the component that is strained is the one stressed"
        # W = -dE/dstrain: a crystal resists, so virial and strain have opposite signs
        assert frame.labels["virial"][row, column] * shear < 0.0
        assert abs(frame.labels["virial"][row, column]) == pytest.approx(2.6, rel=0.15)


def test_swapped_order_of_two_elements_is_undone(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(tungsten()))
    usual = frames("mlearn/json", tmp_path / "w.json")[1].labels["virial"]
    swapped = frames("mlearn/json-zx", tmp_path / "w.json")[1].labels["virial"]
    assert usual[1, 2] == swapped[2, 0] == swapped[0, 2]
    assert usual[0, 2] == swapped[1, 2] == 0.0


def write_hdf5(path: Path, groups: dict[str, dict[str, object]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, arrays in groups.items():
            for key, value in arrays.items():
                file.create_dataset(f"{name}/{key}", data=value)
    return path


NUMBERS = np.array([8, 1, 1])
PLACES = np.random.default_rng(0).normal(size=(2, 3, 3))
ENERGY = np.array([-76.0, -75.5])
FORCES = np.random.default_rng(1).normal(size=(2, 3, 3))

LAYOUTS = {
    "ani1x/hdf5": {"atomic_numbers": NUMBERS, "coordinates": PLACES, "wb97x_dz.energy": ENERGY / Hartree,
                   "wb97x_dz.forces": FORCES / Hartree},
    "comp6/hdf5": {"species": np.array([b"O", b"H", b"H"]), "coordinates": PLACES, "energies": ENERGY / Hartree,
                   "forces": -FORCES / Hartree},
    "transition1x/hdf5": {"atomic_numbers": NUMBERS, "positions": PLACES, "wB97x_6-31G(d).energy": ENERGY,
                          "wB97x_6-31G(d).forces": FORCES},
    "spice/hdf5": {"atomic_numbers": NUMBERS, "conformations": PLACES / Bohr, "dft_total_energy": ENERGY / Hartree,
                   "dft_total_gradient": -FORCES * Bohr / Hartree},
}  # fmt: skip
"""One molecule as each set stores it."""


@pytest.mark.parametrize("format", LAYOUTS)
def test_every_layout_gives_the_same_frames(tmp_path, format):
    found = frames(format, write_hdf5(tmp_path / "set.h5", {"deep/H2O": LAYOUTS[format]}))
    assert len(found) == 2
    for row, frame in enumerate(found):
        assert frame.numbers.tolist() == [8, 1, 1]
        np.testing.assert_allclose(frame.positions, PLACES[row], rtol=1e-14)
        np.testing.assert_allclose(frame.labels["energy"], ENERGY[row], rtol=1e-14)
        np.testing.assert_allclose(frame.labels["forces"], FORCES[row], rtol=1e-14)
        assert not frame.cell.any()
        assert not frame.pbc.any()
        assert frame.source.endswith(f"#/deep/H2O#{row}")


@pytest.mark.parametrize("names", [("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces")])
def test_md17_files_old_and_revised_give_the_same_frames(tmp_path, names):
    unit = kcal / mol
    energy = ENERGY[:, None] if names[0] == "z" else ENERGY
    np.savez(tmp_path / "a.npz", **dict(zip(names, (NUMBERS, PLACES, energy / unit, FORCES / unit), strict=True)))
    found = frames("gdml/npz", tmp_path / "a.npz")
    np.testing.assert_allclose([frame.labels["energy"] for frame in found], ENERGY, rtol=1e-14)
    np.testing.assert_allclose([frame.labels["forces"] for frame in found], FORCES, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "unit", "right"), [("e_unit", "eV", False), ("r_unit", "bohr", False), ("e_unit", b"kcal/mol", True)]
)
def test_md17_file_in_another_unit_is_refused(tmp_path, name, unit, right):
    np.savez(tmp_path / "a.npz", z=NUMBERS, R=PLACES, E=ENERGY, F=FORCES, **{name: unit})
    if right:
        assert len(frames("gdml/npz", tmp_path / "a.npz")) == 2
        return
    with pytest.raises(DataError, match=f"are in {unit!r}"):
        frames("gdml/npz", tmp_path / "a.npz")


def test_label_that_was_not_computed_is_absent_and_counted(tmp_path):
    layout = dict(LAYOUTS["ani1x/hdf5"]) | {"wb97x_dz.forces": np.full_like(FORCES, np.nan)}
    report = ReadReport()
    found = frames("ani1x/hdf5", write_hdf5(tmp_path / "a.h5", {"H2O": layout}), report)
    assert set(found[0].labels) == {"energy"}
    assert report.ignored["wb97x_dz.forces", "NaN, so not computed"] == 2


def test_transition1x_is_not_read_twice_and_its_splits_have_names(tmp_path):
    layout = LAYOUTS["transition1x/hdf5"]
    groups = {"data/H2O/rxn0": layout, "train/H2O/rxn0": layout, "data/H2O/rxn1": layout, "test/H2O/rxn1": layout}
    groups["data/H2O/rxn0/product"] = layout
    path = write_hdf5(tmp_path / "t.h5", groups)
    assert len(frames("transition1x/hdf5", path)) == 4
    assert len(frames("transition1x/hdf5", f"{path}#/train")) == 2
    with pytest.raises(DataError, match="no group '/valid'; it has data, test, train"):
        frames("transition1x/hdf5", f"{path}#/valid")


@pytest.mark.parametrize("format", ["fitsnap/json", "mlearn/json", "ani1x/hdf5", "gdml/npz"])
@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2]", b'{"Dataset": 3}', b"\x89HDF\r\n\x1a\n", b"PK\x03\x04 cut"])
def test_damaged_file_is_refused_by_name(tmp_path, format, text):
    (tmp_path / "bad.bin").write_bytes(text)
    with pytest.raises(DataError, match=r"bad\.bin.*(cannot be read as|no frames)"):
        frames(format, tmp_path / "bad.bin")


def test_wrong_frame_is_refused_by_its_number(tmp_path):
    broken = tungsten()
    broken[1]["outputs"]["stress"] = [1.0]
    (tmp_path / "w.json").write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"w\.json#1: cannot be read as mlearn's JSON"):
        frames("mlearn/json", tmp_path / "w.json")


def matpes_record(stress: list[float] | None) -> dict[str, object]:
    """A record as MatPES has it, without what is not read."""
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "xyz": xyz, "properties": {"magmom": 0.1}}
        for symbol, xyz in (("Sr", [0.0, 0.0, 0.0]), ("Cd", [2.0, 2.1, 2.2]))
    ]
    lattice = {"matrix": [[4.0, 0.0, 0.0], [0.1, 4.2, 0.0], [0.0, 0.2, 4.1]], "pbc": [True] * 3}
    forces = [[0.28, 0.39, 0.28], [-0.28, -0.39, -0.28]]
    structure = {"@module": "pymatgen.core.structure", "lattice": lattice, "sites": sites}
    return {"structure": structure, "energy": -34.92810022, "forces": forces, "stress": stress, "ddec6": None}


SIX = [-3.70051569, 45.57452896, -9.58430813, -0.80624803, 30.26332391, -29.08163294]


def test_matpes_stress_is_kbar_under_compression_in_voigt_order(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([matpes_record(SIX), matpes_record(None)]))
    report = ReadReport()
    first, second = frames("matpes/json", tmp_path / "m.json", report)
    # their tutorial: -0.1 times the number is GPa, in ASE's sign and order
    stress_ase = voigt_6_to_full_3x3_stress(np.array(SIX) * -0.1 * GPa)
    np.testing.assert_allclose(first.labels["virial"], -np.linalg.det(first.cell) * stress_ase, rtol=1e-12)
    assert first.numbers.tolist() == [38, 48]
    assert float(first.labels["energy"]) == -34.92810022
    assert "virial" not in second.labels
    assert (report.used["energy", "energy"], report.used["virial", "stress"]) == (2, 1)


@pytest.mark.parametrize("form", ["list", "lines", "gzip"])
def test_matpes_records_are_read_one_by_one(tmp_path, monkeypatch, form):
    monkeypatch.setattr("lamella.data.deposits.matpes._CHUNK", 100)  # less than a record
    records = [matpes_record(SIX) | {"energy": -1.0 - index} for index in range(5)]
    text = "\n".join(map(json.dumps, records)) + "\n" if form == "lines" else json.dumps(records, indent=1)
    file = tmp_path / ("m.json.gz" if form == "gzip" else "m.json")
    file.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode())
    assert [float(frame.labels["energy"]) for frame in frames("matpes/json", file)] == [-1, -2, -3, -4, -5]
    items = iter_frames(f"matpes/json:{tmp_path / 'cut.json'}")
    (tmp_path / "cut.json").write_text(json.dumps(records)[:-40])
    assert [float(next(items).labels["energy"]) for _ in range(4)] == [-1, -2, -3, -4]
    with pytest.raises(DataError, match="cut short"):
        next(items)


def test_damage_in_the_middle_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("lamella.data.deposits.matpes._LONGEST", 5000)
    text = json.dumps([matpes_record(SIX)] * 20)
    (tmp_path / "m.json").write_text(text.replace(": [", ": ]", 1))
    with pytest.raises(DataError, match=r"m\.json: cannot be read as MatPES's JSON"):
        frames("matpes/json", tmp_path / "m.json")


def test_matpes_record_that_is_wrong_is_named(tmp_path):
    wrong = matpes_record([1.0] * 3)
    (tmp_path / "m.json").write_text(json.dumps([matpes_record(SIX), wrong, {"energy": 1.0}]))
    items = list(iter_items(f"matpes/json:{tmp_path / 'm.json'}", None, None, ReadReport()))
    assert [type(item) for item in items] == [Frame, DataError, DataError]
    assert "m.json#1: stress" in str(items[1])
    assert "m.json#2" in str(items[2])
