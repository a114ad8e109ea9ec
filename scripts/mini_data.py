"""What trains and tests lamella-mini: which sets make a task, which frames are held out, and which are left out.

For scripts/train_mini.py and scripts/evaluate_mini.py. Everything here is a function of the files and of SEED.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from lamella.data.digest import frame_digest
from lamella.data.lint import lint
from lamella.data.source import FrameList
from lamella.train.prepare import open_data
from lamella.train.recipe import EMBEDDED
from lamella.types import Frame

SEED = 1
EV_PER_A3 = 160.21766  # GPa
LARGEST_FORCE = 20.0  # eV/A, component; what trains a small model must not be ruled by frames that no use of it meets
LARGEST_PRESSURE = 150.0  # GPa, size of the mean
TWIN = (2e-5, 2e-4, 2e-3)  # energy per atom (eV), rms force (eV/A), volume per atom (relative): the same structure again
HELD_OUT = 0.1  # of a part without test files


@dataclass(frozen=True)
class Part:
    """Files of one set that train a task together.

    Attributes:
        name: of its rows in the tables.
        train: files below DATA, or ``embedded:``.
        test: files of the given split; empty where a fraction of ``train`` is held out.
        apart: whole compositions are held out (besides ``test``), since frames of one composition are of one trajectory.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    apart: bool = False


@dataclass(frozen=True)
class Task:
    """One level of theory: sets that share it, or nearly, share a baseline and a code."""

    weight: float
    parts: tuple[Part, ...]
    edges: int = 6000
    valid: int = 48
    method: str = ""


def _mlearn(symbol: str, tested: bool) -> Part:
    test = (f"mlearn/{symbol}_test.extxyz",) if tested else ()
    return Part(f"mlearn {symbol}", (f"mlearn/{symbol}_train.extxyz",), test)


def _given(name: str, test: str = "test") -> Part:
    return Part(name, (f"{name}/train.extxyz",), (f"{name}/{test}.extxyz",))


def _embedded(name: str) -> Part:
    return Part(name, (f"{EMBEDDED}{name}:train",), (f"{EMBEDDED}{name}:test",))


TASKS: dict[str, Task] = {
    "alloy": Task(
        1.5,
        (
            _given("nbmotaw"),
            Part("nimo_li3n", ("nimo_li3n/train.extxyz",)),
            *(_mlearn(symbol, symbol not in ("Ni", "Mo")) for symbol in ("Ni", "Cu", "Li", "Mo", "Si", "Ge")),
        ),
        method="PBE, VASP, 520 eV",
    ),
    "mp": Task(
        3.0,
        (
            _given("mptrj_1k"),
            Part("mptrj_highstress_1k", ("mptrj_highstress_1k/train.extxyz",), apart=True),
            _given("mpf_tp"),
        ),
        edges=4000,
        valid=96,
        method="PBE/PBE+U, Materials Project settings",
    ),
    "alex": Task(0.5, (_given("alex_1k"),), edges=2500, method="PBE, Alexandria"),
    "oc20": Task(
        1.5,
        (Part("oc20_mini", ("oc20_mini/train.extxyz",), ("oc20_mini/test_id.extxyz",), apart=True),),
        method="RPBE, VASP, OC20 settings",
    ),
    "mad": Task(1.5, (_given("mad_pbesol"),), edges=4000, method="PBEsol, Quantum ESPRESSO"),
    "wb97x": Task(
        1.5,
        (
            _given("s66x8_wb97x"),
            Part("bpa3", ("bpa3/train_300K.extxyz",), ("bpa3/test_300K_proxy.extxyz", "bpa3/test_600K_proxy.extxyz")),
        ),
        edges=2000,
        method="wB97X/6-31G(d)",
    ),
    "pbe_svp": Task(
        1.5,
        (
            Part("ethanol_rmd17", ("ethanol_rmd17/train.extxyz",), ("ethanol_rmd17/test_MD.extxyz",)),
            _embedded("molecules_pbe"),
        ),
        edges=2000,
        method="PBE/def2-SVP",
    ),
    "gfn2": Task(1.5, (_embedded("water_gfn2"), _embedded("molecules_gfn2")), edges=3000, method="GFN2-xTB"),
    "gfn1": Task(0.25, (_embedded("lif_gfn1"),), valid=4, method="GFN1-xTB"),
}
"""What trains the model. Its card calls acac, formic_dimer and al_mil53_pbed3 downstream: they are not here."""


