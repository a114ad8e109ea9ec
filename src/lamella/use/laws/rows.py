"""What a check returns: one row per law."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Check", "Checks"]


@dataclass(frozen=True)
class Check:
    """One law and how far the model is from obeying it.

    Attributes:
        law: name of the law.
        violation: the measured violation; what it is relative to is said in ``sentence``.
        bound: the largest violation that passes: what round-off, a finite step or the switch left at a cutoff explains.
        sentence: what was done and found.
        task: the task it was measured for.
    """

    law: str
    violation: float
    bound: float
    sentence: str
    task: str = ""

    @property
    def passed(self) -> bool:
        """Whether the violation is a number within the bound; NaN is not."""
        return bool(self.violation <= self.bound)

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON; a violation that is no number is ``None``."""
        number = self.violation if math.isfinite(self.violation) else None
        return {**asdict(self), "violation": number, "passed": self.passed}


@dataclass(frozen=True)
class Checks:
    """Every law's row, the worst over the tasks that were asked for."""

    rows: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every law holds."""
        return all(row.passed for row in self.rows)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the laws that do not hold."""
        return tuple(row.law for row in self.rows if not row.passed)

    def __getitem__(self, law: str) -> Check:
        return {row.law: row for row in self.rows}[law]

    def __str__(self) -> str:
        width = max((len(row.law) for row in self.rows), default=0)
        lines = [
            f"{'ok  ' if row.passed else 'FAIL'} {row.law:<{width}} {row.violation:9.1e} <= {row.bound:7.1e}  {row.sentence}"
            for row in self.rows
        ]
        return "\n".join(lines)
