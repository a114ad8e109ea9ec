"""``lamella doctor``: it looks at everything it promises, judges it, and says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lamella import cli
from lamella.models.backbone import BACKBONES
from lamella.use import doctor
from lamella.use.doctor import Finding, examine

TOPICS = {
    "lamella", "python", "platform", "torch", "numpy", "ase", "torch build", "processors", "GPU", "compiler",
    "memory allocator", "free disk", "self-test",
}  # fmt: skip


def test_examination_covers_the_promised_topics(tmp_path):
    findings = examine(tmp_path)
    assert {finding.topic for finding in findings} >= TOPICS
    assert all(finding.advice for finding in findings if finding.verdict != "ok")
    (self_test,) = [finding for finding in findings if finding.topic == "self-test"]
    assert self_test.verdict == "ok", self_test


def test_examination_leaves_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    doctor._self_test()
    assert torch.equal(torch.rand(2), expected)


def test_self_test_notices_wrong_forces(monkeypatch):
    from lamella.geometry import derive
    from lamella.models import potential

    def wrong(grad, vec, graph):
        forces, virial = derive.forces_and_virial(grad, vec, graph)
        return 1.001 * forces, virial

    monkeypatch.setattr(potential, "forces_and_virial", wrong)
    (finding,) = doctor._self_test()
    assert finding.verdict == "problem"
    assert "wrong forces" in finding.advice


def test_self_test_reports_a_failure(monkeypatch):
    def fail(backbone):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(doctor, "_force_error", fail)
    (finding,) = doctor._self_test()
    assert finding.verdict == "problem"
    assert "no kernel image" in finding.value


def test_self_test_is_finite_for_every_architecture():
    backbones = doctor._small_backbones()
    assert {backbone.kind for backbone in backbones} == set(BACKBONES)
    assert all(np.isfinite(doctor._force_error(backbone)) for backbone in backbones)


def test_missing_folder_is_no_crash():
    finding = doctor._disk(Path("/no/such/folder"))
    assert finding.verdict == "note"


def test_tested_versions_are_read():
    tested = doctor._constraints()
    assert tested["torch"]
    assert tested["pyyaml"]


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_command_exits_with_1_where_there_is_a_problem(monkeypatch, verdict, code):
    monkeypatch.setattr(doctor, "examine", lambda folder: [Finding("disk", "3 bytes", verdict, "buy a disk")])
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == code
    assert "buy a disk" in result.output
