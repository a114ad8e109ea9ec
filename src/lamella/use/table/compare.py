"""Errors of one model on one set, and of a model without a network.

==========  ==========================================  ======================
quantity    one Δ = predicted - label per                unit
==========  ==========================================  ======================
energy      frame, (E - E_label)/N                       eV/atom
forces      atom and direction                           eV/Å
virial      frame and each of 9 components, /N           eV/atom
==========  ==========================================  ======================

Data sets differ by the energies of their free atoms, so a model that was trained on other labels is compared after a refit:

    E <- E + Σ_Z n_Z δ_Z,          δ = argmin Σ_f ( E_label,f - E_f - Σ_Z n_fZ δ_Z )²

over the frames of the set, or over others that its settings name. Source: LAMBench (zero-shot inference with energy-bias
adjustment on the statistics of the test set; ``run_ase_dptest``), deepmd-kit's ``change-bias``. The zero model is the same
fit with E = 0, forces and virial that are 0: what LAMBench calls the dummy model. Its energy error is the standard deviation
of the energy labels that Table 2 of the DPA-2 paper gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lamella.data.baseline import BaselineFit, fit_baseline
from lamella.data.source import Frames
from lamella.errors import DataError
from lamella.fields import LABELS
from lamella.types import Frame
from lamella.use.table.answer import Answer, UnansweredError
from lamella.use.tally import Tally

__all__ = ["Compared", "Labels", "Refit", "Score", "compare", "each", "elements_of", "refit_on", "survey"]

_PLENTY: Final = 5
"""A refit on the set itself wants so many frames for each energy that it determines; with fewer it flatters."""


@dataclass(frozen=True)
class Score:
    """Errors of one quantity; eV/atom or eV/Å.

    Attributes:
        rmse: root mean square error.
        mae: mean absolute error; None for an energy refitted to the very frames, of which only squares are added up.
        count: how many values were compared.
    """

    rmse: float
    mae: float | None
    count: int


@dataclass(frozen=True)
class Labels:
    """What a set is labelled with, and how hard it is.

    Attributes:
        frames: number of frames.
        atoms: number of atoms.
        elements: chemical symbols that occur.
        std: by quantity, standard deviation of the labels; of energies, what energies per element leave.
        zero: by quantity, error of the zero model.
        counts: by quantity, how many values.
        rank: energies per element that the frames determine.
        fitted: frames they are fitted to.
    """

    frames: int
    atoms: int
    elements: tuple[str, ...]
    std: Mapping[str, float]
    zero: Mapping[str, float]
    counts: Mapping[str, int]
    rank: int
    fitted: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers that occur."""
        return tuple(atomic_numbers[symbol] for symbol in self.elements)

    @property
    def few(self) -> bool:
        """Whether the set has so few frames that energies per element fitted to it flatter every model."""
        return self.fitted < _PLENTY * self.rank


@dataclass(frozen=True)
class Refit:
    """Energies per element added to a model's: eV by chemical symbol, and what they were fitted to."""

    energies: Mapping[str, float]
    frames: int
    rank: int


@dataclass(frozen=True)
class Compared:
    """What a model made of a set: its errors by quantity, and the refit where there was one."""

    scores: Mapping[str, Score]
    refit: Refit | None


def survey(frames: Frames, fit: Frames | None = None) -> Labels:
    """Look at the labels.

    Args:
        frames: of the set.
        fit: other frames to which energies per element are fitted.

    Raises:
        DataError: no label at all, or an element that ``fit`` does not have.
    """
    tallies = {name: Tally() for name in LABELS}
    numbers: set[int] = set()
    atoms = energies = 0
    for frame in each(frames):
        numbers.update(np.unique(frame.numbers).tolist())
        atoms += len(frame)
        energies += "energy" in frame.labels
        _add(tallies, frame, Answer(None, np.zeros((len(frame), 3)), np.zeros((3, 3))))
    elements = tuple(chemical_symbols[number] for number in sorted(numbers))
    found = {name: tally.errors() for name, tally in tallies.items() if tally.count}
    std = {name: errors.label_std for name, errors in found.items()}
    zero = {name: errors.rmse for name, errors in found.items()}
    counts = {name: errors.count for name, errors in found.items()}
    rank = fitted = 0
    if energies:
        own = fit_baseline(each(frames if fit is None else fit), _covering(elements, fit))
        left = own.rms if fit is None else _beyond(frames, own.energies)
        std, zero, counts = {"energy": left} | std, {"energy": left} | zero, {"energy": energies} | counts
        rank, fitted = own.rank, own.frames
    if not counts:
        raise DataError("no frame carries an energy, forces or virial; name the keys of the labels (keys).")
    return Labels(len(frames), atoms, elements, std, zero, counts, rank, fitted)


