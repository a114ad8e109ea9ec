"""NVE dynamics of a trained model conserve energy: 1 ps of water at 300 K, as ``lamella md`` reports it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from lamella import cli

MODEL = Path(__file__).parents[1] / "golden" / "trained_water"


def test_drift_of_a_trained_model_in_nve_is_below_1e_4_ev_per_atom_and_ps(tmp_path: Path) -> None:
    trajectory = tmp_path / "nve.extxyz"
    arguments = ["md", str(MODEL), "embedded:water_box", "--trajectory", str(trajectory)]
    arguments += ["--ensemble", "nve", "--temperature", "300", "--time", "1.0", "--timestep", "0.5"]
    result = CliRunner().invoke(cli.app, [*arguments, "--dtype", "float64", "--seed", "1"])
    assert result.exit_code == 0, result.output
    summary = json.loads(trajectory.with_suffix(".json").read_text())
    assert summary["steps"] == 2000
    assert abs(summary["drift"]) < 1e-4
    assert 150 < summary["temperature"]["mean"] < 600, "the box must be a liquid at about the temperature asked for"
