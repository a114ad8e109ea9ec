"""The demo in miniature: every stage runs, nobody's folder is touched, trouble is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamella.errors import LamellaError
from lamella.use.demo import Demo, Show, free_folder, run_demo
from lamella.use.demo.page import verdict
from lamella.use.demo.work import Work
from lamella.use.report.page import number
from lamella.use.settings import MDConfig

SMALL = ("model.backbone.layers=1", "model.backbone.node_dim=8", "model.backbone.edge_dim=6", "model.backbone.angle_dim=4")
SHORT = ("training.steps=4", "training.valid_every=2", "training.log_every=1")
MINIATURE = Demo(
    pretraining=(*SMALL, "model.head.hidden=[8]", *SHORT, "batch.edges=300"),
    tuning=("training.steps=3", "training.valid_every=1", "training.log_every=1", "schedule.warmup_steps=0"),
    labelled=6,
    warm_up=0.001,
    dynamics=MDConfig(time=0.002, every=1, velocities="keep"),
    laws=("translation", "sum of forces"),
)


class Listener:
    """Remembers what the demo says and how far its bars went."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: dict[str, list[int]] = {}

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[object]:
        self.bars[title] = [0, total]

        def advance(steps: int, says: str) -> None:
            self.bars[title][0] += steps

        yield advance

    @property
    def show(self) -> Show:
        return Show(self.lines.append, self.progress)  # type: ignore[arg-type]

    @property
    def stages(self) -> list[str]:
        return [line.strip()[:5] for line in self.lines if line.strip().startswith("[")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listener]:
    heard = Listener()
    return run_demo(tmp_path_factory.mktemp("demo") / "run", heard.show, MINIATURE), heard


def test_demo_runs_every_stage_and_names_the_report(finished: tuple[Path, Listener]) -> None:
    path, heard = finished
    assert path.name == "report.html" and str(path) in heard.lines[-1]
    assert heard.stages == [f"[{k}/8]" for k in range(1, 9)]
    assert all(done == total > 0 for done, total in heard.bars.values()), heard.bars
    assert {"molecules_pbe", "water_gfn2", "checking", "dynamics"} <= set(heard.bars)
    for run in ("pretrained", "finetuned", "from_scratch"):
        assert (path.parent / run / "log.jsonl").exists(), run


def test_page_shows_what_the_stages_left(finished: tuple[Path, Listener]) -> None:
    path, _ = finished
    text = path.read_text(encoding="utf-8")
    testing = json.loads((path.parent / "testing.json").read_text(encoding="utf-8"))
    errors = testing["forces"]["water_gfn2"]
    assert set(errors) == {"spread", "zero-shot gfn2", "zero-shot pbe", "fine-tuned", "from scratch"}
    for error in errors.values():
        assert number(1e3 * error) in text
    assert text.count("<figure>") == 4 and "2 of 2" in text and "$" not in text.partition("<body")[2]
    assert "only 6 labelled" in text


def test_labels_of_the_two_tasks_contradict_each_other(finished: tuple[Path, Listener]) -> None:
    data = json.loads((finished[0].parent / "data.json").read_text(encoding="utf-8"))
    assert data["energy_gap"] < -10.0  # PBE counts all electrons
    assert data["forces_rms_difference"] > 0.1 * data["forces_std"]
    assert data["clashes"] > 100 and data["problems"] == 0 and data["few"] == 6


def test_fine_tuning_and_scratch_differ_by_their_start_alone(finished: tuple[Path, Listener]) -> None:
    from lamella.train.recipe import load_recipe

    runs = [load_recipe(finished[0].parent / run / "config.yaml").model_dump() for run in ("finetuned", "from_scratch")]
    starts = [[run.pop(key) for key in ("start", "model", "elements")] for run in runs]
    assert starts[0][0] is not None and starts[1][0] is None
    assert runs[0] == runs[1]


def test_the_shipped_recipes_describe_one_architecture() -> None:
    from lamella.train.recipe import load_recipe

    assert load_recipe("demo_tasks").model == load_recipe("demo_water").model


@pytest.mark.parametrize(
    ("tuned", "scratch", "zero", "says"),
    [(0.1, 0.3, 0.5, "3.0 times smaller"), (0.3, 0.1, 0.2, "did not pay"), (0.3, 0.4, 1.2, "of little use for this water")],
)
def test_verdict_is_that_of_the_numbers(tuned: float, scratch: float, zero: float, says: str) -> None:
    forces = {
        "spread": 1.0,
        "zero-shot gfn2": zero,
        "zero-shot pbe": zero + 0.1,
        "fine-tuned": tuned,
        "from scratch": scratch,
    }
    energy = {"fine-tuned": 0.06, "from scratch": 0.05}
    said = verdict({"forces": {"water": forces}, "energy": {"water": energy}})
    assert says in " ".join(said) and f"{number(1e3 * zero)} meV/Å zero-shot" in said[0]
    assert ("but not for energies" in " ".join(said)) == (tuned < scratch)


def test_demo_never_writes_into_a_folder_that_is_in_use(tmp_path: Path) -> None:
    demo, run = Demo(), tmp_path / "run"
    assert free_folder(run, demo) == (run, False)
    run.mkdir()
    assert free_folder(run, demo) == (run, False)
    (run / "mine.txt").write_text("mine")
    assert free_folder(run, demo) == (tmp_path / "run-2", False)
    (tmp_path / "run-2").write_text("a file")
    assert free_folder(run, demo) == (tmp_path / "run-3", False)


def test_demo_goes_on_with_an_unfinished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, heard = tmp_path / "run", Listener()
    done: list[str] = []

    def stage(name: str, leaves: str | None = None, fails: bool = False) -> object:
        def do(mark: str) -> None:
            if fails and not done.count(name):
                done.append(name)
                raise LamellaError("the disk is full.")
            done.append(name)
            if leaves:
                (run / leaves).write_text("{}")

        return do

    stages = {
        "data": stage("data", "data.json"),
        "pre-training": stage("fit", fails=True),
        "report": stage("report", "report.html"),
    }
    monkeypatch.setattr(Work, "stages", stages)
    with pytest.raises(LamellaError, match=r"stage 2 \(pre-training\) of the demo failed: the disk is full"):
        run_demo(run, heard.show, MINIATURE)
    assert free_folder(run, MINIATURE) == (run, True)
    assert free_folder(run, Demo()) == (tmp_path / "run-2", False)
    assert run_demo(run, heard.show, MINIATURE) == run / "report.html"
    assert done == ["data", "fit", "fit", "report"]
    assert free_folder(run, MINIATURE) == (tmp_path / "run-2", False)


def test_demo_tells_of_trouble_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "stages", {"laws": lambda mark: "these laws do not hold: torque", "report": lambda mark: None})
    with pytest.raises(
        LamellaError, match=r"not all is well: stage 1 \(laws\): these laws do not hold: torque\. The report"
    ):
        run_demo(tmp_path / "run", Listener().show, MINIATURE)
