"""Who predicts: a lamella model, an ASE calculator, or a file of predictions; all answer frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.data import chemical_symbols

from lamella.data.convert import has_volume, virial_from_stress
from lamella.data.keys import LabelKeys, ReadReport
from lamella.data.read import iter_frames
from lamella.errors import InputError, LamellaError
from lamella.fields import INPUTS
from lamella.models.potential import Potential
from lamella.types import Frame
from lamella.use.predict import predict_frames
from lamella.use.table.config import SetConfig

__all__ = ["Answer", "Calculated", "UnansweredError", "FromFile", "Learned", "Question", "Respondent"]

_OURS: Final = LabelKeys(energy="lamella_energy", forces="lamella_forces", virial="lamella_virial")
"""Keys of :func:`lamella.use.evaluate.predictions_file`."""

_SAME_PLACE: Final = 1e-3
"""Positions and cells of a frame and of its prediction may differ by this much, Å: files print few digits."""

_ALL: Final = "a file of predictions holds every frame of the set, in the set's order"


class UnansweredError(Exception):
    """A model cannot be evaluated on a set; the message says why."""


class Answer(NamedTuple):
    """What a model says of a frame: energy eV, forces (n, 3) eV/Å, virial (3, 3) eV; ``None`` where it says nothing."""

    energy: float | None
    forces: np.ndarray | None
    virial: np.ndarray | None


class Question(NamedTuple):
    """A set as a model is asked about it: its name, its settings and the atomic numbers that occur in it."""

    name: str
    config: SetConfig
    numbers: tuple[int, ...]


class Respondent(Protocol):
    """A column of the table."""

    @property
    def name(self) -> str:
        """Heading."""
        ...

    @property
    def origin(self) -> str:
        """Where it comes from."""
        ...

    def task(self, question: Question) -> str | None:
        """Which of its tasks answers; ``None`` for what has none.

        Raises:
            UnansweredError: it cannot, and why.
        """
        ...

    def answers(self, question: Question, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Answer]]:
        """Each frame with the answer to it, in order.

        Raises:
            UnansweredError: it cannot, and why.
        """
        ...


class Learned:
    """A lamella model."""

    def __init__(self, name: str, origin: str, potential: Potential, task: str | None = None) -> None:
        """``task``: which answers unless the set names one for this model."""
        self.name, self.origin = name, origin
        self.potential = potential
        self.chosen = task
        if task is not None:
            potential.task_index(task)

    def task(self, question: Question) -> str:
        """The one that the set names for this model, else its own, else the one of the set's name, else the only one."""
        missing = [chemical_symbols[number] for number in question.numbers if number not in self.potential.numbers]
        if missing:
            raise UnansweredError(f"it does not know {', '.join(missing)}")
        tasks, wanted = self.potential.tasks, question.config.task
        if isinstance(wanted, Mapping) and self.name in wanted:
            if wanted[self.name] not in tasks:
                raise UnansweredError(f"it has no task {wanted[self.name]!r} (it has {', '.join(tasks)})")
            return wanted[self.name]
        for candidate in (self.chosen, wanted if isinstance(wanted, str) else None, question.name):
            if candidate is not None and candidate in tasks:
                return candidate
        if len(tasks) > 1:
            raise UnansweredError(
                f"none of its tasks ({', '.join(tasks)}) is named for this set (MODEL@TASK, or task in a suite)"
            )
        return tasks[0]

    def answers(self, question: Question, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Answer]]:
        """Batch by batch."""
        try:
            for frame, found in predict_frames(self.potential, frames, self.task(question)):
                yield frame, Answer(float(found.energy), found.forces, found.virial)
        except InputError as error:
            raise UnansweredError(str(error)) from None


