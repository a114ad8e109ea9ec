"""Models by name: the one that comes with the package; published checkpoints, where from, and where on this machine."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from lamella.errors import CheckpointError, InputError
from lamella.remote.cache import cache_folder

__all__ = ["IN_PACKAGE", "PUBLISHED", "Published", "fetched", "located", "models_folder", "near_miss", "published"]


class Published(NamedTuple):
    """A checkpoint that its authors offer for download."""

    name: str
    file: str
    """Name of the file on disk."""
    sha256: str
    page: str
    """Where its authors describe it, licence included."""
    sources: tuple[str, ...]
    """Addresses of the file, tried in this order."""
    about: str = ""


_HUGGING_FACE = "https://huggingface.co/deepmodelingcommunity"
_HUGGING_FACE_MIRROR = "https://hf-mirror.com/deepmodelingcommunity"
_MODELSCOPE = "https://modelscope.cn/models/DeepModelingCommunity"


def _entry(name: str, file: str, sha256: str, about: str = "", remote: str | None = None) -> Published:
    """A model of the DeepModeling community; ``remote`` is the file's name at the hosts where it has another one."""
    there = remote or file
    sources = (
        f"{_HUGGING_FACE}/{name}/resolve/main/{there}",
        f"{_HUGGING_FACE_MIRROR}/{name}/resolve/main/{there}",
        f"{_MODELSCOPE}/{name}/resolve/master/{there}",
    )
    return Published(name, file, sha256, f"{_HUGGING_FACE}/{name}", sources, about)


PUBLISHED: Final[dict[str, Published]] = {
    "DPA-3.3-1M": _entry("DPA-3.3-1M", "DPA-3.3-1M.pt", "36fe440c111108d60cda54aa7d3fccac743794de25abef4d49564b9fb896a55b"),
    "DPA-3.2-5M": _entry("DPA-3.2-5M", "DPA-3.2-5M.pt", "876354744aeaae17b2639a6a690514470273784f2b4836280850f50cbb799165"),
    "DPA-3.1-3M": _entry(
        "DPA-3.1-3M",
        "DPA-3.1-3M.pt",
        "86dd3a804d78ca5d203ebf98747e8f16dff9713ba8950097ceb760b161e19907",
        "DPA-3, 16 layers, 31 tasks (OpenLAM), 118 elements",
    ),
    "DPA-2.4-7M": _entry(
        "DPA-2.4-7M",
        "dpa-2.4-7M.pt",
        "904eb5560af9ff644347dedd3ebf1e9c97929d02ee37ce3cbe895de3df711198",
        remote="DPA-2.4-7M-patched-mt.pt",
    ),
    "DPA3-Omol-Large": _entry(
        "DPA3-Omol-Large", "DPA3-Omol-Large.pt", "dc4d252b31450b41eb3546cc48f640ad0831c0b5d069ce27d996e0ff58fc037a"
    ),
}
"""Published checkpoint by name; names, files and checksums are those of deepmd-kit 3.2.0."""

IN_PACKAGE: Final[dict[str, Path]] = {"lamella-mini": Path(__file__).resolve().parents[1] / "published" / "lamella-mini"}
"""Folder of each model that comes with lamella, by name."""


def published(name: str) -> Published:
    """The published checkpoint of that name.

    Raises:
        InputError: there is none, the message names the nearest, or all; or it comes with lamella.
    """
    if name in IN_PACKAGE:
        raise InputError(f"{name} comes with lamella: there is nothing to fetch. lamella show {name} says what it is.")
    if name in PUBLISHED:
        return PUBLISHED[name]
    hint = near_miss(name) or f"; lamella knows {', '.join(PUBLISHED)}"
    raise InputError(f"there is no published model {name!r}{hint}. `lamella models list` describes them.")


_BEGINNING: Final = 5
"""So many letters may stand for the name that they begin."""


def near_miss(name: str) -> str:
    """``" (did you mean the published model 'x'?)"`` for a name like that of a model, or its beginning; else empty."""
    known = {spelling.casefold(): each.name for each in PUBLISHED.values() for spelling in (each.name, each.file)}
    known |= {name.casefold(): name for name in IN_PACKAGE}
    word = name.casefold()
    begun = [spelling for spelling in known if len(word) >= _BEGINNING and spelling.startswith(word)]
    match = begun or get_close_matches(word, list(known), n=1, cutoff=0.8)
    return f" (did you mean the published model {known[match[0]]!r}?)" if match else ""


def models_folder() -> Path:
    """Where fetched models lie: ``$LAMELLA_CACHE/models``, else in the user's cache folder as the platform has it."""
    return cache_folder("models")


def fetched(model: Published) -> Path | None:
    """The file of a published checkpoint in :func:`models_folder`, or ``None`` where it has not been fetched."""
    path = models_folder() / model.file
    return path if path.is_file() else None


def located(path: str | Path) -> Path:
    """The file or folder a user means: what lies at ``path``, else the model of that name, in the package or fetched.

    A file or folder on disk wins over a name. What is neither is returned as it is.

    Raises:
        CheckpointError: the published checkpoint of that name has not been fetched; the message names the command.
    """
    place = Path(path)
    name = os.fspath(path)
    if place.exists():
        return place
    if name in IN_PACKAGE:
        return IN_PACKAGE[name]
    model = PUBLISHED.get(name)
    if model is None:
        return place
    found = fetched(model)
    if found is None:
        raise CheckpointError(
            f"{model.name} is a published model that is not on this machine yet ({models_folder() / model.file}). "
            f"Fetch it with: lamella models fetch {model.name}"
        )
    return found
