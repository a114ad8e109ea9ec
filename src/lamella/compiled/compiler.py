"""Whether this machine has what compiled models need."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

__all__ = ["cpp_compiler", "missing_tools", "python_headers"]


def cpp_compiler() -> str:
    """Name of the C++ compiler that Inductor finds, empty where there is none."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), "")


def python_headers() -> bool:
    """Whether Python.h, which compiled code includes, is installed."""
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def missing_tools() -> str:
    """What is missing, as a sentence that says what to install; empty where nothing is."""
    if not cpp_compiler():
        return "no C++ compiler was found (Debian, Ubuntu: install g++; or set CXX)"
    if not python_headers():
        return "the Python headers are not installed (Debian, Ubuntu: install python3-dev)"
    return ""
