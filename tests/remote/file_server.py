"""A small web server on this machine that serves a file or a few, in the ways hosts do and should not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Host:
    """How the file is served, and what was asked for."""

    content: bytes
    ranges: bool = True
    etag: str | None = '"first"'
    status: int = 200
    """Anything but 200 is answered without the file."""
    cuts: list[int] = field(default_factory=list)
    """The next answers end after so many bytes, though they announce more."""
    claimed: int | None = None
    """Content-Length that is announced, where it is not the true one."""
    chunked: bool = False
    """Announce no length."""
    redirect: str | None = None
    hold: threading.Event | None = None
    """Answers wait for this in the middle."""
    begun: threading.Event = field(default_factory=threading.Event)
    kind: str | None = None
    """Content-Type."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Files by path, without the leading slash; any other path gives ``content``."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request."""
    sent: int = 0
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(dict(request.headers))
        if self.files:
            name = request.path.lstrip("/")
            self.status, self.content = (200, self.files[name]) if name in self.files else (404, b"")
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = self._start(request)
        if self.status != 200 or start > len(self.content):
            request.send_response(self.status if self.status != 200 else 416)
            request.send_header("Content-Length", "0")
            if start >= len(self.content):
                request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
            return
        body = self.content[start:]
        if start and not body:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.kind:
            request.send_header("Content-Type", self.kind)
        if self.etag:
            request.send_header("ETag", self.etag)
        if not self.chunked:
            request.send_header("Content-Length", str(len(body) if self.claimed is None else self.claimed))
        request.end_headers()
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        half = len(body) // 2
        request.wfile.write(body[:half])
        request.wfile.flush()
        self.begun.set()
        if self.hold is not None:
            self.hold.wait(20)
        request.wfile.write(body[half:])
        self.sent += len(body)

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        wanted, condition = request.headers.get("Range"), request.headers.get("If-Range")
        if not self.ranges or not wanted or (condition and condition != self.etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))


@contextmanager
def serving(host: Host) -> Iterator[Host]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the other side has gone
                host.answer(self)
            self.close_connection = True

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    host.url = f"http://127.0.0.1:{server.server_port}/" + ("" if host.files else "model.pt")
    try:
        yield host
    finally:
        if host.hold is not None:
            host.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
