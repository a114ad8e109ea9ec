"""Freed memory is kept where glibc allows it, and never against the user's own setting."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from lamella.allocator import keep_freed_memory

kept = keep_freed_memory()
torch.set_num_threads(1)
values = torch.ones(10_000_000)
for _ in range(20):
    result = values + 1.0
    del result
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    result = values + 1.0
    del result
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**variables: str) -> tuple[bool, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**clean, **variables}, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_kept_memory_is_not_fetched_anew() -> None:
    kept, faults = run()
    if not kept:
        pytest.skip("this C library has no mallopt")
    pages = 5 * 40_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert faults < 0.1 * pages


def test_the_users_setting_stands() -> None:
    kept, _ = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert not kept