def compare(labels: Labels, answers: Iterable[tuple[Frame, Answer]], refit: bool, given: Refit | None = None) -> Compared:
    """Errors of one model.

    Args:
        labels: of the set.
        answers: every frame of the set with what the model says.
        refit: whether energies per element are fitted to these frames.
        given: energies per element known beforehand; then none are fitted.

    Raises:
        UnansweredError: an answer that is not finite, of another shape, for some frames only, or none at all.
    """
    tallies = {name: Tally() for name in LABELS}
    shift = {} if given is None else {atomic_numbers[symbol]: value for symbol, value in given.energies.items()}

    def residuals() -> Iterator[Frame]:
        for frame, answer in answers:
            _check(frame, answer)
            _add(tallies, frame, answer, shift)
            if answer.energy is not None and "energy" in frame.labels:
                yield replace(frame, labels={"energy": frame.labels["energy"] - answer.energy})

    fit: BaselineFit | None = None
    left = residuals()
    first = next(left, None)
    if first is not None and refit and given is None:
        fit = fit_baseline(_again(first, left), labels.elements)
    for _ in left:
        pass
    for name, tally in tallies.items():
        if tally.count not in (0, labels.counts.get(name, 0)):
            raise UnansweredError(f"it gives {name} for some frames only: {tally.count} of {labels.counts[name]} values")
    scores = {name: Score(e.rmse, e.mae, e.count) for name, e in ((n, t.errors()) for n, t in tallies.items() if t.count)}
    if not scores:
        raise UnansweredError("it says nothing of what the set is labelled with")
    if fit is not None:
        scores["energy"] = Score(fit.rms, None, fit.frames)
        given = Refit(fit.energies, fit.frames, fit.rank)
    return Compared(scores, given)


def refit_on(labels: Labels, answers: Iterable[tuple[Frame, Answer]], elements: tuple[str, ...]) -> Refit | None:
    """Energies per element of a model, fitted to frames other than those it is judged by."""
    residuals = (
        replace(frame, labels={"energy": frame.labels["energy"] - answer.energy})
        for frame, answer in answers
        if answer.energy is not None and "energy" in frame.labels
    )
    first = next(residuals, None)
    if first is None:
        return None
    fit = fit_baseline(_again(first, residuals), elements)
    return Refit({symbol: fit.energies[symbol] for symbol in labels.elements}, fit.frames, fit.rank)


def each(frames: Frames) -> Iterator[Frame]:
    """The frames, one after the other."""
    return (frames[index] for index in range(len(frames)))


def elements_of(frames: Iterable[Frame]) -> tuple[str, ...]:
    """Chemical symbols that occur, by atomic number."""
    numbers: set[int] = set()
    for frame in frames:
        numbers.update(np.unique(frame.numbers).tolist())
    return tuple(chemical_symbols[number] for number in sorted(numbers))


def _again(first: Frame, others: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from others


def _covering(elements: tuple[str, ...], fit: Frames | None) -> tuple[str, ...]:
    """Elements of the fit."""
    if fit is None:
        return elements
    known = elements_of(each(fit))
    missing = [symbol for symbol in elements if symbol not in known]
    if missing:
        raise DataError(
            f"fit: {', '.join(missing)} does not occur in these frames but does in data; give frames that have it."
        )
    return known


def _beyond(frames: Frames, energies: Mapping[str, float]) -> float:
    """RMSE of energies per element alone."""
    tally = {"energy": Tally()}
    shift = {atomic_numbers[symbol]: value for symbol, value in energies.items()}
    for frame in each(frames):
        _add(tally, frame, Answer(0.0, None, None), shift)
    return tally["energy"].errors().rmse


def _check(frame: Frame, answer: Answer) -> None:
    for name in LABELS:
        value = getattr(answer, name)
        if value is not None and not np.isfinite(value).all():
            raise UnansweredError(f"{frame.source}: it says NaN or infinity")
        if value is not None and np.shape(value) != (shape := {"forces": (len(frame), 3), "virial": (3, 3)}.get(name, ())):
            raise UnansweredError(f"{frame.source}: its {name} have the shape {np.shape(value)}, not {shape}")


def _add(tallies: Mapping[str, Tally], frame: Frame, answer: Answer, shift: Mapping[int, float] | None = None) -> None:
    """Take in what the frame is labelled with and the model speaks of."""
    if answer.energy is not None and "energy" in frame.labels:
        energy = answer.energy + (sum(shift[number] for number in frame.numbers.tolist()) if shift else 0.0)
        pair = np.array([[float(frame.labels["energy"])], [energy]]) / len(frame)
        tallies["energy"].add(*pair)
    if answer.forces is not None and "forces" in frame.labels:
        tallies["forces"].add(np.asarray(frame.labels["forces"], dtype=np.float64).ravel(), answer.forces.ravel())
    if answer.virial is not None and "virial" in frame.labels:
        known, found = (_symmetric(np.asarray(w)) / len(frame) for w in (frame.labels["virial"], answer.virial))
        tallies["virial"].add(known.ravel(), found.ravel())


def _symmetric(virial: np.ndarray) -> np.ndarray:
    return 0.5 * (virial + virial.T)
