"""The files of the project as the house tests see them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from house.architecture import module_name

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "lamella"

_GENERATED = {".venv", ".envs", "site", "run", "runs", "build", "dist", "__pycache__"}


@cache
def sources() -> dict[str, str]:
    """Text of every module of the package by module name."""
    return {module_name(path, SOURCE): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is or would be tracked by git; in an unpacked archive, every file that is not generated."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listing.returncode == 0 and listing.stdout:
        paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _GENERATED & set(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in paths if path.is_file()))


def text_of(path: Path) -> str | None:
    """The text of a file, ``None`` for a binary one."""
    content = path.read_bytes()
    return None if b"\0" in content[:4096] else content.decode("utf-8", errors="replace")
