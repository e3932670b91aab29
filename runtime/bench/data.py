"""Random arguments of the size that is measured: made fast, and inside the promises of the spec."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ...compiler.ir.program import Input, Program
from ..initialise import initialise
from ..verify.data import Arguments
from .shape import Shape


def draw_arguments(
    program: Program, shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> Arguments:
    """Inputs in ``dtype``, params as their initialisers say in float32 (float64 if that is the dtype), no states.

    Inputs with a range are uniform over its inside or, where it is half-infinite, normal and folded into
    it; others are standard normal. All but frozen params are leaves that ask for gradients.
    """
    generator = Generator(device).manual_seed(seed)
    inputs = {item.name: _input(item, shape, generator).to(dtype).requires_grad_() for item in program.inputs}
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    started = initialise(program, shape.heads, shape.sizes, generator=generator, device=device, dtype=wide)
    frozen = {param.name for param in program.params if param.frozen}
    params = {name: value.requires_grad_(name not in frozen) for name, value in started.items()}
    return Arguments(inputs, params, {}, shape.steps)


def _input(item: Input, shape: Shape, generator: Generator) -> Tensor:
    whole = (*shape.lead, *(axis.size.bind(shape.sizes) for axis in item.axes))
    low, high = item.range.low, item.range.high
    if math.isfinite(low) and math.isfinite(high):
        inside = torch.rand(whole, generator=generator, device=generator.device).mul_(0.96).add_(0.02)
        return inside.mul_(high - low).add_(low)
    value = torch.randn(whole, generator=generator, device=generator.device)
    if item.unit:
        return value / value.norm(dim=-1, keepdim=True)
    if math.isfinite(low):
        return value.abs_().add_(low + _MARGIN)
    if math.isfinite(high):
        return value.abs_().neg_().add_(high - _MARGIN)
    return value


_MARGIN = 2.0**-7  # visible at any precision, so that open ends are kept
