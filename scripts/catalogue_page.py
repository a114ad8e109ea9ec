"""Write the tables of ``docs/catalogue.md`` from the catalogue: ``python scripts/catalogue_page.py``.

What stands above the mark is written by hand; everything below it is replaced. A test compares the two.
"""

from __future__ import annotations

from pathlib import Path

from lamella.data.catalogue.entry import Entry
from lamella.data.catalogue.table import COLLECTIONS, catalogue

PAGE = Path(__file__).resolve().parents[1] / "docs" / "catalogue.md"
MARK = "<!-- Below: written by scripts/catalogue_page.py from src/lamella/data/catalogue/*.yaml; edit those. -->\n"
MOST_ELEMENTS = 16


def tables() -> str:
    """Every collection as a heading and a table."""
    blocks = []
    for collection, title in COLLECTIONS.items():
        entries = [entry for entry in catalogue().values() if entry.collection == collection]
        rows = "\n".join(_row(entry) for entry in entries)
        head = "| name | what it is | method | elements | frames | size | files checked by | read | licence | cite |"
        blocks.append(f"\n## {title}\n\n{head}\n|{'---|' * 10}\n{rows}\n")
    return "".join(blocks)


def page() -> str:
    """The whole page, its head as it is on disk."""
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + tables()


def _row(entry: Entry) -> str:
    cells = (
        f"[`{entry.name}`]({entry.page})",
        entry.about,
        entry.method + (f", {entry.code}" if entry.code else ""),
        _elements(entry),
        "–" if entry.frames is None else f"{entry.frames:,}",
        _size(entry),
        _checked(entry),
        "yes" if entry.parts and entry.files else "after its download" if not entry.files else "no",
        entry.licence,
        entry.citation,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _elements(entry: Entry) -> str:
    if len(entry.elements) > MOST_ELEMENTS:
        return f"{len(entry.elements)} elements"
    return " ".join(entry.elements) or (f"{entry.element_count} elements" if entry.element_count else "–")


def _size(entry: Entry) -> str:
    if entry.megabytes is None:
        return "–"
    return f"{entry.megabytes / 1e3:,.1f} GB" if entry.megabytes >= 1e3 else f"{entry.megabytes:,.0f} MB"


def _checked(entry: Entry) -> str:
    if not entry.files:
        return "no address known"
    kinds = sorted({(file.checksum or "own record").partition(":")[0] for file in entry.files})
    return ", ".join({"sha256": "SHA-256", "md5": "MD5"}.get(kind, kind) for kind in kinds)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
