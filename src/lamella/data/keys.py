"""Which key of a file carries which label: named by the user, or guessed from its spelling and reported.

A key is a candidate for a label when it is the label's own name, alone or with a word that says "reference" (``REF_energy``,
``dft_forces``, ``Energy``, ``energy_qm``). Keys with any other word (``mace_energy``, ``kinetic_energy``) are never used
unless named, and reported. Two candidates that differ are an error: nobody but the user can know which one is meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from lamella.data.refusal import AmbiguousError
from lamella.errors import DataError, nearest

__all__ = ["INPUT_KEYS", "Candidate", "LabelKeys", "ReadReport", "check_named", "choose"]

Quantity = Literal["energy", "forces", "stress", "virial"]

_WORDS: dict[Quantity, tuple[str, ...]] = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
}
_REFERENCE = frozenset({"ref", "reference", "dft", "qm", "label", "labels", "target", "true", "total", "tot", "potential"})
AGREES = "agrees with the virial"
"""Why a stress beside a virial is not used."""

_PER_ATOM = "one value per atom"
_FREE = "the energy is used"
_HARMLESS = frozenset({AGREES, _PER_ATOM, _FREE})
"""Reasons that deserve no warning: calculators write these beside every energy."""

INPUT_KEYS: dict[str, tuple[str, ...]] = {
    "frame_params": ("frame_params", "fparam"),
    "charge": ("charge", "charge_spin"),
    "spin": ("spin", "charge_spin"),
}
"""Keys under which each input of a frame is read without being named: no others, since "charge" occurs in many a key."""

_PLAIN = {("energy", "energy"), ("forces", "forces"), ("virial", "virial"), ("virial", "stress")} | {
    (name, key) for name, keys in INPUT_KEYS.items() for key in keys
}
"""What is read from a key of its own name, which nobody needs to be told."""

_LOOSE = re.compile(r"energ|force|stress|virial", re.IGNORECASE)
_SPLIT = re.compile(r"[_\-. ]+|(?<=[a-z])(?=[A-Z])")


class LabelKeys(BaseModel):
    """Keys under which a file carries its labels; ``None`` guesses and reports.

    Naming ``stress`` or ``virial`` alone also says that the other one is not to be read. ``frame_params``, ``charge`` and
    ``spin`` are no labels: a model may read them beside the geometry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    frame_params: str | None = None
    charge: str | None = None
    spin: str | None = None

    def input_key(self, name: str) -> str | None:
        """The key the user gave for one of :data:`lamella.fields.INPUTS`."""
        return {"frame_params": self.frame_params, "charge": self.charge, "spin": self.spin}[name]

    def named(self, quantity: Quantity) -> str | None:
        """The key the user gave for ``quantity``."""
        given: dict[Quantity, str | None] = {
            "energy": self.energy,
            "forces": self.forces,
            "stress": self.stress,
            "virial": self.virial,
        }
        return given[quantity]


class Candidate(NamedTuple):
    """A value found in a frame: its key, and where it was found (``"info"``, ``"arrays"`` or ``"calculator"``)."""

    key: str
    where: str
    value: object


@dataclass
class ReadReport:
    """What was used as which label, what was left unused, over all frames read so far.

    Attributes:
        used: number of frames by (label, key).
        ignored: number of frames by (key, reason).
        notes: anything else a reader has to say, with the number of frames.
    """

    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    ignored: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def guessed(self) -> bool:
        """Whether anything deserves a warning: a key that is not the label's own name, or one left unused."""
        left = [reason for _, reason in self.ignored if reason not in _HARMLESS]
        return bool(left or self.notes or set(self.used) - _PLAIN)

    def lines(self) -> list[str]:
        """One line per label and per unused key."""
        lines = [f"{label} <- {key!r} ({count} frames)" for (label, key), count in sorted(self.used.items())]
        lines += [f"not used: {key!r} ({reason}; {count} frames)" for (key, reason), count in sorted(self.ignored.items())]
        return lines + [f"{note} ({count} frames)" for note, count in sorted(self.notes.items())]

    def add(self, other: ReadReport) -> None:
        """Count what another report counted."""
        self.used.update(other.used)
        self.ignored.update(other.ignored)
        self.notes.update(other.notes)


def choose(found: Sequence[Candidate], keys: LabelKeys, source: str, report: ReadReport) -> Mapping[Quantity, Candidate]:
    """The candidate for each of energy, forces, stress and virial; a quantity without one is absent.

    Raises:
        AmbiguousError: candidates that differ, naming them.
    """
    chosen: dict[Quantity, Candidate] = {}
    taken: set[str] = set()
    for quantity in _WORDS:
        named = keys.named(quantity)
        if named is None and quantity in ("stress", "virial") and (keys.stress or keys.virial):
            continue
        pool = [item for item in found if item.key == named] if named is not None else _guess(found, quantity)
        if named is not None and not pool:
            near = nearest(named, [item.key for item in found])
            report.notes[f"no key {named!r} for {quantity}{near}"] += 1
        if pool:
            chosen[quantity] = _agreed(pool, quantity, source)
            taken.update(item.key for item in pool)
    for item in found:
        if item.key not in taken and _LOOSE.search(item.key):
            report.ignored[item.key, _why_not(item.key, chosen)] += 1
    return chosen


def check_named(keys: LabelKeys, report: ReadReport, paths: Sequence[object]) -> None:
    """Refuse a key that the user named and no frame has.

    Raises:
        DataError: naming the key, with the nearest that occurs.
    """
    seen = {key for _, key in report.used} | {key for key, _ in report.ignored}
    for quantity, key in keys.model_dump().items():
        if key is not None and key not in seen:
            hints = [note for note in report.notes if note.startswith(f"no key {key!r}")]
            near = hints[0].partition(quantity)[2] if hints else ""
            files = ", ".join(map(str, paths[:3]))
            raise DataError(f"keys.{quantity}: no frame of {files} has a key {key!r}{near}; correct the key.")


def _guess(found: Sequence[Candidate], quantity: Quantity) -> list[Candidate]:
    pool = [item for item in found if _spells(item.key, quantity)]
    if not pool and quantity == "energy":
        # consistent with forces at finite electronic temperature; ASE's readers put the extrapolated one under "energy"
        pool = [item for item in found if item.key == "free_energy"]
    return sorted(pool, key=lambda item: (item.key != quantity, item.key))


def _spells(key: str, quantity: Quantity) -> bool:
    words = [word.lower() for word in _SPLIT.split(key) if word]
    rest = [word for word in words if word not in _WORDS[quantity]]
    return len(rest) == len(words) - 1 and all(word in _REFERENCE for word in rest)


def _agreed(pool: Sequence[Candidate], quantity: Quantity, source: str) -> Candidate:
    first = pool[0]
    for other in pool[1:]:
        if not _equal(first.value, other.value):
            names = ", ".join(sorted({f"{item.key!r} ({item.where})" for item in pool}))
            raise AmbiguousError(
                f"{source}: several keys could be the {quantity} and they differ: {names}. "
                f"Say which one is meant (keys.{quantity}), or remove the others."
            )
    return first


def _equal(a: object, b: object) -> bool:
    try:
        x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return x.size == y.size and bool(np.allclose(x.ravel(), y.ravel(), rtol=1e-9, atol=1e-9, equal_nan=True))


def _why_not(key: str, chosen: Mapping[Quantity, Candidate]) -> str:
    if key in ("stress", "virial"):
        return "the other of stress and virial was named"
    if key == "free_energy" and "energy" in chosen:
        return _FREE
    if key in ("energies", "stresses"):
        return _PER_ATOM
    return "not known as a label; name it to use it"
