"""Runs a recurrence forward and backward and names everything that comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.ir.program import Program, live
from .data import Arguments
from .metric import Kind, distance

Result = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
Runner = Callable[..., Result]


@dataclass(frozen=True)
class Quantity:
    """One tensor of a run and how it is measured: ``lead`` and ``time`` as in :func:`metric.distance`."""

    value: Tensor
    kind: Kind
    lead: int
    time: int | None = None

    def distance(self, reference: Quantity) -> float:
        return distance(self.value, reference.value, self.lead, self.time)


def quantities(
    program: Program,
    sizes: Mapping[str, int],
    arguments: Arguments,
    weights: Mapping[str, Tensor],
    run: Runner,
    *,
    reverse: bool = False,
) -> dict[str, Quantity]:
    """Outputs, final states, and the gradients of inputs, learned params and start states.

    The gradients are those of the sum of all outputs and final states times their ``weights``. The
    arguments are leaves that ask for gradients, frozen params excepted.
    """
    groups = (arguments.inputs, arguments.params, arguments.initial)
    options = {"steps": arguments.steps, "reverse": reverse, "cu_seqlens": arguments.cu_seqlens}
    outputs, final = run(program, sizes, *groups, **options)
    result = {o.name: Quantity(value, "output", 3, 1) for o, value in zip(program.outputs, outputs, strict=True)}
    for state, value in zip(program.states, final, strict=True):
        result[f"final {state.name}"] = Quantity(value, "output", 2)
    asked = {name: x for group in groups for name, x in group.items() if x.requires_grad}
    loss = sum(
        ((q.value * weights[name].to(q.value.dtype)).sum().double() for name, q in result.items()), torch.zeros(())
    )
    slopes: list[Tensor | None] = [None] * len(asked)
    if loss.requires_grad:
        slopes = list(torch.autograd.grad(loss, list(asked.values()), allow_unused=True))
    gates = _steering(program)
    for (name, x), slope in zip(asked.items(), slopes, strict=True):
        value = torch.zeros_like(x) if slope is None else slope
        kind: Kind = "gate" if name in gates else "gradient"
        if name in arguments.inputs:
            result[f"d {name}"] = Quantity(value, kind, 3, 1)
        else:
            result[f"d {name}"] = Quantity(value, kind, 1 if name in arguments.params else 2)
    return result


def draw_weights(
    program: Program,
    sizes: Mapping[str, int],
    generator: torch.Generator,
    lead: tuple[int, int, int],
    packed: bool = False,
) -> dict[str, Tensor]:
    """Random cotangents of outputs ``[B, T, H, *axes]`` (B is 1 if ``packed``) and final states ``[B, H, *axes]``,
    in quarters."""
    first = 1 if packed else lead[0]
    shapes = {o.name: (first, *lead[1:], *(axis.size.bind(sizes) for axis in o.axes)) for o in program.outputs}
    for state in program.states:
        shapes[f"final {state.name}"] = (lead[0], lead[2], *(axis.size.bind(sizes) for axis in state.axes))
    return {
        name: torch.randint(-4, 5, shape, generator=generator).to(torch.float64) / 4 for name, shape in shapes.items()
    }


def _steering(program: Program) -> set[str]:
    """Inputs and params that gates read, and inputs with a promised range: they act on whole states."""
    leaves = [program.body[position] for position in live(program.body, [gate.value for gate in program.gates])]
    ranged = {name for _, name in program.leaf_ranges()}
    return ranged | {instr.attrs[1] for instr in leaves if instr.op == "leaf"}
