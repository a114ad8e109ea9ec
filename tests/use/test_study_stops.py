"""Studies that are stopped, killed, made again and carried out side by side: the same numbers in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamella.errors import InputError, RecipeError
from lamella.train.recipe import Recipe, dump_recipe
from lamella.train.stop import Interrupted
from lamella.use.study import judging, studies, training
from lamella.use.study.studies import read_config, run_study
from lamella.use.study.trial import Work
from use.study_small import carried_out, make_sets, smallest, table_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_sets(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def finished(folder) -> tuple[Path, tuple[list[dict[str, str]], str, list[str]]]:
    """The smallest learning curve, and what was found."""
    return folder / "finished", carried_out("learning-curve", smallest(folder), folder / "finished")


def test_a_study_keeps_what_is_done(folder, finished, monkeypatch):
    out, first = finished
    monkeypatch.setattr(training, "fit", lambda *given: pytest.fail("it was trained already"))
    monkeypatch.setattr(judging, "evaluate_sets", lambda *given: pytest.fail("it was judged already"))
    second = carried_out("learning-curve", smallest(folder), out)
    assert second[:2] == first[:2]
    assert second[2] == ["2 of 2 trainings are finished and kept"]
    settings = (out / "study.yaml").read_text()
    with pytest.raises(RecipeError, match="begun with another recipe"):
        carried_out("learning-curve", [*smallest(folder), "steps=7"], out)
    assert (out / "study.yaml").read_text() == settings, "it still says what is there"


def test_errors_belong_to_weights_not_to_names(folder, finished, tmp_path):
    """A run that was removed and trained with other settings is judged anew."""
    import shutil

    shutil.copytree(finished[0], tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "runs")
    rows, _, _ = carried_out("learning-curve", [*smallest(folder), "set=[optimizer.lr=0.05]"], tmp_path / "s")
    assert rows != finished[1][0]


def test_a_study_goes_on_where_it_stopped(folder, finished, tmp_path, monkeypatch):
    asked = training.fit

    def stopped_once(recipe: Recipe, run: Path, resume: bool) -> Path:
        if run.name.endswith("s2") and not resume:
            asked(recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 2})}), run, resume)
            (run / "config.yaml").write_text(dump_recipe(recipe))
            raise Interrupted("stopped after step 2.", 130)
        return asked(recipe, run, resume)

    monkeypatch.setattr(training, "fit", stopped_once)
    with pytest.raises(Interrupted, match="The same command goes on") as stop:
        carried_out("learning-curve", smallest(folder), tmp_path / "s")
    assert stop.value.exit_code == 130
    _, _, said = carried_out("learning-curve", smallest(folder), tmp_path / "s")
    assert said[0] == "1 of 2 trainings are finished and kept"


@pytest.mark.parametrize("moment", ["in a training", "before a checkpoint", "between models", "in the report"])
def test_a_killed_study_ends_with_the_same_table(folder, finished, tmp_path, monkeypatch, moment):
    """kill -9, in a copy of this process, then the same command."""
    import lamella.train.fit as fitting

    def kill(*given: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    place, name = {
        "in a training": (fitting._Trainer, "_after_step"),
        "before a checkpoint": (fitting, "save_checkpoint"),
        "between models": (judging, "_keep"),
        "in the report": (studies, "write_report"),
    }[moment]
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(place, name, kill)
        try:
            run_study("learning-curve", read_config("learning-curve", None, smallest(folder)), tmp_path / "s", Work(str))
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / "s" / "table.csv").exists() and (tmp_path / "s" / "study.yaml").exists()
    assert carried_out("learning-curve", smallest(folder), tmp_path / "s")[0] == finished[1][0]


def test_a_study_made_again_from_what_it_wrote_is_the_same(finished, tmp_path, monkeypatch):
    out, (rows, _, _) = finished
    monkeypatch.chdir(tmp_path)
    config = read_config("learning-curve", out / "study.yaml", [])
    run_study("learning-curve", config, tmp_path / "again", Work(lambda line: None))
    assert table_of(tmp_path / "again") == rows
    for name in ("study.md", "figure.svg"):
        assert (tmp_path / "again" / name).read_text() == (out / name).read_text()


def test_a_refused_training_is_named(folder, tmp_path):
    bare = (folder / "a.xyz").read_text().replace("energy=", "energi=").replace(":forces:", ":farces:")
    (tmp_path / "bad.xyz").write_text(bare)
    overrides = [*smallest(folder), f"sets.a.train={tmp_path / 'bad.xyz'}", "sizes=[]", "whole=true", "seeds=[1]"]
    with pytest.raises(InputError, match="a-plain-12-s1: "):
        carried_out("learning-curve", overrides, tmp_path / "s")


@pytest.mark.slow
def test_trainings_side_by_side_give_the_same_errors(folder, finished, tmp_path):
    assert carried_out("learning-curve", smallest(folder), tmp_path / "s", jobs=2)[0] == finished[1][0]
    assert "step" in (tmp_path / "s" / "logs" / "a-plain-4-s1.log").read_text()


@pytest.mark.slow
def test_asked_to_stop_trainings_side_by_side_save_and_go_on_later(folder, tmp_path):
    words = [*smallest(folder), "steps=100000", "--jobs", "2", "--out", str(tmp_path / "s")]
    command = [sys.executable, "-m", "lamella", "study", "learning-curve", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    logs = [tmp_path / "s" / "logs" / f"a-plain-4-s{seed}.log" for seed in (1, 2)]
    for _ in range(1200):
        if all(log.exists() and "  train " in log.read_text() for log in logs):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "The same command goes on" in said
    assert all((tmp_path / "s" / "runs" / log.stem / "last").exists() for log in logs)
