"""Values with many tensors as one block of memory: how a worker process sends what it made.

PyTorch sends each tensor between processes with a file descriptor and a connection of its own. A batch has dozens of them:
for small models, taking it from a worker would cost more than making it.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final, NamedTuple

import numpy as np
import torch

__all__ = ["Parcel", "packed", "unpacked"]

_ALIGNED: Final = 64
"""Bytes that arrays begin at multiples of."""


class Parcel(NamedTuple):
    """A value in two parts.

    Attributes:
        words: its pickle without the content of arrays.
        block: all of that, one after the other; sent through shared memory.
        ends: where each begins and ends in ``block``, bytes.
    """

    words: bytes
    block: torch.Tensor
    ends: tuple[tuple[int, int], ...]


def packed(value: object) -> Parcel:
    """A value whose tensors lie on the CPU, ready to be sent."""
    buffers: list[memoryview] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=lambda buffer: buffers.append(buffer.raw())).dump(value)
    ends: list[tuple[int, int]] = []
    for buffer in buffers:
        start = -(-(ends[-1][1] if ends else 0) // _ALIGNED) * _ALIGNED
        ends.append((start, start + buffer.nbytes))
    block = np.empty(ends[-1][1] if ends else 0, dtype=np.uint8)
    for (start, end), buffer in zip(ends, buffers, strict=True):
        block[start:end] = buffer
    return Parcel(stream.getvalue(), torch.from_numpy(block), tuple(ends))


def unpacked(parcel: Parcel) -> Any:
    """The value; its tensors are parts of the block, none is copied. Only for parcels of this program's own workers."""
    block = parcel.block.numpy().data
    return pickle.loads(parcel.words, buffers=[block[start:end] for start, end in parcel.ends])


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Tensors as arrays, whose content pickle can leave out."""
        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented
