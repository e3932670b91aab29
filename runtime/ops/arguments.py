"""What both executors share: naming tensors, shapes of a call, and gradients in the arguments' own shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.layout import Layout


def named(core: Program, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors of a call by leaf: inputs, params, then start states under their states' names."""
    return {leaf.name: tensor for leaf, tensor in zip(core.leaves(), tensors, strict=True)}


def extents(core: Program, tensors: Sequence[Tensor]) -> tuple[int, int]:
    """The number of sequences and of heads, from the first start state [B, H, ...]."""
    start = tensors[len(core.inputs) + len(core.params)]
    return start.shape[0], start.shape[1]


def of_ends(core: Program, tensors: Sequence[Tensor], ends: Sequence[Tensor | None]) -> list[Tensor]:
    """The cotangents of end states, zero for those that nobody uses: start states are as large."""
    starts = tensors[len(tensors) - len(core.states) :]
    return [
        torch.zeros_like(start, memory_format=torch.contiguous_format) if given is None else given
        for start, given in zip(starts, ends, strict=True)
    ]


def entering(tensor: kernel_ir.Tensor, layout: Layout, cotangent: Tensor) -> Tensor:
    """A cotangent from outside as a kernel takes it: tiles that share a state each carry a part of its cotangent, so
    that only the first one may begin with what comes from outside."""
    if not tensor.copies:
        return cotangent
    copies = tuple(layout.count(name) for name in tensor.copies)
    spread = cotangent.new_zeros(*copies, *cotangent.shape)
    spread[(0,) * len(copies)] = cotangent
    return spread


def over_copies(value: Tensor, tensor: kernel_ir.Tensor) -> Tensor:
    """The sum over tiles that each wrote their part."""
    return value.flatten(0, len(tensor.copies) - 1).sum(0) if tensor.copies else value


def over_groups(value: Tensor, groups: int) -> Tensor:
    """The sum over the heads that share one head of an input, for [B, T, H, ...]."""
    if value.shape[2] == groups:
        return value
    return value.unflatten(2, (groups, value.shape[2] // groups)).sum(3)


def gradients(core: Program, tensors: Sequence[Tensor], found: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The gradient of every argument: heads of a group summed, in the argument's dtype, zero if none was found.

    States' gradients are in float32.
    """
    results = []
    for leaf, argument in zip(core.leaves(), tensors, strict=True):
        value = found.get(leaf.name)
        if value is None:
            results.append(torch.zeros_like(argument, memory_format=torch.contiguous_format))
            continue
        value = over_groups(value, argument.shape[2]) if leaf in core.inputs else value
        results.append(value.to(argument.dtype))
    return tuple(results)


def gradient_shapes(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Empty tensors like those that ``gradients`` returns, for tracing."""
    return tuple(t.new_empty(t.shape) for t in tensors)


def add(sums: dict[str, Tensor], name: str, part: Tensor) -> None:
    """Add a part to a sum that may not have begun."""
    sums[name] = sums[name] + part if name in sums else part


_LETTERS = "uvwxyz"


def letters(labels: Sequence[int]) -> str:
    """Labels of a contraction as letters of an einsum."""
    return "".join(_LETTERS[label] for label in labels)
