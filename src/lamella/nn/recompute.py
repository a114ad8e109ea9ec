"""Forget what a function computed on the way and compute it once more for its derivatives, first and second.

Autograd keeps every intermediate value of a forward pass. :func:`recomputed` keeps the inputs alone: memory falls to one
function's worth at a time, for one more forward pass per derivative (T. Chen et al., arXiv 1604.06174). torch's own
checkpoint does it for the first derivative; a loss of forces needs the second, for which the backward pass is itself such
a function here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Values", "recomputed"]

Values = tuple[Tensor, ...]


def recomputed(run: Callable[..., Values], inputs: Sequence[Tensor], parameters: Sequence[Tensor] = ()) -> Values:
    """``run(*inputs)``, of which nothing but the inputs stays in memory.

    Args:
        run: deterministic function of floating-point tensors; gives a tuple of tensors.
        inputs: of ``run``.
        parameters: leaves that ``run`` reads beside its inputs; those that require gradients get them.
    """
    if not torch.is_grad_enabled():
        return run(*inputs)
    learned = [p for p in parameters if p.requires_grad]
    return _Run.apply(run, len(inputs), *inputs, *learned)


class _Run(torch.autograd.Function):
    """y = f(x, θ)."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Values], n_inputs: int, *tensors: Tensor) -> Values:
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.run, ctx.n_inputs = run, n_inputs
        return run(*tensors[:n_inputs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[2:]
        given = tuple(grad is not None for grad in grads)
        if not any(given):
            return (None,) * (2 + len(wanted))
        carried = [grad for grad in grads if grad is not None]
        return None, None, *_Pull.apply((ctx.run, ctx.n_inputs, wanted, given), *ctx.saved_tensors, *carried)


class _Pull(torch.autograd.Function):
    """(x, θ, g) -> g ∂f/∂(x, θ), the gradients that are wanted."""

    @staticmethod
    def forward(ctx: Any, plan: Any, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        return tuple(_pull(plan, tensors, False)[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        sources, pulled = _pull(ctx.plan, tensors, True)
        pairs = [(out, grad) for out, grad in zip(pulled, grads, strict=True) if out is not None and grad is not None]
        outs = [out for out, _ in pairs if out.requires_grad]
        cotangents = [grad for out, grad in pairs if out.requires_grad]
        asked = [k for k, source in enumerate(sources) if source.requires_grad and ctx.needs_input_grad[1 + k]]
        found: list[Tensor | None] = [None] * len(sources)
        if outs and asked:
            values = torch.autograd.grad(outs, [sources[k] for k in asked], cotangents, allow_unused=True)
            for k, value in zip(asked, values, strict=True):
                found[k] = value
        return None, *found


def _pull(plan: Any, tensors: Values, differentiable: bool) -> tuple[list[Tensor], list[Tensor | None]]:
    """Run f again; its inputs as leaves, with parameters and cotangents, and the gradients of Σ g·f.

    Parameters are leaves already and are read by f itself, so they are used as they are.
    """
    run, n_inputs, wanted, given = plan
    n_sources = len(wanted)
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in tensors[:n_inputs]]
        sources = [*inputs, *tensors[n_inputs:n_sources]]
        cotangents = [g.detach().requires_grad_(differentiable) for g in tensors[n_sources:]]
        outs = [out for out, known in zip(run(*inputs), given, strict=True) if known]
        pairs = [(out, g) for out, g in zip(outs, cotangents, strict=True) if out.requires_grad]
        asked = [k for k, need in enumerate(wanted) if need]
        found: list[Tensor | None] = [None] * n_sources
        if pairs:
            values = torch.autograd.grad(
                [out for out, _ in pairs],
                [sources[k] for k in asked],
                [g for _, g in pairs],
                create_graph=differentiable,
                allow_unused=True,
            )
            for k, value in zip(asked, values, strict=True):
                found[k] = value
    return [*sources, *cotangents], found
