"""What a well-formed body is, as code that runs after every stage."""

from __future__ import annotations

from collections.abc import Sequence

from .ops import OPS
from .program import Instr, Program
from .size import Size
from .types import Axes, show_axes


class IllFormed(AssertionError):
    """A stage broke the IR's rules: a bug in the compiler, never the user's mistake."""


def check_program(program: Program) -> None:
    """Every rule for a typed recurrence (IllFormed if one is broken)."""
    for position, instr in enumerate(program.body):
        check_instr(program.body[:position], instr)
    leaves = {("state", s.name): s.axes for s in program.states}
    leaves |= {("input", i.name): i.axes for i in program.inputs}
    leaves |= {("param", p.name): p.axes for p in program.params}
    for instr in program.body:
        if instr.op == "leaf" and instr.attrs != ("head", "head"):
            _require(
                leaves.get(instr.attrs) == instr.axes, f"leaf {instr.attrs} is not declared {show_axes(instr.axes)}"
            )
    for state in program.states:
        _require(program.body[state.next].axes == state.axes, f"{state.name}' has other axes than {state.name}")
        _require(program.body[state.start].axes == (), f"the start of {state.name} is not a scalar")
    for output in program.outputs:
        _require(program.body[output.value].axes == output.axes, f"output {output.name} has other axes than declared")


def check_instr(before: Sequence[Instr], instr: Instr) -> None:
    """The rules for one instruction, given those before it."""
    op = OPS.get(instr.op)
    _require(op is not None, f"unknown operation {instr.op}")
    assert op is not None
    _require(len(instr.args) == op.arity, f"{op.name} takes {op.arity} operands")
    _require(all(0 <= arg < len(before) for arg in instr.args), f"{op.name} reads a value that is not there yet")
    operands = [before[arg] for arg in instr.args]
    shapes = [operand.axes for operand in operands]
    truth = [OPS[operand.op].kind == "compare" for operand in operands]
    _require(
        truth == [op.name == "where" and i == 0 for i in range(op.arity)] or _moves_truth(op.name, truth),
        f"{op.name}: truth values are read by where only, and only as its condition",
    )
    match op.kind:
        case "elementwise" | "compare":
            _require(all(shape == instr.axes for shape in shapes), f"{op.name} needs operands of equal axes")
        case "reduce":
            (position,) = instr.attrs
            _require(instr.axes == shapes[0][:position] + shapes[0][position + 1 :], f"{op.name} drops one axis")
        case "contract":
            _check_contract(shapes[0], shapes[1], instr)
        case "move":
            _check_move(shapes, instr)
        case "leaf":
            _require(instr.op == "leaf" or instr.axes == (), f"{op.name} is a scalar")


def _moves_truth(op: str, truth: list[bool]) -> bool:
    return not any(truth) and op != "where"


def _check_contract(left_axes: Axes, right_axes: Axes, instr: Instr) -> None:
    left, right, out = instr.attrs
    _require(len(left) == len(left_axes) and len(right) == len(right_axes), "contract: one label per axis")
    _require(all(len(set(x)) == len(x) for x in (left, right, out)), "contract: no label twice in one place")
    found = dict(zip(right, right_axes, strict=True))
    for label, axis in zip(left, left_axes, strict=True):
        _require(label not in found or found[label].size == axis.size, "contract: sizes differ")
        found[label] = axis
    _require(tuple(found[label] for label in out) == instr.axes, "contract: axes of the result")
    lost = (set(left) ^ set(right)) - set(out)
    _require(not lost, "contract: a label of one operand only must be kept")


def _check_move(shapes: list[Axes], instr: Instr) -> None:
    axes, operand = instr.axes, shapes[0]
    match instr.op:
        case "broadcast":
            (source,) = instr.attrs
            _require(len(source) == len(axes), "broadcast: one source per axis")
            _require(sorted(s for s in source if s >= 0) == list(range(len(operand))), "broadcast: every axis once")
            _require(
                all(s < 0 or operand[s].size == a.size for s, a in zip(source, axes, strict=True)), "broadcast: sizes"
            )
        case "index":
            position, i = instr.attrs
            known = operand[position].size.known
            _require(i >= 0 and (known is None or i < known), "index: out of range")
            _require(axes == operand[:position] + operand[position + 1 :], "index: drops one axis")
        case "place":
            position, i = instr.attrs
            _require(axes[:position] + axes[position + 1 :] == operand, "place: adds one axis")
        case "slice":
            position, start, stop = instr.attrs
            _require(axes[position].size == stop - start, "slice: size")
            _require(_others(axes, position) == _others(operand, position), "slice: other axes")
        case "pad":
            position, before = instr.attrs
            _require(isinstance(before, Size) and _others(axes, position) == _others(operand, position), "pad: axes")
        case "concat":
            (position,) = instr.attrs
            _require(axes[position].size == operand[position].size + shapes[1][position].size, "concat: size")
            _require(
                _others(axes, position) == _others(operand, position) == _others(shapes[1], position), "concat: axes"
            )


def _others(axes: Axes, position: int) -> Axes:
    return axes[:position] + axes[position + 1 :]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise IllFormed(message)
