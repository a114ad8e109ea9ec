"""The catalogue: one YAML file a collection beside this module, read when it is first asked for."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources
from typing import Any, Final, get_args

import yaml

from lamella.data.catalogue.entry import Collection, Entry
from lamella.errors import InputError, nearest

__all__ = ["COLLECTIONS", "catalogue", "entry", "find"]

COLLECTIONS: Final[dict[str, str]] = {
    "dpa2": "Data sets of the DPA-2 paper (Table 1)",
    "mini": "Small sets of this project's experiments",
    "public": "The field's public sets",
    "benchmark": "Benchmarks",
}
"""What each collection is, in the order they are listed."""

_RAW = "https://raw.githubusercontent.com/{repository}/{commit}/{path}"
_ARCHIVE = "https://codeload.github.com/{repository}/tar.gz/{commit}"
_AISSQUARE = (
    "https://aisquare.oss-us-east-1.aliyuncs.com/data/datasets/{key}",
    "https://aisquare-zjk.oss-cn-zhangjiakou.aliyuncs.com/data/datasets/{key}",
)
_GITHUB = re.compile(r"(github|github-archive):([\w.-]+/[\w.-]+)@([0-9a-f]{40})(?:/(.+))?")


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Every data set by name, in the order of the collections and of their files."""
    found: dict[str, Entry] = {}
    for collection in get_args(Collection):
        text = resources.files(__package__).joinpath(f"{collection}.yaml").read_text(encoding="utf-8")
        for name, content in yaml.safe_load(text).items():
            found[name] = _entry(name, collection, content)
    return found


def entry(name: str) -> Entry:
    """The data set of that name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    known = catalogue()
    if name not in known:
        alike = [each for each in known if name.lower() in each]
        hint = f" (but {', '.join(alike[:5])})" if alike else nearest(name.lower(), known)
        raise InputError(
            f"there is no data set {name!r} in the catalogue{hint}; `lamella data list` prints all. A file of your own "
            "needs no name: give its path."
        )
    return known[name]


def find(
    elements: Iterable[str] = (), method: str = "", collection: str = "", readable: bool = False
) -> tuple[list[Entry], list[Entry]]:
    """Data sets that fit, and those that may fit: whose elements are nowhere listed.

    Args:
        elements: chemical symbols that must all occur.
        method: words that must all occur in the level of theory or the code's name, in any case.
        collection: one collection only.
        readable: only sets that can be fetched and read.
    """
    wanted = set(elements)
    words = _plain(method).split()
    fits: list[Entry] = []
    unknown: list[Entry] = []
    for each in catalogue().values():
        theory = _plain(f"{each.method} {each.code}")
        if (collection and each.collection != collection) or not all(word in theory for word in words):
            continue
        if readable and not (each.files and each.parts):
            continue
        if wanted and not each.elements:
            unknown.append(each)
        elif wanted <= set(each.elements):
            fits.append(each)
    return fits, unknown


def _plain(text: str) -> str:
    return text.lower().replace("ω", "w")


def _entry(name: str, collection: str, content: dict[str, Any]) -> Entry:
    files = [
        {**file, "sources": [a for source in file["sources"] for a in _addresses(source)]}
        for file in content.get("files", ())
    ]
    return Entry.model_validate({**content, "name": name, "collection": collection, "files": files})


def _addresses(source: str) -> tuple[str, ...]:
    """The addresses that a short form stands for: a file or an archive of a repository's state, a deposit of AIS-Square."""
    if source.startswith("aissquare:"):
        return tuple(host.format(key=source.removeprefix("aissquare:")) for host in _AISSQUARE)
    match = _GITHUB.fullmatch(source)
    if match is None:
        return (source,)
    kind, repository, commit, path = match.groups()
    form = _RAW if kind == "github" else _ARCHIVE
    return (form.format(repository=repository, commit=commit, path=path),)
