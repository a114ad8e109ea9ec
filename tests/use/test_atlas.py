"""Maps of representations: which atoms, laid out how, coloured by what, separated how well."""

from __future__ import annotations

import copy
import importlib.util
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers, chemical_symbols
from pydantic import ValidationError

import lamella
from golden_models import GOLDEN
from lamella.data.convert import frame_from_atoms
from lamella.data.source import FrameList
from lamella.errors import DataError, InputError, StructureError
from lamella.use.atlas import sample as sampling
from lamella.use.atlas.atlas import build_atlas
from lamella.use.atlas.config import AtlasConfig
from lamella.use.atlas.maps import pca, tsne
from lamella.use.atlas.representation import last_update, represent
from lamella.use.atlas.sample import Sample, sample_atoms
from lamella.use.atlas.separation import nearest, purity, r_squared, separations
from lamella.use.atlas.table import heading, lines, summary
from lamella.use.atlas.traits import Trait, group, period, predicted, static
from lamella.use.atlas.write import FILES, write_atlas
from use.small import dimer, labelled, small_model, water_box

PCA = AtlasConfig(methods=("pca",))


def frames(structures: list[Atoms], name: str = "set") -> FrameList:
    return FrameList(frame_from_atoms(atoms, source=f"{name}#{index}") for index, atoms in enumerate(structures))


def waters(count: int, seed: int = 0) -> list[Atoms]:
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.08 * rng.normal(size=(3, 3))
        made.append(atoms)
    return made


def whole(structures: list[Atoms], tasks: list[str] | None = None) -> Sample:
    """A sample of every atom."""
    listed = list(frames(structures))
    owner = np.repeat(np.arange(len(listed)), [len(frame) for frame in listed])
    atom = np.concatenate([np.arange(len(frame)) for frame in listed])
    return Sample(listed, tasks or ["set"] * len(listed), owner, atom, {}, len(listed), len(listed))


# the periodic table


def test_groups_and_periods_are_those_of_the_periodic_table():
    columns = {
        1: "H Li Na K Rb Cs Fr",
        2: "Be Mg Ca Sr Ba Ra",
        3: "Sc Y Lu Lr",
        4: "Ti Zr Hf",
        8: "Fe Ru Os",
        11: "Cu Ag Au",
        12: "Zn Cd Hg",
        13: "B Al Ga In Tl",
        17: "F Cl Br I At",
        18: "He Ne Ar Kr Xe Rn",
        0: "La Ce Eu Yb Ac U No",
    }
    for column, symbols in columns.items():
        for row, symbol in enumerate(symbols.split()):
            assert group(atomic_numbers[symbol]) == column, symbol
            if column in (1, 13, 17, 18):
                assert period(atomic_numbers[symbol]) == row + 1 + (column in (13, 17))


# which atoms


def test_atoms_are_shared_evenly_over_elements_and_data_sets():
    data = {"boxes": frames([water_box(2, seed) for seed in range(4)]), "pairs": frames([dimer() for _ in range(30)])}
    chosen = sample_atoms(data, AtlasConfig(atoms=80))
    counts = {(s, t): int(((chosen.symbols == s) & (chosen.task == t)).sum()) for s in "HO" for t in data}
    assert counts == {("H", "boxes"): 20, ("H", "pairs"): 20, ("O", "boxes"): 20, ("O", "pairs"): 20}
    assert chosen.available == {"H": 4 * 16 + 120, "O": 4 * 8 + 60}


def test_what_a_rare_element_cannot_give_others_do():
    salty = water_box(2)
    salty += Atoms("Na", positions=[(1.6, 1.6, 1.6)])
    chosen = sample_atoms({"salt": frames([salty])}, AtlasConfig(atoms=15))
    assert sorted(chosen.symbols.tolist()) == ["H"] * 7 + ["Na"] + ["O"] * 7
    assert len({(f, a) for f, a in zip(chosen.frame.tolist(), chosen.atom.tolist(), strict=True)}) == 15


def test_the_same_seed_chooses_the_same_atoms_and_another_does_not():
    data = {"pairs": frames([dimer() for _ in range(40)])}
    first, again, other = (sample_atoms(data, AtlasConfig(atoms=30, seed=seed)) for seed in (1, 1, 2))
    assert [f.source for f in first.frames] == [f.source for f in again.frames]
    assert np.array_equal(first.atom, again.atom)
    assert [f.source for f in first.frames] != [f.source for f in other.frames] or not np.array_equal(first.atom, other.atom)


