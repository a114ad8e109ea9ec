"""Models that each break one law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lamella.geometry.graph import build_graph, collate, graph_from_edges
from lamella.geometry.segment import segment_sum
from lamella.models.potential import Potential


def per_edge(graph, value_E):
    """Σ over the edges of every atom."""
    return segment_sum(value_E, graph.src)


class OnAtoms(Potential):
    """A model with something added to its atomic energies."""

    def extra(self, graph, vec):
        raise NotImplementedError

    def network_energy(self, graph, vec_E3, task):
        return super().network_energy(graph, vec_E3, task) + self.extra(graph, vec_E3)


class OnFrames(Potential):
    """A model that changes frames before it makes a graph of them."""

    def see(self, frame):
        raise NotImplementedError

    def graph(self, frames):
        return super().graph([self.see(frame) for frame in frames])


class OnPredictions(Potential):
    """A model that changes what it predicted."""

    def say(self, prediction, graph):
        raise NotImplementedError

    def forward(self, graph, task=None, create_graph=False):
        return self.say(super().forward(graph, task, create_graph), graph)


def scaled(frame, factor):
    return replace(frame, positions=frame.positions * factor, cell=frame.cell * factor)


class AbsolutePositions(OnFrames):
    def see(self, frame):
        return scaled(frame, 1.0 + 1e-6 * np.tanh(frame.positions[0, 0]))


class PreferredAxis(OnAtoms):
    def extra(self, graph, vec):
        return 1e-6 * per_edge(graph, torch.sin(vec[:, 0] ** 2))


class Chiral(OnAtoms):
    def extra(self, graph, vec):
        r = vec.norm(dim=1, keepdim=True)
        w = (1.0 - (r / self.cutoff) ** 2) ** 3
        a, b, c = (per_edge(graph, vec * w * f) for f in (1.0, r, torch.cos(r)))
        return 1e-6 * torch.tanh((torch.linalg.cross(a, b) * c).sum(dim=1))


class AtomOrder(OnAtoms):
    def extra(self, graph, vec):
        within = torch.arange(graph.n_atoms) - graph.frame.ptr[graph.frame.index]
        return 1e-6 * within.double()


class EdgeOrder(OnAtoms):
    def extra(self, graph, vec):
        within = torch.arange(graph.n_edges) - graph.src.ptr[graph.src.index]
        return 1e-6 * per_edge(graph, torch.sin(within.double()) * (self.cutoff - vec.norm(dim=1)) ** 3)


class NearestImage(Potential):
    """Takes one image of every pair, as codes for large boxes do."""

    def graph(self, frames):
        graphs = []
        for frame in frames:
            whole = build_graph(frame, self.graph_spec)
            src, dst, vec = whole.src.index.numpy(), whole.dst.index.numpy(), whole.vec.numpy()
            order = np.lexsort((np.linalg.norm(vec, axis=1), dst, src))
            _, first = np.unique(np.stack([src, dst], axis=1)[order], axis=0, return_index=True)
            keep = np.sort(order[first])
            edges = (src[keep], dst[keep], vec[keep])
            graphs.append(graph_from_edges(whole.species.numpy(), edges, self.graph_spec, whole.inputs))
        return collate(graphs)


class NoWrapping(OnFrames):
    def see(self, frame):
        if not frame.pbc.all():
            return frame
        outside = np.floor(frame.positions @ np.linalg.inv(frame.cell)).any()
        return scaled(frame, 1.0 + 1e-6 * outside)


class Handed(OnFrames):
    def see(self, frame):
        return scaled(frame, 1.0 + 1e-6 * (np.linalg.det(frame.cell) < 0))


class CellShape(OnFrames):
    def see(self, frame):
        a, b, _ = np.linalg.norm(frame.cell, axis=1)
        return scaled(frame, 1.0 + 1e-6 * np.tanh(a - b))


class AllPeriodic(OnFrames):
    def see(self, frame):
        return replace(frame, pbc=np.full(3, frame.pbc.any()))


class ForcesOff(OnPredictions):
    def say(self, prediction, graph):
        return prediction._replace(forces=prediction.forces * (1.0 + 1e-5))


class VirialSign(OnPredictions):
    def say(self, prediction, graph):
        return prediction._replace(virial=-prediction.virial)


class VirialTransposed(OnPredictions):
    def say(self, prediction, graph):
        lower = torch.tril(torch.ones(3, 3, dtype=torch.float64))
        return prediction._replace(virial=prediction.virial * lower)


class VirialHalved(OnPredictions):
    def say(self, prediction, graph):
        return prediction._replace(virial=0.5 * prediction.virial)


class Drift(OnPredictions):
    def say(self, prediction, graph):
        return prediction._replace(forces=prediction.forces + 1e-9)


class Swirl(OnPredictions):
    def say(self, prediction, graph):
        turn = torch.linalg.cross(torch.tensor([[0.0, 0.0, 1e-8]], dtype=torch.float64).expand_as(graph.vec), graph.vec)
        return prediction._replace(forces=prediction.forces + segment_sum(turn, graph.src))


class ArcCosine(OnAtoms):
    def extra(self, graph, vec):
        unit = vec / vec.norm(dim=1, keepdim=True)
        near = vec.norm(dim=1) < 0.8 * self.cutoff
        one_centre = graph.src.index[:, None] == graph.src.index[None, :]
        angle = torch.acos((unit @ unit.T).clamp(-1.0, 1.0)) * (one_centre & near[:, None] & near[None, :])
        return 1e-3 * per_edge(graph, angle.sum(dim=1))


class Intensive(OnAtoms):
    def extra(self, graph, vec):
        count = (graph.frame.ptr[1:] - graph.frame.ptr[:-1]).double()
        return 1e-6 / count[graph.frame.index]


class Spread(OnAtoms):
    """Feels how far apart the atoms of a frame are listed: long-ranged."""

    def extra(self, graph, vec):
        edges = segment_sum(torch.ones(graph.n_edges, dtype=torch.float64), graph.src)
        return 1e-6 * segment_sum(edges, graph.frame)[graph.frame.index]


class Lonely(OnPredictions):
    def say(self, prediction, graph):
        signs = 1.0 - 2.0 * (torch.arange(graph.n_atoms) % 2)
        return prediction._replace(forces=prediction.forces + 1e-9 * signs[:, None])


class Squeezed(OnPredictions):
    def say(self, prediction, graph):
        return prediction._replace(forces=prediction.forces.squeeze(), atom_energy=prediction.atom_energy.squeeze())


class BatchMean(OnAtoms):
    """Subtracts the mean over the batch: cross-talk between frames."""

    def extra(self, graph, vec):
        inside = per_edge(graph, torch.exp(-(vec**2).sum(dim=1)))
        return 1e-6 * inside.mean().expand(graph.n_atoms)


class RoundedBaseline(Potential):
    def _baseline(self, graph, task):
        return super()._baseline(graph, task).float().double()


class BareCutoff(OnAtoms):
    """An edge term (1 - r/r_c)^power: power 0 breaks E, 1 breaks F, 2 breaks F' at the cutoff."""

    power = 0

    def extra(self, graph, vec):
        return 1e-4 * per_edge(graph, (1.0 - vec.norm(dim=1) / self.cutoff) ** self.power)


