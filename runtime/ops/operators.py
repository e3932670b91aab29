"""Generated kernels as operators of torch, differentiable once.

Each direction is one operator of fixed arity, known to ``torch.compile`` and ``torch.export`` through
a shape function; a plain ``autograd.Function`` on top ties them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fused import Fused

_LIBRARY = torch.library.Library("recurra", "FRAGMENT")

Operator = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


def operator(name: str, fused: Fused) -> Operator:
    """The operator ``f(tensors, steps, reverse) -> (outputs, end states)`` of one set of kernels.

    ``name`` is unique to the kernels; ``tensors`` are inputs, params and start states in order.
    """
    core = fused.compiled.split.core
    results = len(core.outputs) + len(core.states)
    arity = len(core.inputs) + len(core.params) + len(core.states)
    infer, forward, backward = _register(name, fused, arity)

    class Recurrence(torch.autograd.Function):
        """Forward and backward kernels of one recurrence."""

        @staticmethod
        def forward(ctx: Any, steps: int, reverse: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
            values = forward(*tensors, steps, reverse)
            ctx.save_for_backward(*tensors, *values[results:])
            ctx.steps, ctx.reverse = steps, reverse
            return tuple(values[:results])

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
            saved = ctx.saved_tensors
            packed = (c.contiguous() for c in cotangents)
            return None, None, *backward(*saved, *packed, ctx.steps, ctx.reverse)

    def call(tensors: Sequence[Tensor], steps: int, reverse: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            values = Recurrence.apply(steps, reverse, *tensors)
        else:
            values = infer(*tensors, steps, reverse)
        return tuple(values[: len(core.outputs)]), tuple(values[len(core.outputs) :])

    return call


def _register(name: str, fused: Fused, arity: int) -> tuple[Any, Any, Any]:
    core = fused.compiled.split.core
    states, outputs = len(core.states), len(core.outputs)
    tensors = [f"Tensor t{i}" for i in range(arity)]
    kept = [f"Tensor c{i}" for i in range(states)]
    given = [f"Tensor g{i}" for i in range(outputs + states)]

    def split(args: Sequence[Any]) -> tuple[Any, Any, Any, int, bool]:
        values, steps, reverse = args[:-2], args[-2], args[-1]
        return values[:arity], values[arity : arity + states], values[arity + states :], steps, reverse

    def infer(*args: Any) -> tuple[Tensor, ...]:
        return fused.forward(args[:arity], *args[arity:], train=False)

    def forward(*args: Any) -> tuple[Tensor, ...]:
        return fused.forward(args[:arity], *args[arity:], train=True)

    def backward(*args: Any) -> tuple[Tensor, ...]:
        return fused.backward(*split(args))

    define = _definer(name)
    return (
        define("infer", tensors, outputs + states, infer, lambda *a: fused.forward_shapes(a[:arity], a[arity], False)),
        define(
            "forward",
            tensors,
            outputs + 2 * states,
            forward,
            lambda *a: fused.forward_shapes(a[:arity], a[arity], True),
        ),
        define("backward", tensors + kept + given, arity, backward, lambda *a: fused.backward_shapes(a[:arity])),
    )


def _definer(name: str) -> Callable[..., Any]:
    def define(direction: str, args: list[str], results: int, run: Any, fake: Any) -> Any:
        full = f"{name}_{direction}"
        returned = ", ".join(["Tensor"] * results)
        _LIBRARY.define(f"{full}({', '.join(args)}, SymInt steps, bool reverse) -> ({returned})")
        for key in ("CUDA", "CPU"):
            _LIBRARY.impl(full, run, key)
        torch.library.register_fake(f"recurra::{full}", fake, lib=_LIBRARY)
        return getattr(torch.ops.recurra, full).default

    return define
