"""Processes that train together, started one by one as torchrun would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lamella.train.log import read_log

__all__ = ["start", "wait_for_step"]


def start(command: Sequence[str], world: int) -> list[subprocess.Popen[str]]:
    """``python COMMAND`` in ``world`` processes that find each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    together = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    root = str(Path(__file__).resolve().parents[1])
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | together
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
        )
        for rank in range(world)
    ]


def wait_for_step(processes: Sequence[subprocess.Popen[str]], run: Path, step: int) -> None:
    """Until the log has got so far."""
    while not any(record["step"] >= step for record in read_log(run)):
        for process in processes:
            if process.poll() is not None:
                raise AssertionError(f"ended before step {step}: {process.communicate()[1]}")
        time.sleep(0.02)
