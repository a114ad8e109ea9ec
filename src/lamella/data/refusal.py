"""Why a frame is refused: kinds of :class:`lamella.errors.DataError` that lint tells apart."""

from __future__ import annotations

from lamella.errors import DataError

__all__ = ["Ambiguous", "Contradiction", "NotFinite", "Truncated", "WrongShape", "kind_of"]


class NotFinite(DataError):
    """A number is NaN or infinite."""


class WrongShape(DataError):
    """An array does not have the shape its name promises."""


class Contradiction(DataError):
    """Stress and virial of one frame disagree."""


class Ambiguous(DataError):
    """Several keys could be one label."""


class Truncated(DataError):
    """The file ends too early, or a frame announces the wrong number of atoms."""


_KINDS: dict[type[Exception], str] = {
    NotFinite: "not finite",
    WrongShape: "wrong shape",
    Contradiction: "stress against virial",
    Ambiguous: "ambiguous keys",
    Truncated: "truncated",
}


def kind_of(error: Exception) -> str:
    """The kind of a refusal, ``"unreadable"`` for any other."""
    return _KINDS.get(type(error), "unreadable")
