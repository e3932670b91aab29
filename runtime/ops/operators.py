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
from .stepped import Stepped

_LIBRARY = torch.library.Library("recurra", "FRAGMENT")

Operator = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


def operator(name: str, executor: Fused | Stepped) -> Operator:
    """The operator ``f(tensors, steps, reverse) -> (outputs, end states)`` of one set of kernels.

    ``name`` is unique to the kernels; ``tensors`` are inputs, params and start states in order.
    """
    core = executor.core
    results = len(core.outputs) + len(core.states)
    arity = len(core.inputs) + len(core.params) + len(core.states)
    infer, forward, backward = _register(name, executor, arity)

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


def _register(name: str, executor: Fused | Stepped, arity: int) -> tuple[Any, Any, Any]:
    results, kept = len(executor.core.outputs) + len(executor.core.states), executor.kept
    tensors = [f"Tensor t{i}" for i in range(arity)]
    saved = [f"Tensor c{i}" for i in range(kept)]
    given = [f"Tensor g{i}" for i in range(results)]

    def split(args: Sequence[Any]) -> tuple[Any, Any, Any, int, bool]:
        values, steps, reverse = args[:-2], args[-2], args[-1]
        return values[:arity], values[arity : arity + kept], values[arity + kept :], steps, reverse

    def infer(*args: Any) -> tuple[Tensor, ...]:
        return executor.forward(args[:arity], *args[arity:], train=False)

    def forward(*args: Any) -> tuple[Tensor, ...]:
        return executor.forward(args[:arity], *args[arity:], train=True)

    def backward(*args: Any) -> tuple[Tensor, ...]:
        return executor.backward(*split(args))

    def infer_shapes(*args: Any) -> tuple[Tensor, ...]:
        return executor.forward_shapes(args[:arity], args[arity], False)

    def forward_shapes(*args: Any) -> tuple[Tensor, ...]:
        return executor.forward_shapes(args[:arity], args[arity], True)

    def backward_shapes(*args: Any) -> tuple[Tensor, ...]:
        return executor.backward_shapes(args[:arity])

    define = _definer(name)
    return (
        define("infer", tensors, results, infer, infer_shapes),
        define("forward", tensors, results + kept, forward, forward_shapes),
        define("backward", tensors + saved + given, arity, backward, backward_shapes),
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
