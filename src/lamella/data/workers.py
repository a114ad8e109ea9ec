"""The same task over many items in worker processes, results in order: what neighbour lists and batches are made with.

PyTorch's DataLoader carries it: a result comes back through shared memory, workers leave when the parent dies (also by
SIGKILL) or ends them; Ctrl-C and a SIGTERM that reach them too are the parent's business. On Linux workers are forked, so
that frames in memory are shared and scripts need no ``__main__`` guard; they use one thread and never touch a GPU. A task
that raises an error of lamella's is reported as that error, not as a traceback.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from lamella.data.parcel import Parcel, packed, unpacked
from lamella.errors import LamellaError

__all__ = ["run_in_order"]

T = TypeVar("T")


def run_in_order(task: Callable[[int], T], items: Sequence[int], workers: int) -> Iterator[T]:
    """``task(item)`` for each item, in order.

    Args:
        task: picklable where processes are spawned (macOS, Windows).
        items: e.g. a ``range``.
        workers: number of processes; 0 runs the task here.

    Raises:
        LamellaError: the first one a task raised, in order of items.
    """
    if workers <= 0:
        for item in items:
            yield task(item)
        return
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork while threads run, PyTorch of more workers than cores
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        warnings.filterwarnings("ignore", category=UserWarning, message=".*worker processes.*")
        results = iter(_loader(task, items, min(workers, max(len(items), 1))))
    try:
        for result in map(unpacked, results):
            if isinstance(result, LamellaError):
                raise result
            yield result
    finally:
        # the workers end with the iterator, which a traceback would keep
        del results


def _loader(task: Callable[[int], Any], items: Sequence[int], workers: int) -> DataLoader[Any]:
    return DataLoader(
        _Tasks(task, items),
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        collate_fn=_as_is,
        generator=torch.Generator(),  # its own: each loader draws a number, which must not move the trainer's random state
        worker_init_fn=_leave_signals_to_the_parent if sys.platform == "linux" else None,
        multiprocessing_context=multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn"),
    )


def _leave_signals_to_the_parent(_: int) -> None:
    """Obey nobody else: `timeout`, batch systems and Ctrl-C signal workers; their death would hit the parent mid-step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_the_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class _Tasks(Dataset[Any], Generic[T]):
    def __init__(self, task: Callable[[int], T], items: Sequence[int]) -> None:
        self.task = task
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Parcel:
        if index >= len(self.items):
            raise IndexError(index)
        try:
            return packed(self.task(self.items[index]))
        except LamellaError as error:
            return packed(error)


def _as_is(value: Any) -> Any:
    return value
