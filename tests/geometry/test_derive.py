"""Forces and virial from edge gradients equal finite differences of a pair energy and ASE's Lennard-Jones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones

from geometry.structures import CASES, frame_arrays
from lamella.geometry.derive import edge_gradient, forces_and_virial
from lamella.geometry.graph import build_graph, collate
from lamella.types import Frame, GraphSpec

CUTOFF = 4.0


def pair_energy(vec):
    """A pair energy that is C³ at the cutoff."""
    r = vec.norm(dim=1)
    return torch.exp(-r) * (1.0 - r / CUTOFF) ** 4


def frame_of(positions, cell, pbc):
    return Frame(np.ones(len(positions), dtype=np.int64), positions, cell, pbc)


def energy_of(frame):
    graph = build_graph(frame, GraphSpec((1,), CUTOFF))
    return float(pair_energy(graph.vec).sum())


def derived(graph):
    vec = graph.vec.clone().requires_grad_()
    return forces_and_virial(edge_gradient(pair_energy(vec), vec), graph.vec, graph)


@pytest.mark.parametrize("name", CASES)
def test_forces_equal_finite_differences(name):
    positions, cell, pbc = frame_arrays(name)
    forces, _ = derived(build_graph(frame_of(positions, cell, pbc), GraphSpec((1,), CUTOFF)))
    step = 1e-5
    for atom, axis in ((0, 0), (len(positions) - 1, 1), (len(positions) // 2, 2)):
        up, down = positions.copy(), positions.copy()
        up[atom, axis] += step
        down[atom, axis] -= step
        slope = (energy_of(frame_of(up, cell, pbc)) - energy_of(frame_of(down, cell, pbc))) / (2 * step)
        assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_virial_equals_finite_strain(name):
    positions, cell, pbc = frame_arrays(name)
    _, virial = derived(build_graph(frame_of(positions, cell, pbc), GraphSpec((1,), CUTOFF)))
    step = 1e-6
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = step
            up, down = np.eye(3) + strain, np.eye(3) - strain
            slope = energy_of(frame_of(positions @ up, cell @ up, pbc)) - energy_of(
                frame_of(positions @ down, cell @ down, pbc)
            )
            assert float(virial[0, a, b]) == pytest.approx(-slope / (2 * step), abs=1e-7)


def test_virial_is_minus_volume_times_the_stress_of_ase():
    """Lennard-Jones in ASE: an independent calculator with ASE's convention."""
    positions, cell, _ = frame_arrays("crystal")
    cell, positions = 1.6 * cell, 1.6 * positions
    atoms = Atoms("H" * len(positions), positions=positions, cell=cell, pbc=True)
    atoms.calc = LennardJones(sigma=1.8, epsilon=0.3, rc=CUTOFF, smooth=False)
    graph = build_graph(frame_of(positions, cell, np.ones(3, bool)), GraphSpec((1,), CUTOFF))
    vec = graph.vec.clone().requires_grad_()
    s6 = (1.8 / vec.norm(dim=1)) ** 6
    grad = edge_gradient(0.5 * 4 * 0.3 * (s6 * s6 - s6), vec)
    forces, virial = forces_and_virial(grad, graph.vec, graph)
    np.testing.assert_allclose(forces.numpy(), atoms.get_forces(), rtol=1e-10, atol=1e-10)
    expected = -atoms.get_volume() * atoms.get_stress(voigt=False)
    np.testing.assert_allclose(virial[0].numpy(), expected, rtol=1e-10, atol=1e-9)


def test_every_frame_of_a_batch_has_its_own_virial():
    graphs = [build_graph(frame_of(*frame_arrays(name)), GraphSpec((1,), CUTOFF)) for name in CASES]
    forces, virial = derived(collate(graphs))
    alone = [derived(graph) for graph in graphs]
    torch.testing.assert_close(forces, torch.cat([pair[0] for pair in alone]), rtol=0, atol=1e-14)
    torch.testing.assert_close(virial, torch.cat([pair[1] for pair in alone]), rtol=0, atol=1e-13)


def test_energy_without_geometry_has_no_gradient():
    vec = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(edge_gradient(torch.zeros(2), vec), torch.zeros(4, 3, dtype=torch.float64))
    weight = torch.ones(2, requires_grad=True)
    assert torch.equal(edge_gradient(weight * 2, vec), torch.zeros(4, 3, dtype=torch.float64))


def test_gradient_can_be_differentiated_again_where_asked():
    vec = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    grad = edge_gradient((vec**3).sum(), vec, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), vec)
    torch.testing.assert_close(second, 6 * vec.detach())
    assert not edge_gradient((vec**3).sum(), vec).requires_grad