def test_few_structures_are_described_where_they_have_enough_atoms():
    data = {"boxes": frames([water_box(2, seed % 3) for seed in range(60)])}
    chosen = sample_atoms(data, AtlasConfig(atoms=40, structures=4))
    assert len(chosen) == 40
    assert len(chosen.frames) <= 6  # two elements, each of about two structures


def test_no_more_frames_are_looked_at_than_memory_allows(monkeypatch):
    class Counting(FrameList):
        def __getitem__(self, index):
            seen.add(index)
            return super().__getitem__(index)

    seen: set[int] = set()
    monkeypatch.setattr(sampling, "SCANNED", 50)
    data = Counting(frame_from_atoms(atoms) for atoms in waters(300))
    chosen = sample_atoms({"many": data}, AtlasConfig(atoms=20, structures=10))
    assert (chosen.scanned, chosen.total, len(seen)) == (50, 300, 50)


def test_only_wanted_elements_are_shown():
    chosen = sample_atoms({"pairs": frames([dimer()])}, AtlasConfig(elements=("O",)))
    assert set(chosen.symbols) == {"O"}
    with pytest.raises(DataError, match="no atoms of Al"):
        sample_atoms({"pairs": frames([dimer()])}, AtlasConfig(elements=("Al",)))


@pytest.mark.parametrize("field", ["elements", "distance_from"])
def test_what_is_no_element_is_refused(field):
    with pytest.raises(ValidationError, match="'Aluminium' is no chemical symbol"):
        AtlasConfig.model_validate({field: ("Aluminium",)})


# what they are coloured by


def test_coordination_numbers_are_the_textbooks():
    for crystal, count in (("Cu", 12), ("Al", 12), ("Si", 4), ("Fe", 14)):
        assert static(whole([bulk(crystal)]), ())["coordination"].values.tolist() == [count] * len(bulk(crystal)), crystal
    water = static(whole([molecule("H2O")]), ())["coordination"].values
    assert water.tolist() == [2, 1, 1]


def brute_distance(atoms: Atoms, index: int, targets: set[str]) -> float:
    """Over 7³ images, one after the other."""
    best = np.inf
    for shift in np.ndindex(7, 7, 7):
        if not atoms.pbc.all() and shift != (3, 3, 3):
            continue
        offset = (np.array(shift) - 3) @ atoms.cell.array
        for j, symbol in enumerate(atoms.get_chemical_symbols()):
            apart = np.linalg.norm(atoms.positions[j] + offset - atoms.positions[index])
            if (not targets or symbol in targets) and apart > 1e-9:
                best = min(best, apart)
    return best


@pytest.mark.parametrize("targets", [(), ("O",), ("H",)])
def test_distances_are_to_the_nearest_image_also_in_skewed_cells(targets):
    skewed = Atoms(
        "OHH", positions=[(0, 0, 0), (0.9, 0.1, 0), (0.2, 0.8, 0.1)], cell=[(2, 0, 0), (1.7, 2, 0), (-0.9, 1.6, 2.2)]
    )
    skewed.pbc = True
    for atoms in (skewed, water_box(1), molecule("H2O")):
        got = static(whole([atoms]), targets)["distance"].values
        want = np.array([brute_distance(atoms, index, set(targets)) for index in range(len(atoms))])
        assert np.array_equal(np.isnan(got), np.isinf(want))
        assert np.allclose(got[np.isfinite(want)], want[np.isfinite(want)], atol=1e-9)


def test_an_atom_alone_has_no_distance_and_a_crystals_is_its_own_image():
    assert np.isnan(static(whole([Atoms("Ar")]), ())["distance"].values).all()
    assert static(whole([bulk("Cu", a=3.6)]), ())["distance"].values[0] == pytest.approx(3.6 / np.sqrt(2))


def test_many_elements_are_put_in_few_words():
    def title(*symbols):
        return static(whole([dimer()]), symbols)["distance"].title

    assert title() == "distance to the nearest atom"
    assert title("O") == "distance to the nearest O"
    assert title(*(symbol for symbol in chemical_symbols[1:] if symbol not in "HCNO")) == (
        "distance to the nearest atom but H, C, N, O"
    )
    assert title(*chemical_symbols[1:60]) == "distance to the nearest atom of 59 elements"


