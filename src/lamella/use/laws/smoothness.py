"""Laws that the energy is C² while neighbours come and go.

A probe atom leaves a group of three along x. Energy E, forces F and their derivative F' along the path are exact (automatic
differentiation), so a jump at a known distance r_c is the difference of two one-sided values 2 δ apart, with no finite
difference in it.

**What a switch explains.** Let D(r) = E(with the edge) - E(without it), both at the same positions: the edge's whole effect.
An edge that enters the network only multiplied by its switch w has D ∝ w as w -> 0, so |D| ≤ K₀ w, |D_F| ≤ K₁ (w + |w'|) and
|D_F'| ≤ K₂ (w + |w'| + |w''|), with constants K of the model that are measured where the switch is still well above zero. At
the cutoff the jump is D itself and must obey the same: with the polynomial switch it vanishes with δ, with the exponential
one it is what w, w', w'' leave there. An edge that is not switched off has a jump millions of times larger. D is taken away
by taking the edge from the graph, which only works for the cutoffs that the graph knows; at one inside a model (a third one)
K is 0, and nothing is allowed but what a smooth function does in 2 δ.

**SiLUT.** Its second derivative jumps wherever a pre-activation passes the threshold, anywhere along the path, which is no
fault of the cutoff. The interval of 2 δ is so short (some 1e-9 Å) that hardly ever one falls inside it; of three δ the best
counts, since a jump at the cutoff itself is in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from lamella.geometry.graph import build_graph, collate
from lamella.geometry.segment import segment_sum
from lamella.geometry.switch import SWITCHES, Shell
from lamella.types import Frame, Graph, GraphSpec
from lamella.use.laws.rows import Check
from lamella.use.laws.structures import frame_of, moved, rotation
from lamella.use.laws.subject import FLOOR, Subject, dressed, explained, worst

__all__ = ["continuity", "cutoff_law", "inner_cutoffs_law"]

_DELTAS = (3e-9, 1e-9, 3e-10)
_SLACK = 5.0
"""How much K may vary between where it is measured and the cutoff, a few tenths of an Å on (measured: up to 1.1)."""

_ROUND_OFF = 1e-12
"""Of the largest E, F or F' on the path."""


_SWITCH_ROUND_OFF = 4e-15
"""Of w and its derivatives, which are differences of numbers near 1."""


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


def _paths(subject: Subject, gap: float) -> list[_Path]:
    """Atom 1 at the origin, two more ahead of it by over half of the switching range, so that atom 1 leaves reach first.

    Where elements are excluded from each other's sight, there is one path for a probe that is seen and one for a probe that
    is not: a slot that it fills may count all the same.
    """
    ahead = max(1.2, 0.6 * gap)
    turn = rotation(subject.rng())
    places = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [ahead, 0.85, 0.1], [ahead + 0.15, -0.7, 0.6]])
    return [_Path(frame_of(numbers, places @ turn.T), turn[:, 0]) for numbers in _probes(subject)]


def _probes(subject: Subject) -> list[list[int]]:
    """Four elements, the probe's first; those that have an energy before those that have none."""
    config, numbers = subject.model.config, np.unique(subject.cluster.numbers).tolist()
    numbers.sort(key=lambda z: chemical_symbols[z] in config.excluded_atoms)
    groups: dict[bool, list[int]] = {}
    for probe in numbers:
        pairs = {z: frozenset((chemical_symbols[probe], chemical_symbols[z])) for z in numbers}
        edges = [z for z in numbers if pairs[z] not in map(frozenset, config.excluded_pairs)]
        hidden = {z: pairs[z] in map(frozenset, config.backbone.excluded_pairs) for z in edges}
        for kind in set(hidden.values()):
            # atom 1 first: the one that leaves
            groups.setdefault(kind, [probe, *np.resize([*(z for z in edges if hidden[z] == kind), *numbers], 3).tolist()])
    return list(groups.values()) or [np.resize(numbers, 4).tolist()]


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


def _jets(subject: Subject, path: _Path, distances: Sequence[float], specs: Sequence[GraphSpec]) -> _Jet:
    """Jets at the distances, each graph built by its own specification."""
    graphs = [build_graph(dressed(subject.model, path.at(r)), spec) for r, spec in zip(distances, specs, strict=True)]
    return _jet(subject, path, collate(graphs).to(subject.model.device), len(graphs))


