"""The report: one self-contained page, complete, honest about what is missing, the same every time."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from lamella.errors import CheckpointError
from lamella.models.bundle import save_model
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.train.fit import fit
from lamella.train.recipe import Recipe
from lamella.use.report import write_report
from lamella.use.report.page import number, page, paragraph, table
from lamella.use.report.run import History, histories
from lamella.use.report.sections import learning

SECTIONS = ("learning", "accuracy", "elements", "worst", "dynamics", "laws", "manifest")
NASTY = '<script>alert("x")</script>&'
TINY = ModelConfig(
    backbone=DPA3Config(
        layers=1, node_dim=8, edge_dim=8, angle_dim=4, cutoff=3.0, switch_start=2.0, angle_cutoff=2.5, angle_switch_start=1.5
    ),
    head=HeadConfig(hidden=(8,)),
)
_VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting, collects ids, links, tags and the text that one reads."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


def read(path: Path) -> Page:
    """The page, known to be whole and to need nothing from outside."""
    source = path.read_text(encoding="utf-8")
    found = Page(source)
    assert not re.findall(r"https?:|//cdn|@import|<script|<link|<iframe", source)
    targets = [value for name, value in found.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in targets), targets
    assert len(found.ids) == len(set(found.ids))
    assert all(value[1:] in found.ids for value in targets if value.startswith("#"))
    return found


def water(seed: int) -> Atoms:
    """A water molecule in a box, shaken, with energy, forces and stress of a toy force field."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[4.0] * 3, pbc=True)
    atoms.rattle(0.05, rng=rng)
    forces = rng.normal(size=(3, 3))
    forces -= forces.mean(axis=0)
    atoms.calc = SinglePointCalculator(atoms, energy=-10.0 + rng.normal(), forces=forces, stress=0.01 * rng.normal(size=6))
    return atoms


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on real files: two tasks, one of them with nasty names in it."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("a&b", "c"):
        write(place / f"{name}.extxyz", [water(seed) for seed in range(10)])
    recipe = Recipe.model_validate(
        {
            "device": "cpu",
            "model": TINY.model_dump(),
            "tasks": {"<b>pbe</b>": {"train": str(place / "a&b.extxyz")}, "gfn2": {"train": str(place / "c.extxyz")}},
            "batch": {"frames": 2},
            "training": {"steps": 6, "valid_every": 3, "log_every": 1, "save_every": 3, "tensorboard": False},
        }
    )
    return fit(recipe, place / "run")


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    """A run folder made by hand: one task, a model, a log, dynamics and laws."""
    run = tmp_path / "run"
    step = run / "step_0000100"
    step.mkdir(parents=True)
    write(tmp_path / "data.extxyz", [water(seed) for seed in range(8)])
    recipe = {
        "seed": 7,
        "model": TINY.model_dump(mode="json"),
        "tasks": {"default": {"train": str(tmp_path / "data.extxyz")}},
    }
    recipe["batch"] = {"frames": 1}
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    data = {"default": {"train": {"paths": [NASTY], "hash": "abc", "frames": 7}, "valid": None}}
    save_model(Potential(TINY, ["H", "O"], ["default"], {"data": data, "versions": {"lamella": NASTY}}), step)
    for pointer in ("best", "last"):
        (run / pointer).write_text("step_0000100\n")
    rows = [
        {"event": "train", "step": s, "task": "default", "loss": 10 / s, "lr": 1e-3, "seconds": s / 2, "forces_rmse": 1 / s}
        for s in range(1, 101)
    ]
    rows += [
        {
            "event": "valid",
            "step": 100,
            "task": "default",
            "seconds": 51.0,
            "score": 1.0,
            "energy_rmse": 0.01,
            "forces_rmse": 0.1,
        }
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"event": "tr')
    dynamics = {"n_atoms": 3, "steps": 4, "stopped": None, "drift": 2e-6, "fluctuation": 1e-6, "steps_per_second": 20.0}
    dynamics["temperature"] = {"mean": 300.0, "std": 20.0, "unit": "K"}
    dynamics["config"] = {"ensemble": "nve", "temperature": 300.0, "timestep": 0.5}
    dynamics["samples"] = {"step": [0, 4], "time": [0.0, 0.002], "energy": [-5.0, -5.00001], "temperature": [300.0, 310.0]}
    (run / "md.json").write_text(json.dumps(dynamics))
    laws = [{"law": "rotation", "violation": 1e-15, "bound": 1e-10, "sentence": "turned", "task": "default", "passed": True}]
    laws += [{"law": NASTY, "violation": 1.0, "bound": 1e-10, "sentence": NASTY, "task": "default", "passed": False}]
    (run / "check.json").write_text(json.dumps({"passed": False, "rows": laws}))
    return run


def test_report_of_a_real_run_has_every_section_and_every_task(trained: Path) -> None:
    found = read(write_report(trained))
    assert set(SECTIONS) <= set(found.ids)
    assert "A DPA-3 potential for H and O" in found.text
    assert "<b>pbe</b>" in found.text and "gfn2" in found.text and "b" not in found.tags
    for quantity in ("force components, meV/Å", "energy, meV/atom", "virial, meV/atom"):
        assert quantity in found.text
    assert found.tags.count("figure") >= 8
    assert "a&b.extxyz#" in found.text
    assert "valid_fraction: 0.1" in found.text


def test_report_is_the_same_bytes_each_time(trained: Path) -> None:
    first = write_report(trained).read_bytes()
    assert write_report(trained).read_bytes() == first


def test_report_shows_dynamics_laws_and_manifest(synthetic: Path) -> None:
    found = read(write_report(synthetic))
    assert "3 atoms for 0.00200 ps" in found.text and "eV/atom/ps" in found.text
    assert "1 of 2" in found.text and f"Broken: {NASTY}." in found.text
    assert "content hash abc" in found.text and "seed: 7" in found.text


def test_report_escapes_what_users_write(synthetic: Path) -> None:
    path = write_report(synthetic)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert read(path).text.count(NASTY) >= 4


def test_report_says_that_data_changed_since_training(synthetic: Path) -> None:
    description = synthetic / "step_0000100" / "model.json"
    content = json.loads(description.read_text())
    content["metadata"]["data"]["default"]["valid"] = {"paths": [], "hash": "other", "frames": 1}
    description.write_text(json.dumps(content))
    assert "content hash differs" in read(write_report(synthetic)).text


def test_report_judges_on_the_data_that_eval_json_names(synthetic: Path, tmp_path: Path) -> None:
    write(tmp_path / "test.extxyz", [water(seed) for seed in range(20, 25)])
    (synthetic / "eval.json").write_text(json.dumps({"data": [str(tmp_path / "test.extxyz")], "task": "default"}))
    text = read(write_report(synthetic)).text
    assert "On 5 test structures, which played no part in training" in text
    text = read(write_report(synthetic, [str(tmp_path / "data.extxyz")])).text
    assert "On 8 structures given for this page" in text


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (("log.jsonl",), "There is no log.jsonl"),
        (("md.json", "check.json"), "No molecular dynamics has been run"),
        (("best", "last"), "no model to judge"),
        (("config.yaml",), "could not be opened"),
        (("step_0000100/model.safetensors",), "no model to judge"),
    ],
)
def test_report_says_what_is_missing(synthetic: Path, missing: tuple[str, ...], sentence: str) -> None:
    for name in missing:
        (synthetic / name).unlink()
    found = read(write_report(synthetic))
    assert sentence in found.text
    assert set(SECTIONS) <= set(found.ids)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"rows": 3, "samples": 1, "config": [], "data": 5, "n_atoms": "x", "step": "y"}']
)
def test_report_survives_damaged_files(synthetic: Path, content: str) -> None:
    for name in ("md.json", "check.json", "eval.json", "log.jsonl", "step_0000100/model.json"):
        (synthetic / name).write_text(content)
    assert set(SECTIONS) <= set(read(write_report(synthetic)).ids)


