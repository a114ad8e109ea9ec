"""The files of an atlas: picture, page, numbers and atoms; all of them, or none."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lamella.errors import InputError
from lamella.use.atlas.atlas import Atlas
from lamella.use.atlas.page import write_page
from lamella.use.atlas.picture import draw

__all__ = ["FILES", "summarised", "write_atlas"]

FILES: Final = ("explain.png", "explain.svg", "explain.html", "explain.json", "explain.csv")
"""Picture, the same in vectors, page, separations, a line per atom."""


def write_atlas(atlas: Atlas, folder: str | Path) -> list[Path]:
    """Write the files into a folder, which is made; they appear when all are complete.

    Args:
        atlas: of :func:`lamella.use.atlas.atlas.build_atlas`.
        folder: older files of :data:`FILES` there are replaced, others left alone.

    Returns:
        The files, in the order of :data:`FILES`.

    Raises:
        InputError: the folder cannot be made, or a file not be written.
    """
    place = Path(folder)
    scratch = None
    try:
        place.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".explain-", dir=place))
        png, svg, page, numbers, table = (scratch / name for name in FILES)
        draw(atlas, png, svg)
        page.write_text(write_page(atlas), encoding="utf-8")
        numbers.write_text(json.dumps(summarised(atlas), indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        _write_atoms(atlas, table)
        for name in FILES:
            os.replace(scratch / name, place / name)
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror}); free space or choose another place.") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return [place / name for name in FILES]


def summarised(atlas: Atlas) -> dict[str, Any]:
    """How the atlas was made and how well atoms separate, for JSON."""
    sample = atlas.sample
    return {
        "config": atlas.config.model_dump(),
        "atoms": len(sample),
        "structures": len(sample.frames),
        "data": list(dict.fromkeys(sample.tasks)),
        "available": dict(sample.available),
        "models": [
            {"model": sheet.model, "channels": sheet.channels, "separations": [asdict(each) for each in sheet.separations]}
            for sheet in atlas.sheets
        ],
    }


def _write_atoms(atlas: Atlas, path: Path) -> None:
    """A line per atom: where it is from, its traits, and its place on every map."""
    sample, several = atlas.sample, len(atlas.sheets) > 1
    columns: dict[str, list[Any]] = {
        "source": [sample.frames[f].source for f in sample.frame.tolist()],
        "atom": sample.atom.tolist(),
    }
    for sheet in atlas.sheets:
        prefix = f"{sheet.model}:" if several else ""
        for name, trait in sheet.traits.items():
            shared = all(other.traits[name] is trait for other in atlas.sheets)
            numbers = trait.classes is None
            columns[name if shared else prefix + name] = [f"{v:.6g}" if numbers else v for v in trait.values.tolist()]
        for method, each in sheet.maps.items():
            for axis in (0, 1):
                columns[f"{prefix}{method}_{axis + 1}"] = [f"{v:.6g}" for v in each.points[:, axis].tolist()]
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
