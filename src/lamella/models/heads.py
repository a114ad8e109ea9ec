"""Heads: node features -> energy per atom (DPA3 paper Eq. 3; the fitting network of DeepPot-SE)."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from lamella.nn.activation import activation
from lamella.nn.dense import Network

__all__ = ["EnergyHead", "HeadConfig"]


class HeadConfig(BaseModel):
    """Hyper-parameters of the energy head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...] = (240, 240, 240)
    activation: str = "silut:10.0"
    timestep: bool = True
    task_dim: int = Field(0, ge=0)
    """Width of the dataset encoding; 0 for a head that serves one task."""

    @field_validator("activation")
    @classmethod
    def _known(cls, name: str) -> str:
        activation(name)
        return name


class EnergyHead(nn.Module):
    """e_i = F([v_i | c]), with c the one-hot code of the task where the head serves several."""

    def __init__(self, config: HeadConfig, n_in: int) -> None:
        super().__init__()
        self.net = Network(n_in + config.task_dim, config.hidden, 1, config.activation, config.timestep)

    def forward(self, node_NC: Tensor, code_C: Tensor) -> Tensor:
        """(N, C) and the task's code (task_dim,) -> (N,), eV."""
        if code_C.numel():
            node_NC = torch.cat([node_NC, code_C.to(node_NC.dtype).expand(node_NC.shape[0], -1)], dim=1)
        return self.net(node_NC).squeeze(1)
