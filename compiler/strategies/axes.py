"""What a layout has to know about a recurrence: its axes, and the products of its state with weights."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.program import Program, depends_on, live
from ..ir.types import Axes


def axis_order(program: Program) -> dict[str, int]:
    """A rank for every axis name: axes of states first, larger states before smaller ones."""
    states = sorted(program.states, key=lambda s: -len(s.axes))
    names = [axis.name for state in states for axis in state.axes]
    names += [axis.name for instr in program.body for axis in instr.axes]
    return {name: rank for rank, name in enumerate(dict.fromkeys(names))}


def axis_sizes(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """The size of every axis by name, and of every dimension: expressions and bounds of slices read those."""
    axes = [axis for instr in program.body for axis in instr.axes]
    axes += [axis for leaf in program.leaves() for axis in leaf.axes]
    dims = {dim.name: dim.size.bind(sizes) for dim in program.dims}
    return {axis.name: axis.size.bind(sizes) for axis in axes} | dims


def matrix_products(program: Program) -> list[tuple[Axes, Axes]]:
    """Operands of contractions of the state with a matrix of the params, the matrix second."""
    body = program.body
    of_state, of_param = depends_on(body, ("state",)), depends_on(body, ("param",))
    found = []
    for position in live(body, program.roots()):
        instr = body[position]
        if instr.op != "contract":
            continue
        for value, matrix in (instr.args, instr.args[::-1]):
            if of_state[value] and of_param[matrix] and not of_state[matrix] and len(body[matrix].axes) == 2:
                found.append((body[value].axes, body[matrix].axes))
    return found


def matrix_axes(program: Program) -> frozenset[str]:
    """Names of axes that are sides of a matrix product."""
    return frozenset(axis.name for pair in matrix_products(program) for axes in pair for axis in axes)


def walks_rows(program: Program) -> bool:
    """Whether a program takes several sequences, so that vector states fill a matrix product."""
    body, of_state = program.body, depends_on(program.body, ("state",))
    vectors = all(len(body[p].axes) <= 1 for p in live(body, program.roots()) if of_state[p])
    return vectors and not _makes_matrices(program) and bool(matrix_products(program))


def _makes_matrices(program: Program) -> bool:
    """Whether a step computes with, or puts out, matrices that every sequence has its own of."""
    body, varies = program.body, depends_on(program.body, ("state", "input"))
    computed = [
        body[p] for p in live(body, program.roots()) if varies[p] and body[p].op not in ("leaf", "index", "slice")
    ]
    axes = [instr.axes for instr in computed] + [output.axes for output in program.outputs]
    axes += [body[arg].axes for instr in computed for arg in instr.args if varies[arg]]
    return any(len(sides) > 1 for sides in axes)
