"""Fetching a data set of the catalogue: every file whole, checked and recorded; archives are unpacked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from lamella.data.catalogue.entry import Entry, File
from lamella.data.catalogue.lock import Lock, Record, lock_path, read_lock, write_lock
from lamella.errors import FetchError, InputError
from lamella.remote import download
from lamella.remote.cache import cache_folder
from lamella.remote.checksum import folder_digest
from lamella.remote.download import Fetched, Remote
from lamella.remote.part import check_room, locked, unwritable
from lamella.remote.unpack import Unpacked, unpack

__all__ = ["LARGE", "FetchedFile", "datasets_folder", "fetch", "selected"]

LARGE: Final = 10_000.0
"""Megabytes that are not fetched without being asked for by name or by --all."""

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


class FetchedFile(NamedTuple):
    """A file of a set that is here.

    ``state`` is ``checked`` (a published checksum agrees), ``recorded`` (no checksum is published, but it is the file
    fetched first) or ``unverified`` (this was the first time).
    """

    path: Path
    size: int
    """Bytes of what was downloaded."""
    sha256: str
    was_there: bool
    state: Literal["checked", "recorded", "unverified"]
    files: int = 1
    """Files it was unpacked to."""


class _Order(NamedTuple):
    """How a set is fetched."""

    source: str | None
    overwrite: bool
    on_bytes: Callable[[str, int, int | None], None]
    on_note: Callable[[str], None]


def datasets_folder() -> Path:
    """Where fetched data sets lie: ``$LAMELLA_CACHE/datasets``, else in the user's cache folder as the platform has it."""
    return cache_folder("datasets")


def selected(entry: Entry, only: str | None = None, everything: bool = False) -> list[File]:
    """The files of a set that a pattern names.

    Args:
        entry: the set.
        only: pattern of their paths; ``None`` for all.
        everything: all of a set that is larger than :data:`LARGE`, too.

    Raises:
        InputError: nothing can be fetched of it, nothing fits, or it is too much to fetch by accident.
    """
    if not entry.files:
        raise InputError(f"{entry.name} cannot be fetched by lamella. {entry.how} Its page: {entry.page}")
    files = [file for file in entry.files if only is None or fnmatchcase(file.path, only)]
    paths = ", ".join(file.path for file in entry.files)
    if not files:
        raise InputError(f"{entry.name} has no file {only!r}; it has {paths}.")
    total = sum(file.megabytes or 0.0 for file in files)
    if only is None and not everything and total > LARGE:
        raise InputError(
            f"{entry.name} has {total / 1e3:.0f} GB in {len(files)} files ({paths}); name some of them with --only PATTERN, "
            "or say --all."
        )
    return files


