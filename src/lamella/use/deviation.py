"""Model deviation: how far the models of an ensemble disagree about a structure.

With ⟨·⟩ over the models k = 1…K, std the population standard deviation (divided by K), N atoms:

==========  =========================================================  ==========================
quantity    deviation                                                  summarised over
==========  =========================================================  ==========================
forces      ε_F,i = ‖ std_k F_i^k ‖, eV/Å                              atoms: largest, least, mean
virial      ε_V,ab = std_k W_ab^k / N, eV/atom                         9 components: largest, least, root mean square
energy      ε_E = std_k E^k / N, eV/atom                               one number
==========  =========================================================  ==========================

ε_F is Eq. 4 of Y. Zhang et al., Comput. Phys. Commun. 253, 107206 (2020), which selects structures worth labelling by its
largest value. Relative deviations (J. Zeng et al., J. Chem. Phys. 159, 054801 (2023)) are ε_F,i / (‖⟨F_i⟩‖ + l) and
ε_V / (‖⟨W⟩‖/N + l) with a level l > 0, so that large forces may deviate more.

The real error compares with labels instead of with the models' mean: std_k x^k becomes sqrt⟨(x^k - x_label)²⟩, and the
magnitudes of the relative deviations are the labels'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import Any, Final, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lamella.errors import DataError, InputError
from lamella.models.potential import Potential
from lamella.types import Frame, Prediction
from lamella.use.predict import predict_frames, runnable

__all__ = ["Deviation", "DeviationConfig", "Member", "Spread", "deviation", "deviations", "summarise"]

COLUMNS: Final = ("forces_max", "forces_min", "forces_mean", "virial_max", "virial_min", "virial_rms", "energy")
"""The numbers of one frame, in the order of its tables."""


class DeviationConfig(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    relative: float | None = Field(None, gt=0, allow_inf_nan=False)
    """eV/Å: the level l of relative force deviations; absolute ones where not given."""
    relative_virial: float | None = Field(None, gt=0, allow_inf_nan=False)
    """eV/atom: the level l of relative virial deviations; absolute ones where not given."""
    real_error: bool = False
    """Root mean square error of the models against the labels instead of their deviation."""

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity; 1 for a relative one."""
        forces, virial = ("eV/Å", "eV/atom") if self.relative is None else ("1", "eV/atom")
        return {"forces": forces, "virial": virial if self.relative_virial is None else "1", "energy": "eV/atom"}


class Member(NamedTuple):
    """One model of an ensemble."""

    model: Potential
    task: str | None = None
    """Which labels it predicts; may be left out where the model has one task."""


@dataclass(frozen=True)
class Deviation:
    """Of one frame; ``None`` where a real error lacks the label.

    Attributes:
        source: where the frame came from.
        forces: (n,) of every atom, eV/Å or relative.
        virial: (3, 3) of every component, eV/atom or relative.
        energy: eV/atom.
    """

    source: str
    atoms: int
    forces: np.ndarray | None
    virial: np.ndarray | None
    energy: float | None

    @property
    def worst_atom(self) -> int | None:
        """The atom of the largest force deviation, from 0."""
        return None if self.forces is None else int(np.argmax(self.forces))

    def row(self) -> dict[str, float | None]:
        """The numbers of the frame by name, :data:`COLUMNS`."""
        values: dict[str, float | None] = dict.fromkeys(COLUMNS)
        if self.forces is not None:
            values["forces_max"] = float(self.forces.max())
            values["forces_min"] = float(self.forces.min())
            values["forces_mean"] = float(self.forces.mean())
        if self.virial is not None:
            values["virial_max"] = float(self.virial.max())
            values["virial_min"] = float(self.virial.min())
            values["virial_rms"] = float(np.sqrt((self.virial**2).mean()))
        values["energy"] = self.energy
        return values


@dataclass(frozen=True)
class Spread:
    """One column of :data:`COLUMNS` over all frames that have it.

    Attributes:
        largest: the largest value.
        frame: the frame that has it, from 0.
    """

    mean: float
    median: float
    percentile_90: float
    percentile_99: float
    largest: float
    frame: int


