"""``lamella models list`` and ``lamella models fetch``: models by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.terminal import Megabytes

__all__ = ["fetch", "listing"]


def listing(as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False) -> None:
    """List the models that lamella knows by name, and which of them are on this machine."""
    from lamella.formats.published import IN_PACKAGE, PUBLISHED, fetched, models_folder

    models = [(model, fetched(model)) for model in PUBLISHED.values()]
    if as_json:
        content = {
            "folder": str(models_folder()),
            "in_package": {name: str(path) for name, path in IN_PACKAGE.items()},
            "models": [{**model._asdict(), "path": None if path is None else str(path)} for model, path in models],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "on this machine", "what it is", "page, with its licence"):
        table.add_column(heading, overflow="fold")
    for name, folder in IN_PACKAGE.items():
        table.add_row(name, "in the package", _about(folder), f"lamella show {name}")
    for model, path in models:
        there = "-" if path is None else f"{path.stat().st_size / 1e6:.1f} MB"
        table.add_row(model.name, there, model.about or "-", model.page)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # nobody folds a file's lines
    console.print(table, highlight=False)
    print(f"folder: {models_folder()}")
    print("A name is a MODEL wherever one is asked for; lamella models fetch NAME brings one here that is not yet.")


def _about(folder: Path) -> str:
    """What a model of the package is, by its own words."""
    from lamella.models.bundle import DESCRIPTION

    return str(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["metadata"]["about"])


def fetch(
    name: Annotated[str, typer.Argument(help="A name that `lamella models list` prints.")],
    source: Annotated[str | None, typer.Option("--from", help="Address of the file, instead of the known ones.")] = None,
    folder: Annotated[Path | None, typer.Option("--to", help="Folder to put it in; lamella's own where not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of its name that is another.")] = False,
) -> None:
    """Fetch a published checkpoint, check it, and keep it; an interrupted fetch goes on where it ended."""
    from lamella.formats import fetch as fetching
    from lamella.formats.published import published

    model = published(name)
    with Megabytes() as bar:
        result = fetching.fetch(model, folder, source, overwrite, lambda at, of: bar(model.name, at, of), _note)
    how = "is there already" if result.was_there else "fetched"
    print(f"{model.name} {how}: {result.path} ({result.size / 1e6:.1f} MB, sha256 {model.sha256[:12]}… as published)")
    print(f"licence and origin: {model.page}")
    print(f"lamella show {model.name if folder is None else result.path} says what it is.")


def _note(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
