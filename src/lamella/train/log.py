"""What a run writes as it goes: ``log.jsonl`` (one JSON object a line) and TensorBoard events."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from lamella.errors import TrainingError
from lamella.train.state import write_file

__all__ = ["LOG", "RunLog", "read_log"]

LOG = "log.jsonl"

Record = dict[str, Any]


def read_log(run: Path) -> list[Record]:
    """The records of a run, oldest first; a last line cut short by a kill is left out."""
    records: list[Record] = []
    file = run / LOG
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


class RunLog:
    """Appends records; use as a context manager."""

    def __init__(self, run: Path, first_step: int, tensorboard: bool, writes: bool = True) -> None:
        """Open the log, without whatever it holds of steps after ``first_step``: they will be made again.

        Args:
            run: folder.
            first_step: steps made so far.
            tensorboard: whether to write its events too.
            writes: whether anything is written at all; of several processes, one writes.
        """
        self._writes = writes
        self._board: Any = None
        if not writes:
            return
        if (run / LOG).exists():
            kept = [record for record in read_log(run) if record["step"] <= first_step]
            write_file(run / LOG, "".join(_line(record) for record in kept))
        self._path = run / LOG
        self._file: TextIO = self._path.open("a", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # heavy; only here

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)

    def write(self, record: Record) -> None:
        """Append one record; it is handed to the system at once, so that a kill loses nothing.

        Raises:
            TrainingError: the disk is full.
        """
        if not self._writes:
            return
        with self._writing():
            self._file.write(_line(record))
            self._file.flush()
        if self._board is None:
            return
        group = "/".join(str(record[key]) for key in ("event", "task") if key in record)
        with self._writing():
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{group}/{name}", value, record["step"])

    def sync(self) -> None:
        """Flush to the disk: what a checkpoint has passed must be in the log."""
        if not self._writes:
            return
        with self._writing():
            os.fsync(self._file.fileno())
            if self._board is not None:
                self._board.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise TrainingError(
                f"{self._path}: cannot be written ({reason}). Checkpoints are intact: free space and go on with "
                f"`lamella train --resume {self._path.parent}`."
            ) from None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._writes:
            return
        try:
            with self._writing(), ExitStack() as stack:
                if self._board is not None:
                    stack.callback(self._board.close)
                stack.callback(self._file.close)
        except TrainingError:
            if error is None:  # else the disk that was full is still full, and that has been said
                raise


def _line(record: Record) -> str:
    """One line of JSON, which has no NaN and no infinity: such a value is written as null."""
    values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(values, allow_nan=False) + "\n"
