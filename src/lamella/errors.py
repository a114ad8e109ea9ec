"""Every error lamella raises on purpose.

::

    LamellaError
    ├── InputError               what the user gave cannot be used
    │   ├── DataError            a frame, a label or a data file
    │   ├── StructureError       a structure that no graph can be built from
    │   └── RecipeError          a recipe or a command-line setting
    ├── CheckpointError          a model file or run folder
    ├── FetchError               a file that no host gives, or that is not what it should be
    ├── ResourceError            the machine has not enough memory
    └── TrainingError            training cannot go on (non-finite loss, disk full, ...)

The message is one sentence that names the file, frame or key, and one that says what to do next. Commands print it and exit
with status 1; nothing already written is lost.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

__all__ = [
    "CheckpointError",
    "DataError",
    "FetchError",
    "InputError",
    "LamellaError",
    "RecipeError",
    "ResourceError",
    "StructureError",
    "TrainingError",
    "nearest",
    "shown",
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


class FetchError(LamellaError):
    """A file could not be brought onto this machine, or is not the one it should be."""


class ResourceError(LamellaError):
    """The machine has not enough memory, and everything that needs less was tried."""


class TrainingError(LamellaError):
    """Training cannot go on."""


_BEGINNING: Final = 3
"""So many letters may stand for the word that they begin."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known word that ``word`` begins or comes nearest to; empty where none is near."""
    others = [each for each in known if each != word]
    begun = [each for each in others if len(word) >= _BEGINNING and each.casefold().startswith(word.casefold())]
    match = sorted(begun, key=len) or difflib.get_close_matches(word, others, n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def shown(text: str, most: int = 80) -> str:
    """``text`` as a message may hold it: control characters (of a hostile file, for the terminal) escaped, ``most`` long."""
    whole = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return whole[:most]
