"""Losses of energy, forces and virial (DPA3 paper Eqs. 38-41; deepmd-kit's ``ener`` loss).

    L = p_e ⟨ℓ_e⟩ + p_f ⟨ℓ_f⟩ + p_v ⟨ℓ_v⟩                    p(t) = limit + (start - limit) · decay(t)

⟨·⟩ averages within a frame, then over the frames that carry the label. With N the atoms of a frame:

=============  ==================  =================  ====================
kind           energy ℓ_e          forces ℓ_f         virial ℓ_v
=============  ==================  =================  ====================
``squared``    ΔE²/N               mean ΔF²           mean ΔW²/N
``intensive``  (ΔE/N)²             mean ΔF²           mean (ΔW/N)²
``huber``      h(ΔE/N)             mean h(ΔF)         mean h(ΔW/N)
``mae``        |ΔE|/N              mean |ΔF|          mean |ΔW|/N
=============  ==================  =================  ====================

h(x) = x²/2 up to |x| = δ, then δ (|x| - δ/2). ``force_error: vector`` takes ‖ΔF_i‖, one number an atom, in place of the
components of ΔF_i; ``relative_forces: c`` divides ΔF_i by ‖F_i‖ + c of the label. Everything here is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor

from lamella.fields import FIELDS, LABELS
from lamella.geometry.segment import segment_sum
from lamella.types import Batch, Prediction

__all__ = ["LossConfig", "Prefactor", "Term", "carrying_frames", "frame_terms", "prefactor", "total_loss"]

LossKind = Literal["squared", "intensive", "huber", "mae"]


def _pair(value: Any) -> Any:
    """One number means: the same from start to end."""
    return value if isinstance(value, list | tuple) else (value, value)


Prefactor = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], BeforeValidator(_pair)]
"""(start, limit) of a prefactor."""

_Delta = Annotated[float, Field(gt=0)]


class LossConfig(BaseModel):
    """Kind of loss and its prefactors; the defaults are deepmd-kit's shipped DPA-3 example."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: LossKind = "squared"
    energy: Prefactor = (0.2, 20.0)
    forces: Prefactor = (100.0, 60.0)
    virial: Prefactor = (0.02, 1.0)
    huber_delta: _Delta | tuple[_Delta, _Delta, _Delta] = 0.01
    """δ: one number, or those of energy (eV/atom), forces (eV/Å) and virial (eV/atom)."""
    force_error: Literal["component", "vector"] = "component"
    """``vector`` is for ``huber`` and ``mae``: the square of a length is the sum of the squares already."""
    relative_forces: float | None = Field(None, gt=0)
    """c in eV/Å; null for absolute errors."""

    @model_validator(mode="after")
    def _consistent(self) -> LossConfig:
        if self.force_error == "vector" and self.kind not in ("huber", "mae"):
            raise ValueError("force_error: vector needs kind huber or mae")
        if self.relative_forces is not None and self.kind == "huber":
            raise ValueError("relative_forces needs another kind than huber, whose huber_delta is in eV/Å")
        return self

    def deltas(self) -> dict[str, float]:
        """``huber_delta`` by label."""
        given = self.huber_delta if isinstance(self.huber_delta, tuple) else (self.huber_delta,) * 3
        return dict(zip(("energy", "forces", "virial"), given, strict=True))

    def prefactors(self) -> dict[str, tuple[float, float]]:
        """(start, limit) by label."""
        return {"energy": self.energy, "forces": self.forces, "virial": self.virial}

    def judging(self) -> dict[str, float]:
        """Prefactors by which validation is judged throughout a run: the limits, or the starts where all limits are 0."""
        which = 1 if any(limit for _, limit in self.prefactors().values()) else 0
        return {name: pair[which] for name, pair in self.prefactors().items()}


class Term(NamedTuple):
    """One label's loss before averaging over frames: the sum of ℓ over the frames that carry it, and how many those are."""

    total: Tensor
    frames: Tensor


def frame_terms(prediction: Prediction, batch: Batch, config: LossConfig) -> dict[str, Term]:
    """Sum and count of ℓ over the frames that carry each label.

    Args:
        prediction: of ``batch.graph``.
        batch: labels and which frames carry them.
        config: kind of loss.

    Returns:
        A term for each label that the batch knows of.
    """
    error, deltas = _ERRORS[config.kind], config.deltas()
    inverse_F = inverse_atoms(batch.graph.frame.ptr.diff())
    terms = {}
    for name in LABELS:
        if name not in batch.labels:
            continue
        owner, carries_F = FIELDS[name].owner, batch.carries[name]
        difference = getattr(prediction, name).double() - batch.labels[name]
        known = carries_F if owner == "frame" else carries_F[batch.graph.frame.index]
        # where, not a product: a frame without the label must not leak an infinity, nor its gradient a NaN
        difference = torch.where(known.reshape(-1, *[1] * (difference.dim() - 1)), difference, 0.0)
        if name == "forces":
            difference = _force_difference(difference, batch.labels[name], config)
        terms[name] = Term(_WITHIN[owner](error, difference, inverse_F, batch, deltas[name]).sum(), carries_F.sum())
    return terms


