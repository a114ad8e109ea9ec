"""Dense layers and the networks made of them (DeepPot-SE paper, SI; deepmd-kit's conventions, row vectors: y = x W + b)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lamella.nn.activation import activation

__all__ = ["Dense", "EmbeddingNet", "Network", "side_by_side"]


class Dense(nn.Module):
    """One layer: y = act(x W + b) · τ + shortcut(x).

    The shortcut is x where the widths agree, [x, x] where the output is twice as wide, nothing otherwise; τ ("timestep")
    exists where asked for and where there is a shortcut.

    Initial values: W ~ N(0, 1/(in + out)), b ~ N(0, 1), τ ~ N(0.1, 0.001²).
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        act: str = "linear",
        bias: bool = True,
        shortcut: bool = False,
        timestep: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / (n_in + n_out) ** 0.5)
        self.bias = nn.Parameter(torch.randn(n_out)) if bias else None
        self._copies = n_out // n_in if shortcut and n_out in (n_in, 2 * n_in) else 0
        self.timestep = nn.Parameter(0.1 + 0.001 * torch.randn(n_out)) if timestep and self._copies else None
        self._act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(M, in) -> (M, out)."""
        y = x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)
        y = self._act(y)
        if self.timestep is not None:
            y = y * self.timestep
        if self._copies == 1:
            return y + x
        if self._copies == 2:
            return y + torch.cat([x, x], dim=-1)
        return y


class EmbeddingNet(nn.Module):
    """Layers with shortcuts and nothing after them: the embedding network of DeepPot-SE.

    Args:
        n_in: width of the input.
        widths: of the layers; the last is the output's.
        act: activation of every layer.
        timestep: learned step of each shortcut.
    """

    def __init__(self, n_in: int, widths: Sequence[int], act: str, timestep: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Dense(a, b, act, shortcut=True, timestep=timestep) for a, b in pairwise([n_in, *widths]))

    def forward(self, x: Tensor) -> Tensor:
        """(M, n_in) -> (M, widths[-1])."""
        for layer in self.layers:
            x = layer(x)
        return x


class Network(nn.Module):
    """Hidden layers with shortcuts, then a plain linear layer: the fitting network of DeepPot-SE.

    Args:
        n_in: width of the input.
        hidden: widths of the hidden layers.
        n_out: width of the output.
        act: activation of the hidden layers.
        timestep: learned step of each shortcut.
    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int, act: str, timestep: bool) -> None:
        super().__init__()
        widths = [n_in, *hidden]
        self.hidden = nn.ModuleList(Dense(a, b, act, shortcut=True, timestep=timestep) for a, b in pairwise(widths))
        self.out = Dense(widths[-1], n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in) -> (N, n_out)."""
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)


def side_by_side(layers: Sequence[Dense]) -> tuple[Tensor, Tensor]:
    """Weights and biases of layers with one input, as one wide layer: one product, one gather, one activation for all."""
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    if len(layers) == 1:
        return layers[0].weight, biases[0]
    return torch.cat([layer.weight for layer in layers], dim=1), torch.cat(biases)
