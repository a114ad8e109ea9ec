"""One data set of the catalogue, as its YAML file says it.

A fact that is not known is absent: no size, count, element list or checksum is guessed. ``files`` are addresses that can be
fetched; a set without any says in ``how`` what to do instead.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["Collection", "Entry", "File", "Part"]

Collection = Literal["dpa2", "mini", "public", "benchmark"]
"""Where a set belongs: Table 1 of the DPA-2 paper, the small sets of this project's experiments, the field's large public
sets, and benchmarks."""

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._()+-]*(/[A-Za-z0-9][A-Za-z0-9._()+-]*)*")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Model):
    """A file that can be fetched.

    Attributes:
        path: where it goes in the set's folder; the folder it is unpacked to where it is an archive.
        sources: addresses, tried in this order.
        checksum: ``sha256:…`` or ``md5:…`` as published; absent where nobody publishes one.
        size: bytes, where known exactly.
        gigabytes: size as its page rounds it.
        unpack: it is an archive, to be unpacked.
        inside: only this folder of the archive, without it; ``*`` stands for any one name.
        stable: the host sends the same bytes every time (archives that a host packs anew need not be the same bytes).
    """

    path: str
    sources: tuple[str, ...] = Field(min_length=1)
    checksum: str | None = None
    size: int | None = Field(default=None, gt=0)
    gigabytes: float | None = Field(default=None, gt=0)
    unpack: bool = False
    inside: str = ""
    stable: bool = True

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        if not _PLAIN.fullmatch(value) or ".." in PurePosixPath(value).parts:
            raise ValueError("a plain relative path is needed")
        return value

    @field_validator("sources")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [address for address in value if not re.match(r"https?://[^/\s]+/\S+$", address)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no address")
        return value

    @field_validator("checksum")
    @classmethod
    def _is_checksum(cls, value: str | None) -> str | None:
        if value is not None and not _CHECKSUM.fullmatch(value):
            raise ValueError("sha256: or md5: and hexadecimal digits are needed")
        return value

    @property
    def megabytes(self) -> float | None:
        """Size, where anything is known of it."""
        if self.size is not None:
            return self.size / 1e6
        return None if self.gigabytes is None else self.gigabytes * 1e3


class Part(_Model):
    """Frames of the set that belong together: a split, a subset.

    Attributes:
        paths: patterns of files or folders in the set's folder, with a ``format:`` in front where the name does not tell.
        keys: keys of the labels, where they are not to be guessed (see ``LabelKeys``).
        frames: how many, where known.
    """

    paths: tuple[str, ...] = Field(min_length=1)
    keys: dict[str, str] = {}
    frames: int | None = Field(default=None, gt=0)


class Entry(_Model):
    """A data set.

    Attributes:
        name: what commands call it.
        collection: where it belongs.
        about: what it is, one sentence.
        method: level of theory of the labels.
        code: the program that computed them.
        elements: chemical symbols; empty where no list is published in a form that could be checked.
        element_count: their number, where only that is known.
        frames: structures with labels, where known.
        labels: of ``energy``, ``forces``, ``virial``.
        licence: as its source states it.
        citation: the paper to cite, with its DOI or arXiv number.
        page: where it is described.
        source: of which state of which repository the files are.
        files: what can be fetched.
        parts: what lamella reads of it, by name; empty where it reads none.
        how: what to do where there is nothing to fetch, or lamella does not read it.
        notes: what a user must know before training on it.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    collection: Collection
    about: str
    method: str
    code: str = ""
    elements: tuple[str, ...] = ()
    element_count: int | None = Field(default=None, gt=0)
    frames: int | None = Field(default=None, gt=0)
    labels: tuple[Literal["energy", "forces", "virial"], ...] = ("energy", "forces")
    licence: str
    citation: str
    page: str
    source: str = ""
    files: tuple[File, ...] = ()
    parts: dict[str, Part] = {}
    how: str = ""
    notes: str = ""

    @field_validator("elements", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _holds_together(self) -> Entry:
        unknown = [symbol for symbol in self.elements if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no chemical symbol")
        if self.elements and self.element_count not in (None, len(self.elements)):
            raise ValueError("elements and element_count disagree")
        if not self.files and not self.how:
            raise ValueError("a set without files must say how to get it")
        if self.files and not self.parts and not self.how:
            raise ValueError("a set that lamella does not read must say what to do")
        paths = [file.path for file in self.files]
        if len(set(paths)) < len(paths):
            raise ValueError("two files have one path")
        return self

    @property
    def checked(self) -> bool:
        """Whether every file has a published checksum."""
        return bool(self.files) and all(file.checksum for file in self.files)

    @property
    def megabytes(self) -> float | None:
        """Size of all files, where it is known of each."""
        sizes = [file.megabytes for file in self.files]
        return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)
