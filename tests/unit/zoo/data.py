"""Random float64 arguments for a recurrence, inside the ranges that its inputs promise."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from recurra.compiler.ir.program import Program
from recurra.compiler.ir.types import Axes, Interval

SIZES = {"K": 4, "V": 3, "D": 5, "I": 3, "M": 6, "N": 2, "P": 3}
BATCH, LENGTH, HEADS = 2, 7, 3


def arguments(program: Program, sizes: dict[str, int] = SIZES) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs ``[2, 7, 3, *axes]`` and params ``[3, *axes]``, the same at every call."""
    generator = torch.Generator().manual_seed(zlib.crc32(program.name.encode()))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {}
    for item in program.inputs:
        value = draw(BATCH, LENGTH, HEADS, *shape_of(item.axes, sizes))
        inputs[item.name] = value / value.norm(dim=-1, keepdim=True) if item.unit else within(item.range, value)
    params = {p.name: 0.5 * draw(HEADS, *shape_of(p.axes, sizes)) for p in program.params}
    return inputs, params


def starts(program: Program, sizes: dict[str, int] = SIZES) -> dict[str, Tensor]:
    """Start states ``[2, 3, *axes]`` away from the default."""
    generator = torch.Generator().manual_seed(zlib.crc32(b"start of " + program.name.encode()))
    return {
        s.name: torch.rand(BATCH, HEADS, *shape_of(s.axes, sizes), generator=generator, dtype=torch.float64) + 0.5
        for s in program.states
    }


def shape_of(axes: Axes, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(axis.size.bind(sizes) for axis in axes)


def within(interval: Interval, value: Tensor) -> Tensor:
    """Normal numbers squeezed into an interval that is bounded or not bounded at all."""
    if math.isinf(interval.low) or math.isinf(interval.high):
        return value
    return interval.low + (interval.high - interval.low) * torch.sigmoid(value)


def default_starts(program: Program, fill: dict[str, float]) -> dict[str, Tensor]:
    """Start states at zero, but for those that ``fill`` gives."""
    return {
        s.name: torch.full((BATCH, HEADS, *shape_of(s.axes, SIZES)), fill.get(s.name, 0.0)).double()
        for s in program.states
    }


def by_name(program: Program, outputs: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What a call returned (one tensor or a named tuple) as a dict."""
    several = (outputs,) if isinstance(outputs, Tensor) else outputs
    return {o.name: value for o, value in zip(program.outputs, several, strict=True)}
