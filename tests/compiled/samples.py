"""Small models and graphs of every awkward shape."""

from __future__ import annotations

import numpy as np
import torch

from lamella.geometry.graph import build_graph, collate
from lamella.models.backbone import BackboneConfig
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.types import Frame, Graph

SIZES = {
    "node_dim": 6, "edge_dim": 4, "angle_dim": 4, "cutoff": 4.0, "switch_start": 3.2, "angle_cutoff": 2.0,
    "angle_switch_start": 1.5, "edge_sel": 20, "angle_sel": 10, "layers": 2, "axis": 2, "activation": "silut:0.5",
}  # fmt: skip
"""The threshold is low, so that both branches of the activation are taken."""


def model_of(**options: object) -> Potential:
    """A random DPA-3 in float64."""
    return other_model(DPA3Config(**(SIZES | options)))


def other_model(backbone: BackboneConfig) -> Potential:
    """A random model of another architecture in float64."""
    torch.manual_seed(0)
    return Potential(ModelConfig(backbone=backbone, head=HeadConfig(hidden=(5,))), ("H", "O")).cast(torch.float64)


def _frame(numbers: list[int], positions: object, box: float = 0.0) -> Frame:
    pbc = np.full(3, box > 0.0)
    return Frame(np.array(numbers), np.array(positions, dtype=np.float64), box * np.eye(3), pbc)


def _crystal(seed: int, n_atoms: int = 7) -> Frame:
    rng = np.random.default_rng(seed)
    return _frame(list(rng.choice([1, 8], n_atoms)), rng.random((n_atoms, 3)) * 4.5, 4.5)


SAMPLES = {
    "crystal": [_crystal(1)],
    "another crystal": [_crystal(2, 5)],
    "three frames": [_crystal(3), _frame([8], [[0, 0, 0]]), _crystal(4, 4)],
    "molecule": [_frame([1, 8, 1], [[0, 0, 0], [1, 0, 0], [0, 1.5, 0]])],
    "two atoms": [_frame([1, 8], [[0, 0, 0], [1.1, 0, 0]])],
    "edges without angles": [_frame([1, 8, 8], [[0, 0, 0], [2.5, 0, 0], [0, 2.6, 0]])],
    "no edges": [_frame([1, 8], [[0, 0, 0], [30.0, 0, 0]])],
    "one atom": [_frame([8], [[0, 0, 0]])],
    "one atom, many images": [_frame([8], [[0, 0, 0]], 2.2)],
}
"""Frames of a batch by what is special about it."""


def graph_of(model: Potential, name: str) -> Graph:
    """The graph of one of the samples."""
    return collate([build_graph(frame, model.graph_spec) for frame in SAMPLES[name]])


def trained_on(model: Potential, graph: Graph) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Predictions, and the gradient of a loss of energies, forces and virials with respect to every parameter."""
    model.zero_grad()
    prediction = model(graph, create_graph=True)
    target = torch.randn(graph.n_atoms, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = ((prediction.forces - target) ** 2).sum() + (prediction.energy**2).sum() + (prediction.virial**2).sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [part.detach() for part in prediction], gradients
