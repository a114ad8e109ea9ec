"""The command line as a person meets it: help, version, one-line errors, exit statuses, a quick start."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import lamella
from lamella import cli
from lamella.errors import DataError

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def lamella_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lamella", *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
        timeout=120,
    )


def test_help_names_every_command():
    done = lamella_command("--help")
    assert done.returncode == 0
    for name in ("train", "eval", "md", "relax", "check", "show", "report", "demo", "doctor", "data"):
        assert re.search(rf"\b{name}\b", done.stdout), name


def test_help_of_data_names_its_commands():
    done = lamella_command("data", "--help")
    assert done.returncode == 0
    for name in ("lint", "info", "convert"):
        assert name in done.stdout


@pytest.mark.parametrize("name", ["train", "eval", "md", "relax", "check", "show", "report", "demo", "doctor"])
def test_every_command_explains_itself(name):
    from typer.testing import CliRunner

    result = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output
    assert len(result.output.splitlines()) > 5


def test_version():
    assert lamella_command("--version").stdout == f"lamella {lamella.__version__}\n"


def test_unknown_command_is_refused():
    done = lamella_command("trian")
    assert done.returncode == 2
    assert "trian" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file_is_one_line_on_the_error_stream():
    done = lamella_command("show", "no_such_model.pt")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no_such_model.pt")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def run_main(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr(cli, "app", fail)
    cli.main()


def test_lamella_errors_exit_with_1(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(monkeypatch, DataError("water.xyz#3: energy is NaN; remove the frame."))
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: water.xyz#3: energy is NaN; remove the frame.\n"


def test_interruption_exits_with_130(monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run_main(monkeypatch, KeyboardInterrupt())
    assert stop.value.code == 130


def test_defects_keep_their_traceback_and_ask_for_a_report(monkeypatch):
    with pytest.raises(ZeroDivisionError) as defect:
        run_main(monkeypatch, ZeroDivisionError("division by zero"))
    assert "report" in "".join(defect.value.__notes__)
