"""Which axes of the state never mix: programs can share them out without talking to each other."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.program import Body, Instr, Program, live


def independent_axes(program: Program) -> tuple[str, ...]:
    """Axes of states along which no value of a step reads another entry, in declaration order.

    Read off the dependence graph: an axis is mixed by a reduction, contraction, slice or index along
    it, by a square value over it, and by being renamed. The adjoint of an independent axis mixes it
    only through sums, which are linear, so that gradients of values without the axis can be summed
    over tiles afterwards; ``clip_grad`` is not linear and keeps whole what it clips.
    """
    names = dict.fromkeys(axis.name for state in program.states for axis in state.axes)
    needed = sorted(live(program.body, program.roots()))
    mixed = {name for position in needed for name in _mixed(program.body, program.body[position], set(names))}
    return tuple(name for name in names if name not in mixed)


def _mixed(body: Body, instr: Instr, names: set[str]) -> Iterator[str]:
    own = [axis.name for axis in instr.axes]
    yield from (name for name in own if own.count(name) > 1)
    operands = [body[arg].axes for arg in instr.args]
    match instr.op:
        case "sum" | "amax" | "index" | "slice" | "pad":
            yield operands[0][instr.attrs[0]].name
        case "concat":
            yield operands[0][instr.attrs[0]].name
            yield operands[1][instr.attrs[0]].name
            yield own[instr.attrs[0]]
        case "place":
            yield own[instr.attrs[0]]
        case "broadcast":
            for axis, source in zip(instr.axes, instr.attrs[0], strict=True):
                if source >= 0 and operands[0][source].name != axis.name:
                    yield from (axis.name, operands[0][source].name)
        case "contract":
            left, right, out = instr.attrs
            kept = dict(zip(out, own, strict=True))
            for labels, axes in ((left, operands[0]), (right, operands[1])):
                for label, axis in zip(labels, axes, strict=True):
                    if kept.get(label) != axis.name:
                        yield axis.name
        case "clip_grad":
            yield from names - set(own)
