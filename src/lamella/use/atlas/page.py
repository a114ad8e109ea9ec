"""The atlas as a page: chemiscope, its data and what explains them in one file that needs no network."""

from __future__ import annotations

import base64
import gzip
import html
import json
from importlib import metadata, resources
from string import Template
from typing import Any, Final

import numpy as np
from ase.data import chemical_symbols
from matplotlib import colormaps
from matplotlib.colors import to_hex

from lamella.errors import InputError
from lamella.types import Frame
from lamella.use.atlas.atlas import Atlas, Sheet
from lamella.use.atlas.table import NOTE, heading, lines, summary
from lamella.use.atlas.traits import Trait

__all__ = ["dataset", "write_page"]

_CODE: Final = ("sphinx", "static", "chemiscope.min.js")
"""Where chemiscope's package has the viewer as one script that defines ``Chemiscope``."""

_NOTICES: Final = ("static", "chemiscope-widget.mjs.LICENSE.txt")
"""Notices of what that script contains."""

_CLASSES: Final = 20
"""Chemiscope takes names with more different values than this for no classes."""


def write_page(atlas: Atlas) -> str:
    """The document, the same for the same atlas and version of chemiscope.

    Raises:
        InputError: the installed chemiscope has no viewer that fits in a page.
    """
    template = resources.files("lamella.use.atlas").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(_content(atlas), allow_nan=False, separators=(",", ":"))
    models = " and ".join(sheet.model for sheet in atlas.sheets)
    tables = [f'<p class="note">{html.escape(NOTE)}</p>', *(_table(sheet, len(atlas.sheets) > 1) for sheet in atlas.sheets)]
    return Template(template).substitute(
        title=html.escape(f"What {models} learned"),
        lead="\n".join(f"<p>{html.escape(line)}</p>" for line in summary(atlas)),
        cutoff=f"{atlas.cutoff:g}",
        body="\n".join(["<h2>How well atoms are told apart</h2>", *tables]),
        version=html.escape(metadata.version("chemiscope")),
        licences=html.escape(_licences()),
        code=_packed(_package_file(_CODE)),
        data=_packed(data),
    )


def dataset(atlas: Atlas) -> dict[str, Any]:
    """Structures, environments and properties as chemiscope's own package makes them; a missing number is NaN."""
    import chemiscope

    sample = atlas.sample
    environments = [(int(f), int(a), atlas.cutoff) for f, a in zip(sample.frame, sample.atom, strict=True)]
    properties: dict[str, dict[str, Any]] = {}
    for sheet in atlas.sheets:
        prefix = _prefix(atlas, sheet)
        for each in sheet.maps.values():
            for axis in (0, 1):
                properties[prefix + _axis(each.title, axis)] = _atom(np.round(each.points[:, axis], 5), each.title)
    first = atlas.sheets[0]
    properties["atomic number"] = _atom(sample.numbers.astype(float), "atomic number")
    for sheet in atlas.sheets:
        for name, trait in sheet.traits.items():
            shared = all(other.traits[name] is trait for other in atlas.sheets)
            if not shared or sheet is first:
                key = name if shared else _prefix(atlas, sheet) + name
                values = _page_values(name, trait)
                if values is not None:
                    properties[key] = _atom(values, trait.title, trait.unit)
    settings = chemiscope.quick_settings(
        target="atom",
        structure_settings={"unitCell": any(frame.pbc.any() for frame in sample.frames), "supercell": [1, 1, 1]},
        map_settings={"markerOutline": False, "size": {"factor": 35 if len(sample) > 500 else 50}},
    )
    made: dict[str, Any] = chemiscope.create_input(
        [_structure(frame) for frame in sample.frames],
        metadata={"name": "atlas", "description": " ".join(summary(atlas))},
        properties=properties,
        environments=environments,
        settings=settings,
    )
    return made


