"""The shipped data sets: complete, consistent, small, and loaded as ASE reads them."""

import json

import numpy as np
import pytest
from ase import Atoms

from lamella import datasets
from lamella.errors import InputError

NAMES = ("lif_gfn1", "molecules_gfn2", "molecules_pbe", "water_gfn2")


def geometry(atoms):
    return atoms.numbers.tobytes(), np.round(atoms.positions, 4).tobytes(), np.round(atoms.cell.array, 4).tobytes()


def test_names_and_size():
    assert datasets.names() == NAMES
    assert sum(p.stat().st_size for p in datasets.FILES.iterdir()) < 5e6


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_finite_and_forces_balance(name):
    for atoms in datasets.load(name):
        assert np.isfinite(atoms.get_potential_energy())
        assert np.isfinite(atoms.positions).all()
        forces = atoms.get_forces()
        assert forces.shape == (len(atoms), 3)
        assert np.abs(forces).max() < 100
        assert np.abs(forces.sum(axis=0)).max() < 1e-6 * len(atoms) + 1e-5
        if atoms.pbc.all():
            assert np.isfinite(atoms.get_stress()).all()
        else:
            assert not atoms.pbc.any()
            assert "stress" not in atoms.calc.results


@pytest.mark.parametrize("name", NAMES)
def test_splits(name):
    train, test = datasets.load(name, "train"), datasets.load(name, "test")
    assert len(train) + len(test) == len(datasets.load(name))
    assert len(train) > len(test) > 0
    assert all(a.info["split"] == "train" and a.info["config_type"] for a in train)
    assert all(a.info["split"] == "test" and a.info["config_type"] for a in test)
    seen = {geometry(a) for a in train}
    assert len(seen) == len(train)
    assert seen.isdisjoint({geometry(a) for a in test})
    assert {s for a in test for s in a.symbols} == {s for a in train for s in a.symbols}


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    card = datasets.card(name)
    frames = datasets.load(name)
    assert card["name"] == name
    for key in ("method", "engine", "engine_version", "description", "reference", "licence"):
        assert isinstance(card[key], str)
        assert card[key]
    assert set(card["versions"]) >= {"tblite", "pyscf", "ase", "numpy", "python"}
    assert card["frames"] == {s: len(datasets.load(name, s)) for s in ("train", "test")}
    assert card["elements"] == sorted({s for a in frames for s in a.get_chemical_symbols()})
    assert len(set(card["seeds"])) == len(card["seeds"]) == len(card["parameters"])
    forces = np.concatenate([a.get_forces().ravel() for a in datasets.load(name, "test")])
    assert card["statistics"]["test"]["force_std"] == pytest.approx(forces.std(), abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_forces_match_the_finite_differences_of_the_engine(name):
    """The numbers in the card were measured by the labelling script with the engine itself."""
    check = datasets.card(name)["checks"]["forces"]
    assert check["largest_difference"] < 1e-3
    assert np.abs(check["forces"]).max() > 0.01


@pytest.mark.parametrize("name", ["water_gfn2", "lif_gfn1"])
def test_stress_matches_the_finite_strain_of_the_engine(name):
    """Sign and order: the measured strain derivatives are those of the first test frame's label."""
    check = datasets.card(name)["checks"]["stress"]
    frame = datasets.load(name, "test")[0]
    measured = np.array(check["finite_difference"])
    assert np.abs(frame.get_stress() - measured).max() < 0.02 * np.abs(measured).max()
    assert (np.sign(frame.get_stress()) == np.sign(measured)).all()


def test_compressed_frames_push_outwards():
    """ASE's sign: a compressed cell has a more negative mean stress than an expanded one."""
    frames = datasets.load("lif_gfn1")
    volume = np.array([a.get_volume() / len(a) for a in frames])
    mean = np.array([a.get_stress()[:3].mean() for a in frames])
    assert np.corrcoef(volume, mean)[0, 1] > 0.3


def test_both_molecule_sets_hold_the_same_geometries():
    gfn2, pbe = datasets.load("molecules_gfn2"), datasets.load("molecules_pbe")
    assert len(gfn2) == len(pbe)
    for a, b in zip(gfn2, pbe, strict=True):
        assert (a.numbers == b.numbers).all()
        assert np.array_equal(a.positions, b.positions)
        assert a.info == b.info
        assert abs(a.get_potential_energy() - b.get_potential_energy()) > 1
        assert np.abs(a.get_forces() - b.get_forces()).max() > 1e-3


def test_water_box():
    box = datasets.water_box()
    assert isinstance(box, Atoms)
    assert box.calc is None
    assert len(box) <= 64
    assert box.pbc.all()
    assert box.get_chemical_formula(mode="reduce").count("O") == len(box) // 3
    distances = box.get_all_distances(mic=True)
    oxygen = box.numbers == 8
    bonded = distances[np.ix_(oxygen, ~oxygen)] < 1.25
    assert (bonded.sum(axis=1) == 2).all()


def test_frames_are_independent_copies():
    first = datasets.load("lif_gfn1")[0]
    energy = first.get_potential_energy()
    first.positions += 1
    first.info["split"] = "changed"
    again = datasets.load("lif_gfn1")[0]
    assert again.get_potential_energy() == energy
    assert again.info["split"] in ("train", "test")
    assert not np.allclose(first.positions, again.positions)


def test_errors_name_the_choices():
    with pytest.raises(InputError, match=r"'water_gfn2'.*molecules_pbe"):
        datasets.load("water_gfn3")
    with pytest.raises(InputError, match="train"):
        datasets.load("lif_gfn1", "validation")
    with pytest.raises(InputError, match="lif_gfn1"):
        datasets.card("nothing like it")


def test_cards_are_plain_json():
    for name in NAMES:
        assert json.loads(json.dumps(datasets.card(name))) == datasets.card(name)
