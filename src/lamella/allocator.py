"""Keep freed memory: on Linux, large arrays otherwise cost more to obtain than to compute.

glibc hands every block above 32 MB back to the kernel as soon as it is freed, and the kernel fills the next one with zeros
page by page. A training step frees and allocates gigabytes in such blocks; keeping them made DPA-3 L6 a third faster on a
CPU at 5 to 25 % more peak memory (docs/log.md).
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD = -1  # numbers of glibc's <malloc.h>
_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks in this process; whether it agreed.

    Does nothing on other systems, and where the user has set glibc's own ``MALLOC_…`` or ``GLIBC_TUNABLES`` variables or
    preloads another allocator.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not Linux, or another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
