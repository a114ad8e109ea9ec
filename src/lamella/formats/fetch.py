"""Fetching a published checkpoint: over HTTPS, resumable, checked, and whole or not at all.

While it comes in, the file is ``.NAME.part`` in the folder it goes to; it gets its name only after its SHA-256 has been
found right. What an interrupted fetch leaves is continued by the next one (HTTP ranges), from whichever host; where a host
ignores ranges or offers another file by now, from the beginning. The checksum decides in any case, so a wrong continuation
costs time and nothing else. A lock beside the file makes a second process wait for the first.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from lamella import __version__
from lamella.errors import CheckpointError, InputError
from lamella.formats.published import CACHE, Published, models_folder

__all__ = ["Fetched", "fetch", "sha256"]

SILENCE: Final = 30.0
"""Seconds without a byte after which a host is given up."""

PAUSE: Final = 1.0
"""Seconds before a cut connection is taken up again."""

ATTEMPTS: Final = 3
"""A host is given up after so many connections in a row that brought nothing new."""

_CHUNK = 1 << 18
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of a host that may answer the next time."""


class Fetched(NamedTuple):
    """A published checkpoint on disk, its checksum right."""

    path: Path
    size: int
    """Bytes."""
    was_there: bool
    """Nothing had to be fetched."""


class _HostError(Exception):
    """This host does not give the file."""


class _CutError(Exception):
    """The connection ended early; going on may help."""


