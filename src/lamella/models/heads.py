"""Heads: node features -> energy per atom (DPA3 paper Eq. 3; the fitting network of DeepPot-SE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from lamella.geometry.segment import gather
from lamella.nn.activation import activation
from lamella.nn.dense import Network
from lamella.types import FrameInput, Graph

__all__ = ["EnergyHead", "HeadConfig"]


class HeadConfig(BaseModel):
    """Hyper-parameters of the energy head."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hidden: tuple[PositiveInt, ...] = Field((240, 240, 240), max_length=64)
    activation: str = "silut:10.0"
    timestep: bool = True
    task_dim: int = Field(0, ge=0)
    """Width of the dataset encoding; 0 for none. With one all tasks share a head."""
    shared: bool = False
    """All tasks share a head without encoding: their baselines alone tell them apart."""
    frame_params: int = Field(0, ge=0)
    """Numbers per frame (an electronic temperature, say) that the head reads; 0 for none."""
    default_frame_params: tuple[float, ...] | None = None
    """Used for frames that carry none; null where every frame must."""
    subtract_vacuum: tuple[str, ...] = ()
    """Elements whose energy is counted from that of an atom without a descriptor."""

    @field_validator("activation")
    @classmethod
    def _known(cls, name: str) -> str:
        activation(name)
        return name

    @model_validator(mode="after")
    def _consistent(self) -> HeadConfig:
        if self.default_frame_params is not None and len(self.default_frame_params) != self.frame_params:
            raise ValueError(
                f"default_frame_params holds {len(self.default_frame_params)} numbers, frame_params is {self.frame_params}"
            )
        return self

    @property
    def serves_all(self) -> bool:
        """One head for all tasks, instead of one each."""
        return self.shared or self.task_dim > 0

    @property
    def inputs(self) -> tuple[FrameInput, ...]:
        """What the head reads of a frame beside its geometry."""
        return (FrameInput("frame_params", self.frame_params, self.default_frame_params),) if self.frame_params else ()


class EnergyHead(nn.Module):
    """e_i = F([v_i | (p - mean)/std | c]), with frame parameters p and the one-hot code c of the task where there are any.

    Args:
        config: hyper-parameters.
        n_in: width of a node.
        elements: chemical symbols, in the order of the species index.
        per_element: one network for each element of the centre (DeepPot-SE) instead of one for all.
    """

    def __init__(self, config: HeadConfig, n_in: int, elements: Sequence[str], per_element: bool = False) -> None:
        super().__init__()
        width = n_in + config.frame_params + config.task_dim
        self.nets = nn.ModuleList(
            Network(width, config.hidden, 1, config.activation, config.timestep)
            for _ in range(len(elements) if per_element else 1)
        )
        self.frame_mean: Tensor  # (P,)
        self.frame_inv_std: Tensor  # (P,)
        self.register_buffer("frame_mean", torch.zeros(config.frame_params))
        self.register_buffer("frame_inv_std", torch.ones(config.frame_params))
        self._vacuum = [symbol in config.subtract_vacuum for symbol in elements]

    def forward(self, node_NC: Tensor, graph: Graph, code_C: Tensor) -> Tensor:
        """(N, C) and the task's code (task_dim,) -> (N,), eV."""
        extra_NX = self._extra(graph, code_C, node_NC.dtype)
        energy_N = self._energy(node_NC, extra_NX, graph.species)
        if any(self._vacuum):
            apart = torch.tensor(self._vacuum, device=energy_N.device).index_select(0, graph.species)
            energy_N = energy_N - apart * self._energy(torch.zeros_like(node_NC), extra_NX, graph.species)
        return energy_N

    def _extra(self, graph: Graph, code_C: Tensor, dtype: torch.dtype) -> Tensor:
        """What is appended to every node, (N, P + task_dim)."""
        parts = [code_C.to(dtype).expand(graph.n_atoms, -1)]
        if self.frame_mean.numel():
            scaled_FP = (graph.inputs["frame_params"].to(dtype) - self.frame_mean) * self.frame_inv_std
            parts.insert(0, gather(scaled_FP, graph.frame))
        return torch.cat(parts, dim=1)

    def _energy(self, node_NC: Tensor, extra_NX: Tensor, species_N: Tensor) -> Tensor:
        x_NC = torch.cat([node_NC, extra_NX], dim=1) if extra_NX.shape[1] else node_NC
        if len(self.nets) == 1:
            return self.nets[0](x_NC).squeeze(1)
        order = torch.argsort(species_N, stable=True)
        counts = torch.bincount(species_N, minlength=len(self.nets)).tolist()
        parts = x_NC.index_select(0, order).split(counts)
        sorted_N = torch.cat([net(part).squeeze(1) for net, part in zip(self.nets, parts, strict=True)])
        return sorted_N.new_zeros(sorted_N.shape).index_copy(0, order, sorted_N)
