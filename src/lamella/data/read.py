"""One door for every file: frames from extended XYZ, whatever ASE reads, deepmd data, QM outputs or a store.

A path may begin with the name of a format: ``vasp/outcar:run/OUTCAR`` (dpdata's names contain a slash),
``espresso-out:pw.out`` (ASE's do not). Without one it is told from the name and the content.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from lamella.data import aselmdb, extxyz, outputs, systems
from lamella.data.convert import frame_from_atoms
from lamella.data.deposits import READERS
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.store import Store, is_store
from lamella.errors import DataError, nearest
from lamella.types import Frame

__all__ = ["LabelKeys", "ReadReport", "iter_frames", "iter_items"]

_LOG = logging.getLogger(__name__)

_OUTPUTS = {"OUTCAR": "vasp/outcar", "vasprun.xml": "vasp/xml"}
"""QM outputs known by their file name alone, and the dpdata format that reads them."""

_HDF5 = (".hdf5", ".h5")
_XYZ = (".xyz", ".extxyz")
_COMPRESSED = (".gz", ".bz2", ".xz")
_PREFIX = re.compile(r"^([a-z0-9][a-z0-9_\-/.]+):(.+)$", re.IGNORECASE)


def iter_frames(
    path: str | os.PathLike[str],
    keys: LabelKeys | None = None,
    format: str | None = None,
    report: ReadReport | None = None,
) -> Iterator[Frame]:
    """Every frame of a file or folder, in order.

    Args:
        path: extended XYZ or anything ASE reads; a deepmd system (or a folder of them); ``file.hdf5#/group``; a QM output;
            a lamella store; with a ``format:`` before it where the name does not tell.
        keys: which key is which label; ``None`` guesses all and reports.
        format: dpdata's or ASE's name of the format, instead of the prefix.
        report: where to count the keys used and not used; ``None`` logs them at the end.

    Raises:
        DataError: a file or frame that cannot be used; the message names it.
    """
    own = ReadReport()
    count = 0
    for item in iter_items(path, keys, format, own):
        if isinstance(item, DataError):
            raise item
        count += 1
        yield item
    if count == 0:
        raise DataError(f"{path}: the file holds no frames; remove it from the list, or write it again.")
    if report is not None:
        report.add(own)
    else:
        log_report(str(path), own)


def log_report(name: str, report: ReadReport) -> None:
    """Say which keys were read: as a warning where one was guessed or left unused, else as information."""
    lines = report.lines()
    if lines:
        _LOG.log(logging.WARNING if report.guessed else logging.INFO, "%s: %s", name, "; ".join(lines))


def iter_items(
    path: str | os.PathLike[str], keys: LabelKeys | None, format: str | None, report: ReadReport
) -> Iterator[Frame | DataError]:
    """Like :func:`iter_frames`, but a frame that cannot be used is yielded as its error, and reading goes on."""
    name = os.fspath(path)
    if format is None and not os.path.exists(name):
        match = _PREFIX.match(name)
        if match and _is_format(match[1]):
            format, name = match[1], match[2]
    kind = format or _kind(name)
    if kind == "store":
        yield from _from_store(Store(name))
    elif kind == "extxyz":
        yield from _from_atoms(extxyz.iter_atoms(Path(name)), name, keys, report)
    elif kind == "aselmdb":
        yield from _from_atoms(aselmdb.iter_atoms(Path(name)), name, keys, report)
    elif kind == "deepmd/npy" or kind == "deepmd/npy/mixed":
        for folder in systems.find_systems(Path(name)):
            yield from systems.iter_folder(folder, report)
    elif kind == "deepmd/hdf5":
        yield from systems.iter_hdf5(name, report)
    elif kind in READERS:
        _must_exist(name)
        yield from READERS[kind](Path(name), report)
    elif "/" in kind:
        _must_exist(name)
        yield from outputs.iter_output(name, kind, report)
    else:
        yield from _from_atoms(_ase_atoms(name, kind), name, keys, report)


def _from_store(store: Store) -> Iterator[Frame | DataError]:
    for index in range(len(store)):
        try:
            item: Frame | DataError = store[index]
        except DataError as error:
            item = error
        yield item


def _is_format(word: str) -> bool:
    return "/" in word or word in ioformats


def _must_exist(name: str) -> None:
    file = systems.split_hdf5(name)[0]
    if not os.path.exists(file):
        folder = os.path.dirname(file) or "."
        near = nearest(os.path.basename(file), os.listdir(folder)) if os.path.isdir(folder) else ""
        raise DataError(f"{file}: no such file or folder{near}; check the path.")


def _kind(name: str) -> str:
    """Format of a file or folder, from its name and content."""
    _must_exist(name)
    path = Path(systems.split_hdf5(name)[0] if "#" in name and not os.path.exists(name) else name)
    if path.is_dir():
        return _folder_kind(path)
    if path.stat().st_size == 0:
        raise DataError(f"{name}: the file is empty; remove it from the list, or write it again.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if suffixes and suffixes[-1] in _HDF5:
        return "deepmd/hdf5"
    if suffixes and suffixes[-1] in _XYZ:
        return "extxyz"
    if path.suffix == aselmdb.SUFFIX:
        return "aselmdb"
    if path.name in _OUTPUTS:
        return _OUTPUTS[path.name]
    try:
        kind = filetype(name)
    except (UnknownFileTypeError, UnicodeDecodeError, OSError):
        kind = ""
    # ASE falls back to the ending itself
    if kind not in ioformats:
        raise DataError(
            f"{name}: neither its name nor its content tells the format; name it in front of the path "
            "(vasp/outcar:PATH, extxyz:PATH, ...), see docs/data.md."
        )
    return str(kind)


def _folder_kind(path: Path) -> str:
    if is_store(path):
        return "store"
    if systems.find_systems(path):
        return "deepmd/npy"
    raise DataError(
        f"{path}: the folder holds neither a lamella store nor a deepmd system (type.raw); name the files in it one by one, "
        "or give the format in front (cp2k/aimd_output:PATH)."
    )


def _ase_atoms(name: str, kind: str) -> Iterator[Atoms | DataError]:
    _must_exist(name)
    images = iter(ase.io.iread(name, index=":", format=kind))
    index = 0
    while True:
        try:
            yield next(images)
        except StopIteration:
            return
        except Exception as error:  # a parser of foreign text may fail in any way
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            yield DataError(
                f"{name}#{index}: ASE cannot read it as {kind} ({reason[:160]}); the file is cut short or of another format."
            )
            return
        index += 1


def _from_atoms(
    items: Iterator[Atoms | DataError], name: str, keys: LabelKeys | None, report: ReadReport
) -> Iterator[Frame | DataError]:
    for index, item in enumerate(items):
        if isinstance(item, DataError):
            yield item
            continue
        try:
            frame = frame_from_atoms(item, keys, f"{name}#{index}", report)
        except DataError as error:
            yield error
        else:
            yield frame