def test_report_without_validation_data_says_so(synthetic: Path) -> None:
    config = yaml.safe_load((synthetic / "config.yaml").read_text())
    config["tasks"]["default"]["valid_fraction"] = 0.0
    (synthetic / "config.yaml").write_text(yaml.safe_dump(config))
    assert "there is no validation data" in read(write_report(synthetic)).text


def test_report_refuses_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no run folder"):
        write_report(tmp_path)


def test_more_tasks_than_colours_are_drawn_in_several_figures() -> None:
    """Each has a curve of its own colour and a name; ids of drawings stay apart."""
    x = np.array([10.0, 20.0])
    runs = [History(f"task{k}", "train", x, x, {"loss": x, "forces": x, "lr": x}) for k in range(6)]
    page = str(learning(runs, {}))
    for k in range(6):
        assert page.count(f"task{k}, training<") == 2  # loss and forces, against steps
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_histories_keep_tasks_and_splits_apart() -> None:
    log = [
        {"event": e, "step": s, "task": t, "loss": 1.0, "seconds": 1.0}
        for s in (1, 2)
        for t in "ab"
        for e in ("train", "valid")
    ]
    found = {(h.task, h.split): h.step.tolist() for h in histories([*log, {"event": "best", "step": 2}])}
    assert found == {(t, e): [1.0, 2.0] for t in "ab" for e in ("train", "valid")}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (45.23, "45.2"),
        (1234.5, "1,230"),
        (0.000812, "8.12e−4"),
        (-0.05, "−0.0500"),
        (None, "–"),
        (float("nan"), "nan"),
        (9.999, "10.0"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_tables_escape_and_align() -> None:
    source = page("t", [paragraph(NASTY), table(["name", "x, eV"], [["<i>", 1.0], ["b", None]])])
    assert "<i>" not in source and '<td class="n">1.00</td>' in source and NASTY in Page(source).text
