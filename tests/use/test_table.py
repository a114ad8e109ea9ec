"""Tables of errors: definitions, averages, who cannot be evaluated, and all kinds of models."""

from __future__ import annotations

import csv
import json
import math
import weakref

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import write
from typer.testing import CliRunner

from lamella.cli import app
from lamella.data.convert import frame_from_atoms
from lamella.errors import InputError, LamellaError, RecipeError
from lamella.models.bundle import save_model
from lamella.types import Frame
from lamella.use.evaluate import evaluate, predictions_file
from lamella.use.table.answer import Calculated, FromFile, Learned
from lamella.use.table.averages import average, log_weighted, normalised, shared, weighted
from lamella.use.table.config import PredictionsConfig, SetConfig, load_suite
from lamella.use.table.reference import named, respondents
from lamella.use.table.run import evaluate_sets
from lamella.use.table.words import grids, markdown, notes, summary, tidy, write_table
from use.small import dimer, labelled, small_model, water_box

SHIFT = {1: 3.0, 8: -7.0}


class Constant(Calculator):
    """Energy per atom and no forces worth the name; refuses what it does not know."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, each: float = -1.0, refuses: int = 0) -> None:
        super().__init__()
        self.each, self.refuses = each, refuses

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if self.refuses in self.atoms.numbers:
            raise ValueError(f"no parameters for element {self.refuses}\nsecond line")
        self.results = {"energy": self.each * len(self.atoms), "forces": np.zeros((len(self.atoms), 3))}


@pytest.fixture(scope="module")
def model():
    return small_model(tasks=("a", "b"))


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """``water``: labels of task a, energies moved by element; ``salt``: an element nobody knows; ``wet``: more water."""
    folder = tmp_path_factory.mktemp("sets")
    single = small_model(tasks=("a",))
    structures = [water_box(), dimer(), water_box(1), water_box(2, seed=2), dimer(), Atoms("O2", [[0, 0, 0], [0, 0, 1.3]])]
    water = labelled(single, structures)
    for atoms in water:
        atoms.calc.results["energy"] += sum(SHIFT[z] for z in atoms.numbers)
    write(folder / "water.extxyz", water)
    write(folder / "wet.extxyz", labelled(single, [water_box(seed=5), dimer(), water_box(1, seed=4)], seed=7))
    salt = dimer()
    salt.symbols[0] = "Na"
    copy = labelled(single, [dimer()])[0]
    copy.symbols[0] = "Na"
    write(folder / "salt.extxyz", copy)
    return folder


def config(path, **more) -> SetConfig:
    return SetConfig(data=str(path), **more)


def only(files, model, **more):
    return evaluate_sets({"water": config(files / "water.extxyz", **more)}, [Learned("m", "m", model, "a")])


def frames_of(path):
    from lamella.data.source import open_frames

    return open_frames([path])


def test_errors_without_a_refit_are_those_of_eval(model, files):
    row = only(files, model, baseline="keep").rows[0]
    known = evaluate(model, frames_of(files / "water.extxyz"), "a")
    for name, error in known.errors.items():
        score = row.cells["m"].compared.scores[name]
        assert (score.rmse, score.mae, score.count) == pytest.approx((error.rmse, error.mae, error.count), rel=1e-12)
    assert row.labels.std["forces"] == pytest.approx(known.errors["forces"].label_std, rel=1e-12)


def test_a_refit_takes_away_what_energies_per_element_explain(model, files):
    row = only(files, model).rows[0]
    frames = frames_of(files / "water.extxyz")
    from lamella.use.predict import predict_frames

    pairs = list(predict_frames(model, (frames[k] for k in range(len(frames))), "a"))
    counts = np.array([[(f.numbers == z).sum() for z in (1, 8)] for f, _ in pairs], float)
    left = np.array([float(f.labels["energy"]) - p.energy for f, p in pairs])
    shift = np.linalg.lstsq(counts, left, rcond=None)[0]
    expected = math.sqrt(np.mean(((left - counts @ shift) / counts.sum(1)) ** 2))
    compared = row.cells["m"].compared
    assert compared.scores["energy"].rmse == pytest.approx(expected, rel=1e-9)
    assert compared.scores["energy"].mae is None
    assert compared.refit.energies == pytest.approx(dict(zip("HO", shift, strict=True)), rel=1e-9)
    assert shift == pytest.approx([SHIFT[1], SHIFT[8]], abs=0.1), "what was added to the labels"
    kept = only(files, model, baseline="keep").rows[0].rmse("m", "energy")
    assert kept > 0.2 > 10 * compared.scores["energy"].rmse


def test_energies_can_be_refitted_to_other_frames(model, files):
    row = only(files, model, fit=str(files / "wet.extxyz"), keys={}).rows[0]
    same = only(files, model, fit=str(files / "water.extxyz")).rows[0]
    itself = only(files, model).rows[0]
    assert same.rmse("m", "energy") == pytest.approx(itself.rmse("m", "energy"), rel=1e-9)
    assert same.labels.std["energy"] == pytest.approx(itself.labels.std["energy"], rel=1e-9)
    assert row.rmse("m", "energy") > 1.0, "those frames carry other energies per element"
    assert row.cells["m"].compared.refit.frames == 3


def test_label_std_is_the_error_of_a_model_without_a_network(files):
    table = evaluate_sets({"water": config(files / "water.extxyz")}, [Calculated("none", "", Constant())])
    row = table.rows[0]
    assert row.rmse("none", "energy") == pytest.approx(row.labels.std["energy"], rel=1e-9)
    assert row.rmse("none", "forces") == pytest.approx(row.labels.zero["forces"], rel=1e-12)
    assert row.rmse("none", "virial") is None, "it implements no stress"
    assert normalised(table, "none") == pytest.approx(1.0)


def test_averages_are_those_of_their_definitions():
    errors, weights = [2.0, 8.0, 5.0], [1.0, 3.0, 0.0]
    assert weighted(errors, weights) == pytest.approx(26 / 4)
    assert log_weighted(errors, weights) == pytest.approx(math.exp((math.log(2) + 3 * math.log(8)) / 4))
    assert log_weighted([0.0, 1.0], [1.0, 1.0]) == 0.0
    assert log_weighted([0.0, 4.0], [0.0, 1.0]) == pytest.approx(4.0)


def test_weights_reach_the_averages_and_sets_of_weight_zero_do_not(model, files):
    sets = {
        "water": config(files / "water.extxyz", weight=2.0),
        "wet": config(files / "wet.extxyz", weight=0.5),
        "again": config(files / "wet.extxyz", weight=0.0),
    }
    table = evaluate_sets(sets, [Learned("m", "m", model, "a"), Learned("n", "n", model, "b")])
    first, second = (row.rmse("m", "forces") for row in table.rows[:2])
    assert average(shared(table, "forces"), "forces", "m", "WARMSE") == pytest.approx((2 * first + 0.5 * second) / 2.5)
    assert [row.name for row in shared(table, "forces")] == ["water", "wet"]
    std = [row.labels.std["forces"] for row in table.rows[:2]]
    assert average(shared(table, "forces"), "forces", None, "WARMSE") == pytest.approx((2 * std[0] + 0.5 * std[1]) / 2.5)


def test_normalised_error_averages_domains_and_caps_at_one(model, files):
    sets = {
        "water": config(files / "water.extxyz", domain="x"),
        "wet": config(files / "wet.extxyz", domain="x"),
        "third": config(files / "wet.extxyz", domain="y"),
    }
    table = evaluate_sets(sets, [Learned("m", "m", model, "a")])

    def of(*rows) -> float:
        parts = []
        for name, share in (("energy", 0.45), ("forces", 0.45), ("virial", 0.1)):
            ratios = [min(row.rmse("m", name) / row.labels.zero[name], 1.0) for row in rows]
            parts.append(share * np.exp(np.mean(np.log(ratios))))
        return sum(parts)

    assert normalised(table, "m") == pytest.approx((of(*table.rows[:2]) + of(table.rows[2])) / 2, rel=1e-9)


def test_a_set_that_a_model_cannot_do_is_listed_and_leaves_the_averages(model, files):
    sets = {"water": config(files / "water.extxyz"), "salt": config(files / "salt.extxyz")}
    models = [Learned("m", "m", model, "a"), Calculated("c", "c", Constant()), Calculated("d", "d", Constant(refuses=11))]
    table = evaluate_sets(sets, models)
    assert table.rows[1].cells["m"].compared is None
    assert {pair[:2]: pair[2] for pair in table.unevaluated} == {
        ("salt", "m"): "it does not know Na",
        ("salt", "d"): f"{files / 'salt.extxyz'}#0: ValueError: no parameters for element 11",
    }
    assert [row.name for row in shared(table, "energy")] == ["water"]
    assert normalised(table, "m") is None and normalised(table, "c") is not None
    said = "\n".join(notes(table))
    assert "m is not evaluated on salt: it does not know Na." in said
    assert "1 of 2 sets" in said


def test_a_model_that_answers_nowhere_takes_no_average_from_the_others(model, files):
    sets = {"water": config(files / "water.extxyz")}
    alone = evaluate_sets(sets, [Learned("m", "m", model, "a")])
    beside = evaluate_sets(sets, [Learned("m", "m", model, "a"), Calculated("d", "d", Constant(refuses=8))])
    assert beside.rows[0].cells["d"].compared is None
    for table in (alone, beside):
        assert [row.name for row in shared(table, "energy")] == ["water"]
    assert (
        summary(beside)["averages"]["energy"]["WARMSE"]["models"]["m"]
        == summary(alone)["averages"]["energy"]["WARMSE"]["models"]["m"]
    )
    assert shared(evaluate_sets(sets, [Calculated("d", "d", Constant(refuses=8))]), "energy") == []


def test_the_task_is_the_set_s_choice_then_the_model_s_then_the_name(model, files):
    path = files / "water.extxyz"
    plain, fixed = Learned("m", "m", model), Learned("f", "f", model, "a")

    def tasks(name, **more):
        cells = evaluate_sets({name: config(path, **more)}, [plain, fixed]).rows[0].cells
        return [cells["m"].task, cells["f"].task]

    assert tasks("b") == ["b", "a"]
    assert tasks("x", task="b") == ["b", "a"]
    assert tasks("x", task={"m": "a", "f": "b"}) == ["a", "b"]
    table = evaluate_sets({"x": config(path)}, [plain])
    assert table.unevaluated == [
        ("x", "m", "none of its tasks (a, b) is named for this set (MODEL@TASK, or task in a suite)")
    ]
    with pytest.raises(InputError, match="no task 'c'"):
        Learned("m", "m", model, "c")


def test_a_file_of_predictions_gives_the_errors_of_its_model(model, files, tmp_path):
    path = files / "water.extxyz"
    with predictions_file(tmp_path / "water_out.extxyz") as append:
        evaluate(model, frames_of(path), "a", append)
    sets = {"water": config(path), "wet": config(files / "wet.extxyz")}
    table = evaluate_sets(sets, [Learned("m", "m", model, "a"), FromFile("p", str(tmp_path / "{set}_out.extxyz"))])
    for name in ("energy", "forces", "virial"):
        assert table.rows[0].rmse("p", name) == pytest.approx(table.rows[0].rmse("m", name), rel=1e-5)
    assert "there is no file" in table.rows[1].cells["p"].why_not


def test_a_file_of_other_frames_or_of_the_labels_is_no_prediction(files):
    path = files / "water.extxyz"

    def why(question, answered):
        table = evaluate_sets({"s": config(question)}, [FromFile("p", str(answered))])
        return table.rows[0].cells["p"].why_not

    assert "is not the structure" in why(path, files / "wet.extxyz")
    assert "are the labels, to the last digit" in why(path, path)


def test_a_prediction_that_is_not_finite_is_said(files):
    table = evaluate_sets({"water": config(files / "water.extxyz")}, [Calculated("c", "c", Constant(math.nan))])
    assert "NaN" in table.rows[0].cells["c"].why_not


def test_a_refit_to_few_frames_is_said_to_flatter(model, files):
    assert any("flatter" in note for note in notes(only(files, model)))
    assert not any("flatter" in note for note in notes(only(files, model, baseline="keep")))


def test_a_set_is_never_whole_in_memory(model, monkeypatch):
    """Frames that are made when asked for: only those of a batch or two are alive at a time."""
    made = frame_from_atoms(labelled(small_model(tasks=("a",)), [dimer()])[0])
    monkeypatch.setattr("lamella.use.predict.MAX_EDGES", 200)
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    class Store:
        def __len__(self):
            return 400

        def __getitem__(self, index):
            nonlocal alive, most
            frame = Frame(made.numbers, made.positions, made.cell, made.pbc, dict(made.labels), f"store#{index}")
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            return frame

    monkeypatch.setattr("lamella.use.table.run.open_data", lambda paths, keys: Store())
    table = evaluate_sets({"s": SetConfig(data="s")}, [Learned("m", "m", model, "a"), Calculated("c", "c", Constant())])
    assert table.rows[0].labels.frames == 400
    assert not table.unevaluated
    assert most < 40


def test_words_of_a_command_line_name_models(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    save_model(model, tmp_path / "saved")
    given = named(
        ["saved@a", "mine=saved@b", "ase:use.test_table.Constant(each=-2.0, refuses=3)", "predictions:{set}_x.xyz"]
    )
    assert list(given) == ["saved@a", "mine", "Constant", "x"]
    found = respondents(given)
    assert [type(item).__name__ for item in found] == ["Learned", "Learned", "Calculated", "FromFile"]
    assert found[0].potential is found[1].potential, "one file is read once"
    assert (found[2].calculator.each, found[2].calculator.refuses) == (-2.0, 3)
    with pytest.raises(InputError, match="called 'x'"):
        named(["x=saved", "x=saved"])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("ase:os.system(command='true')", "is no class of ASE calculators"),
        ("ase:use.test_table.config(path='x')", "is no class of ASE calculators"),
        ("ase:ase.calculators.emt.EMTT()", "did you mean 'EMT'"),
        ("ase:no.such.module.X", "cannot be imported"),
        ("ase:EMT", "has no EMT"),
        ("ase:ase.calculators.emt.EMT(__import__('os'))", "by keyword"),
        ("ase:ase.calculators.emt.EMT(x=__import__('os'))", "by keyword"),
        ("ase:use.test_table.Constant(other=1)", "TypeError"),
    ],
)
def test_what_is_no_calculator_is_refused(reference, message):
    with pytest.raises(InputError, match=message):
        respondents({"c": reference})


def test_only_a_command_line_may_name_a_function(monkeypatch):
    given = {"c": "ase:use.test_table.made"}
    with pytest.raises(InputError, match="is no class"):
        respondents(given)
    assert isinstance(respondents(given, functions=True)[0], Calculated)


def made() -> Constant:
    return Constant()


def test_a_suite_is_read_from_yaml(files, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(
        f"""
