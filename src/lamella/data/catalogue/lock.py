"""What was fetched of a data set: a small JSON file beside its folder that later fetches are held to.

Where nobody publishes a checksum, the first download cannot be verified. It is recorded here, and from then on the set has
a checksum of its own: on this machine, and on every other one the file is copied to.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lamella.errors import FetchError
from lamella.remote.part import unwritable

__all__ = ["Lock", "Record", "lock_path", "read_lock", "write_lock"]

_FORMAT: Final = 1


class Record(BaseModel):
    """One file of a set as it was fetched.

    Attributes:
        sha256: of the file that was downloaded.
        size: its bytes.
        folder: digest of what it was unpacked to, see :func:`lamella.remote.checksum.folder_digest`; ``None`` if it was not.
        checked: a published checksum agreed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int
    folder: str | None = None
    checked: bool = False


class Lock(BaseModel):
    """The files of a set as they were fetched, by their path in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = _FORMAT
    name: str
    files: dict[str, Record] = {}


def lock_path(folder: Path) -> Path:
    """Where the record of a set's folder lies: beside it, so that it outlives the folder."""
    return folder.with_name(f"{folder.name}.lock.json")


def read_lock(folder: Path, name: str) -> Lock:
    """The record of a set's folder, empty where nothing was fetched yet.

    Raises:
        FetchError: it is there and cannot be read, or is that of another set.
    """
    path = lock_path(folder)
    if not path.exists():
        return Lock(name=name)
    try:
        lock = Lock.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise FetchError(
            f"{path}: the record of what was fetched cannot be read ({reason}); repair it, or move it away to start anew."
        ) from None
    if lock.name != name:
        raise FetchError(f"{path}: it is the record of {lock.name!r}, not of {name!r}; choose another folder with --to.")
    return lock


def write_lock(folder: Path, lock: Lock, path: str, record: Record) -> Lock:
    """Add one file to the record, on disk too; replaced as a whole."""
    new = lock.model_copy(update={"files": {**lock.files, path: record}})
    target = lock_path(folder)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(new.model_dump(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        scratch.replace(target)
    except OSError as error:
        raise unwritable(target, error) from None
    return new
