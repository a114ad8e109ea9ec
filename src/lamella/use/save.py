"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lamella.errors import InputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Write beside ``path`` and rename at the end; after an error or interrupt the old file, if any, is as it was.

    Raises:
        InputError: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename not in (None, os.fspath(beside)):
            raise  # not about this file
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another place. What was there is intact."
        ) from None
    finally:
        beside.unlink(missing_ok=True)
