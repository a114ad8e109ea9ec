"""What is tracked names no machine and no registry, and the project's papers are in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lamella
from house.tree import ROOT, project_files, text_of

# Written in pieces, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~/$}-])/" + r"(?:work|root|home|tmp|Users|mnt|opt/wheels)/[\w.]")
REGISTRY = re.compile(
    r"(?:py" + r"pi\.org|python" + r"hosted\.org|npm" + r"js\.org|download\.py" + r"torch\.org|--extra-" + r"index-url)"
)


def findings(pattern: re.Pattern[str], text: str) -> list[str]:
    return [f"{number}: {line.strip()[:120]}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "registry hosts"])
def test_files_do_not_name(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in project_files() for line in findings(pattern, text_of(path) or "")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("see /" + "home/me/run", True),
        ('open("/' + 'tmp/x")', True),
        ("a/" + "work/b and $HOME/" + "run", False),
        ("the home/office ratio", False),
    ],
)
def test_machine_path_pattern(text, bad):
    assert bool(MACHINE_PATH.search(text)) is bad


def test_no_large_files():
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in project_files() if path.stat().st_size > 2_500_000}
    assert not large


def test_changelog_tells_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    section = re.search(rf"^## \[?{re.escape(lamella.__version__)}\]?.*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"CHANGELOG.md has no section for {lamella.__version__}"
    assert re.search(r"^- \S", section[1], re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt", "Makefile", ".ci/run"]
)
def test_expected_file_is_there(name):
    assert (ROOT / name).stat().st_size > 0


def test_scripts_can_be_run():
    for path in [ROOT / ".ci/run", *(ROOT / "scripts").iterdir()]:
        if path.is_file() and path.suffix == "":
            assert path.stat().st_mode & 0o111, path
            assert path.read_text().startswith("#!")


def test_make_targets_call_scripts_that_exist():
    called = re.findall(r"scripts/\w+", (ROOT / "Makefile").read_text())
    assert called
    assert [name for name in called if not Path(ROOT, name).is_file()] == []
