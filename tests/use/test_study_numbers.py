"""Numbers of studies against what others published, and against synthetic data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from lamella.data.convert import frame_from_atoms
from lamella.data.source import FrameList
from lamella.errors import InputError, RecipeError
from lamella.train.recipe import Recipe
from lamella.use.study.config import LabelledSet, Recipes, StudyConfig, recipe_of
from lamella.use.study.curves import equal_error
from lamella.use.study.drift import _Run
from lamella.use.study.powerlaw import fit_power_law, frontier
from lamella.use.study.report import PLUS_MINUS, cell, markdown, spread
from lamella.use.study.subsets import nested_order, subsets
from lamella.use.study.tasks import alone
from lamella.use.table.averages import log_weighted, weighted
from train.small import labelled

# Weight (Table 1), effective steps in thousands, energy RMSE of ST and MT (meV/atom), force RMSE of ST and MT (meV/Å).
TABLE_S3 = {
    "Alloy": (2.0, 1212, 16.4, 36.5, 123.9, 169.5),
    "Cathode-P": (1.0, 606, 1.2, 3.3, 36.6, 39.8),
    "Cluster-P": (1.0, 606, 33.2, 34.4, 169.9, 162.5),
    "Drug": (2.0, 1212, 11.9, 20.6, 117.6, 128.9),
    "FerroEle-P": (1.0, 606, 0.9, 4.4, 34.9, 44.2),
    "OC2M": (2.0, 1212, 36.0, 29.3, 175.0, 157.6),
    "SSE-PBE-P": (1.0, 606, 1.5, 2.1, 54.8, 64.0),
    "SemiCond": (1.0, 606, 6.6, 6.5, 132.8, 131.9),
    "H2O-PD": (1.0, 606, 0.6, 3.2, 31.0, 39.7),
    "AgAu-PBE": (0.2, 121, 16.7, 9.4, 32.5, 28.2),
    "AlMgCu": (0.3, 182, 11.4, 4.9, 33.9, 23.4),
    "Cu": (0.1, 61, 3.6, 3.6, 22.7, 18.2),
    "Sn": (0.1, 61, 12.5, 24.8, 75.6, 69.7),
    "Ti": (0.1, 61, 26.2, 16.3, 158.5, 112.4),
    "V": (0.1, 61, 18.9, 13.9, 133.2, 110.2),
    "W": (0.1, 61, 20.6, 24.6, 176.1, 157.9),
    "C12H26": (0.1, 61, 92.5, 62.5, 894.4, 710.6),
    "HfO2": (0.1, 61, 2.4, 3.9, 107.5, 102.8),
}
WARMSE_S3 = (14.9, 18.6, 111.1, 116.3)


def test_warmse_is_that_of_the_paper():
    """The last row of Table S3 of the DPA-2 paper from the rows above it; they have one decimal, and so has it."""
    weights = [row[0] for row in TABLE_S3.values()]
    assert math.fsum(weights) == pytest.approx(13.2)
    for column, published in enumerate(WARMSE_S3, start=2):
        errors = [row[column] for row in TABLE_S3.values()]
        assert weighted(errors, weights) == pytest.approx(published, abs=0.1)


def test_effective_steps_are_those_of_the_paper():
    """weight/13.2 × 8 × 1,000,000 steps: 8 tasks a step, the others' column of Table S3 in thousands."""
    recipe = Recipe.model_validate(
        {
            "elements": ["H"],
            "model": {"backbone": {"kind": "dpa3"}},
            "tasks": {name: {"train": "nowhere.xyz", "weight": row[0]} for name, row in TABLE_S3.items()},
            "training": {"steps": 1_000_000, "tasks_per_step": 8},
        }
    )
    for name, row in TABLE_S3.items():
        single = alone(recipe, name)
        assert round(single.training.steps / 1000) == row[1]
        assert single.training.tasks_per_step == 1 and single.batch == recipe.batch and list(single.tasks) == [name]


def test_log_weighted_average_is_a_weighted_geometric_mean():
    """exp(Σ w log e / Σ w), against the product of powers; unlike WARMSE, a factor on one error is a factor on it."""
    errors, weights = [12.0, 3.5, 80.0], [0.5, 2.0, 1.5]
    product = math.prod(error**weight for error, weight in zip(errors, weights, strict=True)) ** (1 / sum(weights))
    assert log_weighted(errors, weights) == pytest.approx(product, rel=1e-12)
    assert log_weighted([24.0, 3.5, 80.0], weights) / product == pytest.approx(2 ** (0.5 / 4.0), rel=1e-12)
    assert log_weighted(errors, weights) < weighted(errors, weights)


def test_instability_is_lambench_s():
    """0 below 5e-4 eV/atom/ps, a decade counts 1, never above 5, and 5 for a run that did not reach its end."""
    time = [0.1 * k for k in range(11)]

    def run(slope: float, stopped: str | None = None) -> _Run:
        settling = [1.0, -1.0]  # the first fifth is not looked at
        return _Run(time, settling + [slope * t for t in time[2:]], stopped)

    assert run(-3e-3).drift == pytest.approx(-3e-3, rel=1e-9)
    assert [run(slope).instability for slope in (0.0, 4e-4, -4e-4)] == [0.0, 0.0, 0.0]
    assert [run(slope).instability for slope in (5e-3, -5e-1)] == pytest.approx([1.0, 3.0])
    assert run(1e6).instability == run(0.0, "it exploded").instability == _Run([], [], "no").instability == 5.0


