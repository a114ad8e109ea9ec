"""A file while it comes in: the bytes that are there, and which offer of which host they are a part of."""

from __future__ import annotations

import http.client
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from lamella.errors import InputError
from lamella.remote.cache import CACHE

__all__ = ["CutError", "Part", "check_room", "locked", "unwritable"]

_CHUNK = 1 << 18


class CutError(Exception):
    """The connection ended early; going on may help."""


class Part:
    """The file while it comes in, and which offer of which host it is a part of."""

    def __init__(self, path: Path, on_bytes: Callable[[int, int | None], None]) -> None:
        self.path, self.on_bytes = path, on_bytes
        self.origin = path.with_name(f"{path.name}.origin")

    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def tag(self, address: str) -> str | None:
        """The host's mark of the offer that the part is of, if it is of this address and the mark can be relied on."""
        lines = self.origin.read_text(errors="replace").splitlines() if self.origin.exists() else []
        return lines[1] if len(lines) == 2 and lines[0] == address else None

    def remember(self, address: str, tag: str | None) -> None:
        """Note a strong mark of the offer; a weak one ('W/') says nothing about single bytes."""
        if tag and tag.startswith('"') and "\n" not in address + tag:
            try:
                self.origin.write_text(f"{address}\n{tag}\n")
            except OSError as error:
                raise unwritable(self.path.parent, error) from None

    def clear(self) -> None:
        """Forget all of it."""
        self.path.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    def rename(self, target: Path) -> None:
        """Give the file its name."""
        try:
            self.path.replace(target)
        except OSError as error:
            raise unwritable(target, error) from None
        self.clear()

    def append(self, response: http.client.HTTPResponse, start: int, total: int | None) -> None:
        """Write what comes behind the first ``start`` bytes.

        Raises:
            CutError: it ends before ``total``.
            InputError: the disk is full.
        """
        if total is not None:
            check_room(self.path.parent, total - start)
        done = start
        with self._opened(start) as file:
            self.on_bytes(done, total)
            while chunk := _read(response):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise unwritable(self.path.parent, error) from None
                done += len(chunk)
                self.on_bytes(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise CutError(f"the connection was cut after {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    def _opened(self, start: int) -> IO[bytes]:
        try:
            return self.path.open("ab" if start else "wb")
        except OSError as error:
            raise unwritable(self.path.parent, error) from None


def check_room(folder: Path, size: int, words: str = "are to come") -> None:
    """Refuse what does not fit on the disk of a folder, before it comes.

    Raises:
        InputError: with what is needed and what is free.
    """
    if size > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{folder}: {size / 1e6:.1f} MB {words} and {free / 1e6:.1f} MB are free. "
            f"Free some space, or choose another folder with --to or with {CACHE} in the environment."
        )


@contextmanager
def locked(folder: Path, file: str, name: str, note: Callable[[str], None]) -> Iterator[None]:
    """The folder, made where it is not there, with no other process fetching the same thing into it.

    Args:
        folder: where it goes.
        file: what the lock is of; it lies beside as ``.file.lock``.
        name: what ``note`` calls it.
        note: told when another process is waited for.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{file}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"another process is fetching {name}; waiting for it")
            lock.acquire()
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def unwritable(folder: Path, error: OSError) -> InputError:
    """The error that says a folder cannot be written."""
    return InputError(
        f"{folder}: cannot be written ({error.strerror or error}). Choose another folder with --to, or with {CACHE} in the "
        "environment."
    )


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise CutError(f"the connection was cut ({_words(error)})") from None


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".") or type(error).__name__