class KinkedCutoff(BareCutoff):
    power = 1


class BentCutoff(BareCutoff):
    power = 2


class FlatCutoff(BareCutoff):
    """Lawful: C² at the cutoff."""

    power = 3


class BentInnerCutoff(OnAtoms):
    """An edge term that is only C¹ at the shortest cutoff."""

    def extra(self, graph, vec):
        inside = (1.0 - vec.norm(dim=1) / self.config.backbone.shells[-1].end).clamp(min=0.0)
        return 1e-4 * per_edge(graph, inside**2)


class HiddenStep(OnAtoms):
    def extra(self, graph, vec):
        return 1e-6 * per_edge(graph, (vec.norm(dim=1) < 2.7321).double())


class HiddenKink(OnAtoms):
    def extra(self, graph, vec):
        return 1e-3 * per_edge(graph, (vec.norm(dim=1) - 2.7321).abs())


class Truncated(Potential):
    """Keeps the two nearest neighbours of every atom, as a ``sel`` that is too small does in other codes."""

    def graph(self, frames):
        graphs = []
        for frame in frames:
            whole = build_graph(frame, self.graph_spec)
            src, dst, vec = whole.src.index.numpy(), whole.dst.index.numpy(), whole.vec.numpy()
            order = np.lexsort((np.linalg.norm(vec, axis=1), src))
            rank = np.arange(len(src)) - whole.src.ptr.numpy()[src[order]]
            keep = np.sort(order[rank < 2])
            edges = (src[keep], dst[keep], vec[keep])
            graphs.append(graph_from_edges(whole.species.numpy(), edges, self.graph_spec, whole.inputs))
        return collate(graphs)


