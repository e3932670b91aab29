"""One pass of element-wise recurrences (algorithms.md section 7): affine ones, and running extremes.

The gradient of a running extreme is that of its step linearised at the states found, so that a tie is split as the
step itself splits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.analysis.elementwise import Group, step_groups
from ...compiler.analysis.linear import Reason
from ...compiler.ir.builder import Builder
from ...compiler.ir.program import Body, Program, depends_on, live
from ..reference import Begun, evaluate
from .affine import Results
from .scan import AFFINE, COUPLED, MAX, MIN, scan


@dataclass(frozen=True)
class Elementwise:
    """A pass whose states are groups; coefficients are values of ``body``, which begins with the program's."""

    program: Program
    groups: tuple[Group, ...]
    body: Body


def elementwise(program: Program) -> Elementwise | Reason:
    """A program as a pass of element-wise recurrences, or why it is none."""
    builder = Builder(program.body)
    groups = step_groups(builder, program)
    if isinstance(groups, Reason):
        return groups
    reads = depends_on(program.body, ("state",))
    for position in sorted(live(program.body, [state.next for state in program.states])):
        instr = program.body[position]
        if instr.op == "stop_grad" and reads[position]:
            return Reason("`stop_grad` of a state changes its gradient", instr.span)
    return Elementwise(program, groups, tuple(builder.body))


def run_elementwise(made: Elementwise, begun: Begun, sizes: Mapping[str, int], size: int) -> Results:
    """A pass of element-wise recurrences, in blocks of ``size`` steps."""
    program, body = made.program, made.body
    known = _prologue(made, begun, sizes)
    nexts: dict[str, Tensor] = {}
    for group in made.groups:
        nexts |= zip(group.states, _states(made, group, known, begun, sizes, size), strict=True)
    starts = begun.states

    def leaf(kind: str, name: str) -> Tensor:
        if kind != "state":
            return begun.leaves[kind, name]
        return torch.cat([starts[name].unsqueeze(1), nexts[name][:, :-1]], 1)[:, : begun.full[1]]

    values = [output.value for output in program.outputs]
    known |= {_next(program, name): value for name, value in nexts.items()}
    done = evaluate(body, values, leaf, sizes, 3, known=known, full=begun.full, like=begun.like)
    finals = {name: value[:, -1] if begun.full[1] else starts[name] for name, value in nexts.items()}
    return {output.name: done[output.value] for output in program.outputs}, finals


def _next(program: Program, name: str) -> int:
    return next(state.next for state in program.states if state.name == name)


def _prologue(made: Elementwise, begun: Begun, sizes: Mapping[str, int]) -> dict[int, Tensor]:
    """Everything that reads no state and that is needed, each value computed (and so clipped) once."""
    body, program = made.body, made.program
    varies = depends_on(body, ("state",))
    roots = [*(s.next for s in program.states), *(o.value for o in program.outputs)]
    wanted = {*roots, *(value for group in made.groups for value in group.values())}
    wanted |= {arg for p in live(body, roots) if varies[p] for arg in body[p].args}
    given = [position for position in sorted(wanted) if not varies[position]]
    return evaluate(body, given, begun.leaves, sizes, 3, full=begun.full, like=begun.like)


def _states(
    made: Elementwise, group: Group, known: Mapping[int, Tensor], begun: Begun, sizes: Mapping[str, int], size: int
) -> list[Tensor]:
    """The states of a group after every step, ``[B, T, H, *axes]``."""
    starts = [begun.states[name] for name in group.states]
    shape = (*begun.full, *starts[0].shape[2:])

    def value(position: int | None, missing: float = 0.0) -> Tensor:
        found = begun.like.new_full((), missing) if position is None else known[position]
        return found.expand(shape)

    if group.kind == "replaced":
        return [value(group.constants[0])]
    if group.kind in ("max", "min"):
        return [_extreme(made, group, value, known, begun, sizes, size)]
    if len(starts) == 1:
        return [scan(AFFINE, value(group.slopes[0][0]), value(group.constants[0]), starts[0], size)]
    slopes = torch.stack([torch.stack([value(slope) for slope in row], -1) for row in group.slopes], -2)
    constants = torch.stack([value(constant) for constant in group.constants], -1)
    return list(scan(COUPLED, slopes, constants, torch.stack(starts, -1), size).unbind(-1))


def _extreme(
    made: Elementwise,
    group: Group,
    value: Callable[..., Tensor],
    known: Mapping[int, Tensor],
    begun: Begun,
    sizes: Mapping[str, int],
    size: int,
) -> Tensor:
    """A running maximum or minimum after every step."""
    (name,), ((shift,),), (bound,) = group.states, group.slopes, group.constants
    algebra, none = (MAX, -math.inf) if group.kind == "max" else (MIN, math.inf)
    start = begun.states[name]
    states = scan(algebra, value(shift).detach(), value(bound, none).detach(), start.detach(), size)
    if not torch.is_grad_enabled():
        return states
    before = torch.cat([start.detach().unsqueeze(1), states], 1)[:, :-1]
    position = _next(made.program, name)

    def step(state: Tensor, values: Mapping[int, Tensor]) -> Tensor:
        leaves = {**begun.leaves, ("state", name): state}
        return evaluate(made.body, [position], leaves, sizes, 3, known=values, like=begun.like)[position]

    leaf = before.clone().requires_grad_()
    (slope,) = torch.autograd.grad(step(leaf, {p: x.detach() for p, x in known.items()}).sum(), leaf)
    change = _change(step(before, known)).expand(states.shape)
    return states + scan(AFFINE, slope, change, _change(start), size)


def _change(value: Tensor) -> Tensor:
    """Zeros whose gradient is that of the value, none where it is infinite."""
    finite = torch.where(value.isfinite(), value, 0.0)
    return finite - finite.detach()
