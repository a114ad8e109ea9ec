"""Why a frame is refused: kinds of :class:`lamella.errors.DataError` that lint tells apart."""

from __future__ import annotations

from lamella.errors import DataError

__all__ = [
    "AmbiguousError",
    "ContradictionError",
    "NotFiniteError",
    "TruncatedError",
    "WrongShapeError",
    "kind_of",
    "unreadable",
]


class NotFiniteError(DataError):
    """A number is NaN or infinite."""


class WrongShapeError(DataError):
    """An array does not have the shape its name promises."""


class ContradictionError(DataError):
    """Stress and virial of one frame disagree."""


class AmbiguousError(DataError):
    """Several keys could be one label."""


class TruncatedError(DataError):
    """The file ends too early, or a frame announces the wrong number of atoms."""


_KINDS: dict[type[Exception], str] = {
    NotFiniteError: "not finite",
    WrongShapeError: "wrong shape",
    ContradictionError: "stress against virial",
    AmbiguousError: "ambiguous keys",
    TruncatedError: "truncated",
}


def kind_of(error: Exception) -> str:
    """The kind of a refusal, ``"unreadable"`` for any other."""
    return _KINDS.get(type(error), "unreadable")


def unreadable(source: str, what: str, error: Exception) -> DataError:
    """The refusal of a file, or a part of it, that is not what it should be."""
    reason = f"{type(error).__name__}: {error}".replace("\n", " ")
    return DataError(f"{source}: cannot be read as {what} ({reason[:120]}); it is cut short, damaged or of another format.")