class WrapsInPlace(OnFrames):
    def see(self, frame):
        if frame.pbc.all():
            frame.positions[:] -= frame.cell[0]
        return frame


class AsksForGradients(Potential):
    def forward(self, graph, task=None, create_graph=False):
        graph.vec.requires_grad_()
        return super().forward(graph, task, create_graph)


class ReadsMemory(OnFrames):
    """Takes numbers in the order in which they lie in memory."""

    def see(self, frame):
        flat = frame.positions.base if frame.positions.base is not None else frame.positions
        return replace(frame, positions=np.nan_to_num(flat.reshape(-1)[: 3 * len(frame)].reshape(-1, 3)))


class AnyElement(OnFrames):
    def see(self, frame):
        known = np.isin(frame.numbers, self.numbers)
        return replace(frame, numbers=np.where(known, frame.numbers, self.numbers[0]))


class HalfPrecision(Potential):
    def network_energy(self, graph, vec_E3, task):
        low = vec_E3.half().double() if self.dtype == torch.float32 else vec_E3
        return super().network_energy(graph, low, task)


class Forgetful(OnPredictions):
    """Adds a number that is neither weight nor configuration, so that no file holds it."""

    def say(self, prediction, graph):
        return prediction._replace(forces=prediction.forces + 1e-13)


class NotANumber(OnPredictions):
    def say(self, prediction, graph):
        return prediction._replace(energy=prediction.energy * torch.nan)


MUTANTS = {
    "translation": (AbsolutePositions,),
    "rotation": (PreferredAxis,),
    "reflection": (PreferredAxis, Chiral),
    "permutation of atoms": (AtomOrder,),
    "permutation of edges": (EdgeOrder,),
    "supercell": (NearestImage, Intensive, Spread),
    "wrapping": (NoWrapping,),
    "other cell vectors": (Handed, CellShape),
    "mixed periodicity": (AllPeriodic,),
    "forces": (ForcesOff,),
    "virial": (VirialSign, VirialTransposed, VirialHalved),
    "sum of forces": (Drift,),
    "torque": (Swirl, PreferredAxis),
    "collinear angles": (ArcCosine,),
    "distant fragments": (Intensive, Spread),
    "isolated atoms": (Lonely, AtomOrder),
    "one atom": (Squeezed, NotANumber),
    "batch equals singles": (BatchMean, Squeezed, NotANumber),
    "no gradient across frames": (BatchMean,),
    "baseline": (RoundedBaseline,),
    "smooth at the cutoff": (BareCutoff, KinkedCutoff, BentCutoff),
    "smooth at inner cutoffs": (BentInnerCutoff,),
    "continuity": (HiddenStep, HiddenKink, Truncated),
    "inputs kept": (WrapsInPlace, AsksForGradients),
    "non-contiguous inputs": (ReadsMemory,),
    "unknown element": (AnyElement,),
    "float32 against float64": (HalfPrecision,),
    "save and load": (Forgetful,),
}
"""Every law, with models that break it."""