def test_predicted_traits_are_the_models():
    model = small_model(("a", "b"))
    structures = labelled(small_model(), [water_box(1), dimer()], noise=0.2)
    chosen = whole([*structures, dimer()], ["a", "a", "b"])
    traits = predicted(model, chosen, {"a": "a", "b": "b"})
    want = [*lamella.predict(model, structures, "a"), *lamella.predict(model, [dimer()], "b")]
    forces = np.concatenate([each.forces for each in want])
    baseline = {"H": -10.0, "O": -10.5}
    energy = np.concatenate([each.atom_energy for each in want]) - [baseline[s] for s in chosen.symbols]
    energy[chosen.task == "b"] += 1.0  # its baselines are 1 eV lower
    assert np.allclose(traits["energy"].values, energy, atol=1e-12)
    assert np.allclose(traits["force"].values, np.linalg.norm(forces, axis=1))
    labels = np.concatenate([atoms.get_forces() for atoms in structures])
    error = traits["force-error"].values
    assert np.allclose(error[chosen.task == "a"], np.linalg.norm(forces[: len(labels)] - labels, axis=1))
    assert np.isnan(error[chosen.task == "b"]).all()


# what stands for them


@pytest.mark.parametrize("name", ["dpa2_released", "dpa3_static"])
def test_the_last_update_is_what_the_last_layer_adds(name):
    model = lamella.load(GOLDEN / f"{name}.pt").eval()
    without = copy.deepcopy(model)
    holder = without.backbone.repformer if name.startswith("dpa2") else without.backbone
    holder.layers = holder.layers[:-1]
    graph = model.graph(list(frames([dimer(), water_box(2)])))
    with torch.no_grad():
        update, before, after = last_update(model)(graph), without.describe(graph), model.describe(graph)
    width = update.shape[1]
    assert torch.allclose(update, (after - before)[:, :width], atol=1e-12)
    assert torch.equal(before[:, width:], after[:, width:])  # the element's embedding, where it is appended
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["dp_se_e2_a", "dpa1_attn2_smooth"])
def test_models_without_layers_have_no_update(name):
    with pytest.raises(InputError, match="no layers that update atoms"):
        last_update(lamella.load(GOLDEN / f"{name}.pt"))


def test_representations_are_those_of_describe():
    model, structures = small_model(), [water_box(1), dimer()]
    chosen = sample_atoms({"set": frames(structures)}, AtlasConfig(atoms=5, seed=3))
    described = {f"set#{i}": values for i, values in enumerate(lamella.describe(model, structures))}
    want = [described[chosen.frames[f].source][a] for f, a in zip(chosen.frame, chosen.atom, strict=True)]
    assert np.allclose(represent(model, chosen, "features"), want, atol=1e-12)


def test_features_that_are_not_finite_are_refused():
    model = small_model()
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(InputError, match="set#0: the model's features are NaN"):
        represent(model, whole([dimer()]), "features")


# how they are laid out


def test_principal_components_are_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(0)
    x_NC = rng.normal(size=(60, 7)) * np.arange(1, 8) + 3.0
    got = pca(x_NC, PCA)
    values, vectors = np.linalg.eigh(np.cov(x_NC.T))
    want = (x_NC - x_NC.mean(axis=0)) @ vectors[:, [-1, -2]]
    assert np.allclose(np.abs(got.points), np.abs(want))
    assert f"{values[-1] / values.sum():.0%}" in got.axes[0]
    assert np.allclose(pca(-x_NC, PCA).points ** 2, got.points**2)


@pytest.mark.parametrize("shape", [(2, 5), (40, 1), (5, 2)])
def test_few_atoms_or_channels_have_a_map(shape):
    x_NC = np.random.default_rng(0).normal(size=shape)
    assert pca(x_NC, PCA).points.shape == (shape[0], 2)