def carrying_frames(batch: Batch | None) -> Tensor:
    """How many frames carry each of :data:`lamella.fields.LABELS`, (labels,) int64 on the CPU; zeros for no batch."""
    carries = {} if batch is None else batch.carries
    return torch.tensor([int(carries[name].sum()) if name in carries else 0 for name in LABELS])


def total_loss(terms: Mapping[str, Term], config: LossConfig, decay: float, frames: Tensor | None = None) -> Tensor:
    """L, a float64 scalar; labels that no frame carries add nothing.

    Args:
        terms: of :func:`frame_terms`.
        config: prefactors.
        decay: the learning-rate schedule without its warm-up factor, 1 at the start.
        frames: (labels,) how many frames carry each label; where these frames are a part of a batch, of the whole batch, so
            that losses and gradients of the parts add up to those of the whole. Those of ``terms`` where not given.
    """
    loss = torch.zeros((), dtype=torch.float64)
    for name, term in terms.items():
        start, limit = config.prefactors()[name]
        count = term.frames if frames is None else frames[LABELS.index(name)]
        loss = loss.to(term.total.device) + prefactor(start, limit, decay) * term.total / count.clamp(min=1)
    return loss


def prefactor(start: float, limit: float, decay: float) -> float:
    """The prefactor limit + (start - limit) · decay."""
    return limit + (start - limit) * decay


def inverse_atoms(n_atoms_F: Tensor) -> Tensor:
    """1/N of every frame, (F,) float64."""
    return 1.0 / n_atoms_F.double()


def _force_difference(difference_N3: Tensor, label_N3: Tensor, config: LossConfig) -> Tensor:
    """ΔF as the loss takes it: (N, 3), or (N, 1) of lengths."""
    if config.relative_forces is not None:
        difference_N3 = difference_N3 / (torch.linalg.vector_norm(label_N3, dim=1, keepdim=True) + config.relative_forces)
    if config.force_error == "vector":
        return torch.linalg.vector_norm(difference_N3, dim=1, keepdim=True)
    return difference_N3


_Error = Callable[[Tensor, Tensor, float], Tensor]
"""(difference, 1/N, δ) -> ℓ, elementwise. For forces 1/N is 1."""


def _squared(difference: Tensor, inverse: Tensor, delta: float) -> Tensor:
    return difference * difference * inverse


def _intensive(difference: Tensor, inverse: Tensor, delta: float) -> Tensor:
    return (difference * inverse) ** 2


def _huber(difference: Tensor, inverse: Tensor, delta: float) -> Tensor:
    scaled = difference * inverse
    return torch.nn.functional.huber_loss(scaled, torch.zeros_like(scaled), reduction="none", delta=delta)


def _absolute(difference: Tensor, inverse: Tensor, delta: float) -> Tensor:
    return difference.abs() * inverse


_ERRORS: dict[LossKind, _Error] = {"squared": _squared, "intensive": _intensive, "huber": _huber, "mae": _absolute}


def _of_frame(error: _Error, difference_F: Tensor, inverse_F: Tensor, batch: Batch, delta: float) -> Tensor:
    """ℓ of a quantity of the frame, averaged over its components: (F,)."""
    flat_FX = difference_F.reshape(difference_F.shape[0], -1)
    return error(flat_FX, inverse_F[:, None], delta).mean(dim=1)


def _of_atoms(error: _Error, difference_N: Tensor, inverse_F: Tensor, batch: Batch, delta: float) -> Tensor:
    """ℓ of a quantity of atoms, averaged over the frame's atoms and components: (F,)."""
    one = torch.ones((), dtype=torch.float64, device=difference_N.device)
    flat_NX = difference_N.reshape(difference_N.shape[0], -1)
    atom_N = error(flat_NX, one, delta).mean(dim=1)
    n_atoms_F = batch.graph.frame.ptr.diff().double()
    return segment_sum(atom_N, batch.graph.frame) / n_atoms_F


_WITHIN = {"frame": _of_frame, "atom": _of_atoms}
