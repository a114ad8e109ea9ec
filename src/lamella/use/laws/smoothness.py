"""Laws that the energy is C² while neighbours come and go.

A probe atom leaves a group of three along x. Energy E, forces F and their derivative F' along the path are exact (automatic
differentiation), so a jump at a known distance r_c is the difference of two one-sided values 2 δ apart, with no finite
difference in it.

**What a switch explains.** Let D(r) = E(with the edge) - E(without it), both at the same positions: the edge's whole effect.
An edge that enters the network only multiplied by its switch w has D ∝ w as w -> 0, so |D| ≤ K₀ w, |D_F| ≤ K₁ (w + |w'|) and
|D_F'| ≤ K₂ (w + |w'| + |w''|), with constants K of the model that are measured where the switch is still well above zero. At
the cutoff the jump is D itself and must obey the same: with the polynomial switch it vanishes with δ, with the exponential
one it is what w, w', w'' leave there. An edge that is not switched off has a jump millions of times larger.

**SiLUT.** Its second derivative jumps wherever a pre-activation passes the threshold, anywhere along the path, which is no
fault of the cutoff. The interval of 2 δ is so short (some 1e-9 Å) that hardly ever one falls inside it; of three δ the best
counts, since a jump at the cutoff itself is in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lamella.geometry.graph import build_graph, collate
from lamella.geometry.segment import segment_sum
from lamella.geometry.switch import SWITCHES
from lamella.types import Frame, Graph
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import frame_of, moved, rotation
from lamella.use.laws.subject import Subject, worst

__all__ = ["angle_cutoff_law", "continuity", "cutoff_law"]

_DELTAS = (3e-9, 1e-9, 3e-10)
_SLACK = 5.0
"""How much K may vary between where it is measured and the cutoff, a few tenths of an Å on (measured: up to 1.1)."""

_ROUND_OFF = 1e-12
"""Of the largest E, F or F' on the path."""


class _Jet(NamedTuple):
    """Energy (n,), forces (n, atoms, 3) and their derivative along the path, at n points of it."""

    energy: np.ndarray
    forces: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True)
class _Path:
    """The probe (atom 0) at distance r from atom 1, along a fixed direction."""

    base: Frame
    direction: np.ndarray

    def at(self, r: float) -> Frame:
        positions = self.base.positions.copy()
        positions[0] = positions[1] + r * self.direction
        return moved(self.base, positions)


def _path(subject: Subject, gap: float) -> _Path:
    """Atom 1 at the origin, two more ahead of it by over half of the switching range, so that atom 1 leaves reach first."""
    ahead = max(1.2, 0.6 * gap)
    numbers = np.resize(subject.cluster.numbers, 4).tolist()
    turn = rotation(subject.rng())
    places = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [ahead, 0.85, 0.1], [ahead + 0.15, -0.7, 0.6]])
    return _Path(frame_of(numbers, places @ turn.T), turn[:, 0])


def _jet(subject: Subject, path: _Path, graph: Graph, points: int) -> _Jet:
    """E, F and dF/dr: one derivative for F, one of its product with the direction for F' (the Hessian is symmetric)."""
    atoms = len(path.base)
    ends = torch.arange(points, device=graph.species.device) * atoms  # the probe of each frame
    along = torch.as_tensor(path.direction, device=graph.vec.device)
    leaving = torch.isin(graph.dst.index, ends).double() - torch.isin(graph.src.index, ends).double()
    pull_E3 = leaving[:, None] * along
    vec_E3 = graph.vec.detach().clone().requires_grad_()
    atom_energy_N = subject.model.atom_energy(graph, vec_E3, subject.task)
    (grad_E3,) = torch.autograd.grad(atom_energy_N.sum(), vec_E3, create_graph=True)
    (bend_E3,) = torch.autograd.grad((grad_E3 * pull_E3).sum(), vec_E3)

    def on_atoms(edge_E3: Tensor) -> np.ndarray:
        total = segment_sum(edge_E3, graph.src) - segment_sum(edge_E3, graph.dst)
        return total.detach().cpu().numpy().reshape(points, atoms, 3)

    energy_F = segment_sum(atom_energy_N, graph.frame).detach().cpu().numpy()
    return _Jet(energy_F, on_atoms(grad_E3), on_atoms(bend_E3))