def test_tsne_keeps_clusters_and_its_seed():
    rng = np.random.default_rng(0)
    x_NC = np.concatenate([rng.normal(size=(20, 6)), rng.normal(size=(20, 6)) + 12])
    config = AtlasConfig(perplexity=5, seed=4)
    first, again = (tsne(x_NC, config).points for _ in range(2))
    assert np.array_equal(first, again)
    assert purity(nearest(first, np.zeros(40, int), "all", 5), np.repeat([0, 1], 20), np.zeros(40, int), "all")[1] == 1.0
    assert np.isfinite(tsne(x_NC[:, :1], config).points).all()  # one channel: the second component vanishes


def test_equal_representations_have_no_map():
    with pytest.raises(InputError, match="all 12 atoms have the same representation"):
        pca(np.full((12, 4), 0.3), PCA)


# how well they separate


def loops(x_NC, labels, element, candidates, k):
    """Purity and chance, atom by atom."""
    shares, chances = [], []
    for i in range(len(x_NC)):
        others = [
            j
            for j in range(len(x_NC))
            if j != i and (candidates == "all" or (element[i] == element[j]) == (candidates == "same element"))
        ]
        chance = np.mean([labels[j] == labels[i] for j in others]) if others else 0.0
        if len(others) < k or not 0 < chance < 1:
            continue
        near = sorted(others, key=lambda j, i=i: np.linalg.norm(x_NC[i] - x_NC[j]))[:k]
        shares.append(np.mean([labels[j] == labels[i] for j in near]))
        chances.append(chance)
    return len(shares), np.mean(shares), np.mean(chances)


@pytest.mark.parametrize("candidates", ["all", "same element", "other elements"])
def test_purity_is_what_loops_count(candidates):
    rng = np.random.default_rng(1)
    element = np.array([0] * 20 + [1] * 15 + [2] * 3)
    labels = rng.integers(0, 3, size=38)
    x_NC = rng.normal(size=(38, 4)) + labels[:, None]
    got = purity(nearest(x_NC, element, candidates, 4), labels, element, candidates)
    assert got == pytest.approx(loops(x_NC, labels, element, candidates, 4))


def test_r_squared_is_one_for_what_neighbours_tell_and_none_for_noise():
    x_NC = np.linspace(0, 1, 400)[:, None]
    element = np.zeros(400, dtype=np.int64)
    near = nearest(x_NC, element, "same element", 4)
    assert r_squared(near, x_NC[:, 0], element, "same element")[1] > 0.999
    assert abs(r_squared(near, np.random.default_rng(0).normal(size=400), element, "same element")[1]) < 0.5
    assert r_squared(near, np.full(400, 1.7), element, "same element")[0] == 0


def test_r_squared_compares_within_an_element():
    x_NC = np.repeat([[0.0], [9.0]], 30, axis=0) + np.random.default_rng(0).normal(size=(60, 1))
    element = np.repeat([0, 1], 30)
    near = nearest(x_NC, element, "same element", 5)
    assert r_squared(near, np.repeat([1.0, 5.0], 30), element, "same element")[0] == 0  # the element tells all there is


def test_questions_that_atoms_cannot_answer_are_left_out():
    x_NC = np.random.default_rng(0).normal(size=(20, 3))
    names = np.array(["O"] * 20)
    traits = {"element": Trait("element", names, classes=("O",)), "task": Trait("data set", names, classes=("O",))}
    assert separations(x_NC, {}, traits, 5) == []
    traits["distance"] = Trait("distance", np.where(np.arange(20) < 12, x_NC[:, 0], np.nan), "Å")
    (only,) = separations(x_NC, {"pca": x_NC[:, :2]}, traits, 5)
    assert (only.trait, only.atoms, only.classes) == ("distance", 12, None)
    assert only.score > 0.3


# the whole


@pytest.mark.parametrize("name", ["dp_se_e2_a", "dpa1_noattn_strip", "dpa2_released", "dpa3_static"])
def test_every_architecture_is_explained(name):
    model = lamella.load(GOLDEN / f"{name}.pt")
    atlas = build_atlas({"m": model}, {"water": frames(waters(12))}, AtlasConfig(methods=("pca",), neighbors=3))
    (sheet,) = atlas.sheets
    assert sheet.channels == model.config.backbone.output_dim
    assert sheet.maps["pca"].points.shape == (36, 2)
    scores = {each.trait: each for each in sheet.separations}
    assert scores["element"].score == 1.0
    assert scores["element"].chance == pytest.approx((12 * 11 + 24 * 23) / (36 * 35))
    assert atlas.colors == ("element", "distance")


