"""Lint: what is wrong with a data set, which frame of which file, before hours of training are spent on it.

Every finding is a *problem* (something is wrong or very likely so; the command exits with 1) or a *note* (worth knowing). A
frame that the reader refuses is reported and the others are read on. ``docs/data.md`` says what each check can and cannot
see.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from lamella.data.convert import has_volume
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.lint_energy import energy_outliers
from lamella.data.lint_stress import StressSign, molecular_virial_error
from lamella.data.read import iter_items
from lamella.data.refusal import kind_of
from lamella.errors import LamellaError, StructureError
from lamella.fields import INPUTS, LABELS
from lamella.geometry.neighbors import neighbor_edges
from lamella.types import Frame

__all__ = ["Finding", "LintReport", "lint"]

CLOSE = 0.5
"""Atoms closer than this are a mistake, Å (the shortest bond, H-H, is 0.74)."""

_SEARCH = 1.5
"""Search radius for close atoms, Å: a search within 0.5 Å spends its time on empty cells."""

_NET = 0.02
"""Net force per atom that no converged calculation leaves, eV/Å."""

_NET_FLOOR = 0.002
"""... and what it must exceed at least to be an outlier among the other frames of the file."""

_RARE = 0.1
"""A periodicity that fewer than this fraction of the frames of one composition have is a mistake rather than a choice."""

_LONELY = 6.0
_LONELY_SAMPLE = 20
_SOURCE = re.compile(r"^(.*)#(\d+): ")

Severity = Literal["problem", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        file: path of the file.
        frame: index of the frame in it, from 0; ``None`` for the file as a whole.
        kind: which check.
        message: what is wrong, and where it helps, what to do.
        severity: ``"problem"`` or ``"note"``.
    """

    file: str
    frame: int | None
    kind: str
    message: str
    severity: Severity = "problem"