def _switch(shell: Shell, r: float) -> np.ndarray:
    """w, |w'|, |w''| at r."""
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    w = SWITCHES[shell.kind](x, shell.start, shell.end)
    (first,) = torch.autograd.grad(w, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    return np.abs([float(value.detach()) for value in (w, first, second)])


def _effect(with_edge: _Jet, without: _Jet) -> np.ndarray:
    """|D|, max|D_F|, max|D_F'| at every point, (n, 3)."""
    return np.array(
        [[np.abs(a - b).max() for a, b in zip(x, y, strict=True)] for x, y in zip(with_edge, without, strict=True)]
    ).T


def _constants(subject: Subject, path: _Path, shell: Shell) -> np.ndarray:
    """K₀, K₁, K₂ of the edge between probe and atom 1; 0 where no graph can do without that edge alone."""
    full = subject.model.graph_spec
    if not any(math.isclose(shell.end, end) for end in (full.cutoff, full.short_cutoff)):
        return np.zeros(3)

    def without(r: float) -> GraphSpec:
        short = min(full.short_cutoff, r - 1e-9)
        return replace(full, short_cutoff=short, cutoff=r - 1e-9 if shell.end == full.cutoff else full.cutoff)

    # where the switch has fallen to between 0.3 and 0.003: the edge still matters, and its effect is nearly linear in w
    inside = [r for r in np.linspace(shell.start, shell.end, 200)[1:-1] if 3e-3 < _switch(shell, r)[0] < 0.3][::4]
    measured = _effect(
        _jets(subject, path, inside, [full] * len(inside)), _jets(subject, path, inside, [without(r) for r in inside])
    )
    nominal = np.cumsum([_switch(shell, r) for r in inside], axis=1)
    return (measured / nominal).max(axis=0)


def _crossing(subject: Subject, law: str, shell: Shell, path: _Path) -> Check:
    """The row for the probe crossing one cutoff."""
    full = subject.model.graph_spec
    constants = _constants(subject, path, shell)
    sides = [shell.end + sign * delta for delta in _DELTAS for sign in (-1.0, 1.0)]
    jet = _jets(subject, path, sides, [full] * len(sides))
    sizes = np.array([np.abs(part).max() for part in jet])
    jumps = _effect(_Jet(*(part[0::2] for part in jet)), _Jet(*(part[1::2] for part in jet)))
    left = np.cumsum([_switch(shell, shell.end - delta) for delta in _DELTAS], axis=1)
    # over 2 δ a smooth function moves by 2 δ times its derivative
    rates = np.array([sizes[1], sizes[2], _third(subject, path, shell.end)])
    allowed = (
        _SLACK * constants * (left + _SWITCH_ROUND_OFF)
        + 4.0 * np.array(_DELTAS)[:, None] * rates
        + _ROUND_OFF * np.maximum(sizes, FLOOR)
    )
    ratio = (jumps / allowed).max(axis=1)
    best = int(np.argmin(ratio))
    w = _switch(shell, shell.end - _DELTAS[best])
    said = (
        f"Jumps at the {shell.name}, {shell.end:g} Å: E {jumps[best][0]:.1e} eV, F {jumps[best][1]:.1e} eV/Å, F' "
        f"{jumps[best][2]:.1e} eV/Å², of {allowed[best][0]:.1e}, {allowed[best][1]:.1e}, {allowed[best][2]:.1e} that what "
        f"the {shell.kind} switch leaves there explains (w {w[0]:.1e}, |w'| {w[1]:.1e}, |w''| {w[2]:.1e})."
    )
    return Check(law, float(ratio[best]), 1.0, said)


def _third(subject: Subject, path: _Path, cutoff: float) -> float:
    """Size of F'' on either side of the cutoff: change of F' over 1e-6 Å."""
    places = [cutoff + step for step in (-2e-6, -1e-6, 1e-6, 2e-6)]
    slope = _jets(subject, path, places, [subject.model.graph_spec] * 4).slope
    return float(np.abs(slope[1::2] - slope[0::2]).max() / 1e-6)


def _worst_crossing(subject: Subject, law: str, shells: Sequence[Shell]) -> Check:
    rows = [_crossing(subject, law, shell, path) for shell in shells for path in _paths(subject, shell.end - shell.start)]
    return explained(max(rows, key=_severity), subject.rough + subject.kinks)


def _severity(row: Check) -> float:
    return row.violation if np.isfinite(row.violation) else np.inf


def cutoff_law(subject: Subject) -> Check:
    """E, F and F' are continuous where an edge appears."""
    shells = [shell for shell in subject.shells if shell.end == subject.model.cutoff]
    return _worst_crossing(subject, "smooth at the cutoff", shells)


def inner_cutoffs_law(subject: Subject) -> Check:
    """E, F and F' are continuous where an edge begins to count for another part of the model: angles, layers."""
    shells = [shell for shell in subject.shells if shell.end != subject.model.cutoff]
    if not shells:
        return Check("smooth at inner cutoffs", 0.0, 0.0, "The model has no cutoff but the longest.")
    return _worst_crossing(subject, "smooth at inner cutoffs", shells)


def continuity(subject: Subject) -> Check:
    """E and F are continuous all along the path, also where no cutoff is known to be.

    On a grid of distances the energy must follow from its first and second derivatives (Hermite's rule, error h⁵ E⁽⁵⁾/720).
    The interval where it does so worst is divided again and again: what is left of a smooth function vanishes with the
    interval, a jump stays. A switch leaves its share w of what the probe does to the energy on the whole path.
    """
    rows = [_scanned(subject, path) for path in _paths(subject, 2.0)]
    return explained(max(rows, key=_severity), subject.rough + subject.kinks)


def _scanned(subject: Subject, path: _Path) -> Check:
    """The row of continuity for one path."""
    model = subject.model
    low, high, size = 2.0, 1.05 * model.cutoff, 0.0
    for points in (97, 17, 17, 17, 17, 17):
        r = np.linspace(low, high, points)
        jet = _jet(subject, path, model.graph([dressed(model, path.at(x)) for x in r]), points)
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
    scale = np.array([np.abs(jet.energy).max(), np.abs(jet.forces).max() + np.abs(jet.slope).max()])
    noise = _ROUND_OFF * np.maximum(scale, FLOOR)
    allowed = _SLACK * left * size + drift + noise
    said = (
        f"Probe moved from 2 Å to beyond the cutoff: largest jump at {low:.4f} Å: {jumps[0]:.1e} eV, {jumps[1]:.1e} eV/Å, "
        f"of {allowed[0]:.1e} and {allowed[1]:.1e} that switches and round-off explain."
    )
    return Check("continuity", worst((jumps / allowed).tolist()), 1.0, said)


def _left(subject: Subject) -> list[np.ndarray]:
    """w, |w'|, |w''| that the switches leave at their cutoffs."""
    return [_switch(shell, shell.end - min(_DELTAS)) for shell in subject.shells]
