"""ASE calculator: the model behind ``atoms.get_potential_energy()``, ``get_forces()``, ``get_stress()``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes

from lamella.data.convert import has_volume, stress_from_virial, structure_from_atoms
from lamella.data.inputs import frame_inputs
from lamella.data.keys import ReadReport
from lamella.errors import InputError, StructureError
from lamella.geometry.moving import MovingGraph
from lamella.models.memory import sizes_of
from lamella.models.potential import Potential
from lamella.models.precision import split_precision
from lamella.use.bounded import Bounded
from lamella.use.inputs import warn_of_ignored_inputs, warn_of_unseen_elements
from lamella.use.predict import Model, runnable

__all__ = ["Calculator"]


class Calculator(AseCalculator):
    """Energy, free_energy (the same), energies, forces and stress of a structure.

    Stress is -virial/volume in ASE's sign (positive under tension) and Voigt order xx, yy, zz, yz, xz, xy, eV/Å³. Every
    frame with a full-rank cell has one, periodic or not; asking for it elsewhere raises ``PropertyNotImplementedError``.
    Everything is computed in one pass and kept until positions, numbers, cell, pbc or inputs change. Inputs are ``charge``,
    ``spin`` and ``frame_params`` of ``atoms.info``, where the model reads them.

    Attributes:
        model: the potential that runs; shares weights with the one given where neither dtype nor device changed.
        task: which labels it predicts.
        precision: float64, float32, tf32 or bf16.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - as ASE declares it
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: Model,
        task: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        memory: float | None = None,
    ) -> None:
        """A calculator of one task of a model.

        Args:
            model: what :func:`lamella.load` returns (not mutated), or a path it reads.
            task: which labels to predict; may be left out where the model has one task.
            dtype: torch dtype or its name, also ``tf32`` and ``bf16``: float32 with such matrix products
                (docs/precision.md); the model's where not given.
            device: torch device or its name; the model's where not given.
            memory: GB that a prediction may take; four fifths of what is free now where not given.

        Raises:
            InputError: unknown task, dtype or device; several tasks and none named.
            CheckpointError: a path that holds no model.
        """
        super().__init__()
        weights, products = split_precision(dtype)
        self.model: Potential = runnable(model, weights, device)
        self.task: str = self.model.tasks[self.model.task_index(task)]
        self._graph = MovingGraph(self.model.graph_spec, self.model.device)
        self._run = Bounded(self.model, None if memory is None else 1e9 * memory, products)
        self.precision = products if products != "full" else str(self.model.dtype).removeprefix("torch.")
        self._said: set[str] = set()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; ASE itself does not look at ``info``."""
        changed: list[str] = super().check_state(atoms, tol=tol)
        if changed or self.atoms is None:
            return changed
        before, now = (frame_inputs(one.info, None, "structure", ReadReport()) for one in (self.atoms, atoms))
        same = before.keys() == now.keys() and all(np.array_equal(before[name], now[name]) for name in now)
        return changed if same else ["info"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results``; called by ASE.

        Raises:
            PropertyNotImplementedError: stress of a structure without a full-rank cell.
            StructureError: no energy can be given to the structure; the message says why.
            ResourceError: not enough memory.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise InputError("the calculator has no atoms: set atoms.calc = calculator and ask the atoms.")
        frame = structure_from_atoms(self.atoms, "structure")
        warn_of_ignored_inputs(frame, self._graph.spec, self._said)
        warn_of_unseen_elements(frame, self.model, self.task, self._said)
        solid = has_volume(frame.cell)
        if "stress" in properties and not solid:
            raise PropertyNotImplementedError("stress needs a cell of three independent vectors; this structure has none.")
        prediction = self._run(self._graph(frame), self.task)
        energy = float(prediction.energy[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.atom_energy.double().cpu().numpy(),
            "forces": prediction.forces.double().cpu().numpy(),
        }
        if solid:
            self.results["stress"] = stress_from_virial(prediction.virial[0].double().cpu().numpy(), frame.cell)

    def memory_plan(self, atoms: Atoms) -> str:
        """What memory a structure will take, for people: "about 1.2 GB of 8.0 GB"."""
        return self._run.plan(sizes_of(self._graph(structure_from_atoms(atoms, "structure"))))

    def require_neighbors(self, atoms: Atoms, source: str = "structure") -> None:
        """Refuse a structure in which no atom has a neighbour: the model knows nothing of it but its elements.

        Raises:
            StructureError: no two atoms within the cutoff, or no graph at all.
        """
        if self._graph(structure_from_atoms(atoms, source)).n_edges == 0:
            raise StructureError(
                f"{source}: no atom has a neighbour within the model's cutoff of {self.model.cutoff:g} Å, so "
                "nothing acts on any atom; check the units (positions are in Å), the cell and pbc."
            )

    def _get_name(self) -> str:
        return "lamella"
