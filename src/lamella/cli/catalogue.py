"""``lamella data list``, ``show`` and ``fetch``: public data sets by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.terminal import Megabytes

if TYPE_CHECKING:
    from rich.console import Console

    from lamella.data.catalogue.entry import Entry
    from lamella.data.catalogue.fetch import FetchedFile

__all__ = ["fetch", "listing", "show"]

Name = Annotated[str, typer.Argument(help="A name that `lamella data list` prints.")]
Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")]


def listing(
    elements: Annotated[str, typer.Option(help="Only sets with all of these elements, such as H,O.")] = "",
    method: Annotated[str, typer.Option(help="Only sets of this level of theory, such as PBE or 'wB97X'.")] = "",
    collection: Annotated[str, typer.Option(help="dpa2, mini, public or benchmark.")] = "",
    readable: Annotated[bool, typer.Option("--readable", help="Only sets that lamella fetches and reads.")] = False,
    as_json: Json = False,
) -> None:
    """List the public data sets and benchmarks that lamella knows by name, and which of them are on this machine."""
    from lamella.data.catalogue.fetch import datasets_folder
    from lamella.data.catalogue.table import COLLECTIONS, find
    from lamella.errors import InputError, nearest

    if collection and collection not in COLLECTIONS:
        raise InputError(
            f"--collection {collection}: there is none of that name{nearest(collection, COLLECTIONS)}; choose one of "
            f"{', '.join(COLLECTIONS)}."
        )
    fits, unknown = find(_symbols(elements), method, collection, readable)
    if as_json:
        content = {
            "folder": str(datasets_folder()),
            "sets": [_described(each) for each in fits],
            "elements_unknown": [_described(each) for each in unknown],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    console = _console()
    for kind, title in COLLECTIONS.items():
        _print_list(console, title, [each for each in fits if each.collection == kind])
    _print_list(console, "Their elements are not listed where lamella could read them", unknown)
    if not fits and not unknown:
        print("no set fits; leave out a condition")
    print(f"folder: {datasets_folder()}")
    print("lamella data show NAME describes one, lamella data fetch NAME brings it here.")


def show(name: Name, as_json: Json = False) -> None:
    """Describe a public data set: method, elements, size, licence, citation, files with checksums, how lamella reads it."""
    from lamella.data.catalogue.table import entry

    found = entry(name)
    if as_json:
        print(json.dumps(_described(found), indent=2, ensure_ascii=False))
        return
    _print_entry(_console(), found)


def fetch(
    name: Name,
    folder: Annotated[
        Path | None, typer.Option("--to", help="Folder to put its folder in; lamella's own if not given.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Address to fetch from; of a folder (…/) for many files.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only files whose path fits this pattern.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All files of a set of more than 10 GB.")] = False,
    form: Annotated[str, typer.Option("--as", help="Write each part as store or extxyz afterwards.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there and is not right.")] = False,
) -> None:
    """Fetch a public data set, check or record its files, unpack them; an interrupted fetch goes on where it ended."""
    from lamella.data.catalogue import fetch as fetching
    from lamella.data.catalogue.table import entry
    from lamella.errors import InputError

    if form not in ("", "store", "extxyz"):
        raise InputError(f"--as {form}: a part can be written as store or as extxyz; choose one of them.")
    found = entry(name)
    files = fetching.selected(found, only, everything or source is not None)
    base = fetching.datasets_folder() if folder is None else folder
    with Megabytes() as bars:
        done = fetching.fetch(
            found, base, files, source, overwrite, lambda path, at, of: bars(f"{name}/{path}", at, of), _note
        )
    for item in done:
        _print_file(item)
    _print_trust(found, done, base / name)
    print(f"licence: {found.licence}")
    print(f"cite: {found.citation}")
    if found.notes:
        print(f"note: {found.notes}")
    _print_parts(found, base / name, form)


def _print_parts(entry: Entry, place: Path, form: str) -> None:
    """Write the parts where asked to, and say under which paths lamella reads them."""
    from lamella.data.catalogue.parts import convert, part_paths

    if not entry.parts:
        print(f"lamella does not read it as it is: {entry.how}")
        return
    if form:
        written = convert(entry, place, "store" if form == "store" else "extxyz")
        if not written:
            print("nothing to write: the parts are there already, or their files were not fetched")
        for part in written:
            count = f"{part.frames} frames" + (f", where {part.expected} were expected" if _differs(part) else "")
            print(f"wrote {part.path} ({count})")
            for line in part.lines:
                print(f"  {line}")
        return
    for name, one in entry.parts.items():
        paths = part_paths(place, one)
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            keys = "".join(f", {label} key {key}" for label, key in one.keys.items())
            print(f"{name}: {paths[0]}{more}{keys}")
    print("These are paths for recipes and commands; --as store or --as extxyz writes each part as one.")


def _differs(part: Any) -> bool:
    return part.expected is not None and part.frames != part.expected


def _print_file(item: FetchedFile) -> None:
    how = "is there already" if item.was_there else "fetched"
    unpacked = f", {item.files} files" if item.files > 1 else ""
    words = {
        "checked": "as published",
        "recorded": "as recorded at the first fetch",
        "unverified": "UNVERIFIED, recorded now",
    }[item.state]
    print(f"{item.path} {how} ({item.size / 1e6:.1f} MB{unpacked}; sha256 {item.sha256[:12]}… {words})")


def _print_trust(entry: Entry, done: list[FetchedFile], place: Path) -> None:
    """Say what an unverified download means."""
    from lamella.data.catalogue.lock import lock_path

    if any(item.state == "unverified" for item in done):
        what = "these files" if len(done) > 1 else "this file"
        print(
            f"No checksum of {what} is published where lamella knows of it, so this first download is unverified. What came "
            f"is recorded in {lock_path(place)}; every later fetch is held to it, on another machine too if you copy that "
            f"file there. Compare a few numbers with {entry.page} before you rely on it."
        )


def _symbols(text: str) -> list[str]:
    from ase.data import atomic_numbers

    from lamella.errors import InputError, nearest

    symbols = [symbol for symbol in text.replace(",", " ").split() if symbol]
    for symbol in symbols:
        if not atomic_numbers.get(symbol, 0):
            raise InputError(
                f"--elements {text}: {symbol!r} is no chemical symbol{nearest(symbol, atomic_numbers)}; write H,O or 'H O'."
            )
    return symbols


def _described(entry: Entry) -> dict[str, Any]:
    from lamella.data.catalogue.fetch import datasets_folder

    place = datasets_folder() / entry.name
    return {**entry.model_dump(mode="json"), "folder": str(place) if place.is_dir() else None}


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)  # nobody folds a file's lines


def _print_list(console: Console, title: str, entries: list[Entry]) -> None:
    from rich.table import Table

    from lamella.data.catalogue.fetch import datasets_folder

    if not entries:
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "here", "method", "elements", "frames", "MB", "licence"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("frames", "MB") else "left")
    for each in entries:
        here = "yes" if (datasets_folder() / each.name).is_dir() else "" if each.files else "page only"
        table.add_row(each.name, here, each.method, _elements(each), _number(each.frames), _megabytes(each), each.licence)
    console.print(table, highlight=False, markup=False)
    console.print()


def _elements(entry: Entry, most: int = 9) -> str:
    if len(entry.elements) > most:
        return f"{' '.join(entry.elements[:most])} … ({len(entry.elements)})"
    return " ".join(entry.elements) or (f"{entry.element_count} elements" if entry.element_count else "-")


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _megabytes(entry: Entry) -> str:
    return "-" if entry.megabytes is None else f"{entry.megabytes:,.0f}"


def _print_entry(console: Console, entry: Entry) -> None:
    from rich.table import Table

    rows = {
        "what": entry.about,
        "method": f"{entry.method}{f' ({entry.code})' if entry.code else ''}",
        "elements": _elements(entry, 118),
        "frames": _number(entry.frames),
        "labels": ", ".join(entry.labels) or "none",
        "licence": entry.licence,
        "citation": entry.citation,
        "page": entry.page,
        "source": entry.source,
        "how to get it": "" if entry.files else entry.how,
        "how to read it": entry.how if entry.files and not entry.parts else "",
        "notes": entry.notes,
    }
    table = Table(title=entry.name, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        if value:
            table.add_row(key, value)
    for file in entry.files:
        size = "" if file.megabytes is None else f", {file.megabytes:,.1f} MB"
        kind = f", archive{f' ({file.inside})' if file.inside else ''}" if file.unpack else ""
        known = file.checksum or "no published checksum: the first download is unverified and recorded"
        table.add_row("file", f"{file.path}{size}{kind}; {known}")
        for address in file.sources:
            table.add_row("", address)
    for name, part in entry.parts.items():
        count = "" if part.frames is None else f" ({part.frames:,} frames)"
        table.add_row("part", f"{name}{count}: {', '.join(part.paths)}")
    console.print(table, highlight=False, markup=False)


def _note(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
