"""Noticing that another process ended: at once, whatever this one is waiting for.

A collective that waits for a process that is gone returns late (gloo, where worker processes keep a connection open) or
never (nccl). So every process keeps a connection of its own to the first one, on which nothing is said but last words: none
from one that was killed, why from one that failed, ``.`` from one that is done. The first passes on what it hears.

The message is printed here, at once: torchrun ends the survivors soon after it sees a process die.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

from lamella.errors import TrainingError
from lamella.train.stop import Interrupted

__all__ = ["PeerLost", "Watch"]

_DONE: Final = "."
_CONNECT: Final = 120.0
"""Seconds in which all must have connected."""

_GRACE: Final = 3.0
"""Seconds in which the main thread may end of itself; one that waits on a GPU never would."""

_SAME: Final = 0.2
"""Seconds in which a failure of another process may turn out to be this one's too, a wrong recipe say."""

Exchange = Callable[[list[object]], list[object]]
"""The list that the first process gave, in every process."""


class PeerLost(TrainingError):  # noqa: N818 (what happened, as one says it)
    """Another process ended, so that this one cannot go on; the message was printed already."""


class Watch:
    """The other processes of this run.

    Attributes:
        lost: why the run cannot go on; None as long as all are there.
        advice: what to do then, a sentence.
    """

    def __init__(self, rank: int, world: int, exchange: Exchange) -> None:
        """Connect with the others; all must call it.

        Raises:
            TrainingError: they cannot be reached.
        """
        self.rank, self.world = rank, world
        self.lost: str | None = None
        self.advice = "nothing was written: start again."
        self._ends: dict[int, socket.socket] = {}
        self._wake, self._awake = socket.socketpair()
        self._heard = threading.Event()
        self._leaving = threading.Event()
        try:
            self._connect(exchange)
        except OSError as error:
            raise TrainingError(
                f"rank {rank} of {world}: cannot connect with the others ({error}); the machines must reach each other at "
                "MASTER_ADDR on any port."
            ) from None
        os.register_at_fork(after_in_child=self._let_go)
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise where another process ended.

        Raises:
            PeerLost: saying which, and what to do.
        """
        if self.lost is not None:
            self._heard.wait(_GRACE)
            raise PeerLost(self.lost)

    def broken(self, reason: str) -> TrainingError:
        """The error for a collective that failed: what the others' last words say, once they are heard."""
        if self._heard.wait(2 * _GRACE) and self.lost is not None:
            return PeerLost(self.lost)
        return TrainingError(
            f"rank {self.rank} of {self.world}: the connection to the others broke ({reason}); {self.advice}"
        )

    def leave(self, error: BaseException | None) -> None:
        """Say the last words, and end the watch: why where ``error`` says so, else that all is done.

        One that is done waits for the first to be done, whose work (saving, say) must not be cut short by torchrun.
        """
        self._leaving.set()
        done = error is None or isinstance(error, Interrupted)
        if self.lost is None:
            words = " ".join(str(error).split()) or type(error).__name__
            for end in self._ends.values():
                _say(end, _DONE if done else f"rank {self.rank} of {self.world} stopped: {words}")
            if done:
                self._thread.join(_CONNECT)
        self._wake.close()
        self._thread.join(_GRACE)  # one that still runs at the end of the interpreter may end it with an abort

    def _connect(self, exchange: Exchange) -> None:
        if self.rank:
            host, port, token = (str(part) for part in exchange([None, None, None]))
            end = socket.create_connection((host, int(port)), timeout=_CONNECT)
            end.sendall(f"{token} {self.rank}\n".encode())
            self._keep(0, end)
            return
        host = os.environ.get("MASTER_ADDR", "localhost")
        token = secrets.token_hex(16)
        with socket.create_server((host, 0), backlog=self.world) as server:
            exchange([host, server.getsockname()[1], token])
            server.settimeout(_CONNECT)
            while len(self._ends) < self.world - 1:
                end, _ = server.accept()
                end.settimeout(_CONNECT)
                words = _read_line(end).split()
                if len(words) == 2 and secrets.compare_digest(words[0], token):  # anybody may knock at a port
                    self._keep(int(words[1]), end)
                else:
                    end.close()

    def _keep(self, rank: int, end: socket.socket) -> None:
        end.settimeout(None)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":  # a machine that went away without a word is missed after half a minute
            for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4)):
                end.setsockopt(socket.IPPROTO_TCP, option, value)
        self._ends[rank] = end

    def _let_go(self) -> None:
        """In a forked worker process: its copy of a connection would keep that open when this process is gone."""
        for end in self._ends.values():
            end.close()

    def _listen(self) -> None:
        heard: dict[int, bytes] = dict.fromkeys(self._ends, b"")
        with selectors.DefaultSelector() as selector:
            for rank, end in self._ends.items():
                selector.register(end, selectors.EVENT_READ, rank)
            selector.register(self._awake, selectors.EVENT_READ)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select():
                    if key.fileobj is self._awake:
                        return
                    piece = _receive(self._ends[key.data])
                    heard[key.data] += piece
                    if piece:
                        continue
                    selector.unregister(key.fileobj)
                    words = heard[key.data].decode(errors="replace")
                    if words != _DONE:
                        self._end(key.data, words)
                        return

    def _end(self, rank: int, words: str) -> None:
        """Say and pass on why the run ends, and see to it that this process does."""
        gone = f"rank {rank} of {self.world} is gone: killed, out of memory, or its machine went away"
        self.lost = words or f"{gone}; {self.advice}"
        if self.rank == 0:
            for other in self._ends.keys() - {rank}:
                _say(self._ends[other], self.lost)
        if self._leaving.wait(_SAME if words else 0.0):
            return
        sys.stderr.write(f"error: {self.lost}\n")
        sys.stderr.flush()
        self._heard.set()
        if not self._leaving.wait(_GRACE):
            os._exit(1)


def _say(end: socket.socket, words: str) -> None:
    """Send the last words; whoever is gone does not hear them."""
    try:
        end.sendall(words.encode())
        end.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _read_line(end: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n") and len(line) < 100 and (piece := end.recv(1)):
        line += piece
    return line.decode(errors="replace")
