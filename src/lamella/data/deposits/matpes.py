"""JSON of MatPES: a list of records, each a pymatgen structure with its labels.

Energy in eV, forces in eV/Å, stress in kbar, positive under compression (VASP's), as xx yy zz yz xz xy: the page of the data
set (matpes.ai, "Dataset") gives unit and order, its tutorial the factor -0.1 to GPa under tension. The virial is therefore

    W = V σ_VASP

Files have gigabytes; one record at a time is read.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from lamella.data.convert import checked_frame
from lamella.data.deposits.alloys import pymatgen_structure
from lamella.data.keys import ReadReport
from lamella.data.refusal import unreadable
from lamella.errors import DataError
from lamella.types import Frame
from lamella.units import GPA

__all__ = ["iter_matpes"]

_WHAT: Final = "MatPES's JSON"
_KBAR: Final = 0.1 * GPA
_VOIGT: Final = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
_CHUNK: Final = 1 << 20
_LONGEST: Final = 1 << 28
"""Characters of one record; a file damaged in its middle is not read to its end as one."""
_BETWEEN: Final = " \t\r\n,"


def iter_matpes(path: Path, report: ReadReport) -> Iterator[Frame | DataError]:
    """Frames of a MatPES file, also gzipped; a label that is null or absent is absent."""
    try:
        for index, item in enumerate(_records(path)):
            source = f"{path}#{index}"
            try:
                yield _frame(item, source, report)
            except DataError as error:
                yield error
            except (TypeError, KeyError, ValueError, IndexError) as error:
                yield unreadable(source, _WHAT, error)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise unreadable(str(path), _WHAT, error) from None


def _records(path: Path) -> Iterator[Any]:
    """The items of a JSON list, or of JSON lines, one by one in constant memory.

    Raises:
        ValueError: no JSON, or it ends too early.
    """
    decoder = json.JSONDecoder()
    with _opened(path) as file:
        text = file.read(_CHUNK).lstrip()
        listed = text.startswith("[")
        text, wanted = text[int(listed) :], _CHUNK
        while True:
            text = text.lstrip(_BETWEEN)
            if listed and text.startswith("]"):
                return
            try:
                item, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                grown = "" if len(text) > _LONGEST else file.read(wanted)
                if not grown and (listed or text):
                    raise
                if not grown:
                    return
                text += grown
                wanted *= 2  # so that a large record is not parsed again and again
                continue
            text, wanted = text[end:], _CHUNK
            yield item


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _frame(item: Any, source: str, report: ReadReport) -> Frame:
    numbers, positions, cell = pymatgen_structure(item["structure"], source)
    labels: dict[str, Any] = {}
    for key in ("energy", "forces"):
        if item.get(key) is not None:
            labels[key] = np.array(item[key], dtype=np.float64)
            report.used[key, key] += 1
    if item.get("stress") is not None:
        stress = np.array(item["stress"], dtype=np.float64)
        if stress.shape != (6,):
            raise DataError(f"{source}: stress has the shape {stress.shape} instead of (6,); remove the record.")
        labels["virial"] = abs(np.linalg.det(cell)) * _KBAR * stress[np.array(_VOIGT)]
        report.used["virial", "stress"] += 1
    return checked_frame(numbers, positions, cell, np.ones(3, dtype=bool), labels, source)
