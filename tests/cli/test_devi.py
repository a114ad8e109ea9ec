"""``lamella devi``, and ``lamella models``, as a person runs them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from typer.testing import CliRunner, Result

from golden_models import GOLDEN
from lamella import cli
from lamella.errors import LamellaError
from lamella.formats.published import PUBLISHED
from lamella.models.bundle import save_model
from remote.file_server import Host, serving
from use.small import dimer, labelled, small_model, water_box


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, one of them with two tasks; structures with and without labels."""
    place = tmp_path_factory.mktemp("devi")
    for name, model in {"a": small_model(), "b": small_model(seed=1), "both": small_model(("pbe", "scan"), seed=2)}.items():
        (place / name).mkdir()
        save_model(model, place / name)
    write(place / "run.extxyz", [water_box(1, seed=seed) for seed in range(25)], format="extxyz")
    write(place / "few.extxyz", [dimer(), water_box(1)], format="extxyz")
    write(place / "labels.extxyz", labelled(small_model(seed=3), [water_box(1), dimer()]), format="extxyz")
    return place


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command in an empty folder; names of ``folder`` stand for what lies there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    names = {path.name for path in folder.iterdir()}

    def run(*arguments: str) -> Result:
        given = [str(folder / word) if word.split("@")[0] in names else word for word in arguments]
        return CliRunner().invoke(cli.app, given, env={"COLUMNS": "200"})

    return run


def refused(result: Result) -> str:
    assert isinstance(result.exception, LamellaError), result.output
    return str(result.exception)


def test_devi_prints_every_frame_and_a_summary(command):
    result = command("devi", "a", "b", "few.extxyz", "-f", "100")
    assert result.exit_code == 0, result.output
    for word in (
        "deviation of 2 models (task default)",
        "few.extxyz#0",
        "few.extxyz#1",
        " 100 ",
        "F max",
        "on atom",
        "99 %",
    ):
        assert word in result.stdout
    assert "forces, largest, meV/Å" in result.stdout


def test_devi_of_many_frames_lists_the_worst(command):
    result = command("devi", "a", "b", "run.extxyz")
    assert result.stdout.count("run.extxyz#") == 10
    assert "the 10 of largest deviation of 25 frames; --all lists every frame" in result.stdout
    assert command("devi", "a", "b", "run.extxyz", "--all").stdout.count("run.extxyz#") == 25


def test_devi_json_is_all_there_is_on_standard_output(command):
    content = json.loads(command("devi", "a", "b", "both@scan", "few.extxyz", "--json", "--atomic").stdout)
    assert content["tasks"] == ["default", "default", "scan"]
    assert content["units"] == {"forces": "eV/Å", "virial": "eV/atom", "energy": "eV/atom"}
    assert [len(frame["forces"]) for frame in content["frames"]] == [6, 3]
    assert content["summary"]["forces_max"]["largest"] == max(frame["forces_max"] for frame in content["frames"])
    relative = json.loads(command("devi", "a", "b", "few.extxyz", "--json", "--relative", "1", "--relative-v", "2").stdout)
    assert relative["units"] == {"forces": "1", "virial": "1", "energy": "eV/atom"}
    assert relative["config"] == {"relative": 1.0, "relative_virial": 2.0, "real_error": False}


def test_devi_takes_a_task_for_each_model_or_for_all(command):
    several = command("devi", "both@pbe", "both@scan", "few.extxyz", "--json")
    assert json.loads(several.stdout)["tasks"] == ["pbe", "scan"]
    assert "pbe, scan" in refused(command("devi", "a", "both", "few.extxyz"))
    assert "both has several tasks, pbe, scan: write" in (said := refused(command("devi", "a", "both", "few.extxyz")))
    assert "both@TASK, or give --task TASK" in said
    assert "no task 'hse'" in refused(command("devi", "a", "both@hse", "few.extxyz"))
    shared = command("devi", "both", "both@pbe", "few.extxyz", "--json", "--task", "scan")
    assert json.loads(shared.stdout)["tasks"] == ["scan", "pbe"]


def test_file_with_an_at_sign_is_a_file(command, folder):
    shutil.copytree(folder / "a", "mine@home")
    assert command("devi", "mine@home", "b", "few.extxyz").exit_code == 0


