"""Matrix products in fewer digits than float32, the sums over them in float32.

Relative vectors, the environment they make, sums of atomic energies, forces and virials are float64 whatever is chosen
here; activations, gathers and segment sums keep the model's dtype. Derivatives are products too, so forces are those of the
rounded products and no longer the exact slope of the energy: docs/precision.md says by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lamella.errors import InputError

__all__ = ["Products", "Rounded", "bfloat16_digits", "matrix_products", "split_precision", "tf32_digits"]

Products = Literal["full", "tf32", "bf16"]
"""Of matrix products: the model's dtype; 10 binary digits, which GPUs since Ampere multiply fast; 7 digits."""

_aten = torch.ops.aten
_FACTORS: Final[Mapping[Any, tuple[int, int]]] = {
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
}
"""Where the two factors stand among the arguments."""


def split_precision(name: str | torch.dtype | None) -> tuple[str | torch.dtype | None, Products]:
    """A precision as dtype and kind of products: ``tf32`` and ``bf16`` are float32 with other products."""
    if name == "tf32":
        return "float32", "tf32"
    if name == "bf16":
        return "float32", "bf16"
    return name, "full"


@contextmanager
def matrix_products(kind: Products, device: torch.device) -> Iterator[None]:
    """Inside, float32 matrix products on the device are of this kind, in forward passes and derivatives alike.

    ``bf16`` rounds the factors, then multiplies in float32 on a CPU and in TF32, which holds them exactly, on a GPU: the
    numbers of such products, not yet their speed.

    Raises:
        InputError: ``tf32`` elsewhere than on a GPU.
    """
    if kind == "full":
        yield
        return
    if kind == "tf32" and device.type != "cuda":
        raise InputError(f"precision tf32: {device} has no such products; take float32, or a GPU (--device cuda).")
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True  # no effect on a CPU
    try:
        with Rounded(bfloat16_digits) if kind == "bf16" else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Rounded(TorchDispatchMode):
    """Rounds the factors of every float32 matrix product; sums and results stay float32."""

    def __init__(self, digits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._digits = digits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        places = _FACTORS.get(func)
        if places is not None and args[places[0]].dtype == torch.float32:
            args = tuple(self._digits(value) if k in places else value for k, value in enumerate(args))
        return func(*args, **(kwargs or {}))


def bfloat16_digits(x: Tensor) -> Tensor:
    """Rounded to 8 significant binary digits, as float32."""
    return x.bfloat16().float()


def tf32_digits(x: Tensor) -> Tensor:
    """Rounded to the 11 significant binary digits of TF32, halves to even, as float32; for finite numbers."""
    bits = x.contiguous().view(torch.int32)
    half = 0x0FFF + ((bits >> 13) & 1)
    return ((bits + half) & ~0x1FFF).view(torch.float32)
