"""Checksums as texts: ``sha256:…``, or ``md5:…`` where a host publishes nothing better."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

__all__ = ["Digests", "digests", "folder_digest", "sha256"]

_CHUNK = 1 << 20


class Digests(NamedTuple):
    """The checksums of one file, in hexadecimal."""

    sha256: str
    md5: str

    def match(self, checksum: str | None) -> bool:
        """Whether a checksum is that of this file; ``None`` is that of every file."""
        if checksum is None:
            return True
        kind, _, value = checksum.partition(":")
        return {"sha256": self.sha256, "md5": self.md5}[kind] == value.lower()

    def beside(self, checksum: str) -> str:
        """What was found beside what should have been, each shortened."""
        kind, _, value = checksum.partition(":")
        found = {"sha256": self.sha256, "md5": self.md5}[kind]
        return f"{kind} {found[:12]}… instead of {value[:12]}…"


def digests(path: Path) -> Digests:
    """Both checksums of a file, read once."""
    sha, md = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
            md.update(chunk)
    return Digests(sha.hexdigest(), md.hexdigest())


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """The SHA-256 of a folder's files, their names and contents; independent of where it lies and of the order on disk."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{sha256(path)}  {name}\n".encode())
    return total.hexdigest()
