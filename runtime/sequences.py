"""Packed sequences: what says where each begins and ends, whether it can be right, and one run after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..compiler.ir.program import Program
from .errors import CallError

ARGUMENT = "cu_seqlens"
"""What the argument is called: [N + 1] steps at which sequences begin, and at which the last one ends."""

_EXPECTED = "int32 or int64 [N + 1]"


def count(spec: str, has_inputs: bool, cu_seqlens: Any) -> int:
    """The number of sequences (CallError if ``cu_seqlens`` cannot describe any); values are not looked at."""
    if not has_inputs:
        raise CallError(spec, ARGUMENT, "is not taken: this recurrence has no input whose time axis it could divide")
    if not isinstance(cu_seqlens, Tensor):
        raise CallError(spec, ARGUMENT, "must be a torch.Tensor", _EXPECTED, type(cu_seqlens).__name__)
    came = f"{str(cu_seqlens.dtype).removeprefix('torch.')} {[int(size) for size in cu_seqlens.shape]}"
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise CallError(spec, ARGUMENT, "must be of whole numbers", _EXPECTED, came)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        problem = "needs one axis: where each sequence begins, and where the last one ends"
        raise CallError(spec, ARGUMENT, problem, _EXPECTED, came)
    return cu_seqlens.shape[0] - 1


def check(spec: str, cu_seqlens: Tensor, steps: int, device: torch.device) -> None:
    """CallError for another device than the inputs', and for wrong values where looking at them waits for nothing."""
    if cu_seqlens.device != device:
        raise CallError(spec, ARGUMENT, "is on another device than the inputs", str(device), str(cu_seqlens.device))
    if cu_seqlens.shape[0] == 1 and steps != 0:
        raise CallError(spec, ARGUMENT, "describes no sequence, but there are steps", "[N + 1]", "[1]")
    if device.type == "cpu" and not torch.compiler.is_compiling():
        check_values(spec, cu_seqlens, steps)


def check_values(spec: str, cu_seqlens: Tensor, steps: int) -> None:
    """CallError unless sequences ascend from 0 to the number of steps."""
    values = cu_seqlens.tolist()
    if values[0] != 0:
        raise CallError(spec, ARGUMENT, "must begin with 0", came=str(values[0]))
    for i, (begin, end) in enumerate(pairwise(values)):
        if end < begin:
            raise CallError(spec, ARGUMENT, f"must not descend: sequence {i} goes from {begin} to {end}")
    if values[-1] != steps:
        raise CallError(spec, ARGUMENT, "must end with the length of the time axis", str(steps), str(values[-1]))


def one_by_one(
    run: Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]],
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    bounds: Sequence[int],
    reverse: bool,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What ``run``, called as the reference's, gives for packed sequences: each by itself, from ``bounds[i]`` to
    ``bounds[i + 1]``."""
    lengths = [end - begin for begin, end in pairwise(bounds)]
    if not lengths:  # none of them, at no steps
        none = [{name: x[:0] for name, x in group.items()} for group in (inputs, initial)]
        outputs, final = run(program, sizes, none[0], params, none[1], steps=0)
        return tuple(o.reshape(1, *o.shape[1:]) for o in outputs), final
    parts = {name: x.split(lengths, 1) for name, x in inputs.items()}  # unlike slices linear in time to differentiate
    starts = {name: x.split(1) for name, x in initial.items()}
    results = [
        run(
            program,
            sizes,
            {name: part[i] for name, part in parts.items()},
            params,
            {name: start[i] for name, start in starts.items()},
            steps=length,
            reverse=reverse,
        )
        for i, length in enumerate(lengths)
    ]
    by_output, by_state = (zip(*group, strict=True) for group in zip(*results, strict=True))
    return tuple(torch.cat(o, 1) for o in by_output), tuple(torch.cat(f) for f in by_state)