@dataclass
class Book:
    """What becomes of the frames of a task."""

    train: list[Frame] = field(default_factory=list)
    tests: dict[str, list[Frame]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def collect(task: Task, data: Path) -> Book:
    """Frames that train and frames that test a task, without twins and what lint or the filter have something against."""
    book = _split(task, data)
    _drop_twins(book)
    return book


def _split(task: Task, data: Path) -> Book:
    """Frames that train and frames that test, without those that lint calls wrong or that are out of the model's range."""
    book = Book()
    for part in task.parts:
        train, test = (_read(files, data, book) for files in (part.train, part.test))
        if part.apart:
            train, held = _hold_out_compositions(train)
            elsewhere = {_formula(frame) for frame in held}
            test = [frame for frame in test if _formula(frame) not in elsewhere]
            book.tests[f"{part.name} unseen compositions"] = held
        elif not part.test:
            train, test = _hold_out(train)
        if test:
            book.tests[part.name] = test
        for frame in train:
            reason = _out_of_range(frame)
            if reason:
                book.left_out[f"{part.name}: {reason}"] += 1
            else:
                book.train.append(frame)
    return book


def _read(files: Sequence[str], data: Path, book: Book) -> list[Frame]:
    """The frames of some files that lint has nothing against."""
    paths = [name if name.startswith(EMBEDDED) else str(data / name) for name in files]
    wrong: set[str] = set()
    for finding in lint([path for path in paths if not path.startswith(EMBEDDED)]).problems:
        if finding.frame is not None:
            wrong.add(f"{finding.file}#{finding.frame}")
            book.problems.append(f"{Path(finding.file).relative_to(data)}#{finding.frame}: {finding.message}")
    frames = open_data(paths) if paths else FrameList([])
    return [frame for frame in (frames[index] for index in range(len(frames))) if frame.source not in wrong]


def _out_of_range(frame: Frame) -> str:
    """Why a frame does not train; empty if it does."""
    if np.abs(frame.labels["forces"]).max() > LARGEST_FORCE:
        return f"a force above {LARGEST_FORCE:g} eV/A"
    return f"a pressure beyond {LARGEST_PRESSURE:g} GPa" if pressure(frame) > LARGEST_PRESSURE else ""


def pressure(frame: Frame) -> float:
    """Size of the mean pressure by the label, GPa; 0 without one."""
    if "virial" not in frame.labels:
        return 0.0
    volume = abs(float(np.linalg.det(frame.cell)))
    return abs(float(np.trace(frame.labels["virial"]))) / 3 / volume * EV_PER_A3


def in_range(frame: Frame) -> bool:
    """Whether a frame would have been let into the training data."""
    return not _out_of_range(frame)


def _formula(frame: Frame) -> str:
    return Formula.from_list([chemical_symbols[number] for number in frame.numbers]).format("hill")


def _chance(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(f"{SEED} {text}".encode()).digest()[:8], "big") / 2**64


def _hold_out(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """A tenth of the frames, drawn by their content."""
    held = [_chance(frame_digest(frame).hex()) < HELD_OUT for frame in frames]
    return _parted(frames, held)


def _hold_out_compositions(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """A tenth of the compositions, drawn by formula; those whose elements occur nowhere else stay."""
    elements: dict[str, set[int]] = {_formula(frame): set(frame.numbers.tolist()) for frame in frames}
    held: set[str] = set()
    for formula in sorted(elements, key=_chance):
        others = set().union(*(elements[other] for other in elements if other not in held | {formula}))
        if elements[formula] <= others and len(held) < HELD_OUT * len(elements):
            held.add(formula)
    return _parted(frames, [_formula(frame) in held for frame in frames])


def _parted(frames: Sequence[Frame], held: Iterable[bool]) -> tuple[list[Frame], list[Frame]]:
    marked = list(zip(frames, held, strict=True))
    return [frame for frame, out in marked if not out], [frame for frame, out in marked if out]


def _drop_twins(book: Book) -> None:
    """Training frames that are a test frame again (turned, relabelled, or the next step of a relaxation) do not train."""
    seen: dict[str, list[np.ndarray]] = {}
    for frames in book.tests.values():
        for frame in frames:
            seen.setdefault(_reduced(frame), []).append(_signature(frame))
    kept = []
    for frame in book.train:
        mine = _signature(frame)
        if any((np.abs(mine - other) < TWIN).all() for other in seen.get(_reduced(frame), ())):
            book.left_out["the same structure as a test frame"] += 1
        else:
            kept.append(frame)
    book.train = kept


def _reduced(frame: Frame) -> str:
    return str(Formula(_formula(frame)).reduce()[0].format("hill"))


def _signature(frame: Frame) -> np.ndarray:
    """Energy per atom, rms force and the logarithm of the volume per atom."""
    volume = abs(float(np.linalg.det(frame.cell))) / len(frame) if frame.pbc.all() else 1.0
    size = float(np.sqrt((frame.labels["forces"] ** 2).sum(axis=1).mean()))
    return np.array([float(frame.labels["energy"]) / len(frame), size, np.log(volume)])
