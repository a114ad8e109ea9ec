"""Fetching one file: over HTTPS, resumable, checked, and whole or not at all.

While it comes in, the file is ``.NAME.part`` in the folder it goes to; it gets its name only after its checksum has been
found right. What an interrupted fetch leaves is continued by the next one (HTTP ranges), from whichever host; where a host
ignores ranges or offers another file by now, from the beginning. The checksum decides in any case, so a wrong continuation
costs time and nothing else. Where no checksum is known, only the same offer of the same host is continued (its strong
ETag), and a web page in place of the file is refused. A lock beside the file makes a second process wait for the first.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from lamella import __version__
from lamella.errors import FetchError, InputError, shown
from lamella.remote.checksum import Digests, digests
from lamella.remote.part import CutError, Part, locked

__all__ = ["Fetched", "Remote", "fetch"]

SILENCE: Final = 30.0
"""Seconds without a byte after which a host is given up."""

PAUSE: Final = 1.0
"""Seconds before a cut connection is taken up again."""

ATTEMPTS: Final = 3
"""A host is given up after so many connections in a row that brought nothing new."""

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of a host that may answer the next time."""

_POINTER = b"version https://git-lfs.github.com/spec/"


class Remote(NamedTuple):
    """A file that somebody offers for download."""

    name: str
    """What messages call it."""
    file: str
    """Its name on disk."""
    sources: tuple[str, ...]
    """Addresses of the file, tried in this order."""
    checksum: str | None = None
    """``sha256:…`` or ``md5:…``; ``None`` where nobody knows it."""
    word: str = "published"
    """What the checksum is: ``published``, or ``recorded`` when the file was first fetched."""
    size: int | None = None
    """Bytes, where known."""


class Fetched(NamedTuple):
    """A file on disk, its checksum right where one is known."""

    path: Path
    size: int
    """Bytes."""
    was_there: bool
    """Nothing had to be fetched."""
    sha256: str


class _HostError(Exception):
    """This host does not give the file."""


