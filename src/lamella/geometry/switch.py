"""Switch functions w(r): 1 near the centre, 0 beyond the cutoff, smooth between.

Source: DPA-2 paper Eq. 4 (polynomial) and DPA3 paper Eq. 9 (exponential).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["SWITCHES", "Shell", "SwitchKind", "exponential_switch", "polynomial_switch"]

SwitchKind = Literal["polynomial", "exponential"]


class Shell(NamedTuple):
    """One cutoff of a model: neighbours fade out between ``start`` and ``end``.

    Attributes:
        name: what the model calls it, for messages.
        start: where the switch leaves 1, Å.
        end: beyond this a neighbour does not count, Å.
        kind: form of the switch.
    """

    name: str
    start: float
    end: float
    kind: SwitchKind = "polynomial"


def polynomial_switch(r: Tensor, start: float, cutoff: float) -> Tensor:
    """w(r) = u³(-6u² + 15u - 10) + 1 with u = clip((r - start)/(cutoff - start), 0, 1).

    Exactly 1 up to ``start`` and exactly 0 from ``cutoff`` on; twice continuously differentiable at both ends.

    Args:
        r: distances, Å.
        start: where the switch leaves 1, Å.
        cutoff: where it reaches 0, Å.
    """
    u = ((r - start) / (cutoff - start)).clamp(0.0, 1.0)
    return u**3 * (-6.0 * u**2 + 15.0 * u - 10.0) + 1.0


def exponential_switch(r: Tensor, start: float, cutoff: float) -> Tensor:
    """w(r) = exp(-exp(20 (r - start)/start)), with r clipped at ``cutoff``.

    Not exactly 0 at the cutoff: neighbours beyond it are simply not in the graph, so energy and forces jump there by what
    w(cutoff) leaves (8e-7 for 5.3/6.0 Å, 3e-8 for 3.5/4.0 Å).

    Args:
        r: distances, Å.
        start: scale and midpoint of the fall, Å.
        cutoff: distances are clipped here, Å.
    """
    return torch.exp(-torch.exp((20.0 / start) * (r.clamp(max=cutoff) - start)))


SWITCHES: dict[SwitchKind, Callable[[Tensor, float, float], Tensor]] = {
    "polynomial": polynomial_switch,
    "exponential": exponential_switch,
}
"""Switch function by the name recipes use."""
