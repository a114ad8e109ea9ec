"""Content hashes: the same frames in the same order have the same hash, wherever they lie and however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from lamella.types import Frame

__all__ = ["DIGEST_BYTES", "combine", "frame_digest"]

DIGEST_BYTES = 32


def frame_digest(frame: Frame) -> bytes:
    """SHA-256 of numbers, positions, cell, pbc and labels (by name); the source does not count.

    Integers enter as little-endian int64, numbers as little-endian float64 with -0 as 0.
    """
    sha = hashlib.sha256()
    sha.update(_bytes(frame.numbers, "<i8"))
    for value in (frame.positions, frame.cell):
        sha.update(_bytes(value, "<f8"))
    sha.update(_bytes(frame.pbc, "u1"))
    for name in sorted(frame.labels):
        sha.update(name.encode())
        sha.update(_bytes(frame.labels[name], "<f8"))
    return sha.digest()


def combine(digests: Iterable[bytes]) -> str:
    """Hash of a list of frames, from the digest of each: 64 hexadecimal digits."""
    sha = hashlib.sha256(b"lamella frames")
    for digest in digests:
        sha.update(digest)
    return sha.hexdigest()


def _bytes(value: np.ndarray, kind: str) -> bytes:
    array = np.ascontiguousarray(value, dtype=kind)
    return (array + 0.0 if kind == "<f8" else array).tobytes()
