"""Runs recurrences on native kernels in any dtype, and compares with the float64 reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from recurra.compiler.ir.program import Program
from recurra.compiler.options import Options
from recurra.runtime import reference
from recurra.runtime.ops import cpu_backend
from recurra.runtime.verify.data import Arguments, draw
from recurra.runtime.verify.measure import Quantity, Runner, draw_weights, quantities
from recurra.runtime.verify.metric import TOLERANCES


def arguments(
    program: Program,
    sizes: Mapping[str, int],
    *,
    batch: int = 2,
    steps: int = 5,
    heads: int = 2,
    start: bool = True,
    grouped: bool = False,
    seed: int = 0,
    lengths: Sequence[int] | None = None,
) -> Arguments:
    """Arguments in float64, drawn as for verification; of packed sequences if there are ``lengths``."""
    generator = torch.Generator().manual_seed(seed)
    if lengths is not None:
        batch, steps = len(lengths), sum(lengths)
    lead = {"batch": batch, "steps": steps, "heads": heads}
    return draw(program, sizes, generator, **lead, start=start, grouped=grouped, lengths=lengths)


def on_kernels(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    dtype: torch.dtype,
    *,
    options: Options | None = None,
    reverse: bool = False,
) -> dict[str, Quantity]:
    """Outputs, final states and all gradients on native kernels, inputs rounded to ``dtype``."""
    leaves = given.to(dtype, _frozen(program))
    return _measured(program, sizes, leaves, partial(cpu_backend.run, options=options), reverse)


def on_reference(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    dtype: torch.dtype,
    *,
    wide: bool = True,
    reverse: bool = False,
) -> dict[str, Quantity]:
    """The same of the reference on the same rounded inputs: in float64, or as exactly as ``dtype`` allows."""
    leaves = given.to(dtype, _frozen(program))
    if wide:
        leaves = leaves.to(torch.float64, _frozen(program))
    return _measured(program, sizes, leaves, reference.run, reverse)


def check(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    dtype: torch.dtype,
    *,
    options: Options | None = None,
    reverse: bool = False,
) -> dict[str, Quantity]:
    """AssertionError unless kernels keep the tolerances of ``dtype``, or twice the reference's own error in it."""
    found = on_kernels(program, sizes, given, dtype, options=options, reverse=reverse)
    expected = on_reference(program, sizes, given, dtype, reverse=reverse)
    assert found.keys() == expected.keys()
    allowed = TOLERANCES[dtype]
    errors = {name: q.distance(expected[name]) / allowed[q.kind] for name, q in found.items()}
    large = {name: error for name, error in errors.items() if not error <= 1}
    if large:
        plain = on_reference(program, sizes, given, dtype, wide=False, reverse=reverse)
        own = {name: plain[name].distance(expected[name]) / allowed[plain[name].kind] for name in large}
        large = {name: error for name, error in large.items() if not error <= 2 * own[name]}
    assert not large, f"{program.name} in {dtype}: {large}"
    return found


def _measured(
    program: Program, sizes: Mapping[str, int], leaves: Arguments, run: Runner, reverse: bool
) -> dict[str, Quantity]:
    batch, heads = reference.extent(leaves.inputs, leaves.params, leaves.initial)
    lead = (batch if leaves.cu_seqlens is None else len(leaves.cu_seqlens) - 1, leaves.steps, heads)
    packed = leaves.cu_seqlens is not None
    weights = draw_weights(program, sizes, torch.Generator().manual_seed(1), lead, packed)
    return quantities(program, sizes, leaves, weights, run, reverse=reverse)


def _frozen(program: Program) -> list[str]:
    return [param.name for param in program.params if param.frozen]
