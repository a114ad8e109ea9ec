"""``lamella show`` says what a model is, as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from golden_models import GOLDEN
from lamella.cli.models import show
from lamella.errors import CheckpointError


def run(*arguments):
    app = Typer()
    app.command()(show)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def test_show_prints_what_a_model_is():
    result = run(GOLDEN / "dpa3_multitask_case.pt")
    assert result.exit_code == 0, result.output
    words = [
        *("2 layers, line graph of order 2", "node 16, edge 12, angle 8", "9,433", "float64", "5 Å, angles 3.5 Å"),
        *("pbe, scan (one head, dataset encoding)", "O H (2)", "forces eV/Å", "-3.016082", "-3.716940", "deepmd-kit"),
    ]
    missing = [word for word in words if word not in result.output]
    assert not missing, result.output


def test_show_names_the_order_of_a_model_without_angles():
    output = run(GOLDEN / "order1.pt").output
    assert "line graph of order 1" in output
    assert "angle" not in output.partition("architecture")[2].partition("head")[0]


def test_show_as_json_is_json_and_complete():
    result = run(GOLDEN / "format1", "--json")
    content = json.loads(result.output)
    assert content["tasks"] == ["a", "b"]
    assert content["baseline"]["b"]["H"] == -14.123456789012345
    assert content["config"]["backbone"]["node_dim"] == 6
    assert content["parameters"] == 1566
    assert content["metadata"] == {"data": {"hash": "abc"}, "note": "é"}


def test_show_of_nothing_is_a_named_error(tmp_path):
    result = run(tmp_path / "nowhere")
    assert isinstance(result.exception, CheckpointError)
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder"):
        raise result.exception
