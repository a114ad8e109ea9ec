"""``lamella explain``: maps of what a model learned."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from lamella.cli.terminal import EMBEDDED, labelled_frames, progress, settings
from lamella.errors import InputError
from lamella.use.atlas.config import AtlasConfig, Color, Representation

if TYPE_CHECKING:
    from lamella.data.keys import LabelKeys
    from lamella.data.source import Frames
    from lamella.models.potential import Potential
    from lamella.use.atlas.atlas import Atlas

__all__ = ["explain"]

_DEFAULT = AtlasConfig()
_NAMED = re.compile(r"([A-Za-z0-9_.+-]+)=(.+)")
_NOT = "not"
"""First word of a list of elements that means all others."""

Which = Literal["tsne", "pca", "both"]
Key = Annotated[str | None, typer.Option(help="The data's key of this label; guessed where not given.")]


ModelPath = Annotated[Path, typer.Argument(help="A run or step folder, a deepmd-kit .pt/.pth, or a published model's name.")]
DataSets = Annotated[
    list[str], typer.Argument(help="Data sets: a file, a folder, embedded:NAME[:train|:test]; NAME=PATH to name one.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the picture, the page and the tables.")]
Colors = Annotated[
    list[str] | None, typer.Option(help=f"Of the picture, a column each; commas between: {', '.join(get_args(Color))}.")
]
Kind = Annotated[
    Representation, typer.Option(help="What stands for an atom: what the head reads, or the last layer's update of it.")
]
From = Annotated[str, typer.Option(help="Distances are to the nearest atom of these elements: 'H C N O', or 'not H C N O'.")]


def explain(
    model: ModelPath,
    data: DataSets,
    output: Output = Path("explain"),
    method: Annotated[Which, typer.Option(help="How atoms are laid out.")] = "both",
    color: Colors = None,
    representation: Kind = _DEFAULT.representation,
    atoms: Annotated[int, typer.Option(help="At most so many, evenly over elements.")] = _DEFAULT.atoms,
    structures: Annotated[int, typer.Option(help="Of about so many structures.")] = _DEFAULT.structures,
    elements: Annotated[str, typer.Option(help="Only atoms of these: 'Al', 'C H O', 'not H'.")] = "",
    distance_from: From = "",
    beside: Annotated[list[Path] | None, typer.Option(help="Another model, of the same atoms; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="Task that predicts data sets which have no task's name.")] = None,
    perplexity: Annotated[float, typer.Option(help="Of t-SNE.")] = _DEFAULT.perplexity,
    neighbors: Annotated[int, typer.Option(help="k of the nearest neighbours that are counted.")] = _DEFAULT.neighbors,
    seed: Annotated[int, typer.Option(help="Of the choice of atoms and of t-SNE.")] = _DEFAULT.seed,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; that of the checkpoint where not given.")] = None,
    device: Annotated[str | None, typer.Option(help="For example cpu or cuda:0; the CPU where not given.")] = None,
    energy_key: Key = None,
    forces_key: Key = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False,
) -> None:
    """Map what a model learned: t-SNE and PCA of its single-atom representations, as a picture and a page to click in."""
    given = {name: value for name, value in locals().items() if name in AtlasConfig.model_fields} | {
        "methods": ("tsne", "pca") if method == "both" else (method,),
        "colors": tuple(",".join(color).replace(" ", "").split(",")) if color else (),
        "elements": _symbols(elements),
        "distance_from": _symbols(distance_from),
    }
    config = settings(AtlasConfig, given, "lamella explain")
    from lamella.data.keys import LabelKeys
    from lamella.use.atlas.atlas import require_extra
    from lamella.use.atlas.write import FILES, summarised, write_atlas

    require_extra()
    _check_output(output, FILES, overwrite)
    models = _models([model, *(beside or [])], device, dtype)
    atlas = _build(models, _data_sets(data, LabelKeys(energy=energy_key, forces=forces_key)), config)
    files = write_atlas(atlas, output)
    if as_json:
        print(json.dumps(summarised(atlas), indent=1, ensure_ascii=False, allow_nan=False))
        return
    _print(atlas)
    print(f"picture      {files[0]}, {files[1].name}")
    print(f"page         {files[2]} ({files[2].stat().st_size / 1e6:.1f} MB; open it in a browser)")
    print(f"numbers      {files[3]}, every atom {files[4].name}")


def _build(models: dict[str, Potential], data: dict[str, Frames], config: AtlasConfig) -> Atlas:
    from lamella.use.atlas.atlas import build_atlas

    with ExitStack() as stack:
        advance, done = None, 0

        def on_progress(seen: int, total: int) -> None:
            nonlocal advance, done
            if advance is None:  # how many there are is known only now
                advance = stack.enter_context(progress("describing structures", total))
            advance(seen - done, "")
            done = seen

        return build_atlas(models, data, config, on_progress)


def _symbols(words: str) -> tuple[str, ...]:
    """Chemical symbols of a list, or all others where it begins with ``not``."""
    from ase.data import chemical_symbols

    listed = tuple(word for word in re.split(r"[\s,;]+", words) if word)
    if listed[:1] != (_NOT,):
        return listed
    for word in listed[1:]:
        if word not in chemical_symbols[1:]:
            raise InputError(f"{words!r}: {word!r} is no chemical symbol; write symbols with spaces between them.")
    return tuple(symbol for symbol in chemical_symbols[1:] if symbol not in listed)


def _check_output(folder: Path, names: tuple[str, ...], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: it is a file where a folder is needed; choose another name.")
    for name in names:
        if (folder / name).exists() and not overwrite:
            raise InputError(f"{folder / name}: the file exists; choose another folder (--output), or say --overwrite.")


def _models(paths: list[Path], device: str | None, dtype: str | None) -> dict[str, Potential]:
    from lamella.formats.load import load

    names = _short([str(path) for path in paths])
    return {name: load(path, device, dtype) for name, path in zip(names, paths, strict=True)}


def _data_sets(words: list[str], keys: LabelKeys) -> dict[str, Frames]:
    """Frames by name; files under one name are one data set."""
    from lamella.data.source import Chain

    named = {word: match for word in words if (match := _NAMED.fullmatch(word)) and not Path(word).exists()}
    plain = [word for word in words if word not in named]
    short = dict(zip(plain, _short(plain), strict=True))
    parts: dict[str, list[Frames]] = {}
    for word in words:
        name, path = (named[word][1], named[word][2]) if word in named else (short[word], word)
        parts.setdefault(name, []).append(labelled_frames([path], keys))
    return {name: own[0] if len(own) == 1 else Chain(own) for name, own in parts.items()}


def _short(paths: list[str]) -> list[str]:
    """The last part of each path that tells them apart, without its ending."""
    bare = [re.sub(r"\.(extxyz|xyz|traj|hdf5|h5|pt|pth)(\.(gz|bz2|xz))?$", "", path.rstrip("/")) for path in paths]
    parts = [(word.removeprefix(EMBEDDED) if word.startswith(EMBEDDED) else word).split("/") for word in bare]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"{twice}: it is named twice; leave it out once, or name each (NAME=PATH).")
    return names


def _print(atlas: Atlas) -> None:
    from rich.console import Console
    from rich.table import Table

    from lamella.use.atlas.table import heading, lines, summary

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # nobody folds a file's lines
    for sentence in summary(atlas):
        console.print(sentence, highlight=False, soft_wrap=True)
    for sheet in atlas.sheets:
        table = Table(box=None, pad_edge=False, header_style="bold")
        first, *others = heading(sheet)
        table.add_column(f"{sheet.model}: {first}" if len(atlas.sheets) > 1 else first, overflow="fold")
        for title in others:
            table.add_column(title, justify="right")
        for row in lines(sheet):
            table.add_row(*row)
        if sheet.separations:
            console.print(table)
