"""Every error lamella raises on purpose.

::

    LamellaError
    ├── InputError               what the user gave cannot be used
    │   ├── DataError            a frame, a label or a data file
    │   ├── StructureError       a structure that no graph can be built from
    │   └── RecipeError          a recipe or a command-line setting
    ├── CheckpointError          a model file or run folder
    └── TrainingError            training cannot go on (non-finite loss, disk full, ...)

The message is one sentence that names the file, frame or key, and one that says what to do next. Commands print it and exit
with status 1; nothing already written is lost.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "InputError",
    "LamellaError",
    "RecipeError",
    "StructureError",
    "TrainingError",
    "nearest",
]


class LamellaError(Exception):
    """Base of every error lamella raises on purpose."""


class InputError(LamellaError):
    """What the user gave cannot be used."""


class DataError(InputError):
    """A data file, a frame of it or one of its labels cannot be used."""


class StructureError(InputError):
    """No graph can be built from a structure."""


class RecipeError(InputError):
    """A recipe or a command-line setting cannot be used."""


class CheckpointError(LamellaError):
    """A model file or run folder cannot be read or written."""


class TrainingError(LamellaError):
    """Training cannot go on."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known word nearest to ``word``, or an empty string when none is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""
