"""One mapping of an ``input.json``, whose keys are asked for one by one until none is left."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lamella.errors import RecipeError, nearest

__all__ = ["REQUIRED", "Notes", "Section", "refusal", "without_comments"]

REQUIRED: Final = object()
"""Default of a key that must be given."""

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "a number": (int, float),
    "a whole number": (int,),
    "true or false": (bool,),
    "a text": (str,),
}


class Notes:
    """What the user should know of a translation, one line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, key: str, text: str) -> None:
        """A line on one key."""
        self.lines.append(f"{key}: {text}")


def without_comments(content: Any) -> Any:
    """The same without the keys, at any depth, that begin with ``_``: they are comments, as in deepmd-kit."""
    if isinstance(content, Mapping):
        return {key: without_comments(value) for key, value in content.items() if not str(key).startswith("_")}
    return content


def refusal(where: str, value: Any, reason: str, advice: str) -> RecipeError:
    """The error that refuses a value of a key: why, and what to do."""
    return RecipeError(f"{where} = {reprlib.repr(value)}: {reason}; {advice}.")


class Section:
    """Keys of one mapping: each is taken, left out with a note, or refused; :meth:`end` refuses the rest.

    A null is an absent key.
    """

    def __init__(self, content: Any, where: str, notes: Notes, source: str) -> None:
        """A section.

        Args:
            content: the mapping; not modified.
            where: its dotted key; empty for the whole file.
            notes: where to say what is left out.
            source: names the file.
        """
        self.where, self.source, self.notes = where, source, notes
        if not isinstance(content, Mapping):
            raise refusal(self._named(), content, "not a set of keys", "write {...} with keys in it")
        self._left = {key: value for key, value in content.items() if value is not None}
        self._asked: set[str] = set()

    def key(self, name: str) -> str:
        """The dotted key of ``name``."""
        return f"{self.where}.{name}" if self.where else name

    def full(self, name: str) -> str:
        """The same with the file in front, for errors."""
        return f"{self.source}: {self.key(name)}"

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, default: Any = REQUIRED, aliases: Iterable[str] = ()) -> Any:
        """The value of a key, or ``default`` where it is absent.

        Raises:
            RecipeError: it is required and absent, or given under two names.
        """
        names = [name, *aliases]
        self._asked.update(names)
        given = [each for each in names if each in self._left]
        if len(given) > 1:
            raise RecipeError(f"{self.full(given[0])} and {given[1]} are one key under two names; remove one of them.")
        if given:
            return self._left.pop(given[0])
        if default is REQUIRED:
            raise RecipeError(f"{self.full(name)} is missing; give it.")
        return default

    def number(self, name: str, default: Any = REQUIRED, aliases: Iterable[str] = ()) -> Any:
        """A number as a float; the default as it is."""
        value = self._typed("a number", name, default, aliases)
        if isinstance(value, int | float) and not abs(value) < float("inf"):
            raise refusal(self.full(name), value, "not a finite number", "correct it")
        return float(value) if isinstance(value, int | float) else value

    def whole(self, name: str, default: Any = REQUIRED, aliases: Iterable[str] = ()) -> Any:
        """A whole number."""
        return self._typed("a whole number", name, default, aliases)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value: bool = self._typed("true or false", name, default, ())
        return value

    def text(self, name: str, default: Any = REQUIRED, known: Iterable[str] = ()) -> Any:
        """A text, one of ``known`` where that is given."""
        value = self._typed("a text", name, default, ())
        if known and value not in (*known, default):
            near = nearest(value, known)
            raise refusal(self.full(name), value, f"lamella knows {', '.join(known)}{near}", "choose one of these")
        return value

    def inner(self, name: str) -> Section:
        """The section under a key; an empty one where it is absent."""
        return Section(self.take(name, {}), self.key(name), self.notes, self.source)

    def peek(self, names: tuple[str, ...]) -> Mapping[str, Any]:
        """The mapping at nested keys, which stays to be taken; an empty one where there is none."""
        content: Any = self._left
        for name in names:
            content = content.get(name) if isinstance(content, Mapping) else None
        return content if isinstance(content, Mapping) else {}

    def ignore(self, reason: str, *names: str) -> None:
        """Leave keys out, with a note on those that are given."""
        self._asked.update(names)
        given = [name for name in names if name in self._left]
        for name in given:
            del self._left[name]
        if given:
            self.notes.add(", ".join(self.key(name) for name in given), f"left out: {reason}")

    def neutral(self, name: str, harmless: Iterable[Any], reason: str, advice: str) -> None:
        """Refuse a key unless its value is one that asks for nothing."""
        self._asked.add(name)
        if name in self._left:
            value = self._left.pop(name)
            if not any(type(value) is type(known) and value == known for known in harmless):
                raise refusal(self.full(name), value, reason, advice)

    def rest(self) -> dict[str, Any]:
        """What nobody asked for yet, for another reader."""
        rest, self._left = self._left, {}
        return rest

    def end(self) -> None:
        """Refuse what is left.

        Raises:
            RecipeError: a key that lamella does not know.
        """
        for name, value in self._left.items():
            near = nearest(str(name), self._asked)
            raise refusal(
                self.full(str(name)), value, f"not a key of deepmd-kit that lamella knows{near}", "correct or remove it"
            )

    def _named(self) -> str:
        return f"{self.source}: {self.where}" if self.where else self.source

    def _typed(self, kind: str, name: str, default: Any, aliases: Iterable[str]) -> Any:
        absent = not any(each in self._left for each in (name, *aliases))
        value = self.take(name, default, aliases)
        wrong = not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "true or false")
        if wrong and not absent:
            raise refusal(self.full(name), value, f"not {kind}", f"give {kind}")
        return value