sets:
  water: {{data: {files}/water.extxyz, weight: 2.0, domain: liquids, task: {{mt: a}}}}
  wet: {{data: [{files}/wet.extxyz], baseline: keep}}
models:
  emt: ase:ase.calculators.emt.EMT()
  mace: {{predictions: "{{set}}.extxyz", keys: {{energy: MACE_energy}}}}
"""
    )
    suite = load_suite(path)
    assert suite.sets["water"].weight == 2.0 and suite.sets["wet"].baseline == "keep"
    assert isinstance(suite.models["mace"], PredictionsConfig)
    path.write_text("sets:\n  water: {dta: x}\n")
    with pytest.raises(RecipeError, match=r"sets\.water\.dta"):
        load_suite(path)


def test_files_say_the_same_as_the_table(model, files, tmp_path):
    sets = {"water": config(files / "water.extxyz"), "salt": config(files / "salt.extxyz")}
    table = evaluate_sets(sets, [Learned("m", "m", model, "a"), Calculated("c|d", "c", Constant())])
    for name in ("t.md", "t.csv", "t.json"):
        write_table(tmp_path / name, table)
    content = json.loads((tmp_path / "t.json").read_text())
    assert content == json.loads(json.dumps(summary(table)))
    assert content["sets"]["water"]["models"]["m"]["forces"]["rmse"] == table.rows[0].rmse("m", "forces")
    assert content["sets"]["salt"]["models"]["m"]["not_evaluated"] == "it does not know Na"
    lines = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert len(lines) == len(tidy(table))
    first = next(line for line in lines if (line["set"], line["model"], line["quantity"]) == ("water", "m", "forces"))
    assert float(first["rmse"]) == table.rows[0].rmse("m", "forces")
    text = (tmp_path / "t.md").read_text()
    assert text == markdown(table)
    assert "c\\|d" in text and "†" in text
    for grid in grids(table):
        assert {len(row) for row in grid.rows} == {len(grid.heading)}
    with pytest.raises(InputError, match="a table is written as"):
        write_table(tmp_path / "t.pdf", table)


def test_the_command_prints_and_writes(model, files, tmp_path):
    (tmp_path / "saved").mkdir()
    save_model(model, tmp_path / "saved")
    water = f"water={files / 'water.extxyz'}"
    words = ["table", f"m={tmp_path / 'saved'}@a", "c=ase:use.test_table.Constant", "--on", water]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "t.md")])
    assert done.exit_code == 0, done.output
    assert "force RMSE, meV/Å" in done.output and "WARMSE" in done.output
    assert (tmp_path / "t.md").read_text().startswith("**energy RMSE")
    done = CliRunner().invoke(app, [*words, "--json", "--baseline", "keep"])
    assert json.loads(done.stdout)["sets"]["water"]["baseline"] == "keep"
    bad = {
        "no task 'c'": [f"m={tmp_path / 'saved'}@c", "--on", water],
        "no such file or folder": [f"m={tmp_path / 'nothing'}", "--on", water],
        "nowhere.xyz": [words[1], "--on", "w=/nowhere.xyz"],
        "there is no such choice": [words[1], "--on", water, "--baseline", "refitt"],
        "float64": [words[1], "--on", water, "--dtype", "float16"],
        "a table is written as": [words[1], "--on", water, "--out", str(tmp_path / "t.pdf")],
        "exists": [words[1], "--on", water, "--out", str(tmp_path / "t.md")],
        "name at least one": ["--on", water],
        "are called 'm'": [words[1], words[1], "--on", water],
        "no model answered for any set; m on other": [f"m={tmp_path / 'saved'}", "--on", f"other={files / 'water.extxyz'}"],
    }
    for message, given in bad.items():
        done = CliRunner().invoke(app, ["table", *given])
        assert isinstance(done.exception, LamellaError) and message in str(done.exception), (message, done.exception)
    done = CliRunner().invoke(app, words[:2])
    assert isinstance(done.exception, InputError) and "no sets" in str(done.exception)