def test_devi_writes_every_frame(command):
    for name in ("devi.csv", "devi.npz", "devi.json", "devi.extxyz", "devi.out"):
        result = command("devi", "a", "b", "run.extxyz", "--out", name, "--atomic", "-f", "20")
        assert f"every frame: {name}" in result.stdout
    with Path("devi.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    table = np.loadtxt("devi.out")
    assert table.shape == (25, 8 + 3)
    assert [int(line["step"]) for line in lines] == table[:, 0].tolist() == [20 * index for index in range(25)]
    np.testing.assert_allclose([float(line["forces_max"]) for line in lines], table[:, 4], rtol=1e-6)
    assert len(read("devi.extxyz", index=":")) == 25
    assert "exists" in refused(command("devi", "a", "b", "run.extxyz", "--out", "devi.csv"))
    assert command("devi", "a", "b", "run.extxyz", "-o", "devi.csv", "--overwrite").exit_code == 0


def test_real_error_compares_with_labels(command):
    content = json.loads(command("devi", "a", "labels.extxyz", "--real-error", "--json").stdout)
    first, second = content["frames"]
    assert first["virial_max"] > 0
    assert second["virial_max"] is None, "a molecule has no stress"
    assert second["forces_max"] > 0.01
    assert "no frame carries a label" in refused(command("devi", "a", "few.extxyz", "--real-error"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a", "few.extxyz"), "name two or more models"),
        (("a", "b", "few.extxyz", "--atomic"), "name one with --out"),
        (("a", "b", "few.extxyz", "--out", "devi.xls"), "written as .csv"),
        (("a", "b", "few.extxyz", "--out", "no/devi.csv"), "no folder no"),
        (("a", "b", "few.extxyz", "--relative", "0"), "relative = 0.0"),
        (("a", "missing", "few.extxyz"), "missing: no such file or folder"),
        (("a", "b", "missing.xyz"), "missing.xyz"),
        (("a", "DPA-3.1-3M", "few.extxyz"), "lamella models fetch DPA-3.1-3M"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_devi_refuses_what_it_cannot_do(command, arguments, says, tmp_path):
    assert says in refused(command("devi", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_models_list_names_all_and_where_they_lie(command, tmp_path):
    result = command("models", "list")
    for name, model in PUBLISHED.items():
        assert name in result.stdout
        assert model.page in result.stdout
    assert str(tmp_path / "cache" / "models") in result.stdout
    assert result.stdout.count("MB") == 0
    content = json.loads(command("models", "list", "--json").stdout)
    assert [model["name"] for model in content["models"]] == list(PUBLISHED)
    assert all(model["path"] is None and len(model["sources"]) == 3 for model in content["models"])


@pytest.fixture
def host(monkeypatch):
    """A host that serves a checkpoint as if it were DPA-3.1-3M."""
    content = (GOLDEN / "dpa3_static.pt").read_bytes()
    with serving(Host(content)) as running:
        known = PUBLISHED["DPA-3.1-3M"]
        other = known._replace(sha256=hashlib.sha256(content).hexdigest(), sources=(running.url,))
        monkeypatch.setitem(PUBLISHED, "DPA-3.1-3M", other)
        yield running


def test_fetched_model_goes_by_its_name_in_every_command(command, host, tmp_path):
    result = command("models", "fetch", "DPA-3.1-3M")
    assert result.exit_code == 0, result.output
    place = tmp_path / "cache" / "models" / "DPA-3.1-3M.pt"
    assert f"DPA-3.1-3M fetched: {place} (0.1 MB" in result.stdout
    assert "licence and origin: https://" in result.stdout
    assert "is there already" in command("models", "fetch", "DPA-3.1-3M").stdout
    assert len(host.asked) == 1
    assert "0.1 MB" in command("models", "list").stdout
    model = "DPA-3.1-3M"
    for arguments in (
        ("show", model),
        ("eval", model, "labels.extxyz"),
        ("md", model, "few.extxyz", "--time", "0.001"),
        ("relax", model, "few.extxyz", "--fmax", "1000"),
        ("devi", model, "a", "few.extxyz"),
    ):
        result = command(*arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)


def test_fetch_to_another_folder_from_another_address(command, host, tmp_path):
    with serving(Host(host.content)) as other:
        result = command("models", "fetch", "DPA-3.1-3M", "--to", "mine", "--from", other.url)
    assert (len(host.asked), len(other.asked)) == (0, 1)
    assert f"lamella show {Path('mine', 'DPA-3.1-3M.pt')}" in result.stdout
    assert command("show", "mine/DPA-3.1-3M.pt").exit_code == 0
    assert "lamella models fetch" in refused(command("show", "DPA-3.1-3M"))


def test_fetch_says_what_went_wrong(command, host):
    host.status = 404
    assert "it answers 404" in refused(command("models", "fetch", "DPA-3.1-3M"))
    for near in ("dpa-3.1-3m", "DPA-3.1"):
        assert "did you mean the published model 'DPA-3.1-3M'" in refused(command("models", "fetch", near))
    assert "no address" in refused(command("models", "fetch", "DPA-3.1-3M", "--from", "here"))
