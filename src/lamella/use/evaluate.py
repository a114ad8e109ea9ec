"""How far a model's predictions are from labels: errors, worst frames, errors by element, pairs for parity plots.

With Δ = predicted - label, per quantity, over every frame that carries the label:

==========  =======================================  ================================
quantity    one Δ per                                unit
==========  =======================================  ================================
energy      frame, (E - E_label) / N                 eV/atom
forces      atom and direction                       eV/Å
virial      frame and each of 9 components, /N       eV/atom, both sides symmetrised
==========  =======================================  ================================

RMSE = sqrt(⟨Δ²⟩), MAE = ⟨|Δ|⟩, and ``label_std`` is the standard deviation of the labels over the same values: the RMSE of a
model that always answers the mean. For the energy it is taken after the model's energy per element has been subtracted: the
raw value would measure how much compositions differ.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.data import chemical_symbols
from ase.io import write

from lamella.data.convert import atoms_from_frame
from lamella.data.source import Frames
from lamella.errors import DataError, InputError
from lamella.geometry.graph import species_index
from lamella.models.potential import Potential
from lamella.types import Frame, Prediction
from lamella.use.predict import predict_frames, runnable
from lamella.use.save import replacing
from lamella.use.tally import Errors, Tally

__all__ = ["Errors", "Evaluation", "FrameError", "evaluate", "predictions_file"]

UNITS: Final = {"energy": "eV/atom", "forces": "eV/Å", "virial": "eV/atom"}
"""Unit of the errors of each quantity."""

PARITY_PAIRS: Final = 5_000
"""At most so many pairs of a quantity are kept for a parity plot: a random sample, the same in every run."""


@dataclass(frozen=True)
class FrameError:
    """Errors of one frame; ``None`` where it does not carry the label.

    Attributes:
        frame: position among the frames evaluated, from 0.
        source: where the frame came from.
        atoms: number of atoms.
        energy: signed energy error, eV/atom.
        forces: RMSE of its force components, eV/Å.
        largest: length of the largest force error on an atom, eV/Å.
        atom: the atom that has it, from 0.
    """

    frame: int
    source: str
    atoms: int
    energy: float | None
    forces: float | None
    largest: float | None
    atom: int | None


@dataclass(frozen=True)
class Evaluation:
    """Predictions of one task against labels.

    Attributes:
        task: which task predicted.
        frames: number of frames.
        atoms: number of atoms over all frames.
        errors: by quantity; those that no frame carries are absent.
        by_element: force errors by chemical symbol.
        worst: by ``"energy"`` and ``"forces"``, the frames with the largest energy error per atom and the largest force
            RMSE.
        parity: by quantity, (m, 2) pairs of label and prediction; energies per atom less the model's energy per element.
    """

    task: str
    frames: int
    atoms: int
    errors: Mapping[str, Errors]
    by_element: Mapping[str, Errors]
    worst: Mapping[str, Sequence[FrameError]]
    parity: Mapping[str, np.ndarray]

    def summary(self) -> dict[str, Any]:
        """Everything but the parity pairs, for JSON: eV/atom and eV/Å."""
        return {
            "task": self.task,
            "frames": self.frames,
            "atoms": self.atoms,
            "units": {name: UNITS[name] for name in self.errors},
            **{name: asdict(error) for name, error in self.errors.items()},
            "forces_by_element": {symbol: asdict(error) for symbol, error in self.by_element.items()},
            "worst": {name: [asdict(item) for item in items] for name, items in self.worst.items()},
        }


def evaluate(
    model: Potential,
    frames: Frames | Sequence[Frame],
    task: str | None = None,
    on_frame: Callable[[Frame, Prediction], None] | None = None,
    worst: int = 10,
) -> Evaluation:
    """Predict every frame and compare with the labels it carries; frames are read one batch at a time.

    Args:
        model: not mutated.
        frames: labelled frames; a frame needs not carry every label.
        task: which task predicts; may be left out where the model has one.
        on_frame: called with each frame and its prediction, in order: to show progress, to write predictions.
        worst: how many of the worst frames to keep.

    Raises:
        DataError: no frames, none with a label, or a prediction that is not finite.
        InputError: unknown task, or several and none named.
        StructureError: a frame that has no energy; the message says which and why.
    """
    if len(frames) == 0:
        raise DataError("there are no frames to evaluate on; check the paths.")
    potential = runnable(model)
    book = _Book(potential, potential.task_index(task), worst)
    each = (frames[index] for index in range(len(frames)))
    for frame, prediction in predict_frames(potential, each, task):
        book.add(frame, prediction)
        if on_frame is not None:
            on_frame(frame, prediction)
    if not book.compared:
        raise DataError(
            f"none of the {len(frames)} frames carries an energy, forces or virial label; name the keys under which the "
            "file holds them (lamella eval --energy-key, --forces-key, --stress-key, --virial-key)."
        )
    return book.close()


@contextmanager
def predictions_file(path: Path) -> Iterator[Callable[[Frame, Prediction], None]]:
    """An extended XYZ file of predictions beside labels; the function it gives appends a frame, as ``evaluate`` calls it.

    Labels keep the plain keys (``energy``, ``forces``, ``stress``); predictions are ``lamella_energy``,
    ``lamella_virial``, ``lamella_atom_energy`` (eV) and ``lamella_forces`` (eV/Å). The file appears when all is written.

    Raises:
        InputError: not an extended XYZ name, or the file cannot be written.
    """
    if path.suffix not in (".extxyz", ".xyz"):
        raise InputError(f"{path}: predictions are written as extended XYZ; choose a name that ends in .extxyz.")
    with replacing(path) as file:

        def append(frame: Frame, prediction: Prediction) -> None:
            atoms = atoms_from_frame(frame)
            atoms.info |= {"source": frame.source, "lamella_energy": prediction.energy}
            # nine plain numbers, which every reader of extended XYZ takes for a matrix
            atoms.info["lamella_virial"] = _symmetric(prediction.virial).ravel()
            atoms.set_array("lamella_forces", prediction.forces)
            atoms.set_array("lamella_atom_energy", prediction.atom_energy)
            write(file, atoms, format="extxyz")

        yield append


class _Book:
    """What is summed while frames go by; memory does not grow with their number."""

    def __init__(self, potential: Potential, task: int, worst: int) -> None:
        self.task, self.numbers = potential.tasks[task], potential.numbers
        self.baseline = potential.baseline[task].cpu().numpy()
        self.frames = self.atoms = 0
        self.compared: dict[str, _Compared] = {}
        self.elements: dict[str, Tally] = {}
        self.worst: dict[str, _Worst] = {"energy": _Worst(worst), "forces": _Worst(worst)}

    def add(self, frame: Frame, prediction: Prediction) -> None:
        if not (np.isfinite(prediction.energy) and np.isfinite(prediction.forces).all()):
            raise DataError(f"{frame.source}: the model predicts NaN or infinity; look at the frame (lamella data lint).")
        error = FrameError(self.frames, frame.source, len(frame), None, None, None, None)
        values = asdict(error)
        if "energy" in frame.labels:
            reference = float(self.baseline[species_index(frame.numbers, self.numbers, frame.source)].sum())
            label = float(frame.labels["energy"])
            values["energy"] = self._energy(label - reference, prediction.energy - reference, len(frame))
        if "forces" in frame.labels:
            values |= self._forces(frame, prediction)
        if "virial" in frame.labels:
            known, found = (_symmetric(np.asarray(w)) / len(frame) for w in (frame.labels["virial"], prediction.virial))
            self._of("virial").add(known.ravel(), found.ravel())
        for name, heap in self.worst.items():
            if values[name] is not None:
                heap.add(abs(values[name]), FrameError(**values))
        self.frames += 1
        self.atoms += len(frame)

    def close(self) -> Evaluation:
        parity = {name: each.sample.pairs() for name, each in self.compared.items()}
        order = sorted(self.elements, key=chemical_symbols.index)
        return Evaluation(
            task=self.task,
            frames=self.frames,
            atoms=self.atoms,
            errors={name: self.compared[name].tally.errors() for name in UNITS if name in self.compared},
            by_element={symbol: self.elements[symbol].errors() for symbol in order},
            worst={name: heap.items() for name, heap in self.worst.items()},
            parity=parity,
        )

    def _of(self, name: str) -> _Compared:
        return self.compared.setdefault(name, _Compared())

    def _energy(self, label: float, predicted: float, n_atoms: int) -> float:
        self._of("energy").add(np.array([label / n_atoms]), np.array([predicted / n_atoms]))
        return (predicted - label) / n_atoms

    def _forces(self, frame: Frame, prediction: Prediction) -> dict[str, float | int]:
        label = np.asarray(frame.labels["forces"], dtype=np.float64)
        self._of("forces").add(label.ravel(), prediction.forces.ravel())
        for number in np.unique(frame.numbers):
            of_element = frame.numbers == number
            tally = self.elements.setdefault(chemical_symbols[number], Tally())
            tally.add(label[of_element].ravel(), prediction.forces[of_element].ravel())
        squared = ((prediction.forces - label) ** 2).sum(axis=1)
        atom = int(squared.argmax())
        return {"forces": float(np.sqrt(squared.mean() / 3)), "largest": float(np.sqrt(squared[atom])), "atom": atom}


class _Compared:
    """Errors of one quantity, and some of its pairs."""

    def __init__(self) -> None:
        self.tally, self.sample = Tally(), _Sample(PARITY_PAIRS)

    def add(self, label: np.ndarray, predicted: np.ndarray) -> None:
        """Two arrays (m,)."""
        self.tally.add(label, predicted)
        self.sample.add(label, predicted)


class _Sample:
    """A uniform random sample of a stream of pairs: each gets a random key, and the smallest keys stay."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bar = limit, 1.0
        self.random = np.random.default_rng(0)
        self.kept = np.zeros((0, 3))

    def add(self, label: np.ndarray, predicted: np.ndarray) -> None:
        rows = np.column_stack([self.random.random(len(label)), label, predicted])
        rows = rows[rows[:, 0] < self.bar]
        if len(rows):
            self.kept = np.concatenate([self.kept, rows])
        if len(self.kept) > 2 * self.limit:
            self._trim()

    def pairs(self) -> np.ndarray:
        if len(self.kept) > self.limit:
            self._trim()
        return self.kept[:, 1:].copy()

    def _trim(self) -> None:
        self.kept = self.kept[np.argpartition(self.kept[:, 0], self.limit)[: self.limit]]
        self.bar = float(self.kept[:, 0].max())


class _Worst:
    """The items of largest size, largest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.heap: list[tuple[float, int, FrameError]] = []

    def add(self, size: float, item: FrameError) -> None:
        heapq.heappush(self.heap, (size, -item.frame, item))
        if len(self.heap) > self.limit:
            heapq.heappop(self.heap)

    def items(self) -> list[FrameError]:
        return [item for _, _, item in sorted(self.heap, key=lambda entry: entry[:2], reverse=True)]


def _symmetric(virial: np.ndarray) -> np.ndarray:
    return 0.5 * (virial + virial.T)
