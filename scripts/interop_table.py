"""The table that ``interop.py`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Table:
    """Results by check and architecture."""

    rows: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)

    def put(self, check: str, kind: str, text: str, ok: bool) -> None:
        """One cell."""
        self.rows.setdefault(check, {})[kind] = (text, ok)

    def number(self, check: str, kind: str, value: float, bound: float) -> None:
        """A cell with a difference and the most it may be."""
        self.put(check, kind, f"{value:.1e}", value <= bound)

    def show(self) -> bool:
        """Print; whether all is well."""
        columns = list(dict.fromkeys(kind for row in self.rows.values() for kind in row))
        width = max(len(check) for check in self.rows) + 2
        print("\n" + " " * width + "".join(f"{kind:>16}" for kind in columns))
        for check, row in self.rows.items():
            cells = [row.get(kind, ("", True)) for kind in columns]
            print(f"{check:<{width}}" + "".join(f"{text + ('' if ok else ' ✗'):>16}" for text, ok in cells))
        bad = [f"{check}: {kind}" for check, row in self.rows.items() for kind, (_, ok) in row.items() if not ok]
        print("\nall agree" if not bad else "\nFAILED: " + "; ".join(bad))
        return not bad
