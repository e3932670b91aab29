"""Random arguments for a recurrence: sizes that it accepts and numbers that keep its promises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ...compiler.ir.program import Input, Program, live, related_sizes
from ...compiler.ir.size import Size
from ..initialise import initialise

GRAIN = 1024
"""Numbers are multiples of 1/GRAIN where no promise prevents it: exact in float64 and short as fractions."""


@dataclass(frozen=True)
class Arguments:
    """The tensors of one run, as :func:`recurra.runtime.reference.run` takes them."""

    inputs: Mapping[str, Tensor]
    params: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    steps: int

    def to(self, dtype: torch.dtype, frozen: Iterable[str]) -> Arguments:
        """Fresh leaves: inputs in ``dtype``, the rest in it or in float32, all but frozen params asking
        for gradients."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        kept = set(frozen)

        def leaves(group: Mapping[str, Tensor], to: torch.dtype) -> dict[str, Tensor]:
            return {name: x.detach().to(to).clone().requires_grad_(name not in kept) for name, x in group.items()}

        return Arguments(leaves(self.inputs, dtype), leaves(self.params, wide), leaves(self.initial, wide), self.steps)

    def on(self, device: torch.device) -> Arguments:
        """Fresh leaves on another device (sharing memory if they are there)."""

        def moved(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.detach().to(device).requires_grad_(x.requires_grad) for name, x in group.items()}

        return Arguments(moved(self.inputs), moved(self.params), moved(self.initial), self.steps)


def fitting_sizes(program: Program, preferred: Iterable[int], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """A size for every dimension: given, or a preferred one (in turn), or the next above it that the
    spec's slices and indices allow."""
    own = {dim.name: dim.alias or dim.name for dim in program.dims}
    fixed = related_sizes(program.dims, given or {})
    sizes = dict(zip(dict.fromkeys(own.values()), preferred, strict=False))
    sizes |= {name: fixed[name] for name in own.values() if name in fixed}
    while True:
        bound = related_sizes(program.dims, sizes)
        short = [size for size in _must_not_be_negative(program) if size.bind(bound) < 0]
        grows = {own[name] for size in short for name, factor in size.terms if factor > 0} - fixed.keys()
        if not grows:
            return bound
        sizes.update({name: sizes[name] + 1 for name in grows})


def _must_not_be_negative(program: Program) -> list[Size]:
    """Sizes that are negative where a slice or an index leaves its axis, or an axis has no entry."""
    body, found = program.body, []
    for position in live(body, program.roots()):
        instr = body[position]
        found += [axis.size - Size(1) for axis in instr.axes]
        if instr.op == "index":
            axis, i = instr.attrs
            found.append(body[instr.args[0]].axes[axis].size - Size(i + 1))
        if instr.op == "slice":
            axis, start, stop = instr.attrs
            found += [start, body[instr.args[0]].axes[axis].size - stop]
    return [size for size in found if any(factor > 0 for _, factor in size.terms)]


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
) -> Arguments:
    """Arguments in float64, whose leading dimensions are as the reference's.

    Inputs lie in their promised ranges or are standard normal; params are initialised and disturbed a
    little, so that zeros do not hide what they are multiplied with. With ``start`` all states are
    given; those that a denominator or a root reads are positive. With ``grouped`` the first input has
    one head for all.
    """
    inputs = {}
    for i, item in enumerate(program.inputs):
        groups = 1 if grouped and i == 0 else heads
        inputs[item.name] = _input(item, (batch, steps, groups), sizes, generator)
    started = initialise(program, heads, sizes, generator=generator, dtype=torch.float64)
    params = {name: _grained(value + 0.1 * _normal(value.shape, generator)) for name, value in started.items()}
    initial = {}
    positive = _read_by_denominators(program)
    for state in program.states if start else ():
        shape = (batch, heads, *(axis.size.bind(sizes) for axis in state.axes))
        value = _grained(0.5 * _normal(shape, generator))
        initial[state.name] = value.abs() + 0.25 if state.name in positive else value
    return Arguments(inputs, params, initial, steps)


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
