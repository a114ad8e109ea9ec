"""``lamella check``: a row per law, JSON, and an exit status."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from golden_models import GOLDEN
from lamella.cli import app
from lamella.use.laws import LAWS


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "160"})


def test_lawful_model_exits_with_zero_and_lists_every_law():
    result = run(GOLDEN / "dpa3_static.pt")
    assert result.exit_code == 0, result.output
    assert f"{len(LAWS)} of {len(LAWS)} laws hold." in result.output
    assert all(law in result.output for law in LAWS)


def test_broken_law_exits_with_one_and_is_named_in_json():
    result = run(GOLDEN / "reference_defaults.pt", "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["passed"] is False
    assert [row["law"] for row in content["rows"]] == list(LAWS)
    assert [row["law"] for row in content["rows"] if not row["passed"]] == ["smooth at inner cutoffs", "continuity"]


def test_one_task_can_be_asked_for():
    result = run(GOLDEN / "dpa3_multitask_heads.pt", "--task", "nonsense")
    assert result.exit_code != 0
