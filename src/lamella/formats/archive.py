"""PyTorch's zip archives, checked and read without running anything in them.

Both kinds, what ``torch.save`` writes (``.pt``) and what ``torch.jit.save`` writes (``.pth``), are a pickle beside stored
numbers. Here the pickle is read by an unpickler that knows a handful of names: it builds tensors, containers and plain
values, turns every scripted class into a plain bag of attributes, and refuses anything else before it is called. The code
that a TorchScript file carries is never opened.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lamella.errors import CheckpointError

__all__ = ["archive_kind", "first_line", "read_module", "read_saved"]

_OPCODES = frozenset(
    [
        *("PROTO", "STOP", "MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"),
        *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
        *("LONG1", "BINFLOAT", "BINUNICODE", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
        *("GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    ]
)
"""What PyTorch writes; anything else is refused before the first opcode is executed."""

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")

_MOST_ATTRIBUTES = 1_000_000


class _Module:
    """A scripted object: its attributes, none of its code."""

    attributes: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _Dict(dict[Any, Any]):
    """Stands for an OrderedDict; attributes set on it (PyTorch's ``_metadata``) are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Call:
    """A function that a pickle may call, and do nothing else with."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError("its pickle sets attributes of a function; do not trust this file.")


def archive_kind(path: Path) -> Literal["checkpoint", "module"]:
    """What a PyTorch archive holds: a checkpoint (``torch.save``) or a TorchScript module (``torch.jit.save``).

    Raises:
        CheckpointError: no such archive, cut short, or claiming more bytes than the file has.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path}: no PyTorch archive, or one cut short ({first_line(error)}); copy it again, or export the model anew."
        ) from None
    names = {entry.filename.partition("/")[2]: entry for entry in entries}
    read = [entry for name, entry in names.items() if not name.startswith(("code/", "extra/"))]  # those two are never opened
    stored = all(entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size for entry in read)
    if not stored or sum(entry.file_size for entry in read) > size:
        raise CheckpointError(f"{path}: claims more bytes than the {size} it has, so it is damaged; copy it again.")
    if "data.pkl" not in names:
        raise CheckpointError(f"{path}: a zip file, but no PyTorch archive (no data.pkl in it); give a .pt or .pth file.")
    return "module" if "constants.pkl" in names else "checkpoint"


def read_module(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every tensor and every plain attribute of a TorchScript file, by its dotted name in the module tree.

    Raises:
        CheckpointError: damaged, or holding anything that PyTorch does not write.
    """
    root = _read_pickle(path)
    if not isinstance(root, _Module):
        raise CheckpointError(f"{path}: its pickle is no module; give a model frozen by deepmd-kit.")
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {}
    try:
        _flatten(root, tensors, attributes)
    except (CheckpointError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: {first_line(error)}") from None
    return tensors, attributes


def read_saved(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors on the CPU, containers and plain values.

    Raises:
        CheckpointError: damaged, or holding anything else.
    """
    archive_kind(path)
    return _read_pickle(path)


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _read_pickle(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f"{path}: cut short or damaged ({first_line(error)}); copy it again, or write it anew."
        ) from None


class _Reader(pickle.Unpickler):
    """Builds what the pickle of one archive describes, of tensors, containers, plain values and bags of attributes."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        (entry,) = (name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
        self._archive, self._prefix = archive, entry.removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        order = f"{self._prefix}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise CheckpointError("written on a big-endian machine, which lamella does not read; write it on another one.")
        content = archive.read(entry)
        _check_opcodes(content)
        super().__init__(BytesIO(content))

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):
            return _Module
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise CheckpointError(f"its pickle asks for {module}.{name}, which lamella never runs; do not trust this file.")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError("its pickle refers to something other than stored numbers; do not trust this file.")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._prefix}data/{key}"))
            if len(content) != count * dtype.itemsize:
                raise CheckpointError(
                    f"storage {key} has {len(content)} bytes, not {count} of {dtype}; copy the file again."
                )
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _check_opcodes(content: bytes) -> None:
    """Nothing but what PyTorch writes, and no memo index (an allocation, in Python's unpickler) beyond the text's length."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise CheckpointError(f"its pickle uses {opcode.name}, which PyTorch does not write; do not trust this file.")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(content):
            raise CheckpointError("its pickle claims more objects than it has bytes; do not trust this file.")


def _strided(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], grad: bool, hooks: Any) -> Tensor:
    """A tensor that lies within its storage and does not repeat it."""
    count = 1
    for extent in size:
        count *= extent
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True)) if count else offset
    if min([offset, count, *size, *stride]) < 0 or count > storage.numel() or (count and last >= storage.numel()):
        raise CheckpointError(
            f"a tensor claims shape {tuple(size)} of {storage.numel()} stored numbers; do not trust this file."
        )
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _untagged(value: Any, _: str) -> Any:
    return value


class _NumberKind:
    """Stands for a numpy dtype: files of deepmd-kit's early versions hold numpy numbers (the learning rate)."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise CheckpointError("written on a big-endian machine, which lamella does not read; write it on another one.")


def _number(kind: _NumberKind, content: bytes) -> Any:
    formats = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}
    return struct.unpack(formats[kind.code], content)[0]


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise CheckpointError(
            f"its pickle holds bytes as {encoding[:20]}, which PyTorch does not write; do not trust this file."
        )
    return text.encode("latin1")


_KNOWN = {
    ("collections", "OrderedDict"): _Dict,
    ("numpy", "dtype"): _NumberKind,
    ("numpy.core.multiarray", "scalar"): _Call(_number),
    ("numpy._core.multiarray", "scalar"): _Call(_number),
    ("_codecs", "encode"): _Call(_encoded),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_strided),
    ("torch.jit._pickle", "restore_type_tag"): _Call(_untagged),
}
"""What a pickle may ask for by name, and what it gets."""


def _flatten(root: _Module, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    waiting: list[tuple[str, _Module]] = [("", root)]
    seen = 0
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            seen += 1
            if seen > _MOST_ATTRIBUTES:
                raise CheckpointError("its modules refer to each other without end; do not trust this file.")
            if isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor):
                tensors[prefix + name] = value
            else:
                plain[prefix + name] = value
