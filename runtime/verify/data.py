"""Random arguments for a recurrence: numbers that keep its promises, at sizes that it accepts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Generator, Tensor

from ...compiler.checks.sizes import fitting_sizes as fitting_sizes
from ...compiler.ir.program import Input, Program, live
from ..initialise import initialise

GRAIN = 1024
"""Numbers are multiples of 1/GRAIN where no promise prevents it: exact in float64 and short as fractions."""


@dataclass(frozen=True)
class Arguments:
    """The tensors of one run, as :func:`recurra.runtime.reference.run` takes them (``cu_seqlens`` if packed)."""

    inputs: Mapping[str, Tensor]
    params: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    steps: int
    cu_seqlens: Tensor | None = None

    def to(self, dtype: torch.dtype, frozen: Iterable[str]) -> Arguments:
        """Fresh leaves: inputs in ``dtype``, the rest in it or in float32, all but frozen params asking
        for gradients."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        kept = set(frozen)

        def leaves(group: Mapping[str, Tensor], to: torch.dtype) -> dict[str, Tensor]:
            return {name: x.detach().to(to).clone().requires_grad_(name not in kept) for name, x in group.items()}

        groups = (leaves(self.inputs, dtype), leaves(self.params, wide), leaves(self.initial, wide))
        return Arguments(*groups, self.steps, self.cu_seqlens)

    def on(self, device: torch.device) -> Arguments:
        """Fresh leaves on another device (sharing memory if they are there)."""

        def moved(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.detach().to(device).requires_grad_(x.requires_grad) for name, x in group.items()}

        cu_seqlens = None if self.cu_seqlens is None else self.cu_seqlens.to(device)
        return Arguments(moved(self.inputs), moved(self.params), moved(self.initial), self.steps, cu_seqlens)


def draw(
    program: Program,
    sizes: Mapping[str, int],
    generator: Generator,
    *,
    batch: int,
    steps: int,
    heads: int,
    start: bool,
    grouped: bool = False,
    lengths: Sequence[int] | None = None,
) -> Arguments:
    """Arguments in float64, whose leading dimensions are as the reference's.

    Inputs lie in their promised ranges or are standard normal; params are initialised and disturbed a
    little, so that zeros do not hide what they are multiplied with. With ``start`` all states are
    given; those that a denominator or a root reads are positive. With ``grouped`` the first input has
    one head for all. Of packed sequences there are ``batch``, with these ``lengths``, which sum to ``steps``.
    """
    inputs = {}
    for i, item in enumerate(program.inputs):
        groups = 1 if grouped and i == 0 else heads
        inputs[item.name] = _input(item, (batch if lengths is None else 1, steps, groups), sizes, generator)
    started = initialise(program, heads, sizes, generator=generator, dtype=torch.float64)
    params = {name: _grained(value + 0.1 * _normal(value.shape, generator)) for name, value in started.items()}
    initial = {}
    positive = _read_by_denominators(program)
    for state in program.states if start else ():
        shape = (batch, heads, *(axis.size.bind(sizes) for axis in state.axes))
        value = _grained(0.5 * _normal(shape, generator))
        initial[state.name] = value.abs() + 0.25 if state.name in positive else value
    cu_seqlens = None if lengths is None else torch.tensor([0, *accumulate(lengths)])
    return Arguments(inputs, params, initial, steps, cu_seqlens)


def _input(item: Input, lead: tuple[int, int, int], sizes: Mapping[str, int], generator: Generator) -> Tensor:
    shape = (*lead, *(axis.size.bind(sizes) for axis in item.axes))
    value = _normal(shape, generator)
    if item.unit:
        return value / value.norm(dim=-1, keepdim=True)
    low, high = item.range.low, item.range.high
    if math.isfinite(low) and math.isfinite(high):
        inside = torch.rand(shape, dtype=torch.float64, generator=generator) * 0.96 + 0.02
        return low + (high - low) * _grained(inside)
    if math.isfinite(low):
        return low + _grained(value).abs() + 1 / GRAIN
    if math.isfinite(high):
        return high - _grained(value).abs() - 1 / GRAIN
    return _grained(value)


def _normal(shape: Iterable[int], generator: Generator) -> Tensor:
    return torch.randn(tuple(shape), dtype=torch.float64, generator=generator)


def _grained(value: Tensor) -> Tensor:
    return (value * GRAIN).round() / GRAIN


def _read_by_denominators(program: Program) -> set[str]:
    """States that a step divides by or takes the root or logarithm of, directly or not."""
    body = program.body
    critical = [
        instr.args[-1 if instr.op == "div" else 0]
        for position, instr in enumerate(body)
        if instr.op in ("div", "log", "sqrt", "rsqrt", "pow") and position in live(body, program.roots())
    ]
    leaves = [body[position] for position in live(body, critical)]
    return {instr.attrs[1] for instr in leaves if instr.op == "leaf" and instr.attrs[0] == "state"}