@dataclass(frozen=True)
class LintReport:
    """Everything found.

    Attributes:
        findings: in order of files.
        frames: number of frames read, by file.
        keys: what was read as which label, by file.
    """

    findings: tuple[Finding, ...]
    frames: dict[str, int]
    keys: dict[str, list[str]]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are problems."""
        return tuple(item for item in self.findings if item.severity == "problem")


@dataclass
class _Seen:
    """What is remembered of the frames of one file."""

    sources: list[str] = field(default_factory=list)
    compositions: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    nets: list[float] = field(default_factory=list)
    strains: list[tuple[float, float]] = field(default_factory=list)
    boxed: list[bool] = field(default_factory=list)
    pbc: list[tuple[bool, ...]] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    lists: Counter[int] = field(default_factory=Counter)
    lonely: list[bool] = field(default_factory=list)
    sign: StressSign = field(default_factory=StressSign)


def lint(paths: Sequence[str | os.PathLike[str]], keys: LabelKeys | None = None) -> LintReport:
    """Check files, frame by frame and as a whole; nothing is modified.

    Args:
        paths: anything :func:`lamella.data.read.iter_frames` reads.
        keys: which key is which label; ``None`` guesses all.
    """
    findings: list[Finding] = []
    frames: dict[str, int] = {}
    lines: dict[str, list[str]] = {}
    structures: dict[bytes, tuple[str, bytes]] = {}
    for path in paths:
        name = os.fspath(path)
        report = ReadReport()
        seen = _Seen()
        try:
            for item in iter_items(path, keys, None, report):
                if isinstance(item, Frame):
                    findings += _frame_findings(item, seen, structures)
                else:
                    findings.append(_refused(item, name))
        except LamellaError as error:
            findings.append(_refused(error, name))
        findings += _file_findings(name, seen, report)
        frames[name] = len(seen.sources)
        lines[name] = report.lines()
    return LintReport(tuple(findings), frames, lines)


def _refused(error: LamellaError, path: str) -> Finding:
    match = _SOURCE.match(str(error))
    if match is None:
        return Finding(path, None, kind_of(error), str(error))
    return Finding(match[1], int(match[2]), kind_of(error), str(error)[match.end() :])


def _at(source: str, kind: str, message: str, severity: Severity = "problem") -> Finding:
    file, _, frame = source.rpartition("#")
    return (
        Finding(file, int(frame), kind, message, severity)
        if file and frame.isdigit()
        else Finding(source, None, kind, message, severity)
    )


def _frame_findings(frame: Frame, seen: _Seen, structures: dict[bytes, tuple[str, bytes]]) -> Iterator[Finding]:
    """Checks that need this frame alone, or its twin in any file."""
    numbers, counts = np.unique(frame.numbers, return_counts=True)
    seen.sources.append(frame.source)
    seen.compositions.append(tuple(zip(numbers.tolist(), counts.tolist(), strict=True)))
    seen.energies.append(float(frame.labels["energy"]) if "energy" in frame.labels else np.nan)
    forces = frame.labels.get("forces")
    seen.nets.append(
        float(np.linalg.norm(forces.sum(axis=0))) / len(frame) if forces is not None and len(frame) > 1 else np.nan
    )
    virial = frame.labels.get("virial")
    seen.strains.append((_size_of(forces, 1), _size_of(virial, len(frame))))
    seen.pbc.append(tuple(frame.pbc.tolist()))
    seen.boxed.append(has_volume(frame.cell))
    seen.labels.update(list(frame.labels))
    if "frame_params" in frame.labels:
        seen.lists[len(frame.labels["frame_params"])] += 1
    seen.sign.add(frame)
    yield from _close_atoms(frame, seen)
    yield from _duplicate(frame, structures)
    if virial is not None and np.abs(virial - virial.T).max() > 0.01 * np.abs(virial).max() + 0.01:
        yield _at(
            frame.source,
            "asymmetric virial",
            f"virial and its transpose differ by {np.abs(virial - virial.T).max():.3g} eV",
            "note",
        )
    for name in ("charge", "spin"):
        if name in frame.labels and frame.labels[name] != np.round(frame.labels[name]):
            yield _at(frame.source, "inputs", f"the {name} is {frame.labels[name]:g}; it must be a whole number")
    wrong = molecular_virial_error(frame)
    if wrong is not None:
        yield _at(frame.source, "stress sign", wrong)


def _close_atoms(frame: Frame, seen: _Seen) -> Iterator[Finding]:
    try:
        src, dst, vec = neighbor_edges(frame.positions, frame.cell, frame.pbc, _SEARCH, frame.source)
    except StructureError as error:
        kind = "close atoms" if "on top of each other" in str(error) else "structure"
        yield _at(frame.source, kind, str(error).removeprefix(f"{frame.source}: "))
        return
    distance = np.linalg.norm(vec, axis=1)
    if len(src) and distance.min() < CLOSE:
        worst = int(np.argmin(distance))
        yield _at(
            frame.source,
            "close atoms",
            f"atoms {src[worst]} and {dst[worst]} are {distance[worst]:.3f} Å apart "
            f"({int((distance < CLOSE).sum()) // 2} pairs below {CLOSE} Å); "
            "check the units and the cell",
        )
    elif len(frame) > 1 and len(seen.lonely) < _LONELY_SAMPLE:
        edges = neighbor_edges(frame.positions, frame.cell, frame.pbc, _LONELY, frame.source)[0]
        seen.lonely.append(len(edges) == 0)


def _duplicate(frame: Frame, structures: dict[bytes, tuple[str, bytes]]) -> Iterator[Finding]:
    shape = hashlib.sha256(frame.numbers.tobytes() + frame.pbc.tobytes())
    for value in (frame.positions, frame.cell, *(frame.labels[name] for name in INPUTS if name in frame.labels)):
        shape.update((np.round(value, 5) + 0.0).tobytes())
    labels = hashlib.sha256()
    for name in sorted(name for name in frame.labels if name not in INPUTS):
        labels.update(name.encode() + (np.round(frame.labels[name], 5) + 0.0).tobytes())
    first = structures.setdefault(shape.digest(), (frame.source, labels.digest()))
    if first[0] != frame.source:
        same = "and labels" if first[1] == labels.digest() else "but other labels"
        yield _at(frame.source, "duplicate", f"same structure {same} as {first[0]}; remove one")


def _file_findings(name: str, seen: _Seen, report: ReadReport) -> Iterator[Finding]:
    """Checks that compare the frames of a file with each other."""
    n = len(seen.sources)
    if n == 0:
        yield Finding(name, None, "empty", "no frame of the file can be used")
        return
    yield from _net_forces(seen)
    yield from _energies(seen)
    yield from _periodicity(name, seen)
    for source, message in seen.sign.verdicts():
        yield Finding(name, None, "stress sign", message) if source is None else _at(source, "stress sign", message)
    if seen.lonely and all(seen.lonely):
        yield Finding(
            name,
            None,
            "no neighbours",
            f"no atom has a neighbour within {_LONELY:g} Å; check the units (positions are in Å)",
        )
    for label in ("energy", "forces"):
        if seen.labels[label] < n:
            missing = "no frame has" if not seen.labels[label] else f"{n - seen.labels[label]} of {n} frames lack"
            yield Finding(name, None, "missing label", f"{missing} {label}", "note")
    yield from _inputs(name, seen)
    for label in (*LABELS, *INPUTS):
        used = sorted(key for quantity, key in report.used if quantity == label)
        if len(used) > 1:
            yield Finding(
                name, None, "several keys", f"{label} is read from {' and '.join(map(repr, used))} in different frames"
            )
    for line in report.notes:
        yield Finding(name, None, "reader", line, "note")


def _inputs(name: str, seen: _Seen) -> Iterator[Finding]:
    """What a model may read beside the geometry must be there in all frames, in the same form."""
    n = len(seen.sources)
    for quantity in INPUTS:
        if 0 < seen.labels[quantity] < n:
            lack = f"{n - seen.labels[quantity]} of {n} frames lack {quantity}; a model that reads it must have a default"
            yield Finding(name, None, "inputs", lack, "note")
    if len(seen.lists) > 1:
        counted = ", ".join(f"{count} frames of {length}" for length, count in sorted(seen.lists.items()))
        yield Finding(name, None, "inputs", f"frame_params are lists of different lengths ({counted}); no model reads both")


def _net_forces(seen: _Seen) -> Iterator[Finding]:
    nets = np.array(seen.nets)
    known = nets[np.isfinite(nets)]
    if not len(known):
        return
    middle = float(np.median(known))
    bound = middle + 20.0 * 1.4826 * float(np.median(np.abs(known - middle))) + _NET_FLOOR
    limit = min(_NET, bound) if len(known) >= 10 else _NET
    for row in np.flatnonzero(nets > limit):
        yield _at(
            seen.sources[row],
            "net force",
            f"the forces sum to {nets[row]:.4f} eV/Å per atom (median of the file {middle:.4f}); constrained atoms, "
            "an external field or an unconverged calculation",
        )


def _energies(seen: _Seen) -> Iterator[Finding]:
    energies = np.array(seen.energies)
    # an isolated atom is off any fit to bound atoms, and rightly so
    rows = [k for k in range(len(energies)) if np.isfinite(energies[k]) and (any(seen.pbc[k]) or _size(seen, k) > 1)]
    compositions, strains = [seen.compositions[k] for k in rows], np.array(seen.strains)[rows]
    for row, message, problem in energy_outliers(compositions, energies[rows], strains):
        yield _at(seen.sources[rows[row]], "energy off the fit", message, "problem" if problem else "note")


def _periodicity(name: str, seen: _Seen) -> Iterator[Finding]:
    groups: dict[tuple[tuple[int, int], ...], Counter[tuple[bool, ...]]] = defaultdict(Counter)
    total: Counter[tuple[bool, ...]] = Counter()
    for row, pbc in enumerate(seen.pbc):
        if _size(seen, row) > 1:
            groups[seen.compositions[row]][pbc] += 1
            total[pbc] += 1
    for row, pbc in enumerate(seen.pbc):
        group = groups[seen.compositions[row]]
        usual, count = group.most_common(1)[0] if group else (pbc, 0)
        # a molecule or cluster has no cell; a frame that has one, or stands alone, has lost its periodicity
        if _size(seen, row) > 1 and pbc != usual and (seen.boxed[row] or group[pbc] <= _RARE * group.total()):
            yield _at(
                seen.sources[row],
                "mixed periodicity",
                f"pbc is {_flags(pbc)} while {count} frames of the same composition ({_formula(seen, row)}) have "
                f"{_flags(usual)}; a cell or pbc was lost, or two calculations are mixed",
            )
    if len(total) > 1:
        counted = ", ".join(f"{_flags(pbc)}: {count}" for pbc, count in total.most_common())
        yield Finding(
            name, None, "mixed periodicity", f"frames of different periodicity ({counted}); fine if intended", "note"
        )


def _size_of(label: np.ndarray | None, atoms: int) -> float:
    """Root mean square over the components of a label, per atom; NaN where there is none."""
    return float(np.sqrt(np.mean(label**2))) / atoms if label is not None else np.nan


def _size(seen: _Seen, row: int) -> int:
    return sum(count for _, count in seen.compositions[row])


def _flags(pbc: tuple[bool, ...]) -> str:
    return " ".join("T" if periodic else "F" for periodic in pbc)


def _formula(seen: _Seen, row: int) -> str:
    counts = {chemical_symbols[number]: count for number, count in seen.compositions[row]}
    return str(Formula.from_dict(counts).convert("hill"))
