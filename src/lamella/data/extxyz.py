"""Extended XYZ, one frame at a time: constant memory, and every error names the frame.

ASE parses each frame; what is done here is what ASE leaves out: it stops without a word at a blank line, refuses a
six-component ``stress``, and says neither which frame is broken nor that the file ends too early. Written numbers keep
every digit.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_str_to_dict, read_xyz
from ase.io.formats import open_with_compression

from lamella.data.convert import has_volume, stress_from_virial
from lamella.data.keys import INPUT_KEYS
from lamella.data.refusal import TruncatedError
from lamella.errors import DataError
from lamella.fields import INPUTS
from lamella.types import Frame

__all__ = ["iter_atoms", "read_atoms", "write_frames"]

_SPECIAL = re.compile(r"(^|\s)(stress|virial)(\s*=)")
_PLAIN = "__lamella"
_LISTS = INPUT_KEYS["frame_params"]
"""Keys of plain lists: ASE takes nine numbers for a matrix, column by column."""


def iter_atoms(path: Path) -> Iterator[Atoms | DataError]:
    """Every frame of an extended XYZ file (also gzipped), or the error that stands in its place.

    After an error that leaves the start of the next frame unknown, nothing more is read.
    """
    for index, block in enumerate(_readable_blocks(path)):
        yield block if isinstance(block, DataError) else _parse(block, f"{path}#{index}")


def read_atoms(path: Path, index: int) -> Atoms:
    """One frame of an extended XYZ file, negative indices counting from the end; the others are not parsed.

    Raises:
        DataError: the frame is not there or cannot be read, or what comes before it is broken.
    """
    kept: deque[list[str]] = deque(maxlen=-index if index < 0 else 1)
    count = 0
    for block in _readable_blocks(path):
        if isinstance(block, DataError):
            raise block
        kept.append(block)
        count += 1
        if count == index + 1:
            break
    if count == 0:
        raise DataError(f"{path}: the file holds no frames; write it again.")
    if not -count <= index < count:
        raise DataError(f"{path}: it has {count} frames, so none of index {index}; count from 0, or from the end by -1.")
    atoms = _parse(kept[0], f"{path}#{index % count}")
    if isinstance(atoms, DataError):
        raise atoms
    return atoms


def write_frames(path: Path, frames: Iterable[Frame]) -> int:
    """Write frames with every digit: ``energy``, ``forces``, ``virial``, ``stress`` for a cell with volume, and inputs.

    Returns:
        the number of frames.
    """
    count = 0
    with path.open("w", encoding="utf-8") as handle:
        for frame in frames:
            handle.write(_text(frame))
            count += 1
    return count


def _readable_blocks(path: Path) -> Iterator[list[str] | DataError]:
    """The lines of every frame; what keeps the file from being read as text is an error in place of the rest."""
    try:
        with open_with_compression(str(path), "r") as handle:
            yield from _blocks(handle, path)
    except UnicodeDecodeError as error:
        yield DataError(f"{path}: no text in UTF-8 ({error.reason}); convert it (iconv -t UTF-8), or name its format.")
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        yield TruncatedError(f"{path}: cannot be read to its end ({error}); it is cut short or damaged, copy it again.")


def _blocks(handle: IO[Any], path: Path) -> Iterator[list[str] | DataError]:
    index = 0
    number = 0
    for line in handle:
        line = line.removeprefix("\ufeff")  # some editors put a byte-order mark first
        number += 1
        if not line.strip():
            continue
        source = f"{path}#{index}"
        if not line.strip().isdecimal():
            yield TruncatedError(
                f"{source}: line {number} should be the number of atoms but is {line.strip()[:40]!r}; the frame before it "
                "announces the wrong number of atoms, or the file is no XYZ. Repair it there."
            )
            return
        announced = int(line)
        body = list(islice(handle, announced + 1))
        number += len(body)
        if len(body) < announced + 1:
            yield TruncatedError(
                f"{source}: the frame announces {announced} atoms but the file ends after {max(len(body) - 1, 0)}; "
                "it is truncated. Copy it again, or remove its last frame."
            )
            return
        if announced > 1 and not body[-1].endswith("\n") and len(body[-1].split()) < len(body[-2].split()):
            yield TruncatedError(
                f"{source}: the file ends in the middle of the last atom's line ({body[-1].strip()[:40]!r}); it is "
                "truncated. Copy it again, or remove its last frame."
            )
            return
        yield [line, *body]
        index += 1


def _parse(block: list[str], source: str) -> Atoms | DataError:
    if int(block[0]) == 0:
        return DataError(f"{source}: the frame has no atoms; remove it.")
    try:
        # a list of one: the file handle holds exactly one frame
        return next(iter(read_xyz(StringIO("".join(block)), index=0, properties_parser=_properties)))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError, StopIteration) as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        return DataError(f"{source}: the frame cannot be read ({reason[:160]}); repair or remove it.")


def _properties(line: str) -> dict[str, Any]:
    """ASE's parser, except that ``stress`` and ``virial`` may have any number of components, and lists stay lists."""
    values = _values(line)
    matrices = [key for key in _LISTS if key in values and np.shape(values[key]) == (3, 3)]
    return values | {key: np.ravel(values[key], order="F") for key in matrices}


def _values(line: str) -> dict[str, Any]:
    try:
        return key_val_str_to_dict(line)
    except ValueError:
        values = key_val_str_to_dict(_SPECIAL.sub(rf"\1\2{_PLAIN}\3", line))
    for name in ("stress", "virial"):
        value = values.pop(name + _PLAIN, None)
        if value is not None:
            array = np.asarray(value)
            values[name] = array.reshape(3, 3, order="F") if array.shape == (9,) else array
    return values


def _text(frame: Frame) -> str:
    labels = frame.labels
    columns = [frame.positions]
    properties = "species:S:1:pos:R:3"
    if "forces" in labels:
        columns.append(labels["forces"])
        properties += ":forces:R:3"
    if "atom_energy" in labels:
        columns.append(labels["atom_energy"][:, None])
        properties += ":energies:R:1"
    info = [f"Properties={properties}"]
    if frame.cell.any():
        info.insert(0, f'Lattice="{_row(frame.cell.ravel())}"')
    if "energy" in labels:
        info.append(f"energy={float(labels['energy'])!r}")
    if "virial" in labels:
        info.append(f'virial="{_row(labels["virial"].ravel(order="F"))}"')
        if has_volume(frame.cell):
            xx, yy, zz, yz, xz, xy = stress_from_virial(labels["virial"], frame.cell)
            info.append(f'stress="{_row(np.array([xx, xy, xz, xy, yy, yz, xz, yz, zz]))}"')
    info += [f'{name}="{_row(np.ravel(labels[name]))}"' for name in INPUTS if name in labels]
    info.append('pbc="' + " ".join("T" if periodic else "F" for periodic in frame.pbc) + '"')
    rows = np.hstack(columns)
    atoms = [f"{chemical_symbols[z]} {_row(row)}" for z, row in zip(frame.numbers, rows, strict=True)]
    return "\n".join([str(len(frame)), " ".join(info), *atoms]) + "\n"


def _row(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
