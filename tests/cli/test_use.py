"""``lamella eval``, ``md`` and ``relax`` as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from typer.testing import CliRunner, Result

from lamella import cli
from lamella.errors import LamellaError
from lamella.models.bundle import save_model
from use.small import dimer, labelled, small_model, water_box


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a structure, labelled data."""
    place = tmp_path_factory.mktemp("use")
    model = small_model()
    (place / "model").mkdir()
    save_model(model, place / "model")
    write(place / "box.xyz", [dimer(), water_box()], format="extxyz")
    write(place / "data.extxyz", labelled(model, [water_box(), dimer(), water_box(1)]), format="extxyz")
    return place


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command in an empty folder; ``model``, ``box.xyz`` and ``data.extxyz`` stand for those of ``folder``."""
    monkeypatch.chdir(tmp_path)
    names = {path.name for path in folder.iterdir()}

    def run(*arguments: str) -> Result:
        given = [str(folder / word) if word.split("@")[0] in names else word for word in arguments]
        return CliRunner().invoke(cli.app, given, env={"COLUMNS": "200"})

    return run


def refused(result: Result) -> str:
    assert isinstance(result.exception, LamellaError), result.output
    return str(result.exception)


def test_eval_prints_a_table(command):
    result = command("eval", "model", "data.extxyz")
    assert result.exit_code == 0, result.output
    for word in ("energy, meV/atom", "forces, meV/Å", "virial, meV/atom", "forces on O", "label std", "data.extxyz#1"):
        assert word in result.stdout


def test_eval_json_is_all_there_is_on_standard_output(command, folder):
    result = command("eval", "model", "data.extxyz", "--json", "--dtype", "float64")
    content = json.loads(result.stdout)
    assert set(content) >= {"model", "data", "task", "frames", "atoms", "units", "energy", "forces", "virial", "worst"}
    assert set(content["forces"]) == {"rmse", "mae", "mean_error", "label_std", "count"}
    assert content["forces"]["rmse"] == pytest.approx(0.05, rel=0.2)
    assert content["frames"] == 3


def test_eval_out_writes_predictions_beside_labels(command, folder):
    assert command("eval", "model", "data.extxyz", "--out", "both.extxyz").exit_code == 0
    frames = read("both.extxyz", index=":")
    assert [len(frame) for frame in frames] == [24, 6, 3]
    for frame, known in zip(frames, read(folder / "data.extxyz", index=":"), strict=True):
        np.testing.assert_allclose(frame.get_forces(), known.get_forces(), atol=1e-8)
        assert 0 < np.abs(frame.arrays["lamella_forces"] - known.get_forces()).max() < 0.5
    assert "exists" in refused(command("eval", "model", "data.extxyz", "--out", "both.extxyz"))
    assert command("eval", "model", "data.extxyz", "--out", "both.extxyz", "--overwrite").exit_code == 0


def test_eval_reads_named_keys_and_embedded_sets(command):
    result = command("eval", "model", "data.extxyz", "--json", "--forces-key", "forces", "--energy-key", "enregy")
    assert "enregy" in refused(result)
    elements = ("C", "H", "N", "O")
    Path("organic").mkdir()
    save_model(small_model(elements=elements), Path("organic"))
    result = command("eval", "organic", "embedded:molecules_gfn2:test", "--json")
    assert json.loads(result.stdout)["frames"] > 10


def test_md_writes_trajectory_and_summary(command):
    result = command("md", "model", "box.xyz", "--time", "0.005", "--temperature", "30", "--every", "2", "--seed", "3")
    assert result.exit_code == 0, result.output
    for word in ("drift", "eV/atom/ps", "temperature", "µs/atom/step", "md.extxyz (6 frames)"):
        assert word in result.stdout
    assert len(read("md.extxyz", index=":")) == 6
    summary = json.loads(Path("md.json").read_text())
    assert summary["completed"] is True
    assert summary["n_atoms"] == 24, "the last frame of the file is run"
    assert summary["config"]["seed"] == 3
    assert (summary["task"], summary["dtype"]) == ("default", "float64")
    assert f"{summary['drift']:.3e}" in result.stdout
    assert "exists" in refused(command("md", "model", "box.xyz"))


def test_md_runs_another_frame_and_another_ensemble(command):
    result = command("md", "model", "box.xyz@0", "--time", "0.002", "--ensemble", "nvt", "--trajectory", "hot.traj")
    assert result.exit_code == 0, result.output
    assert "drift" not in result.stdout
    assert json.loads(Path("hot.json").read_text())["n_atoms"] == 6


def test_md_that_explodes_says_so_and_keeps_the_trajectory(command):
    result = command("md", "model", "box.xyz", "--max-temperature", "250", "--temperature", "200", "--time", "1")
    assert "exploded" in refused(result)
    assert "md.extxyz" in refused(result)
    assert result.exit_code == 1
    assert json.loads(Path("md.json").read_text())["completed"] is False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("model", "missing.xyz"), "missing.xyz: no such file"),
        (("missing", "box.xyz"), "missing: no such file or folder"),
        (("model", "model/model.json"), "no such file"),
        (("model", "box.xyz@7"), "none of index 7"),
        (("model", "box.xyz@first"), "ASE cannot read"),
        (("model", "box.xyz", "--device", "mps"), "'mps'"),
        (("model", "box.xyz@0:2"), "one is needed"),
        (("model", "box.xyz", "--time", "-1"), "time = -1.0"),
        (("model", "box.xyz", "--pressure", "1"), "choose npt"),
        (("model", "box.xyz", "--task", "pbe"), "no task 'pbe'"),
        (("model", "box.xyz", "--dtype", "half"), "'half'"),
        (("model", "box.xyz", "--trajectory", "no/where.traj"), "there is no folder no"),
        (("model", "box.xyz", "--trajectory", "run.dcd"), "run.dcd"),
        (("model", "embedded:lif_gfn1"), "element Li"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_md_refuses_what_it_cannot_run_before_anything_is_written(command, arguments, says, tmp_path):
    assert says in refused(command("md", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_md_without_neighbours_is_refused(command):
    far = dimer()[[0, 3]]
    far.positions[1] = far.positions[0] + 20.0
    write("far.xyz", far, format="extxyz")
    assert "far.xyz: no atom has a neighbour" in refused(command("md", "model", "far.xyz"))
    assert "far.xyz: no atom has a neighbour" in refused(command("relax", "model", "far.xyz"))


def test_md_takes_the_last_frame_behind_a_blank_line(command):
    write("a.xyz", [dimer()], format="extxyz")
    write("b.xyz", [water_box()], format="extxyz")
    Path("both.xyz").write_text(Path("a.xyz").read_text() + "\n\n" + Path("b.xyz").read_text())
    assert command("md", "model", "both.xyz", "--time", "0.001").exit_code == 0
    assert len(read("md.extxyz")) == len(water_box())


def test_relax_reports_convergence_honestly(command):
    result = command("relax", "model", "box.xyz", "--fmax", "1e-9", "--steps", "2", "--cell")
    assert "not converged after 2 steps" in refused(result)
    assert result.exit_code == 1
    assert "NOT converged" in result.stdout
    assert read("relaxed.extxyz").info["converged"] == False  # noqa: E712 - ASE gives a numpy bool
    result = command("relax", "model", "box.xyz", "--fmax", "100", "--out", "easy.extxyz")
    assert result.exit_code == 0, result.output
    assert "converged after 0 steps" in result.stdout
    assert read("easy.extxyz").info["converged"] == True  # noqa: E712
    assert "acts on the cell" in refused(command("relax", "model", "box.xyz", "--pressure", "1", "--out", "x.extxyz"))
