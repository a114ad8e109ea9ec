"""Energies per element refitted to what a model leaves of the labels.

    minimise Σ_f ( (E_f - E_model,f - Σ_Z n_fZ δ_Z) / N_f )²,          b_Z = b_Z(before) + δ_Z

b(before) is the baseline of the task that the head comes from, included in E_model. Where the data leave some of it open
(one composition throughout, an element that does not occur) δ has least norm: b stays as near to it as the labels allow, and
the energies of the data are met all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamella.data.baseline import indistinct

__all__ = ["Refit", "refit"]

_RANK: Final = 1e-9
"""Singular values below this fraction of the largest count as zero."""

_LOOSE: Final = 0.5
"""Standard error of an energy per element above which it is called poorly determined, eV."""


@dataclass(frozen=True)
class Refit:
    """δ, and how well the data determine it.

    Attributes:
        shift: (S,) δ in eV, 0 for elements that do not occur.
        frames: with an energy.
        rank: independent combinations that the data determine.
        occurring: elements that occur.
        condition: ratio of the largest to the smallest singular value of the compositions that is not zero.
        error: (S,) standard error of δ, eV, within what is determined.
        open: clauses on what the data leave open.
        loose: chemical symbols whose δ is poorly determined.
    """

    shift: np.ndarray
    frames: int
    rank: int
    occurring: int
    condition: float
    error: np.ndarray
    open: tuple[str, ...]
    loose: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The fit in words."""
        if not self.frames:
            return "unchanged: no training frame carries an energy"
        known = f"all {self.occurring}" if self.rank == self.occurring else f"{self.rank} of {self.occurring}"
        parts = [
            f"energies per element by least squares over {self.frames} frame{'s' if self.frames > 1 else ''}, rank {known}, "
            f"condition {self.condition:.3g}"
        ]
        if self.open:
            parts.append(
                f"under-determined: {'; '.join(self.open)}. Your energies are met, other compositions keep the differences "
                "that the model has; add frames of other compositions if those matter"
            )
        if self.loose:
            worst = float(self.error.max())
            parts.append(f"poorly determined for {', '.join(self.loose)} (standard error up to {worst:.2g} eV)")
        return "; ".join(parts)


def refit(counts_FS: np.ndarray, residual_F: np.ndarray, elements: Sequence[str]) -> Refit:
    """Fit δ.

    Args:
        counts_FS: atoms of each element in each frame that carries an energy.
        residual_F: label less prediction, eV.
        elements: chemical symbols, S.
    """
    n_frames, n_elements = counts_FS.shape
    none = np.zeros(n_elements)
    occurring = int((counts_FS.sum(axis=0) > 0).sum()) if n_frames else 0
    if not n_frames:
        return Refit(none, 0, 0, 0, float("nan"), none, (), ())
    atoms_F = counts_FS.sum(axis=1)
    rows, right = counts_FS / atoms_F[:, None], residual_F / atoms_F
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    rank = int((s > _RANK * s[0]).sum())
    shift = vt[:rank].T @ ((u[:, :rank].T @ right) / s[:rank])
    left = right - rows @ shift
    variance = float(left @ left) / max(n_frames - rank, 1)
    error = np.sqrt(variance * ((vt[:rank] / s[:rank, None]) ** 2).sum(axis=0))
    null = np.linalg.svd(vt[:rank], full_matrices=True)[2][rank:]
    loose = tuple(symbol for symbol, value in zip(elements, error, strict=True) if value > _LOOSE)
    clauses = tuple(indistinct(null, counts_FS, elements)) if len(null) else ()
    return Refit(shift, n_frames, rank, occurring, float(s[0] / s[rank - 1]), error, clauses, loose)