class Calculated:
    """An ASE calculator."""

    def __init__(self, name: str, origin: str, calculator: BaseCalculator) -> None:
        self.name, self.origin = name, origin
        self.calculator = calculator

    def task(self, question: Question) -> None:
        """None: what it knows shows when it is asked."""

    def answers(self, question: Question, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Answer]]:
        """Frame by frame; charge and spin of a frame stand in ``atoms.info``."""
        for frame in frames:
            atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
            atoms.info |= {name: frame.labels[name].tolist() for name in INPUTS if name in frame.labels}
            atoms.calc = self.calculator
            yield frame, self._ask(atoms, frame)

    def _ask(self, atoms: Atoms, frame: Frame) -> Answer:
        try:
            energy = float(atoms.get_potential_energy())
            forces = np.array(_asked(lambda: atoms.get_forces(apply_constraint=False)), dtype=np.float64)
            stress = _asked(atoms.get_stress) if "virial" in frame.labels and has_volume(frame.cell) else None
        except Exception as error:  # a calculator of somebody else may fail in every way there is
            said = (str(error).strip().splitlines() or [""])[0][:200]
            raise UnansweredError(f"{frame.source}: {type(error).__name__}{': ' if said else ''}{said}") from None
        virial = None if stress is None else virial_from_stress(np.asarray(stress), frame.cell)
        return Answer(energy, forces if forces.ndim else None, virial)


class FromFile:
    """A file of predictions."""

    def __init__(self, name: str, template: str, keys: LabelKeys | None = None) -> None:
        """``template``: path, in which ``{set}`` stands for the name of the set."""
        self.name, self.origin = name, template
        self._keys = keys

    def task(self, question: Question) -> None:
        """None, where there is a file for this set."""
        if not Path(self._path(question)).exists():
            raise UnansweredError(f"there is no file {self._path(question)}")

    def answers(self, question: Question, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Answer]]:
        """What the file says of each frame; it must hold the same frames in the same order."""
        path, alike = self._path(question), True
        predicted = self._predictions(path)
        for frame in frames:
            found = next(predicted, None)
            if found is None:
                raise UnansweredError(f"{path} ends before {frame.source}: {_ALL}")
            if not _same(frame, found):
                raise UnansweredError(f"{found.source} is not the structure {frame.source}: {_ALL}")
            alike = alike and _equal(frame, found)
            yield frame, _answer(found.labels)
        if alike:
            raise UnansweredError(f"the predictions of {path} are the labels, to the last digit: name their keys")
        if (extra := next(predicted, None)) is not None:
            raise UnansweredError(f"{path} goes on after the set's last frame, with {extra.source}: {_ALL}")

    def _path(self, question: Question) -> str:
        return self.origin.replace("{set}", question.name)

    def _predictions(self, path: str) -> Iterator[Frame]:
        keys = self._keys or (_OURS if _answered(path, _OURS) else None)
        try:
            yield from iter_frames(path, keys, report=ReadReport())
        except LamellaError as error:
            raise UnansweredError(str(error)) from None


def _answered(path: str, keys: LabelKeys) -> bool:
    """Whether the first frame has something under these keys."""
    try:
        return bool(next(iter_frames(path, keys, report=ReadReport())).labels.keys() - INPUTS.keys())
    except LamellaError as error:
        raise UnansweredError(str(error)) from None


def _asked(ask: Callable[[], Any]) -> Any:
    """What a calculator says, or ``None`` where it does not know such a property."""
    try:
        return ask()
    except (PropertyNotImplementedError, NotImplementedError):
        return None


def _answer(labels: Mapping[str, np.ndarray]) -> Answer:
    energy = float(labels["energy"]) if "energy" in labels else None
    return Answer(energy, labels.get("forces"), labels.get("virial"))


def _equal(frame: Frame, other: Frame) -> bool:
    """Whether what both say of one structure is the same."""
    both = frame.labels.keys() & other.labels.keys() - INPUTS.keys()
    return all(np.array_equal(frame.labels[name], other.labels[name]) for name in both)


def _same(frame: Frame, other: Frame) -> bool:
    if not np.array_equal(frame.numbers, other.numbers):
        return False
    if other.cell.any() and not np.allclose(frame.cell, other.cell, rtol=0.0, atol=_SAME_PLACE):
        return False  # one atom in cells of many sizes; a file that leaves cells out is taken at its word
    return bool(np.allclose(frame.positions, other.positions, rtol=0.0, atol=_SAME_PLACE))