def _content(atlas: Atlas) -> dict[str, Any]:
    """All that the page's script reads."""
    made = dataset(atlas)
    for prop in made["properties"].values():
        prop["values"] = [None if isinstance(v, float) and not np.isfinite(v) else v for v in prop["values"]]
    sample = atlas.sample
    atoms = [
        f"{symbol}, atom {a} of {sample.frames[f].source}"
        for symbol, f, a in zip(sample.symbols.tolist(), sample.frame.tolist(), sample.atom.tolist(), strict=True)
    ]
    maps = [
        {"name": _prefix(atlas, sheet) + each.title}
        | {key: _prefix(atlas, sheet) + _axis(each.title, axis) for axis, key in enumerate("xy")}
        for sheet in atlas.sheets
        for each in sheet.maps.values()
    ]
    colors = [_color(name, prop) for name, prop in made["properties"].items() if not _is_axis(name, maps)]
    wanted = {name: place for place, name in enumerate(atlas.colors)}
    colors.sort(key=lambda color: wanted.get(color["name"].split(": ")[-1], len(wanted)))
    return {"dataset": made, "atoms": atoms, "maps": maps, "colors": colors}


def _is_axis(name: str, maps: list[dict[str, str]]) -> bool:
    return any(name in (each["x"], each["y"]) for each in maps)


def _axis(title: str, axis: int) -> str:
    return f"{title} {axis + 1}"


def _prefix(atlas: Atlas, sheet: Sheet) -> str:
    return f"{sheet.model}: " if len(atlas.sheets) > 1 else ""


def _atom(values: np.ndarray | list[str], description: str, unit: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"target": "atom", "values": values, "description": description}
    return made | ({"units": unit} if unit else {})


def _page_values(name: str, trait: Trait) -> np.ndarray | list[str] | None:
    """Numbers as they are, groups and periods as numbers, other classes as names where chemiscope takes them."""
    if trait.classes is None:
        return np.round(trait.values, 4)
    if name in ("group", "period"):
        return np.array([float(value) if value.isdigit() else np.nan for value in trait.values.tolist()])
    values: list[str] = trait.values.tolist()
    return values if len(trait.classes) <= _CLASSES else None


def _color(name: str, prop: dict[str, Any]) -> dict[str, Any]:
    """Settings of the map for a property, and its legend: classes have one, numbers a colour bar."""
    values = prop["values"]
    settings: dict[str, Any] = {"property": name, "mode": "linear", "palette": "viridis", "min": None, "max": None}
    if isinstance(values[0], str):
        present = list(dict.fromkeys(values))  # chemiscope numbers classes as they come
        scale = "tab10" if len(present) <= 10 else "tab20"
        colors = [to_hex(colormaps[scale](place)) for place in range(len(present))]
        settings |= {"palette": scale, "min": 0, "max": colormaps[scale].N - 1}
        return {"name": name, "settings": settings, "legend": list(zip(present, colors, strict=True))}
    return {"name": name, "settings": settings, "legend": []}


def _structure(frame: Frame) -> dict[str, Any]:
    """A structure in chemiscope's terms: Å, three decimals."""
    x, y, z = np.round(frame.positions, 3).T.tolist()
    made = {"size": len(frame), "names": [chemical_symbols[n] for n in frame.numbers.tolist()], "x": x, "y": y, "z": z}
    if frame.pbc.any() and abs(np.linalg.det(frame.cell)) > 1e-3:
        made["cell"] = np.round(frame.cell, 4).ravel().tolist()
    return made


def _table(sheet: Sheet, several: bool) -> str:
    title = f"<h3>{html.escape(sheet.model)}</h3>\n" if several else ""
    head = "".join(f"<th{_numeric(column)}>{html.escape(name)}</th>" for column, name in enumerate(heading(sheet)))
    body = "".join(
        "<tr>" + "".join(f"<td{_numeric(column)}>{html.escape(cell)}</td>" for column, cell in enumerate(row)) + "</tr>"
        for row in lines(sheet)
    )
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _numeric(column: int) -> str:
    return ' class="n"' if column else ""


def _package_file(parts: tuple[str, ...]) -> str:
    path = resources.files("chemiscope").joinpath(*parts)
    if not path.is_file():
        version = metadata.version("chemiscope")
        raise InputError(f"chemiscope {version} has no {'/'.join(parts)}; install the version of lamella's constraints.txt.")
    return path.read_text(encoding="utf-8")


def _licences() -> str:
    own = metadata.distribution("chemiscope").read_text("licenses/LICENSE") or "chemiscope: BSD-3-Clause"
    return f"{own}\n\n{_package_file(_NOTICES)}"


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii")
