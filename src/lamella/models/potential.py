"""The potential: a backbone, a head per task (or one shared head), a baseline per task and element.

    E = Σ_i ( F_task(v_i) + baseline_task[Z_i] )         F = -∂E/∂r,   W = -∂E/∂ε

summed in float64 whatever the model's dtype.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from lamella.errors import InputError, RecipeError, nearest
from lamella.geometry.derive import edge_gradient, forces_and_virial
from lamella.geometry.graph import build_graph, collate
from lamella.geometry.segment import segment_sum
from lamella.models.backbone import BackboneConfig, build_backbone
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import EnergyHead, HeadConfig
from lamella.types import Frame, Graph, GraphSpec, Prediction

__all__ = ["ModelConfig", "Potential", "eager"]


class ModelConfig(BaseModel):
    """Backbone and head."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: BackboneConfig = DPA3Config()
    head: HeadConfig = HeadConfig()
    excluded_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of elements, either way round, that are never neighbours."""
    excluded_atoms: tuple[str, ...] = ()
    """Elements whose atoms have no energy, baseline included; others still feel them."""


class Potential(nn.Module):
    """A trained or new model: what :func:`lamella.load` returns.

    Attributes:
        config: hyper-parameters.
        elements: chemical symbols, in the order of the model's species index.
        tasks: names of the tasks (label sources) it was trained for.
        metadata: what else is known of it: data hashes, statistics, recipe, origin.
        compiled: computes energies and their derivatives in place of :func:`eager`, None for that
            (:func:`lamella.compiled.compile_model` sets it).
    """

    compiled: Callable[[Potential, Graph, str | None, bool], tuple[Tensor, Tensor]] | None = None

    def __init__(
        self,
        config: ModelConfig,
        elements: Sequence[str],
        tasks: Sequence[str] = ("default",),
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """A model with random weights and zero baselines.

        With ``config.head.task_dim`` > 0 all tasks share one head and task k is encoded by the unit vector k; with
        ``config.head.shared`` they share it without encoding; otherwise each task has a head of its own.
        """
        super().__init__()
        self.config = config
        self.elements = _checked_elements(elements)
        self.tasks = tuple(tasks)
        self.metadata = dict(metadata or {})
        self._watch_slots = self.metadata.get("origin") == "deepmd-kit"
        self._said_default = False
        backbone = config.backbone
        self._check_known(config)
        self.backbone = build_backbone(backbone, self.elements)
        heads = 1 if config.head.serves_all else len(self.tasks)
        self.heads = nn.ModuleList(
            EnergyHead(config.head, backbone.output_dim, self.elements, backbone.element_heads) for _ in range(heads)
        )
        if 0 < config.head.task_dim < len(self.tasks):
            raise RecipeError(
                f"model.head.task_dim is {config.head.task_dim}, fewer than the {len(self.tasks)} tasks; raise it to that, "
                "or more to leave room for tasks to come."
            )
        self.task_code: Tensor
        self.baseline: Tensor
        self.register_buffer("task_code", torch.eye(len(self.tasks), config.head.task_dim))
        self.register_buffer("baseline", torch.zeros(len(self.tasks), len(self.elements), dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Longest edge, Å."""
        return self.config.backbone.cutoff

    @property
    def angle_cutoff(self) -> float:
        """Longest edge of an angle, Å; 0 for a model whose graph has no angles."""
        backbone = self.config.backbone
        return backbone.short_cutoff if backbone.angles else 0.0

    @property
    def graph_spec(self) -> GraphSpec:
        """Which graph the model reads of a frame."""
        config, backbone = self.config, self.config.backbone
        pairs = tuple((self.elements.index(a), self.elements.index(b)) for a, b in config.excluded_pairs)
        inputs = backbone.inputs + config.head.inputs
        return GraphSpec(self.numbers, backbone.cutoff, backbone.short_cutoff, backbone.angles, pairs, inputs)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers of ``elements``."""
        return tuple(atomic_numbers[symbol] for symbol in self.elements)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return next(self.backbone.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.baseline.device

    def cast(self, dtype: torch.dtype) -> Potential:
        """Change the dtype of weights and statistics in place; baselines stay float64. Returns the model."""
        baseline = self.baseline
        self.to(dtype)
        self.baseline = baseline
        return self

    def task_index(self, task: str | None) -> int:
        """Position of ``task`` in ``tasks``; ``None`` is right where there is one, or one that answers by default.

        A model's ``metadata`` may name such a ``default_task``. Where it answers, that is said once (``UserWarning``).

        Raises:
            InputError: unknown task, or none given where there are several and no default.
        """
        if task is None and len(self.tasks) == 1:
            return 0
        listed = ", ".join(self.tasks)
        default = self.metadata.get("default_task")
        if task is None and default in self.tasks:
            if not self._said_default:
                self._said_default = True
                methods = self.metadata.get("methods")
                method = f" ({methods[default]})" if isinstance(methods, Mapping) and default in methods else ""
                warnings.warn(
                    f"no task was named, so {default}{method} answers; others: task=NAME, --task NAME, one of {listed}.",
                    stacklevel=_callers_level(),
                )
            return self.tasks.index(default)
        if task is None:
            raise InputError(f"the model has several tasks: say which (task=NAME, --task NAME), one of {listed}.")
        if task not in self.tasks:
            raise InputError(f"the model has no task {task!r}{nearest(task, self.tasks)}; it has {listed}.")
        return self.tasks.index(task)

    def graph(self, frames: Sequence[Frame]) -> Graph:
        """The graph of one or many frames, on the model's device.

        Raises:
            StructureError: unknown element, atoms on top of each other, cell without volume, an input of the frame missing.
        """
        spec = self.graph_spec
        graphs = [build_graph(frame, spec) for frame in frames]
        return collate(graphs).to(self.device)

    def describe(self, graph: Graph) -> Tensor:
        """Node features (N, C): what the head reads, before the task's code."""
        return self.backbone(graph, graph.vec)

    def atom_energy(self, graph: Graph, vec_E3: Tensor, task: str | None = None) -> Tensor:
        """Energy of every atom (N,), float64 eV, baseline included."""
        return self.network_energy(graph, vec_E3, task) + self._baseline(graph, task)

    def _energetic(self, graph: Graph) -> Tensor | None:
        """(N,) 0 for atoms of excluded elements, else 1; None where no element is excluded."""
        if not self.config.excluded_atoms:
            return None
        counts = [float(symbol not in self.config.excluded_atoms) for symbol in self.elements]
        return torch.tensor(counts, dtype=torch.float64, device=graph.species.device).index_select(0, graph.species)

    def forward(self, graph: Graph, task: str | None = None, create_graph: bool = False) -> Prediction:
        """Energy, atomic energies, forces and virial of every frame of ``graph``, as tensors.

        Args:
            graph: on the model's device.
            task: which labels to predict.
            create_graph: keep what a loss of forces needs to be differentiated.
        """
        if self._watch_slots:
            self._warn_of_full_slots(graph)
        learned_N, grad_E3 = (self.compiled or eager)(self, graph, task, create_graph)
        atom_energy_N = learned_N + self._baseline(graph, task)
        forces_N3, virial_F33 = forces_and_virial(grad_E3, graph.vec, graph)
        prediction = Prediction(segment_sum(atom_energy_N, graph.frame), atom_energy_N, forces_N3, virial_F33)
        return prediction if create_graph else Prediction(*(value.detach() for value in prediction))

    def _warn_of_full_slots(self, graph: Graph) -> None:
        """Say once where deepmd-kit would have cut neighbours away: lamella never does, so its numbers differ there."""
        for name, most, sel in self.backbone.slots(graph):
            if most > sel:
                self._watch_slots = False
                warnings.warn(
                    f"an atom has {most} neighbours and the model's {name} is {sel}: deepmd-kit drops the farthest there, "
                    "lamella keeps them all, so energies and forces differ from deepmd-kit's.",
                    stacklevel=_callers_level(),
                )

    def network_energy(self, graph: Graph, vec_E3: Tensor, task: str | None = None) -> Tensor:
        """Energy of every atom (N,) without its baseline, float64 eV: what is learned."""
        index = self.task_index(task)
        head = self.heads[index if len(self.heads) > 1 else 0]
        energy_N = head(self.backbone(graph, vec_E3), graph, self.task_code[index]).double()
        counts_N = self._energetic(graph)
        return energy_N if counts_N is None else energy_N * counts_N

    def _baseline(self, graph: Graph, task: str | None) -> Tensor:
        energy_N = self.baseline[self.task_index(task)].index_select(0, graph.species)
        counts_N = self._energetic(graph)
        return energy_N if counts_N is None else energy_N * counts_N

    def set_baseline(self, task: str, energies: Mapping[str, float]) -> None:
        """Set the energy per element of one task, eV; elements not named keep theirs."""
        values = self.baseline[self.task_index(task)]
        for symbol, energy in energies.items():
            values[self.elements.index(symbol)] = energy

    def _check_known(self, config: ModelConfig) -> None:
        """Elements that options name must be elements of the model."""
        named = {
            "excluded_pairs": [symbol for pair in config.excluded_pairs for symbol in pair],
            "excluded_atoms": config.excluded_atoms,
            "backbone.excluded_pairs": [symbol for pair in config.backbone.excluded_pairs for symbol in pair],
            "head.subtract_vacuum": config.head.subtract_vacuum,
        }
        for key, symbols in named.items():
            for symbol in symbols:
                if symbol not in self.elements:
                    raise RecipeError(f"model.{key}: {symbol} is not an element of the model ({' '.join(self.elements)}).")

    def parameter_count(self) -> int:
        """Number of learned numbers, frozen ones too."""
        return int(np.sum([p.numel() for p in self.parameters()], dtype=np.int64))


def eager(potential: Potential, graph: Graph, task: str | None, create_graph: bool) -> tuple[Tensor, Tensor]:
    """Learned energy of every atom (N,) and its derivative with respect to edge vectors (E, 3), operation by operation."""
    vec_E3 = graph.vec.detach().requires_grad_()
    with torch.enable_grad():
        learned_N = potential.network_energy(graph, vec_E3, task)
        return learned_N, edge_gradient(learned_N, vec_E3, create_graph)


def _callers_level() -> int:
    """``stacklevel`` for a warning by the function that asks: the nearest line outside of PyTorch and lamella."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "lamella"):
        frame, level = frame.f_back, level + 1
    return level


def _checked_elements(elements: Sequence[str]) -> tuple[str, ...]:
    unknown = [symbol for symbol in elements if symbol not in chemical_symbols[1:]]
    if unknown:
        raise RecipeError(f"elements: {unknown[0]!r} is no chemical symbol{nearest(unknown[0], chemical_symbols)}.")
    if len(set(elements)) != len(elements) or not elements:
        raise RecipeError(f"elements: each symbol once, at least one; got {list(elements)}.")
    return tuple(elements)
