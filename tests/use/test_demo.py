"""The demo in miniature: every stage runs, nobody's folder is touched, trouble is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamella.errors import LamellaError
from lamella.train.recipe import dump_recipe, load_recipe
from lamella.use import demo as module
from lamella.use.demo import RECIPE, Demo, Show, free_folder, run_demo
from lamella.use.settings import MDConfig

MINIATURE = Demo(
    overrides=("training.steps=4", "training.valid_every=2", "training.log_every=1", "tasks.water.valid_fraction=0.02"),
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


def test_demo_runs_every_stage_and_names_the_report(tmp_path: Path) -> None:
    heard = Listener()
    path = run_demo(tmp_path / "run", heard.show, MINIATURE)
    assert path == tmp_path / "run" / "report.html" and str(path) in heard.lines[-1]
    for name in ("config.yaml", "log.jsonl", "best", "eval.json", "check.json", "md.json", "md.extxyz"):
        assert (path.parent / name).exists(), name
    assert [line.strip()[:5] for line in heard.lines if line.strip().startswith("[")] == [f"[{k}/6]" for k in range(1, 7)]
    assert all(done == total > 0 for done, total in heard.bars.values()) and set(heard.bars) == {
        "testing",
        "checking",
        "dynamics",
    }
    text = path.read_text(encoding="utf-8")
    assert "embedded:water_gfn2:test, which training did not read" in text and "2 of 2" in text and "48 atoms for" in text


def test_demo_never_writes_into_a_folder_that_is_in_use(tmp_path: Path) -> None:
    recipe, run = load_recipe(RECIPE), tmp_path / "run"
    assert free_folder(run, recipe) == (run, False)
    run.mkdir()
    assert free_folder(run, recipe) == (run, False)
    (run / "mine.txt").write_text("mine")
    assert free_folder(run, recipe) == (tmp_path / "run-2", False)
    (tmp_path / "run-2").write_text("a file")
    assert free_folder(run, recipe) == (tmp_path / "run-3", False)


def test_demo_goes_on_with_an_unfinished_one(tmp_path: Path) -> None:
    recipe, run = load_recipe(RECIPE), tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(dump_recipe(recipe))
    assert free_folder(run, recipe) == (run, True)
    assert free_folder(run, load_recipe(RECIPE, ["training.steps=7"])) == (tmp_path / "run-2", False)
    (run / "report.html").write_text("done")
    assert free_folder(run, recipe) == (tmp_path / "run-2", False)


def test_demo_says_which_stage_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LamellaError("the disk is full.")

    monkeypatch.setattr(module, "fit", lambda recipe, run, resume: run)
    monkeypatch.setattr(module, "evaluate", broken)
    monkeypatch.setattr(module, "load", lambda folder: None)
    with pytest.raises(LamellaError, match=r"stage 3 \(testing\) of the demo failed: the disk is full"):
        run_demo(tmp_path / "run", Listener().show, MINIATURE)