def _jets(subject: Subject, path: _Path, distances: Sequence[float], reach: Sequence[tuple[float, float]]) -> _Jet:
    """Jets at the distances, each graph built with its own (cutoff, angle cutoff)."""
    numbers = subject.model.numbers
    graphs = [build_graph(path.at(r), numbers, *cut) for r, cut in zip(distances, reach, strict=True)]
    return _jet(subject, path, collate(graphs).to(subject.model.device), len(graphs))


def _switch(subject: Subject, r: float, start: float, cutoff: float) -> np.ndarray:
    """w, |w'|, |w''| at r."""
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    w = SWITCHES[subject.model.config.backbone.switch](x, start, cutoff)
    (first,) = torch.autograd.grad(w, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    return np.abs([float(value.detach()) for value in (w, first, second)])


def _effect(with_edge: _Jet, without: _Jet) -> np.ndarray:
    """|D|, max|D_F|, max|D_F'| at every point, (n, 3)."""
    return np.array(
        [[np.abs(a - b).max() for a, b in zip(x, y, strict=True)] for x, y in zip(with_edge, without, strict=True)]
    ).T


def _crossing(subject: Subject, law: str, start: float, cutoff: float, angular: bool) -> Check:
    """The row for the probe crossing one cutoff."""
    model, path = subject.model, _path(subject, cutoff - start)
    full = (model.cutoff, model.angle_cutoff)

    def without(r: float) -> tuple[float, float]:
        return (full[0], r - 1e-9) if angular else (r - 1e-9, min(full[1], r - 1e-9))

    # where the switch has fallen to between 0.3 and 0.003: the edge still matters, and its effect is nearly linear in w
    inside = [r for r in np.linspace(start, cutoff, 200)[1:-1] if 3e-3 < _switch(subject, r, start, cutoff)[0] < 0.3][::4]
    measured = _effect(
        _jets(subject, path, inside, [full] * len(inside)), _jets(subject, path, inside, [without(r) for r in inside])
    )
    nominal = np.cumsum([_switch(subject, r, start, cutoff) for r in inside], axis=1)
    constants = (measured / nominal).max(axis=0)
    sides = [cutoff + sign * delta for delta in _DELTAS for sign in (-1.0, 1.0)]
    jet = _jets(subject, path, sides, [full] * len(sides))
    sizes = np.array([np.abs(part).max() for part in jet])
    jumps = _effect(_Jet(*(part[0::2] for part in jet)), _Jet(*(part[1::2] for part in jet)))
    left = np.cumsum([_switch(subject, cutoff - delta, start, cutoff) for delta in _DELTAS], axis=1)
    # over 2 δ a smooth function moves by 2 δ times its derivative
    rates = np.array([sizes[1], sizes[2], _third(subject, path, cutoff, full)])
    allowed = _SLACK * constants * left + 4.0 * np.array(_DELTAS)[:, None] * rates + _ROUND_OFF * sizes
    ratio = (jumps / allowed).max(axis=1)
    best = int(np.argmin(ratio))
    w = _switch(subject, cutoff - _DELTAS[best], start, cutoff)
    kind = model.config.backbone.switch
    said = (
        f"Jumps at {cutoff:g} Å: E {jumps[best][0]:.1e} eV, F {jumps[best][1]:.1e} eV/Å, F' {jumps[best][2]:.1e} eV/Å², of "
        f"{allowed[best][0]:.1e}, {allowed[best][1]:.1e}, {allowed[best][2]:.1e} that what the {kind} "
        f"switch leaves there explains (w {w[0]:.1e}, |w'| {w[1]:.1e}, |w''| {w[2]:.1e})."
    )
    return Check(law, float(ratio[best]), 1.0, said)


def _third(subject: Subject, path: _Path, cutoff: float, full: tuple[float, float]) -> float:
    """Size of F'' just outside the cutoff, where the edge is gone: change of F' over 1e-6 Å."""
    jet = _jets(subject, path, [cutoff + 1e-6, cutoff + 2e-6], [full] * 2)
    return float(np.abs(jet.slope[1] - jet.slope[0]).max() / 1e-6)


def cutoff_law(subject: Subject) -> Check:
    """E, F and F' are continuous where an edge appears."""
    backbone = subject.model.config.backbone
    return _crossing(subject, "smooth at the cutoff", backbone.switch_start, backbone.cutoff, angular=False)


def angle_cutoff_law(subject: Subject) -> Check:
    """E, F and F' are continuous where an edge begins to form angles."""
    backbone = subject.model.config.backbone
    if not subject.model.angle_cutoff:
        return Check("smooth at the angle cutoff", 0.0, 0.0, "The model has no angles.")
    return _crossing(subject, "smooth at the angle cutoff", backbone.angle_switch_start, backbone.angle_cutoff, angular=True)


def continuity(subject: Subject) -> Check:
    """E and F are continuous all along the path, also where no cutoff is known to be.

    On a grid of distances the energy must follow from its first and second derivatives (Hermite's rule, error h⁵ E⁽⁵⁾/720).
    The interval where it does so worst is divided again and again: what is left of a smooth function vanishes with the
    interval, a jump stays. A switch leaves at most its share w of what the probe does to the energy on the whole path.
    """
    path, model = _path(subject, 2.0), subject.model
    low, high, size = 2.0, 1.05 * model.cutoff, 0.0
    for points in (97, 17, 17, 17, 17, 17):
        r = np.linspace(low, high, points)
        jet = _jet(subject, path, model.graph([path.at(x) for x in r]), points)
        slope, bend = (-(part[:, 0] @ path.direction) for part in (jet.forces, jet.slope))
        h = np.diff(r)
        hermite = 0.5 * h * (slope[1:] + slope[:-1]) - h**2 / 12.0 * np.diff(bend)
        rest = np.abs(np.diff(jet.energy) - hermite)
        if not np.isfinite(rest).all():
            return Check("continuity", float("nan"), 1.0, "Energies along the path are not finite.")
        n = int(np.argmax(rest))
        size = max(size, float(np.ptp(jet.energy)))  # of the first pass, over the whole path
        low, high = float(r[n]), float(r[n + 1])
    jumps = np.array([rest[n], np.abs(jet.forces[n + 1] - jet.forces[n]).max()])
    left = np.cumsum(sum(_left(subject)))[:2]
    drift = np.array([0.0, 4.0 * (high - low) * np.abs(jet.slope).max()])
    noise = _ROUND_OFF * np.array([np.abs(jet.energy).max(), np.abs(jet.forces).max() + np.abs(jet.slope).max()])
    allowed = left * size + drift + noise
    said = (
        f"Probe moved from 2 Å to beyond the cutoff: largest jump at {low:.4f} Å: {jumps[0]:.1e} eV, {jumps[1]:.1e} eV/Å, "
        f"of {allowed[0]:.1e} and {allowed[1]:.1e} that switches and round-off explain."
    )
    return Check("continuity", worst((jumps / allowed).tolist()), 1.0, said)


def _left(subject: Subject) -> list[np.ndarray]:
    """w, |w'|, |w''| that the switches leave at their cutoffs."""
    backbone = subject.model.config.backbone
    pairs = [(backbone.switch_start, backbone.cutoff)]
    if subject.model.angle_cutoff:
        pairs.append((backbone.angle_switch_start, backbone.angle_cutoff))
    return [_switch(subject, cutoff - min(_DELTAS), start, cutoff) for start, cutoff in pairs]
