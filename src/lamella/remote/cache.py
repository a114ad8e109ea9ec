"""Where what lamella fetches lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import platformdirs

__all__ = ["CACHE", "cache_folder"]

CACHE: Final = "LAMELLA_CACHE"
"""Environment variable: the folder that lamella keeps fetched files in, instead of the platform's cache folder."""


def cache_folder(kind: str) -> Path:
    """``$LAMELLA_CACHE/kind``, else that of the user's cache folder as the platform has it.

    On Linux that is ``$XDG_CACHE_HOME/lamella/kind``, by default ``~/.cache/lamella/kind``.
    """
    chosen = os.environ.get(CACHE, "")
    base = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("lamella", appauthor=False)
    return base / kind