def fetch(
    remote: Remote,
    folder: Path,
    source: str | None = None,
    overwrite: bool = False,
    on_bytes: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Fetched:
    """Bring a file onto this machine.

    Args:
        remote: which one.
        folder: where to put it; made where it is not there.
        source: address to fetch it from instead of its own.
        overwrite: replace a file of its name that is not the right one.
        on_bytes: called with how many bytes are there, and of how many if the host says so.
        on_note: called with what a person who waits wants to know: which host failed, what is waited for.

    Raises:
        FetchError: no host gives the file, or what they give is not the right one; or a file of its name is there.
        InputError: an address that is none; a folder that cannot be written or is too full.
    """
    sources = remote.sources if source is None else (_checked(source),)
    target = folder / remote.file
    note = on_note or (lambda words: None)
    if target.exists() and (there := _there(remote, target, overwrite)):
        return there
    with locked(folder, remote.file, remote.name, note):
        if target.exists() and (there := _there(remote, target, overwrite)):
            return there  # another process was quicker
        part = Part(folder / f".{remote.file}.part", on_bytes or (lambda done, total: None))
        if remote.checksum and part.size():  # an earlier fetch may have ended right before the end
            found = digests(part.path)
            if found.match(remote.checksum):
                return _finish(part, target, found)
        failures: list[str] = []
        for address in sources:
            host = urlsplit(address).netloc
            try:
                found = _bring(remote, address, part)
            except _HostError as failure:
                failures.append(f"{host}: {shown(' '.join(str(failure).split()), 300)}")
                note(failures[-1])
                continue
            return _finish(part, target, found)
    raise FetchError(_regret(remote, sources[0], target, failures, part.size()))


def _finish(part: Part, target: Path, found: Digests) -> Fetched:
    part.rename(target)
    return Fetched(target, target.stat().st_size, was_there=False, sha256=found.sha256)


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise InputError(f"{address!r} is no address to fetch from; give the https:// address of the file itself.")
    return address


def _there(remote: Remote, target: Path, overwrite: bool) -> Fetched | None:
    """The file that is there, if it is the right one (every one is where nobody knows a checksum)."""
    found = digests(target) if target.is_file() else None
    if found is not None and found.match(remote.checksum):
        return Fetched(target, target.stat().st_size, was_there=True, sha256=found.sha256)
    if overwrite and found is not None:
        return None
    words = "no file" if found is None else found.beside(remote.checksum or "")
    raise FetchError(
        f"{target}: it is there but is not the {remote.word} {remote.name} ({words}). Move it away, choose another folder "
        "with --to, or replace it with --overwrite."
    )


def _bring(remote: Remote, address: str, part: Part) -> Digests:
    """Complete the part from one address.

    Raises:
        _HostError: the host does not give the file; the part stays, unless it is not of the right file.
    """
    continued = part.size() > 0
    _download(remote, address, part)
    found = digests(part.path)
    if not found.match(remote.checksum) and continued:
        part.clear()  # what was there before may have been wrong
        _download(remote, address, part)
        found = digests(part.path)
    complaint = _complaint(remote, part, found)
    if complaint:
        part.clear()
        raise _HostError(complaint)
    return found


def _complaint(remote: Remote, part: Part, found: Digests) -> str:
    """What is wrong with a file that came in; empty if nothing is known to be."""
    if remote.checksum is not None and not found.match(remote.checksum):
        return f"what it sent is not the {remote.word} file ({found.beside(remote.checksum)})"
    if remote.size is not None and part.size() != remote.size:
        return f"what it sent has {part.size()} bytes instead of {remote.size}"
    with part.path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return "it sent a Git LFS pointer, not the file it stands for"
    return ""


def _download(remote: Remote, address: str, part: Part) -> None:
    """All of the file at an address, however often the connection is cut, as long as each brings something new."""
    in_vain = 0
    while True:
        before = part.size()
        try:
            _transfer(remote, address, part)
            return
        except CutError as cut:
            in_vain = 0 if part.size() > before else in_vain + 1
            if in_vain == ATTEMPTS:
                raise _HostError(str(cut)) from None
        time.sleep(PAUSE)


def _transfer(remote: Remote, address: str, part: Part) -> None:
    """One connection."""
    if remote.checksum is None and part.tag(address) is None:
        part.clear()  # nothing would tell whether what follows belongs to what is there
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
        _check_kind(remote, response)
        start, total = _extent(response)
        if start not in (0, have):
            part.clear()
            raise CutError(f"it went on from byte {start} instead of {have}")
        if start == 0:
            part.clear()
            part.remember(address, response.headers.get("ETag"))
        part.append(response, start, total)


def _check_kind(remote: Remote, response: http.client.HTTPResponse) -> None:
    """Refuse a page for people where a file was asked for and no checksum would tell."""
    kind = response.headers.get_content_type() if response.headers.get("Content-Type") else ""
    if remote.checksum is None and kind == "text/html" and not remote.file.endswith((".html", ".htm")):
        raise _HostError("it sends a web page, not the file")


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


def _refused(error: urllib.error.HTTPError, have: int, part: Part) -> None:
    """What an HTTP error means: nothing where the part turns out to be complete."""
    if error.code == 416 and have:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total[1]) == have:
            return
        part.clear()
        raise CutError("it refused to go on from where the last connection ended")
    if error.code in _BUSY:
        raise CutError(f"it answers {error.code} {error.reason}")
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


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _reason(inner)
    words = inner or getattr(error, "strerror", None) or str(error)
    return str(words).strip().rstrip(".") or type(error).__name__


def _regret(remote: Remote, address: str, target: Path, failures: Sequence[str], kept: int) -> str:
    more = f"; {kept / 1e6:.1f} MB are kept, and the same command goes on from there" if kept else ""
    return (
        f"{remote.name} could not be fetched ({'; '.join(failures)}). Check the network (HTTPS_PROXY is heeded){more}; or "
        f"name another address of it with --from, or fetch {address} on another machine and put it at {target}."
    )