def fetch(
    entry: Entry,
    folder: Path | None = None,
    files: Sequence[File] | None = None,
    source: str | None = None,
    overwrite: bool = False,
    on_bytes: Callable[[str, int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[FetchedFile]:
    """Bring files of a data set onto this machine, into ``folder/NAME``.

    Args:
        entry: which set.
        folder: where to put its folder; :func:`datasets_folder` if not given.
        files: some of its files; all if not given.
        source: address to fetch from instead of the set's own; that of a folder (it ends with ``/``) for several files.
        overwrite: replace what is there and is not right.
        on_bytes: called with a file's path, how many bytes of it are there, and of how many if the host says so.
        on_note: called with what a person who waits wants to know.

    Raises:
        FetchError: no host gives a file, or what they give is not the published or recorded one; files that came before
            stay.
        InputError: nothing to fetch; a folder that cannot be written or is too full.
    """
    wanted = list(entry.files) if files is None else list(files)
    if not wanted:
        selected(entry)
    if source is not None and len(wanted) > 1 and not source.endswith("/"):
        raise InputError(
            f"--from names one file, and {len(wanted)} are to be fetched; end it with / to name the folder they lie in, or "
            "choose one with --only."
        )
    place = (datasets_folder() if folder is None else folder) / entry.name
    order = _Order(source, overwrite, on_bytes or (lambda path, done, total: None), on_note or (lambda words: None))
    with locked(place.parent, entry.name, entry.name, order.on_note):
        lock = read_lock(place, entry.name)
        check_room(place.parent, sum(_to_come(file, place) for file in wanted))
        done = []
        for file in wanted:
            here, lock = (_unpacked if file.unpack else _plain)(entry, file, place, lock, order)
            done.append(here)
    return done


def _to_come(file: File, place: Path) -> int:
    """Bytes of a file that are still to come, as far as its size is known."""
    target = place / file.path
    if target.exists() or file.megabytes is None:
        return 0
    name = _archive_name(file) if file.unpack else target.name
    part = target.parent / f".{name}.part"
    return max(int(file.megabytes * 1e6) - (part.stat().st_size if part.exists() else 0), 0)


def _plain(entry: Entry, file: File, place: Path, lock: Lock, order: _Order) -> tuple[FetchedFile, Lock]:
    """A file that is used as it comes."""
    record = lock.files.get(file.path)
    remote = _remote(entry, file, record, PurePosixPath(file.path).name)
    got = _download(remote, place, file, order)
    new = Record(sha256=got.sha256, size=got.size, checked=file.checksum is not None)
    lock = write_lock(place, lock, file.path, new)
    return FetchedFile(got.path, got.size, got.sha256, got.was_there, _state(file, record)), lock


def _unpacked(entry: Entry, file: File, place: Path, lock: Lock, order: _Order) -> tuple[FetchedFile, Lock]:
    """An archive, which goes once it is unpacked; what it was unpacked to stays, and is what a later fetch looks at."""
    target = place / file.path
    record = lock.files.get(file.path)
    if target.exists():
        there = _folder_there(target, record, order.overwrite, place)
        if there is not None:
            return there, lock
    remote = _remote(entry, file, record, _archive_name(file))
    got = _download(remote, place, file, order)
    fresh = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        content = _contents(got, fresh, file.inside)
        digest = folder_digest(fresh)
        if record is not None and record.folder not in (None, digest):
            raise FetchError(f"{entry.name}: {file.path} is not what was fetched before. {_changed(place)}")
        if content.left_out:
            order.on_note(f"{got.path.name}: {content.left_out} links or special files in it are left out")
        # recorded first: a folder that is there always has its record
        new = Record(sha256=got.sha256, size=got.size, folder=digest, checked=file.checksum is not None)
        lock = write_lock(place, lock, file.path, new)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    got.path.unlink(missing_ok=True)
    state = _state(file, record)
    return FetchedFile(target, got.size, got.sha256, was_there=False, state=state, files=content.files), lock


def _contents(got: Fetched, fresh: Path, inside: str) -> Unpacked:
    """Unpack an archive; one that came now and cannot be unpacked goes, so that the next fetch brings it anew."""
    try:
        return unpack(got.path, fresh, inside)
    except FetchError as error:
        if got.was_there:
            raise FetchError(f"{error} It was there before this command; move it away first.") from None
        got.path.unlink(missing_ok=True)
        raise


def _swap(fresh: Path, target: Path) -> None:
    """Put a new folder in the place of an old one."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    try:
        if target.exists():
            target.replace(old)
        fresh.replace(target)
    except OSError as error:
        raise unwritable(target, error) from None
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _folder_there(target: Path, record: Record | None, overwrite: bool, place: Path) -> FetchedFile | None:
    """The unpacked folder that is there, if it is the recorded one."""
    digest = folder_digest(target) if target.is_dir() else None
    if record is not None and digest is not None and digest == record.folder:
        count = sum(path.is_file() for path in target.rglob("*"))
        state: Literal["checked", "recorded"] = "checked" if record.checked else "recorded"
        return FetchedFile(target, record.size, record.sha256, was_there=True, state=state, files=count)
    if overwrite:
        return None
    why = "no record of it" if record is None else "another digest of it"
    raise FetchError(
        f"{target}: it is there but may not be what it should be ({lock_path(place)} has {why}). Move it away, choose "
        "another folder with --to, or replace it with --overwrite."
    )


def _remote(entry: Entry, file: File, record: Record | None, name: str) -> Remote:
    """What to download, and what it is held to: the published checksum, else the one recorded at the first fetch."""
    known = None if record is None or (file.unpack and not file.stable) else f"sha256:{record.sha256}"
    where = "published" if file.checksum or known is None else "recorded"
    return Remote(f"{entry.name}/{file.path}", name, file.sources, file.checksum or known, where, file.size)


def _download(remote: Remote, place: Path, file: File, order: _Order) -> download.Fetched:
    source = order.source
    if source is not None and source.endswith("/"):
        source += remote.file if file.unpack else file.path
    report = order.on_bytes
    folder = (place / file.path).parent
    try:
        return download.fetch(
            remote, folder, source, order.overwrite, lambda done, total: report(file.path, done, total), order.on_note
        )
    except FetchError as error:
        if remote.word == "recorded" and "not the recorded file" in str(error):
            raise FetchError(f"{error} {_changed(place)}") from None
        raise


def _changed(place: Path) -> str:
    return f"If its host changed it on purpose, move {lock_path(place)} away and fetch it again."


def _archive_name(file: File) -> str:
    """Name of an archive on disk: its own, where its address tells one."""
    own = unquote(PurePosixPath(urlsplit(file.sources[0]).path).name)
    ending = next((end for end in sorted(_ARCHIVES, key=len, reverse=True) if own.endswith(end)), ".archive")
    return f"{PurePosixPath(file.path).name}{ending}"


def _state(file: File, record: Record | None) -> Literal["checked", "recorded", "unverified"]:
    if file.checksum is not None:
        return "checked"
    return "unverified" if record is None else "recorded"
