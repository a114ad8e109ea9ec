"""The on-disk store: flat arrays that are memory-mapped, an index, and a checksum for every frame.

::

    train.store/
      index.json       format version, number of frames and atoms, labels, content hash, and the size of every array below
      offset.bin       (n + 1) int64: frame i owns the atoms offset[i]:offset[i + 1]
      digest.bin       (n, 32): SHA-256 of each frame, see lamella.data.digest
      carries.bin      (n, labels) bool: which labels each frame has
      numbers.bin  positions.bin  cell.bin  pbc.bin  energy.bin  forces.bin  virial.bin  charge.bin ...
      source.bin  source_offset.bin

Opening maps the files and checks sizes and hashes of the index; a frame is checked when it is read. Memory use does not grow
with the number of frames, neither when writing nor when reading. Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from lamella.data.digest import DIGEST_BYTES, combine, frame_digest
from lamella.errors import DataError
from lamella.fields import QUANTITIES
from lamella.types import Frame

__all__ = ["FORMAT_VERSION", "Store", "is_store", "write_store"]

FORMAT_VERSION = 1
_FORMAT = "lamella-store"
_INDEX = "index.json"

_BASE: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "numbers": ("atom", "u1", ()),
    "positions": ("atom", "<f8", (3,)),
    "cell": ("frame", "<f8", (3, 3)),
    "pbc": ("frame", "?", (3,)),
    "digest": ("frame", "u1", (DIGEST_BYTES,)),
}
"""Array -> owner, dtype, shape of one value."""


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the index of a store."""
    index = Path(path) / _INDEX
    try:
        return index.is_file() and f'"{_FORMAT}"' in index.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def write_store(path: str | os.PathLike[str], frames: Iterable[Frame]) -> Store:
    """Write frames as a store, one at a time; ``path`` appears only when it is complete.

    Args:
        path: folder to create; refused where it exists.
        frames: any iterable; constant memory.

    Raises:
        DataError: the path exists, there are no frames, or the disk is full; nothing is left behind then.
    """
    target = Path(path)
    if target.exists():
        raise DataError(f"{target} exists already; remove it, or choose another name.")
    scratch = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        with _Writer(scratch) as writer:
            for frame in frames:
                writer.append(frame)
            if writer.frames == 0:
                raise DataError(f"{target}: no frames to write; nothing was created.")
            writer.finish()
        os.replace(scratch, target)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror or error}); free some space or choose another place. "
            "Nothing was created."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Store(target)


class Store:
    """Frames on disk with random access.

    Attributes:
        path: the folder.
        content_hash: hash of all frames in order, see :mod:`lamella.data.digest`; independent of the path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a store.

        Raises:
            DataError: no store, one of a newer version, one cut short or damaged.
        """
        self.path = Path(path)
        index = _read_index(self.path)
        self._frames: int = index["frames"]
        self._atoms: int = index["atoms"]
        self._labels: tuple[str, ...] = tuple(index["labels"])
        unknown = [name for name in self._labels if name not in QUANTITIES]
        if unknown:
            raise DataError(f"{self.path}: this lamella does not know {unknown[0]!r}, which the store holds; upgrade it.")
        self.content_hash: str = index["content_hash"]
        self._arrays = {name: self._map(name, entry) for name, entry in index["arrays"].items()}
        offset = self._arrays["offset"]
        if offset[0] != 0 or offset[-1] != self._atoms or (np.diff(offset) <= 0).any():
            raise DataError(_damaged(self.path, "offset.bin is inconsistent"))
        if combine([self._arrays["digest"].tobytes()]) != self.content_hash:
            raise DataError(_damaged(self.path, "digest.bin does not match the content hash"))

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, index: int) -> Frame:
        """The frame of this index; negative ones count from the end.

        Raises:
            IndexError: beyond the end.
            DataError: the frame on disk is not what was written.
        """
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"frame {index} of {len(self)} in {self.path}")
        arrays = self._arrays
        atoms = slice(int(arrays["offset"][i]), int(arrays["offset"][i + 1]))
        labels = {
            name: np.array(arrays[name][atoms] if QUANTITIES[name].owner == "atom" else arrays[name][i])
            for name, carried in zip(self._labels, arrays["carries"][i], strict=True)
            if carried
        }
        text = slice(int(arrays["source_offset"][i]), int(arrays["source_offset"][i + 1]))
        frame = Frame(
            arrays["numbers"][atoms].astype(np.int64),
            np.array(arrays["positions"][atoms]),
            np.array(arrays["cell"][i]),
            np.array(arrays["pbc"][i]),
            labels,
            arrays["source"][text].tobytes().decode("utf-8", errors="replace"),
        )
        if frame_digest(frame) != self.digest(i):
            raise DataError(_damaged(self.path, f"frame {i} ({frame.source}) does not match its checksum"))
        return frame

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        # a worker process maps the files itself
        return Store, (self.path,)

    def digest(self, index: int) -> bytes:
        """SHA-256 of one frame, without reading it."""
        return self._arrays["digest"][index].tobytes()

    def _map(self, name: str, entry: dict[str, Any]) -> np.ndarray:
        file = self.path / f"{name}.bin"
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        expected = int(np.prod(shape)) * dtype.itemsize
        size = file.stat().st_size if file.exists() else -1
        if size != expected:
            state = "is missing" if size < 0 else f"has {size} bytes instead of {expected}"
            raise DataError(_damaged(self.path, f"{name}.bin {state}"))
        if expected == 0:
            return np.zeros(shape, dtype)
        # plain ndarray: memmap's own indexing is many times slower
        return np.asarray(np.memmap(file, dtype=dtype, mode="r", shape=shape))