def test_frames_for_equal_error_are_read_off_between_points():
    reference = ([10, 100, 1000], [100.0, 10.0, 1.0], [None] * 3)
    points = equal_error(([1, 2, 3, 4], [100.0, 31.6228, 1.0, 0.5], [None] * 4), reference)
    assert points[0][2] is None, "it begins as good"
    assert points[1][2] == pytest.approx(31.6228, rel=1e-4)
    assert points[2][2] == pytest.approx(1000.0)
    assert points[3][2] == math.inf


def test_a_power_law_is_found_again():
    x = np.geomspace(1e3, 1e6, 6)
    exact = fit_power_law(x, (x / 5e8) ** -0.4465)
    assert (exact.exponent, exact.scale) == pytest.approx((0.4465, 5e8), rel=1e-6)
    assert (exact.low, exact.high) == pytest.approx((0.4465, 0.4465))
    assert exact(5e8) == pytest.approx(1.0)
    assert math.isnan(fit_power_law([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]).low), "three points do not say how sure"
    assert math.isnan(fit_power_law([1.0, 2.0] * 3, [2.0, 1.0, 2.1, 1.1, 1.9, 0.9]).low), "two sizes neither"
    assert fit_power_law([1.0, 1.0], [2.0, 1.0]) is None


@pytest.mark.parametrize("points", [4, 6, 10])
def test_the_interval_holds_the_true_exponent_as_often_as_it_says(points):
    """Of 150 synthetic studies with 10 % of noise; 95 % asked for, binomial spread ± 1.8 %."""
    random = np.random.default_rng(points)
    x = np.geomspace(1e2, 1e6, points)
    held = 0
    for _ in range(150):
        law = fit_power_law(x, (x / 5e8) ** -0.4465 * np.exp(random.normal(0.0, 0.1, points)))
        assert law.low < law.exponent < law.high
        held += law.low < 0.4465 < law.high
    assert 0.87 <= held / 150 <= 0.995


def test_the_frontier_is_what_no_cheaper_point_beats():
    assert frontier([1.0, 2.0, 3.0, 4.0, 2.0], [5.0, 6.0, 3.0, 3.5, 4.0]) == [0, 4, 2]


def test_the_first_frames_determine_energies_per_element():
    """Every subset of as many frames as there are elements fixes all energies per element, where the set does."""
    kinds = ["H2O", "H2O", "H2O", "H2O", "CH4", "NH3", "CO", "CH3OH"]
    frames = FrameList(frame_from_atoms(labelled(molecule(kinds[k % 8]), k), None, str(k)) for k in range(40))
    for seed in range(10):
        order = nested_order(frames, seed)
        assert sorted(order) == list(range(40))
        counts = np.array([[(frames[int(k)].numbers == z).sum() for z in (1, 6, 7, 8)] for k in order[:4]])
        assert np.linalg.matrix_rank(counts) == 4
    assert len({tuple(nested_order(frames, seed)) for seed in range(10)}) == 10


def test_subsets_are_nested_and_never_of_other_frames(tmp_path):
    write(tmp_path / "train.xyz", [labelled(molecule("H2O"), k) for k in range(9)])
    given = LabelledSet(train=str(tmp_path / "train.xyz"), test=str(tmp_path / "train.xyz"))
    found = subsets("water", given, [3, 6, 50], True, 1, tmp_path)
    assert [size for size, _ in found] == [3, 6, 9]
    few, more = (set((tmp_path / "data" / f"water-{n}-s1.extxyz").read_text().split("\n")) for n in (3, 6))
    assert len(few - more) == 0 and len(more) > len(few)
    assert subsets("water", given, [3, 6, 50], True, 1, tmp_path) == found
    write(tmp_path / "train.xyz", [labelled(molecule("H2O"), k) for k in range(50, 59)])
    with pytest.raises(InputError, match="holds other frames than are drawn from the training set now"):
        subsets("water", given, [3, 6], True, 1, tmp_path)
    with pytest.raises(InputError, match="fewer than each of them"):
        subsets("water", given, [50], False, 1, tmp_path / "other")


def test_numbers_of_a_table_are_short_and_counts_whole():
    assert [cell(value) for value in (None, 1234567, 0.123456, 12.0, "a")] == ["–", "1234567", "0.1235", "12", "a"]
    assert spread([1.0]) == (1.0, None)
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


def test_a_page_has_a_table_a_quantity_and_deviations_beside_means():
    rows = [
        {"set": "a|b", "E: x": 1.0, f"E: x{PLUS_MINUS}": 210.0, "F: x": None, f"F: x{PLUS_MINUS}": None},
        {"set": "c", "E: x": 2.5, f"E: x{PLUS_MINUS}": None, "F: x": 3.0, f"F: x{PLUS_MINUS}": 0.123},
    ]
    energy, force = markdown(rows).split("**F**")
    assert "| a\\|b | 1 ± 210 |" in energy and "| c | 2.5 |" in energy
    assert "a\\|b" not in force and "| c | 3 ± 0.12 |" in force, "a set without the label has no line"


def test_a_structure_without_neighbours_has_a_composition_too():
    frames = FrameList([frame_from_atoms(Atoms("H", [[0, 0, 0]]), None, "0")])
    assert nested_order(frames, 1).tolist() == [0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks: {a: {train: a.xyz}}\ntraining:\n", "training holds None, not keys"),
        ("tasks: [a.xyz]\n", r"tasks holds \['a.xyz'\], not keys"),
        ("tasks: {a: a.xyz}\n", "tasks.a holds 'a.xyz', not keys"),
        ("tasks: {a: {train: a.xyz}}\ntraining: {log_every: often}\n", "training.log_every = 'often'"),
    ],
)
def test_a_recipe_of_the_wrong_shape_is_refused_by_its_key(tmp_path, text, words):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=words):
        recipe_of(Recipes(recipe=str(tmp_path / "recipe.yaml")), {"x": {"train": "a.xyz"}}, StudyConfig(), seed=1)
