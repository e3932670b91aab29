"""The least that a recurrence has to move and to compute, counted from its typed IR.

Bytes: forward, every input and param is read once, and every output and final state written once.
With the backward pass inputs and params are read again, the cotangents of outputs are read, and the gradients of
inputs and of learned params are written. What an algorithm keeps for itself (states, checkpoints) does not count.

Operations: those of the step with its products in the cheapest order that the compiler finds, and for the backward
pass those of its adjoint besides. A contraction is two operations for each point of its iteration space (one if
nothing is summed), an element-wise operation one for each entry, a transcendental function ten; moves are free.
What reads only params is counted once per head, all else once per sequence, step and head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod

import torch

from ...compiler.autodiff.reverse import adjoint_step
from ...compiler.ir.ops import OPS
from ...compiler.ir.program import Body, Program, depends_on, live
from ...compiler.ir.types import Axes
from ...compiler.lower.factor import factor_adjoint, factor_program
from .ceilings import Ceilings
from .shape import Shape

TRANSCENDENTAL = 10
"""Operations that a transcendental function counts as, about what a polynomial for it takes."""

_TRANSCENDENTAL = frozenset("exp log log1p expm1 sigmoid logsigmoid tanh silu softplus gelu erf sin cos pow".split())
_FREE = frozenset({"stop_grad", "clip_grad"})


@dataclass(frozen=True)
class Floor:
    """The least work of one pass: bytes moved and floating-point operations."""

    bytes: int
    operations: int

    def __add__(self, other: Floor) -> Floor:
        return Floor(self.bytes + other.bytes, self.operations + other.operations)

    def seconds(self, ceilings: Ceilings) -> tuple[float, float]:
        """The least time for the bytes and for the operations."""
        return self.bytes / ceilings.bytes_per_second, self.operations / ceilings.operations_per_second

    def as_data(self) -> dict[str, int]:
        return asdict(self)


def forward_floor(program: Program, shape: Shape, dtype: torch.dtype) -> Floor:
    """The floor of the outputs and final states of all steps, for inputs of ``dtype``."""
    read = _inputs(program, shape, dtype) + _params(program, shape, dtype, frozen=True)
    written = _outputs(program, shape, dtype) + _states(program, shape, dtype)
    step = factor_program(program, shape.sizes)
    return Floor(read + written, count(step.body, live(step.body, step.roots()), shape))


def training_floor(program: Program, shape: Shape, dtype: torch.dtype) -> Floor:
    """The floor of outputs, final states and the gradients of all inputs and learned params."""
    step = factor_adjoint(adjoint_step(factor_program(program, shape.sizes)), shape.sizes)
    positions = [p for p in live(step.body, step.roots()) if p >= step.own]
    again = _inputs(program, shape, dtype) + _params(program, shape, dtype, frozen=True)
    gradients = _inputs(program, shape, dtype) + _params(program, shape, dtype, frozen=False)
    moved = again + _outputs(program, shape, dtype) + gradients
    backward = Floor(moved, count(step.body, positions, shape))
    return forward_floor(program, shape, dtype) + backward


# ---------------------------------------------------------------- bytes


def _inputs(program: Program, shape: Shape, dtype: torch.dtype) -> int:
    return dtype.itemsize * prod(shape.lead) * sum(_entries(item.axes, shape.sizes) for item in program.inputs)


def _outputs(program: Program, shape: Shape, dtype: torch.dtype) -> int:
    return dtype.itemsize * prod(shape.lead) * sum(_entries(item.axes, shape.sizes) for item in program.outputs)


def _params(program: Program, shape: Shape, dtype: torch.dtype, *, frozen: bool) -> int:
    counted = [param for param in program.params if frozen or not param.frozen]
    return _wide(dtype) * shape.heads * sum(_entries(param.axes, shape.sizes) for param in counted)


def _states(program: Program, shape: Shape, dtype: torch.dtype) -> int:
    return _wide(dtype) * shape.batch * shape.heads * sum(_entries(s.axes, shape.sizes) for s in program.states)


def _wide(dtype: torch.dtype) -> int:
    """The bytes of one entry of a param or state: they are float32 unless inputs are float64."""
    return max(dtype.itemsize, torch.float32.itemsize)


# ---------------------------------------------------------------- operations


def count(body: Body, positions: Iterable[int], shape: Shape) -> int:
    """The operations of the given values of a step, over all sequences, steps and heads."""
    varies = depends_on(body, ("input", "state", "cotangent"))
    of_param = depends_on(body, ("param",))
    per_step = per_head = 0
    for position in positions:
        if varies[position]:
            per_step += _operations(body, position, shape.sizes)
        elif of_param[position]:
            per_head += _operations(body, position, shape.sizes)
    return per_step * prod(shape.lead) + per_head * shape.heads


def _operations(body: Body, position: int, sizes: Mapping[str, int]) -> int:
    """The operations of one value, once."""
    instr = body[position]
    match OPS[instr.op].kind:
        case "leaf" | "move":
            return 0
        case "reduce":
            return _entries(body[instr.args[0]].axes, sizes)
        case "contract":
            left, right, out = instr.attrs
            axes = dict(zip((*left, *right), (axis for arg in instr.args for axis in body[arg].axes), strict=True))
            summed = axes.keys() - set(out)
            return (2 if summed else 1) * _entries(tuple(axes.values()), sizes)
    if instr.op in _FREE:
        return 0
    return (TRANSCENDENTAL if instr.op in _TRANSCENDENTAL else 1) * _entries(instr.axes, sizes)


def _entries(axes: Axes, sizes: Mapping[str, int]) -> int:
    return prod(axis.size.bind(sizes) for axis in axes)