class _Writer:
    """Appends frames to the files of a store that nobody sees yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames = 0
        self.atoms = 0
        self.labels: list[str] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._source_end = 0
        self._hash = hashlib.sha256()
        for name in (*_BASE, "offset", "carries", "source", "source_offset"):
            self._open(name)
        for name in ("offset", "source_offset"):
            self._put(name, np.int64(0))
        self._carries: list[int] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, frame: Frame) -> None:
        """Write one frame behind the others."""
        digest = frame_digest(frame)
        for name, value in frame.labels.items():
            if name not in self.labels:
                self._add_label(name, np.shape(value))
            self._check_length(frame, name)
        self._put("numbers", frame.numbers.astype("u1"))
        self._put("positions", frame.positions.astype("<f8"))
        self._put("cell", frame.cell.astype("<f8"))
        self._put("pbc", frame.pbc.astype("?"))
        self._files["digest"].write(digest)
        for name in self.labels:
            rows = len(frame) if QUANTITIES[name].owner == "atom" else 1
            filled = frame.labels.get(name, np.zeros((rows, *self._shapes[name])))
            self._put(name, np.asarray(filled, dtype="<f8"))
        # one bit a label: a label that appears late does not change the width of what is written already
        self._put("carries", np.int64(sum(1 << k for k, name in enumerate(self.labels) if name in frame.labels)))
        text = frame.source.encode()
        self._files["source"].write(text)
        self._source_end += len(text)
        self.frames += 1
        self.atoms += len(frame)
        self._put("offset", np.int64(self.atoms))
        self._put("source_offset", np.int64(self._source_end))

    def finish(self) -> None:
        """Flush everything to the disk, then write the index."""
        shapes: dict[str, tuple[int, ...]] = {
            "offset": (self.frames + 1,),
            "source_offset": (self.frames + 1,),
            "source": (self._source_end,),
        }
        kinds = {"offset": "<i8", "source_offset": "<i8", "source": "u1"}
        self._expand_carries()
        shapes["carries"], kinds["carries"] = (self.frames, len(self.labels)), "?"
        for name in (*_BASE, *self.labels):
            owner, kind, shape = _BASE[name] if name in _BASE else (QUANTITIES[name].owner, "<f8", self._shapes[name])
            shapes[name], kinds[name] = (self.atoms if owner == "atom" else self.frames, *shape), kind
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        digests = np.fromfile(self.folder / "digest.bin", dtype="u1")
        index = {
            "format": _FORMAT,
            "version": FORMAT_VERSION,
            "frames": self.frames,
            "atoms": self.atoms,
            "labels": self.labels,
            "content_hash": combine([digests.tobytes()]),
            "arrays": {name: {"dtype": kinds[name], "shape": shapes[name]} for name in sorted(shapes)},
        }
        index["checksum"] = _checksum(index)
        with (self.folder / _INDEX).open("w", encoding="utf-8") as handle:
            json.dump(index, handle, indent=1)
            handle.flush()
            os.fsync(handle.fileno())

    def _open(self, name: str) -> None:
        self._files[name] = (self.folder / f"{name}.bin").open("w+b")

    def _put(self, name: str, value: Any) -> None:
        self._files[name].write(value.tobytes())

    def _check_length(self, frame: Frame, name: str) -> None:
        """A list of any length is as long in every frame: rows of one array."""
        given = np.shape(frame.labels[name])
        if QUANTITIES[name].shape == (-1,) and given != self._shapes[name]:
            raise DataError(
                f"{frame.source}: {name} is a list of {given[0]}, in the frames before of {self._shapes[name][0]}; "
                "convert files of different lists into stores of their own."
            )

    def _add_label(self, name: str, given: tuple[int, ...]) -> None:
        """Start a label's file with a hole (zeros) for the frames that came before."""
        self._open(name)
        self._shapes[name] = given if QUANTITIES[name].shape == (-1,) else QUANTITIES[name].shape
        rows = self.atoms if QUANTITIES[name].owner == "atom" else self.frames
        start = rows * int(np.prod(self._shapes[name], dtype=np.int64)) * 8
        self._files[name].truncate(start)
        self._files[name].seek(start)
        self.labels.append(name)

    def _expand_carries(self) -> None:
        """Turn the bits of each frame into one bool per label, in pieces."""
        file = self._files["carries"]
        file.flush()
        with (self.folder / "bits.bin").open("w+b") as wide:
            file.seek(0)
            while piece := file.read(8 * 65536):
                bits = np.frombuffer(piece, dtype="<i8")
                wide.write((bits[:, None] >> np.arange(len(self.labels)) & 1).astype("?").tobytes())
        file.close()
        os.replace(self.folder / "bits.bin", self.folder / "carries.bin")
        self._files["carries"] = (self.folder / "carries.bin").open("r+b")


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is no lamella store (it has no {_INDEX}); make one with 'lamella data convert'.") from None
    except (ValueError, OSError) as error:
        raise DataError(_damaged(path, f"{_INDEX} cannot be read ({str(error)[:80]})")) from None
    if not isinstance(index, dict) or index.get("format") != _FORMAT:
        raise DataError(f"{path} is no lamella store ({_INDEX} is something else); make one with 'lamella data convert'.")
    if index.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{path} has store version {index.get('version')}, this lamella reads version {FORMAT_VERSION}; "
            "upgrade lamella, or write the store again."
        )
    checksum = index.pop("checksum", None)
    if checksum != _checksum(index):
        raise DataError(_damaged(path, f"{_INDEX} does not match its checksum"))
    return index


def _checksum(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path}: the store is damaged or cut short ({what}); copy it again, or write it again with 'lamella data convert'."
    )
