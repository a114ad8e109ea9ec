"""The code in the README runs, as it stands there, in an empty folder."""

from __future__ import annotations

import doctest
import re

import pytest

from house.tree import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_readme_has_the_blocks():
    assert len(blocks("python")) == 1
    assert len(blocks("pycon")) == 1
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 4
    assert "make demo" in blocks("sh")[0]
    assert "make test" in blocks("sh")[0]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_readme_program_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[number], "README.md", "exec"), {"__name__": "readme"})
    assert len(capsys.readouterr().out.splitlines()) >= 3


@pytest.mark.parametrize("number", range(len(blocks("pycon"))))
def test_readme_session_gives_what_it_shows(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = doctest.DocTestParser().get_doctest(blocks("pycon")[number], {}, f"README session {number}", "README.md", 0)
    assert session.examples
    runner = doctest.DocTestRunner()
    report: list[str] = []
    runner.run(session, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_tree_in_the_readme_is_the_tree():
    package, _, project = blocks("text")[0].partition("tests/")
    folders = set(re.findall(r"(?<=  )(\w+)/", package))
    assert folders == {path.name for path in (ROOT / "src/lamella").iterdir() if path.is_dir()} - {"__pycache__"}
    for name in ("scripts", "Makefile", "docs"):
        assert name in project
        assert (ROOT / name).exists()


def test_commands_in_the_readme_exist():
    from lamella import cli

    named = set(re.findall(r"`lamella (\w+)", README))
    known = {command.name for command in cli.app.registered_commands} | {group.name for group in cli.app.registered_groups}
    assert named <= known
    told = set(re.findall(r"^\| `lamella (\w+)", README, re.MULTILINE)) | {"doctor"}
    assert known <= told
