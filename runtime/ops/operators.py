"""Generated kernels as operators of torch, differentiable once.

Each direction is one operator of fixed arity, known to ``torch.compile`` and ``torch.export`` through
a shape function; a plain ``autograd.Function`` on top ties them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...compiler.ir.program import Program


class Executor(Protocol):
    """Runs the kernels of one recurrence. Tensors are inputs, params and start states of the ``core`` program.

    ``cu_seqlens`` is None, or [N + 1] whole numbers on the inputs' device where N sequences are packed one after
    another into inputs of batch 1; start and end states then are [N, H, ...]. Only executors that were built with
    ``KernelOptions.packed`` are called with it, and those always are. What it holds may be wrong on a GPU, where
    nobody reads it first: nothing outside of the tensors may be touched then.
    """

    @property
    def core(self) -> Program:
        """The part of the recurrence that the kernels walk."""

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward."""

    def forward(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, what is kept."""

    def forward_shapes(
        self, tensors: Sequence[Tensor], steps: int, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns."""

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        ends: Sequence[Tensor | None],
        steps: int,
        reverse: bool,
        cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Gradients of all tensors, from ``cotangents`` of outputs and those of end states, None where unused."""

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors for what ``backward`` returns."""


_LIBRARY = torch.library.Library("recurra", "FRAGMENT")


_ONLY_REFERENCE = (
    "generated kernels have first derivatives in reverse mode only; "
    'call with backend="reference" for second derivatives, forward mode and vmap'
)


def apply(
    name: str, results: int, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None
) -> tuple[Tensor, ...]:
    """Outputs and end states (``results`` of them) of the operators registered under ``name``."""
    train = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if not torch.compiler.is_compiling():
        # without gradients too: torch would take an operator's missing forward-mode derivative for zero
        return tuple(_Eager.apply(name, results, steps, reverse, cu_seqlens, train, *tensors)[:results])
    if train:
        return tuple(_Recurrence.apply(name, results, steps, reverse, cu_seqlens, train, *tensors)[:results])
    return tuple(_operator(name, "infer")(*tensors, steps, reverse, cu_seqlens))


def _operator(name: str, direction: str) -> Any:
    return getattr(getattr(torch.ops.recurra, f"{name}_{direction}"), "default")  # noqa: B009


class _Recurrence(torch.autograd.Function):
    """Forward and backward operators of one recurrence, tied together."""

    @staticmethod
    def forward(
        name: str,
        results: int,
        steps: int,
        reverse: bool,
        cu_seqlens: Tensor | None,
        train: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(_operator(name, "forward" if train else "infer")(*tensors, steps, reverse, cu_seqlens))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        name, results, steps, reverse, cu_seqlens, train, *tensors = inputs
        if train:
            kept = output[results:]
            ctx.mark_non_differentiable(*kept)
            ctx.save_for_backward(*tensors, *kept, cu_seqlens)
            ctx.name, ctx.results, ctx.steps, ctx.reverse = name, results, steps, reverse
            ctx.set_materialize_grads(False)  # or what is kept gets cotangents too, of its own size

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        *saved, cu_seqlens = ctx.saved_tensors
        packed = [None if given is None else given.contiguous() for given in cotangents[: ctx.results]]
        values = (*saved, *packed)
        plain = (None if value is None else value.detach() for value in values)
        found = _operator(ctx.name, "backward")(*plain, ctx.steps, ctx.reverse, cu_seqlens)
        if torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in values):
            found = _Once.apply(len(found), *found, *values)
        return None, None, None, None, None, None, *found


class _Eager(_Recurrence):
    """The same outside of ``torch.compile``, which does not trace functions with these methods."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_ONLY_REFERENCE)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise RuntimeError(_ONLY_REFERENCE)


class _Once(torch.autograd.Function):
    """Gradients that depend on what they were computed from, but cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in tensors[:count] if tensor is not None)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(_ONLY_REFERENCE)


def register(name: str, executor: Executor) -> None:
    """Register the three operators of one set of kernels with torch; ``name`` is unique to them.

    Tensors come in a fixed order: inputs, params and start states of the core program.
    """
    arity = len(executor.core.inputs) + len(executor.core.params) + len(executor.core.states)
    outputs, kept = len(executor.core.outputs), executor.kept
    results = outputs + len(executor.core.states)
    tensors = [f"Tensor t{i}" for i in range(arity)]
    saved = [f"Tensor c{i}" for i in range(kept)]
    given = [f"Tensor? g{i}" for i in range(results)]

    def infer(*args: Any) -> tuple[Tensor, ...]:
        steps, reverse, cu_seqlens = args[arity:]
        return executor.forward(args[:arity], steps, reverse, cu_seqlens, False)

    def forward(*args: Any) -> tuple[Tensor, ...]:
        steps, reverse, cu_seqlens = args[arity:]
        return executor.forward(args[:arity], steps, reverse, cu_seqlens, True)

    def backward(*args: Any) -> tuple[Tensor, ...]:
        steps, reverse, cu_seqlens = args[-3:]
        own, saved, cotangents = args[:arity], args[arity : arity + kept], args[arity + kept : -3]
        used: Sequence[Any] = cotangents[:outputs]
        if any(given is None for given in used):
            empty = executor.forward_shapes(own, steps, cu_seqlens, False)
            used = tuple(room.zero_() if given is None else given for given, room in zip(used, empty, strict=False))
        return executor.backward(own, saved, used, cotangents[outputs:], steps, reverse, cu_seqlens)

    def infer_shapes(*args: Any) -> tuple[Tensor, ...]:
        return executor.forward_shapes(args[:arity], args[arity], args[-1], False)

    def forward_shapes(*args: Any) -> tuple[Tensor, ...]:
        return executor.forward_shapes(args[:arity], args[arity], args[-1], True)

    def backward_shapes(*args: Any) -> tuple[Tensor, ...]:
        return executor.backward_shapes(args[:arity])

    define = _definer(name)
    define("infer", tensors, results, infer, infer_shapes)
    define("forward", tensors, results + kept, forward, forward_shapes)
    define("backward", tensors + saved + given, arity, backward, backward_shapes)


def _definer(name: str) -> Callable[..., None]:
    def define(direction: str, args: list[str], results: int, run: Any, fake: Any) -> None:
        full = f"{name}_{direction}"
        returned = ", ".join(["Tensor"] * results)
        _LIBRARY.define(f"{full}({', '.join(args)}, SymInt steps, bool reverse, Tensor? cu_seqlens) -> ({returned})")
        for key in ("CUDA", "CPU"):
            _LIBRARY.impl(full, run, key)
        torch.library.register_fake(f"recurra::{full}", fake, lib=_LIBRARY)

    return define
