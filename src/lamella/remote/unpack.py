"""Unpacking archives from the network: plain files and folders, inside one folder, no more bytes than make sense.

An archive is a text somebody else wrote. A name that leads out of the folder refuses the whole archive; links, devices and
other special entries are left out and counted; names, sizes and permissions are never believed. The folder appears only
when everything in it has been written.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NamedTuple, cast

from lamella.errors import FetchError
from lamella.remote.part import check_room, unwritable

__all__ = ["Unpacked", "unpack"]

MOST_TIMES: Final = 200
"""An archive may hold so many times its own size (text compresses twentyfold at best, a bomb a thousandfold)."""

MOST_FREE: Final = 1 << 30
"""... but any archive may hold this many bytes."""

MOST_FILES: Final = 5_000_000
"""Files in one archive."""

_CHUNK = 1 << 20
_COMPRESSED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
"""First two bytes of a compressed file, and what opens it."""

_DRIVE = re.compile(r"^[A-Za-z]:")


class Unpacked(NamedTuple):
    """What an archive held."""

    files: int
    size: int
    """Bytes of all files."""
    left_out: int
    """Links and special entries, which are never made."""


def unpack(archive: Path, target: Path, inside: str = "") -> Unpacked:
    """Unpack a ``.tar`` (plain, gzip, bzip2, xz) or ``.zip`` archive into a new folder.

    Args:
        archive: the file; its kind is told by its content.
        target: the folder to make; appears when complete.
        inside: only what lies below this folder of the archive, without it; ``*`` stands for one name
            (``*/examples/water`` below whatever the archive's own folder is called).

    Raises:
        FetchError: no archive, a damaged or hostile one, or one without what is asked for; nothing is left behind then.
        InputError: a folder that cannot be written or is too full.
    """
    scratch = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        writer = _Writer(archive, scratch, tuple(part for part in inside.split("/") if part))
        if zipfile.is_zipfile(archive):
            _unzip(archive, writer)
        else:
            _untar(archive, writer)
        if not writer.files:
            where = f" below {inside!r}" if inside else ""
            raise FetchError(f"{archive}: it holds no files{where}; it is not the archive it should be, fetch it again.")
        os.replace(scratch, target)
    except OSError as error:
        if error.errno is None:  # bzip2's way to say that the data are wrong
            raise FetchError(f"{archive}: a damaged archive ({error}); fetch it again.") from None
        raise unwritable(target, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Unpacked(writer.files, writer.size, writer.left_out)


class _Writer:
    """Writes entries of an archive below a folder."""

    def __init__(self, archive: Path, folder: Path, inside: tuple[str, ...]) -> None:
        self.archive, self.folder, self.inside = archive, folder, inside
        self.files = self.size = self.left_out = 0
        self.most = max(MOST_FREE, MOST_TIMES * archive.stat().st_size)

    def place(self, name: str) -> Path | None:
        """Where an entry goes; ``None`` where it is not asked for.

        Raises:
            FetchError: a name that leads out of the folder.
        """
        parts = PurePosixPath(name).parts
        if not parts or "\\" in name or "\0" in name or name.startswith("/") or ".." in parts or _DRIVE.match(name):
            raise FetchError(f"{self.archive}: it holds {name[:80]!r}, which leads out of its folder; do not trust it.")
        depth = len(self.inside)
        if len(parts) <= depth or not all(map(fnmatchcase, parts[:depth], self.inside)):
            return None
        return self.folder.joinpath(*parts[depth:])

    def write(self, name: str, content: IO[bytes], claimed: int) -> None:
        """One file."""
        place = self.place(name)
        if place is None:
            return
        self.files += 1
        if self.files > MOST_FILES or self.size + claimed > self.most:
            raise FetchError(self.bomb())
        check_room(self.folder, claimed, "are to be unpacked")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    self.size += len(chunk)
                    if self.size > self.most:
                        raise FetchError(self.bomb())
                    file.write(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise FetchError(f"{self.archive}: {name[:80]!r} is a file and a folder at once; do not trust it.") from None

    def bomb(self) -> str:
        """What is said of an archive that holds too much."""
        return (
            f"{self.archive}: it unpacks to more than {self.most / 1e9:.1f} GB or {MOST_FILES} files, far more than its "
            "size explains; do not trust it, or unpack it yourself."
        )


def _unzip(path: Path, writer: _Writer) -> None:
    with _readable(path), zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            special = mode != 0 and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            writer.place(entry.filename)  # a hostile name refuses the archive, whatever the entry is
            if special:
                writer.left_out += 1
            elif not entry.is_dir():
                with archive.open(entry) as content:
                    writer.write(entry.filename, content, entry.file_size)


def _untar(path: Path, writer: _Writer) -> None:
    with path.open("rb") as plain:
        opener = _COMPRESSED.get(plain.read(2))
    with _readable(path), path.open("rb") if opener is None else opener(path) as raw:
        stream = cast("IO[bytes]", _Bounded(cast("IO[bytes]", raw), writer))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                if entry.name in (".", "./"):
                    continue
                writer.place(entry.name)
                if entry.isfile():
                    content = archive.extractfile(entry)
                    assert content is not None  # it is a file
                    writer.write(entry.name, content, entry.size)
                elif not entry.isdir():
                    writer.left_out += 1
        while stream.read(_CHUNK):  # to the very end, where gzip keeps its checksum
            pass


class _Bounded:
    """A decompressed stream that ends in an error where an archive's headers alone are a bomb."""

    def __init__(self, stream: IO[bytes], writer: _Writer) -> None:
        self.stream, self.writer, self.done = stream, writer, 0

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        self.done += len(content)
        if self.done > 2 * self.writer.most:
            raise FetchError(self.writer.bomb())
        return content


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise FetchError(f"{path}: no archive, or a damaged one ({str(error)[:120]}); fetch it again.") from None
    except (RuntimeError, NotImplementedError, ValueError, MemoryError) as error:  # encrypted, of an unknown method, absurd
        raise FetchError(f"{path}: cannot be unpacked ({str(error)[:120]}); unpack it yourself.") from None