def deviations(
    members: Sequence[Member], frames: Iterable[Frame], config: DeviationConfig | None = None
) -> Iterator[Deviation]:
    """The deviation of every frame, in order; frames are read, and predicted by every model, one batch at a time.

    Args:
        members: two or more models (one is enough for real errors); not mutated. They may differ in everything, the task
            included, but energies of tasks with different references deviate by the difference of these.
        frames: labels are looked at for real errors only.
        config: what is measured; absolute deviations where not given.

    Raises:
        InputError: too few models; unknown task, or several and none named.
        DataError: a prediction that is not finite.
        StructureError: a frame that has no energy; the message says which and why.
    """
    chosen = DeviationConfig() if config is None else config
    if len(members) < (1 if chosen.real_error else 2):
        raise InputError(f"{len(members)} models were given where a deviation is between two or more; name others too.")
    for member in members:
        member.model.task_index(member.task)
    return _each(members, frames, chosen)


def deviation(predictions: Sequence[Prediction], frame: Frame, config: DeviationConfig) -> Deviation:
    """The deviation of one frame.

    Args:
        predictions: one per model, numpy: energy eV, forces (n, 3) eV/Å, virial (3, 3) eV.
        frame: what they predict; its labels are looked at for real errors only.
        config: what is measured.
    """
    n = len(frame)
    energy = np.array([prediction.energy for prediction in predictions]) / n
    forces = np.stack([prediction.forces for prediction in predictions])
    virial = np.stack([prediction.virial for prediction in predictions]) / n
    if not (np.isfinite(energy).all() and np.isfinite(forces).all()):
        raise DataError(f"{frame.source}: a model predicts NaN or infinity; look at the frame (lamella data lint).")
    if not config.real_error:
        centres: list[np.ndarray | None] = [forces.mean(axis=0), virial.mean(axis=0), energy.mean(axis=0)]
    else:
        scale = {"forces": 1.0, "virial": 1.0 / n, "energy": 1.0 / n}
        labels = frame.labels
        centres = [np.asarray(labels[name]) * scale[name] if name in labels else None for name in scale]
    of_forces, of_virial, of_energy = (
        None if centre is None else np.sqrt(((values - centre) ** 2).mean(axis=0))
        for values, centre in zip((forces, virial, energy), centres, strict=True)
    )
    by_atom = None if of_forces is None else np.linalg.norm(of_forces, axis=-1)
    if config.relative is not None and by_atom is not None and centres[0] is not None:
        by_atom = by_atom / (np.linalg.norm(centres[0], axis=-1) + config.relative)
    if config.relative_virial is not None and of_virial is not None and centres[1] is not None:
        of_virial = of_virial / (np.linalg.norm(centres[1]) + config.relative_virial)
    return Deviation(frame.source, n, by_atom, of_virial, None if of_energy is None else float(of_energy))


def summarise(rows: Sequence[dict[str, float | None]]) -> dict[str, Spread]:
    """Each column of :data:`COLUMNS` over the frames' rows; a column that no frame has is absent."""
    found: dict[str, Spread] = {}
    for name in COLUMNS:
        listed = [(index, value) for index, row in enumerate(rows) if (value := row[name]) is not None]
        if not listed:
            continue
        values = np.array([value for _, value in listed])
        median, high, highest = np.percentile(values, [50, 90, 99])
        top = int(np.argmax(values))
        found[name] = Spread(
            float(values.mean()), float(median), float(high), float(highest), float(values[top]), listed[top][0]
        )
    return found


def _each(members: Sequence[Member], frames: Iterable[Frame], config: DeviationConfig) -> Iterator[Deviation]:
    streams: list[Any] = [
        predict_frames(runnable(member.model), own, member.task)
        for member, own in zip(members, tee(frames, len(members)), strict=True)
    ]
    for together in zip(*streams, strict=True):
        yield deviation([prediction for _, prediction in together], together[0][0], config)