def fetch(
    model: Published,
    folder: Path | None = None,
    source: str | None = None,
    overwrite: bool = False,
    on_bytes: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Fetched:
    """Bring a published checkpoint onto this machine.

    Args:
        model: which one.
        folder: where to put it; where :func:`lamella.load` finds it by name if not given.
        source: address to fetch it from instead of its own.
        overwrite: replace a file of its name that is not the published one.
        on_bytes: called with how many bytes are there, and of how many if the host says so.
        on_note: called with what a person who waits wants to know: which host failed, what is waited for.

    Raises:
        CheckpointError: no host gives the file, or what they give is not the published one; or a file of its name is there.
        InputError: an address that is none; a folder that cannot be written or is too full.
    """
    sources = model.sources if source is None else (_checked(source),)
    place = models_folder() if folder is None else folder
    target = place / model.file
    note = on_note or (lambda words: None)
    if target.exists() and (there := _there(model, target, overwrite)):
        return there
    with _locked(place, model, note):
        if target.exists() and (there := _there(model, target, overwrite)):
            return there  # another process was quicker
        part = _Part(place / f".{model.file}.part", on_bytes or (lambda done, total: None))
        if part.size() and sha256(part.path) == model.sha256:  # an earlier fetch ended right before the end
            part.rename(target)
            return Fetched(target, target.stat().st_size, was_there=False)
        failures: list[str] = []
        for address in sources:
            host = urlsplit(address).netloc
            try:
                _bring(model, address, part)
            except _HostError as failure:
                failures.append(f"{host}: {failure}")
                note(failures[-1])
                continue
            part.rename(target)
            return Fetched(target, target.stat().st_size, was_there=False)
    raise CheckpointError(_regret(model, sources[0], target, failures, part.size()))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise InputError(f"{address!r} is no address to fetch from; give the https:// address of the file itself.")
    return address


def _there(model: Published, target: Path, overwrite: bool) -> Fetched | None:
    """The file that is there, if it is the published one."""
    found = sha256(target) if target.is_file() else "no file"
    if found == model.sha256:
        return Fetched(target, target.stat().st_size, was_there=True)
    if overwrite and target.is_file():
        return None
    raise CheckpointError(
        f"{target}: it is there but is not the published {model.name} (sha256 {found[:12]}… instead of "
        f"{model.sha256[:12]}…). Move it away, choose another folder with --to, or replace it with --overwrite."
    )


@contextmanager
def _locked(folder: Path, model: Published, note: Callable[[str], None]) -> Iterator[None]:
    """The folder, made where it is not there, with no other process fetching the same file into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{model.file}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"another process is fetching {model.name}; waiting for it")
            lock.acquire()
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: cannot be written ({error.strerror or error}). Choose another folder with --to, or with {CACHE} in the "
        "environment."
    )


class _Part:
    """The file while it comes in, and which offer of which host it is a part of."""

    def __init__(self, path: Path, on_bytes: Callable[[int, int | None], None]) -> None:
        self.path, self.on_bytes = path, on_bytes
        self.origin = path.with_name(f"{path.name}.origin")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def tag(self, address: str) -> str | None:
        """The host's mark of the offer that the part is of, if it is of this address and the mark can be relied on."""
        lines = self.origin.read_text(errors="replace").splitlines() if self.origin.exists() else []
        return lines[1] if len(lines) == 2 and lines[0] == address else None

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    def rename(self, target: Path) -> None:
        try:
            self.path.replace(target)
        except OSError as error:
            raise _unwritable(target, error) from None
        self.clear()

    def append(self, response: http.client.HTTPResponse, start: int, total: int | None) -> None:
        """Write what comes behind the first ``start`` bytes.

        Raises:
            _CutError: it ends before ``total``.
            InputError: the disk is full.
        """
        if total is not None and total - start > (free := shutil.disk_usage(self.path.parent).free):
            raise InputError(
                f"{self.path.parent}: {(total - start) / 1e6:.1f} MB are to come and {free / 1e6:.1f} MB are free. "
                f"Free some space, or choose another folder with --to or with {CACHE} in the environment."
            )
        done = start
        with self._opened(start) as file:
            self.on_bytes(done, total)
            while chunk := _read(response):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _unwritable(self.path.parent, error) from None
                done += len(chunk)
                self.on_bytes(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise _CutError(f"the connection was cut after {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    def _opened(self, start: int) -> IO[bytes]:
        try:
            return self.path.open("ab" if start else "wb")
        except OSError as error:
            raise _unwritable(self.path.parent, error) from None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(f"the connection was cut ({_reason(error)})") from None


def _bring(model: Published, address: str, part: _Part) -> None:
    """Complete the part from one address.

    Raises:
        _HostError: the host does not give the file; the part stays, unless it is not of the published file.
    """
    continued = part.size() > 0
    _download(address, part)
    found = sha256(part.path)
    if found != model.sha256 and continued:
        part.clear()  # what was there before may have been wrong
        _download(address, part)
        found = sha256(part.path)
    if found != model.sha256:
        part.clear()
        raise _HostError(f"what it sent is not the published file (sha256 {found[:12]}… instead of {model.sha256[:12]}…)")


def _download(address: str, part: _Part) -> None:
    """All of the file at an address, however often the connection is cut, as long as each brings something new."""
    in_vain = 0
    while True:
        before = part.size()
        try:
            _transfer(address, part)
            return
        except _CutError as cut:
            in_vain = 0 if part.size() > before else in_vain + 1
            if in_vain == ATTEMPTS:
                raise _HostError(str(cut)) from None
        time.sleep(PAUSE)


def _transfer(address: str, part: _Part) -> None:
    """One connection."""
    have = part.size()
    headers = {"User-Agent": f"lamella/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag := part.tag(address):
            headers["If-Range"] = tag
    try:
        response = _opener().open(urllib.request.Request(address, headers=headers), timeout=SILENCE)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, have, part)
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _HostError(_reason(error)) from None
    with response:
        start, total = _extent(response)
        if start not in (0, have):
            part.clear()
            raise _CutError(f"it went on from byte {start} instead of {have}")
        if start == 0:
            part.clear()
            _remember(part, address, response.headers.get("ETag"))
        part.append(response, start, total)


def _opener() -> urllib.request.OpenerDirector:
    """Proxies of the environment, certificates of the system; no way from HTTPS to plain HTTP."""
    return urllib.request.build_opener(_StayEncrypted)


class _StayEncrypted(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" != urlsplit(newurl).scheme:
            raise urllib.error.URLError(f"it redirects to an address without encryption, {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refused(error: urllib.error.HTTPError, have: int, part: _Part) -> None:
    """What an HTTP error means: nothing where the part turns out to be complete."""
    if error.code == 416 and have:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total[1]) == have:
            return
        part.clear()
        raise _CutError("it refused to go on from where the last connection ended")
    if error.code in _BUSY:
        raise _CutError(f"it answers {error.code} {error.reason}")
    raise _HostError(f"it answers {error.code} {error.reason}")


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """First byte of what comes, and the size of the whole file where the host says it."""
    length = response.headers.get("Content-Length", "")
    rest = int(length) if length.isdecimal() else None
    if response.status != 206:
        return 0, rest
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None:
        return -1, None
    start = int(found[1])
    return start, int(found[2]) if found[2] != "*" else None if rest is None else start + rest


def _remember(part: _Part, address: str, tag: str | None) -> None:
    """Note a strong mark of the offer; a weak one ('W/') says nothing about single bytes."""
    if tag and tag.startswith('"') and "\n" not in address + tag:
        try:
            part.origin.write_text(f"{address}\n{tag}\n")
        except OSError as error:
            raise _unwritable(part.path.parent, error) from None


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _reason(inner)
    words = inner or getattr(error, "strerror", None) or str(error)
    return str(words).strip().rstrip(".") or type(error).__name__


def _regret(model: Published, address: str, target: Path, failures: Sequence[str], kept: int) -> str:
    more = f"; {kept / 1e6:.1f} MB are kept, and the same command goes on from there" if kept else ""
    return (
        f"{model.name} could not be fetched ({'; '.join(failures)}). Check the network (HTTPS_PROXY is heeded){more}; or "
        f"name another address of it with --from, or fetch {address} on another machine and put it at {target}."
    )
