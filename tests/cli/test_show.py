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
        *("DPA-3", "layers 2, node_dim 16, edge_dim 12, angle_dim 8", "9,433", "float64"),
        *("5 Å, exponential switch from 4.3 Å", "angle 3.5 Å, exponential switch from 3 Å"),
        *("pbe, scan (one head, dataset encoding)", "O H (2)", "forces eV/Å", "-3.016082", "-3.716940", "deepmd-kit"),
    ]
    missing = [word for word in words if word not in result.output]
    assert not missing, result.output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dp_se_e2_a", ("DeepPot-SE", "sel.O 160, sel.H 320, neurons 6-12-24", "one network per element", "5,922")),
        ("dpa1_attn2_concat", ("DPA-1", "neurons 6-12-24, axis 4", "attention_layers 2", "4.5 Å, polynomial switch")),
        ("dpa2_released", ("DPA-2", "repinit.sel 400", "repformer.layers 2", "4 Å, polynomial switch from 3.5 Å")),
        ("dpa3_charge_spin", ("DPA-3", "charge (1, default", "spin (1, default")),
        ("dpa3_exclude", ("DPA-3", "pairs left out")),
        ("reference_defaults", ("DPA-3", "not smooth", "smooth_edge_update: false feeds an edge", "a_sel")),
    ],
)
def test_show_says_what_each_architecture_is(name, words):
    output = run(GOLDEN / f"{name}.pt").output
    flat = " ".join(output.replace("│", " ").split())
    missing = [word for word in words if word not in flat]
    assert not missing, output
    content = json.loads(run(GOLDEN / f"{name}.pt", "--json").output)
    assert content["architecture"] == words[0]
    assert content["cutoff"] == content["cutoffs"][0]["end"] == max(shell["end"] for shell in content["cutoffs"])


def test_show_names_no_angles_where_there_are_none():
    output = run(GOLDEN / "order1.pt").output
    assert "angle 3" not in output.partition("cutoffs")[2].partition("head")[0]


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
