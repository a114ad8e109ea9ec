"""Processes that train together: forked from this one, which is quick, or started anew, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from lamella.train.log import read_log

__all__ = ["fork", "start", "wait_for_step"]


def fork(work: Callable[[], object], world: int) -> list[BaseProcess]:
    """``work()`` in ``world`` processes that find each other, with one thread each."""
    port = _free_port()
    processes = [
        multiprocessing.get_context("fork").Process(target=_one, args=(work, _environment(rank, world, port)))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def start(command: Sequence[str], world: int) -> list[subprocess.Popen[str]]:
    """``python COMMAND`` in ``world`` processes that find each other."""
    port = _free_port()
    root = str(Path(__file__).resolve().parents[1])
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | _environment(rank, world, port) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root},
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


def _one(work: Callable[[], object], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    work()


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
