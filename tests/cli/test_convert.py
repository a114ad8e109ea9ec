"""``lamella convert`` of models: there, back, one branch, nothing overwritten."""

from __future__ import annotations

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from golden_models import GOLDEN, disagreements
from lamella.cli.convert import convert
from lamella.errors import InputError, LamellaError
from lamella.formats.load import load


def run(*arguments):
    app = Typer()
    app.command()(convert)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, LamellaError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["dpa3_dynamic", "dp_se_e2_a"])
def test_checkpoint_to_folder_and_back_predicts_the_same(tmp_path, name):
    said = run(GOLDEN / f"{name}.pt", tmp_path / "model")
    assert "a lamella model" in said
    said = run(tmp_path / "model", tmp_path / "back.pt")
    assert "dp --pt freeze -c" in said
    assert "deepmd-kit keeps the nearest" in said
    assert max(disagreements(load(tmp_path / "back.pt"), name).values()) < 1e-10
    got, want = (torch.load(path, weights_only=True)["model"] for path in (tmp_path / "back.pt", GOLDEN / f"{name}.pt"))
    assert all(torch.equal(got[key], want[key]) for key in want if key != "_extra_state")


def test_frozen_model_becomes_a_checkpoint(tmp_path):
    run(GOLDEN / "frozen.pth", tmp_path / "model.pt")
    assert max(disagreements(load(tmp_path / "model.pt"), "frozen").values()) < 1e-10


def test_one_branch_of_many_becomes_a_model(tmp_path):
    said = run(GOLDEN / "dpa3_multitask_case.pt", tmp_path / "model.pt", "--task", "scan")
    assert "--head" not in said
    assert load(tmp_path / "model.pt").tasks == ("scan",)
    said = run(GOLDEN / "dpa3_multitask_case.pt", tmp_path / "both.pt")
    assert "--head pbe" in said


def test_what_exists_is_overwritten_only_when_told(tmp_path):
    (tmp_path / "model.pt").write_text("mine")
    with pytest.raises(InputError, match=r"model\.pt: the file exists"):
        run(GOLDEN / "order1.pt", tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_text() == "mine"
    run(GOLDEN / "order1.pt", tmp_path / "model.pt", "--force")
    run(GOLDEN / "order1.pt", tmp_path / "model.pt", "--overwrite")
    assert load(tmp_path / "model.pt").elements == ("O", "H")


def test_folder_of_something_else_is_never_written_into(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something other than a lamella model"):
        run(GOLDEN / "order1.pt", tmp_path / "data", "--force")
    run(GOLDEN / "order1.pt", tmp_path / "model")
    run(GOLDEN / "float32.pt", tmp_path / "model", "--force")
    assert load(tmp_path / "model").dtype == torch.float32


def test_ending_that_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model\.pth: lamella converts models to \.pt"):
        run(GOLDEN / "order1.pt", tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["dpa3_multitask_heads", "dpa3_multitask_case"])
def test_one_task_of_a_lamella_model_becomes_a_model(tmp_path, name):
    run(GOLDEN / f"{name}.pt", tmp_path / "model")
    run(tmp_path / "model", tmp_path / "one.pt", "--task", "scan")
    assert load(tmp_path / "one.pt").tasks == ("scan",)
    assert max(disagreements(load(tmp_path / "one.pt"), name, "scan").values()) < 1e-10
    with pytest.raises(InputError, match=r"no task 'scam' \(did you mean 'scan'\?\)"):
        run(tmp_path / "model", tmp_path / "none.pt", "--task", "scam")


def test_what_is_read_is_never_written_over(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes((GOLDEN / "order1.pt").read_bytes())
    (tmp_path / "link.pt").symlink_to(path)
    run(path, tmp_path / "model")
    (tmp_path / "input.json").write_text("{}")
    before = path.read_bytes()
    for source, target in (("model.pt", "model.pt"), ("link.pt", "model.pt"), ("model.pt", "link.pt"), ("model", "model")):
        with pytest.raises(InputError, match="OUT is IN, or a part of it"):
            run(tmp_path / source, tmp_path / target, "--overwrite")
    with pytest.raises(InputError, match="OUT is IN"):
        run(tmp_path / "input.json", tmp_path / "input.json", "--overwrite")
    assert path.read_bytes() == before


def test_state_of_an_optimiser_that_stays_behind_is_said(tmp_path):
    content = torch.load(GOLDEN / "order1.pt", weights_only=True)
    assert "is not carried over" not in run(GOLDEN / "frozen.pth", tmp_path / "frozen")
    torch.save({"model": content["model"], "optimizer": {"state": {}}}, tmp_path / "in.pt")
    assert "the optimiser in" in run(tmp_path / "in.pt", tmp_path / "model")
    assert "is not carried over" not in run(tmp_path / "model", tmp_path / "out.pt")
    (tmp_path / "model" / "trainer.pt").write_bytes(b"")
    assert "is not carried over" in run(tmp_path / "model", tmp_path / "out2.pt")
