"""Stopping on request: SIGINT and SIGTERM end the run at the next step boundary, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lamella.errors import TrainingError

__all__ = ["Interrupted", "StopRequest", "listen"]


class Interrupted(TrainingError):  # noqa: N818 (a wish was granted, nothing failed)
    """The run was asked to stop, and did, after saving.

    Attributes:
        exit_code: what a shell expects of a process stopped by that signal (128 + its number).
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Remembers the first signal that asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def name(self) -> str:
        """Name of the signal."""
        return "nobody" if self.signal is None else signal.Signals(self.signal).name

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handler: the first signal is remembered, a second one stops at once (the last checkpoint stays)."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Inside the block SIGINT and SIGTERM only leave a note; elsewhere than in the main thread nothing is changed."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