def test_the_same_files_are_written_twice(tmp_path):
    data = {"boxes": frames([water_box(2, seed) for seed in range(2)], "boxes"), "pairs": frames([dimer()] * 3, "pairs")}
    config = AtlasConfig(atoms=40, perplexity=5, neighbors=3, colors=("element", "task", "distance"), distance_from=("O",))
    for folder in ("a", "b"):
        write_atlas(build_atlas({"m": small_model()}, data, config), tmp_path / folder)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(FILES)
    content = json.loads((tmp_path / "a" / "explain.json").read_text())
    assert content["models"][0]["separations"][0]["trait"] == "element"
    rows = (tmp_path / "a" / "explain.csv").read_text().splitlines()
    assert rows[0].startswith("source,atom,element,group,period,task,coordination,distance,tsne_1,tsne_2,pca_1,pca_2")
    assert len(rows) == 41


def test_models_side_by_side_see_the_same_atoms(tmp_path):
    models = {"one": small_model(), "two": small_model(seed=1)}
    config = AtlasConfig(methods=("pca",), colors=("element", "energy"), neighbors=3)
    atlas = build_atlas(models, {"set": frames(waters(8))}, config)
    first, second = atlas.sheets
    assert first.traits["element"] is second.traits["element"]
    assert not np.allclose(first.traits["energy"].values, second.traits["energy"].values)
    assert not np.allclose(first.maps["pca"].points, second.maps["pca"].points)
    write_atlas(atlas, tmp_path)
    header = (tmp_path / "explain.csv").read_text().splitlines()[0]
    assert "one:energy" in header
    assert "two:pca_1" in header


def test_the_table_has_a_cell_for_every_heading():
    atlas = build_atlas({"m": small_model()}, {"set": frames(waters(8))}, AtlasConfig(methods=("pca",), neighbors=3))
    for row in lines(atlas.sheets[0]):
        assert len(row) == len(heading(atlas.sheets[0]))
    assert "24 atoms of 2 elements in 8 structures of 1 data set (set), drawn from 24" in summary(atlas)[0]


def test_one_element_is_mapped_and_said():
    config = AtlasConfig(methods=("pca",), elements=("O",), neighbors=3)
    atlas = build_atlas({"m": small_model()}, {"set": frames(waters(12))}, config)
    assert "how elements separate cannot be said" in summary(atlas)[-1]
    assert "element" not in {each.trait for each in atlas.sheets[0].separations}
    assert atlas.colors == ("distance",)


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"perplexity": 30.0}, InputError, "more atoms than its perplexity of 30, and there are 12"),
        ({"elements": ("O",), "atoms": 2, "perplexity": 2.0}, InputError, "there are 2"),
        ({"methods": ("pca",), "colors": ("force-error",)}, DataError, "no structure that was chosen carries forces"),
        ({"methods": ("pca",), "colors": ("energy",), "task": "x"}, InputError, "no task 'x'"),
        ({"methods": ("pca",), "elements": ("C",)}, DataError, "no atoms of C"),
    ],
)
def test_what_cannot_be_mapped_is_refused(config, error, says):
    with pytest.raises(error, match=says):
        build_atlas({"m": small_model()}, {"set": frames(waters(4))}, AtlasConfig(**config))


def test_an_element_that_the_model_does_not_know_is_refused():
    with pytest.raises(StructureError, match=r"set#0.*\bC\b"):
        build_atlas({"m": small_model()}, {"set": frames([molecule("CH4")])}, PCA)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else found(name))
    with pytest.raises(InputError, match=r"scikit-learn, not installed here; run: pip install 'lamella\[explain\]'"):
        build_atlas({"m": small_model()}, {"set": frames(waters(4))}, PCA)


def test_an_interrupted_write_leaves_the_old_files(tmp_path, monkeypatch):
    from lamella.use.atlas import write as writing

    atlas = build_atlas({"m": small_model()}, {"set": frames(waters(4))}, PCA)
    (tmp_path / "explain.png").write_bytes(b"old")
    monkeypatch.setattr(writing, "write_page", lambda atlas: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atlas(atlas, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["explain.png"]
    assert (tmp_path / "explain.png").read_bytes() == b"old"
