"""The recurrence as a PyTorch loop, eager or with its step compiled: what one would write without Recurra."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ..reference import evaluate
from .shape import Shape
from .step_source import Step, step_of

Call = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensor, ...]]
"""From inputs and params by name to the outputs ``[B, T, H, *axes]`` in declaration order."""

Walk = Callable[[int, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""From a number of steps, states, values that vary over time ``[B, T, ...]`` and values that do not ``[B, ...]`` to new
states and what is kept of all steps, ``[B, T, ...]``."""


def eager_loop(program: Program, shape: Shape) -> Call:
    """A loop over the steps, with the time axis unbound before it and outputs stacked after it."""
    step = step_of(program, shape)
    return _loop(program, shape, step, _walk(step, len(program.states)))


def compiled_loop(program: Program, shape: Shape, unrolled: int = 1) -> Call:
    """The same with ``unrolled`` steps at a time as one function under ``torch.compile``."""
    step = step_of(program, shape)
    chunk = compiled(_walk(step, len(program.states)))

    def walk(
        steps: int, states: Sequence[Tensor], varying: Sequence[Tensor], fixed: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        lengths = [min(unrolled, steps - start) for start in range(0, steps, unrolled)]
        pieces = [value.split(lengths, 1) for value in varying]
        kept = []
        for length, *piece in zip(lengths, *pieces, strict=True):
            states, parts = chunk(length, states, piece, fixed)
            kept.append(parts)
        return states, [torch.cat(parts, 1) for parts in zip(*kept, strict=True)]

    return _loop(program, shape, step, walk)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` for fixed shapes, of a copy: how often it recompiles is limited per code, which closures
    share."""
    assert isinstance(function, FunctionType)
    name, closure = function.__name__, function.__closure__
    copy = FunctionType(function.__code__.replace(), function.__globals__, name, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return torch.compile(copy, dynamic=False)


def _walk(step: Step, states: int) -> Walk:
    function = step.function

    def walk(
        steps: int, current: Sequence[Tensor], varying: Sequence[Tensor], fixed: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        rows = list(zip(*(value.unbind(1) for value in varying), strict=True)) if varying else [()] * steps
        kept = []
        for row in rows:
            results = function(*current, *row, *fixed)
            current = results[:states]
            kept.append(results[states:])
        return current, [torch.stack(values, 1) for values in zip(*kept, strict=True)]

    return walk


def _loop(program: Program, shape: Shape, step: Step, walk: Walk) -> Call:
    body, sizes = program.body, shape.sizes
    batch, steps, heads = shape.lead
    wanted = [output.value for output in program.outputs]

    def run(inputs: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        leaves = {("input", name): value for name, value in inputs.items()}
        leaves |= {("param", name): value[None, None] for name, value in params.items()}
        like = next(iter(leaves.values()))
        before = evaluate(body, step.before, leaves, sizes, 3, full=shape.lead, like=like)
        start = evaluate(body, [state.start for state in program.states], leaves, sizes, 2, like=like)
        states = [
            start[state.start].expand(batch, heads, *(axis.size.bind(sizes) for axis in state.axes))
            for state in program.states
        ]
        varying, fixed = [before[p] for p in step.varying], [before[p].select(1, 0) for p in step.fixed]
        _, kept = walk(steps, states, varying, fixed)
        known = {**before, **dict(zip(step.kept, kept, strict=True))}
        outputs = evaluate(body, wanted, leaves, sizes, 3, known=known, full=shape.lead, like=like)
        return tuple(outputs[p].expand(*shape.lead, *outputs[p].shape[3:]) for p in wanted)

    return run
