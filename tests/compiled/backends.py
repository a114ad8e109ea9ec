"""Backends for the tests: what a compiler is given, run without generating code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lamella.compiled.operators import fused_decompositions
from lamella.compiled.trace import Trace


def interpreted(traced: Trace) -> Callable[..., Sequence[Tensor]]:
    """AOTAutograd takes the derivative of the trace; both graphs are interpreted. Inductor gets the very same graphs."""
    from torch._functorch.aot_autograd import aot_module_simplified, make_boxed_func
    from torch._guards import TracingContext, tracing

    def as_is(module, inputs):
        return make_boxed_func(module.forward)

    with tracing(TracingContext(traced.mode)), traced.mode:
        return aot_module_simplified(traced.module, list(traced.inputs), as_is, as_is, decompositions=fused_decompositions())
