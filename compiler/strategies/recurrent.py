"""The `recurrent` strategy: one fused kernel walks the steps with the state on chip.

It applies to every recurrence whose state and whose matrices of recurrent weights fit there. This file
decides how: which axes are shared out over programs, how many sequences a program walks at once, how
large tiles are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..analysis.independence import independent_axes
from ..ir.program import Program, depends_on, live
from ..ir.types import Axes
from ..lower.layout import Layout, power_of_two
from ..lower.tiles import DOT_SIDE
from .verdict import Verdict

NAME = "recurrent"

TILE_ELEMENTS = 2048
"""Elements of the largest state that a program of four warps holds (16 per thread)."""

VECTOR_ELEMENTS = 256
"""The same for states without a second axis, where more programs hide more latency."""

ON_CHIP_ELEMENTS = 20480
"""Float32 numbers that weights and states of one program may take together (80 KB): the adjoint needs
as much again for cotangents and operands of matrix products, and devices have 64 to 228 KB."""


def layout(program: Program, sizes: Mapping[str, int], tiles: Mapping[str, int] | None = None) -> Layout:
    """The shape of the kernels for a program at bound sizes; ``tiles`` overrides blocks by axis name.

    ValueError for a block that is no power of two and for an axis whose entries need each other.
    """
    order = _order(program)
    axis_sizes = _axis_sizes(program, sizes)
    rows = DOT_SIDE if _walks_rows(program) else 1
    matrix = _matrix_axes(program)
    least = {axis_sizes[name] for name in matrix}
    blocks = {name: max(power_of_two(size), DOT_SIDE if size in least else 1) for name, size in axis_sizes.items()}
    shared = [name for name in independent_axes(program) if name not in matrix]
    for name in reversed(shared):
        blocks[name] = _shared_block(program, blocks, name, rows)
    for name, block in (tiles or {}).items():
        _check_tile(program, axis_sizes, name, block)
        blocks[name] = block
    tiled = tuple(name for name in order if name in blocks and blocks[name] < axis_sizes[name])
    weights = sum(_elements(param.axes, blocks) for param in program.params if len(param.axes) >= 2)
    return Layout(
        axis_sizes, blocks, tiled, rows, order, warps=_warps(max(_largest(program, blocks, rows), weights // 4))
    )


def _check_tile(program: Program, sizes: Mapping[str, int], name: str, block: int) -> None:
    if name not in sizes:
        raise ValueError(f"no axis {name!r} to tile; there are {', '.join(sizes)}")
    if block < 1 or block != power_of_two(block):
        raise ValueError(f"a tile of {block} along {name}: must be a power of two")
    if block < sizes[name] and name not in independent_axes(program):
        raise ValueError(f"tiles of {block} along {name} do not work: its {sizes[name]} entries depend on each other")


def verdict(program: Program, layout: Layout) -> Verdict:
    """Applies unless states and matrices of one program are too large for the chip."""
    states = sum(_elements(state.axes, layout.blocks) * layout.rows for state in program.states)
    weights = sum(_elements(p.axes, layout.blocks) for p in program.params if len(p.axes) >= 2)
    total = states + weights
    if total > ON_CHIP_ELEMENTS:
        what = "recurrent weights" if weights > states else "state"
        return Verdict(
            NAME,
            False,
            f"the {what} of one program would take {total * 4 // 1024} KB on chip, "
            f"more than the {ON_CHIP_ELEMENTS * 4 // 1024} KB that leave room for the backward pass",
        )
    parts = [f"tiles of {layout.blocks[n]} along {n}" for n in layout.tiles]
    parts += [f"{layout.rows} sequences per program"] if layout.rows > 1 else []
    return Verdict(NAME, True, f"state on chip ({states * 4 / 1024:g} KB per program; {', '.join(parts) or 'whole'})")


def _order(program: Program) -> dict[str, int]:
    """A rank for every axis name: axes of states first, larger states before smaller ones."""
    states = sorted(program.states, key=lambda s: -len(s.axes))
    names = [axis.name for state in states for axis in state.axes]
    names += [axis.name for instr in program.body for axis in instr.axes]
    return {name: rank for rank, name in enumerate(dict.fromkeys(names))}


def _axis_sizes(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    axes = [axis for instr in program.body for axis in instr.axes]
    axes += [axis for leaf in program.leaves() for axis in leaf.axes]
    return {axis.name: axis.size.bind(sizes) for axis in axes}


def _matrix_products(program: Program) -> list[tuple[Axes, Axes]]:
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


def _matrix_axes(program: Program) -> frozenset[str]:
    """Names of axes that are sides of a matrix product."""
    return frozenset(axis.name for pair in _matrix_products(program) for axes in pair for axis in axes)


def _walks_rows(program: Program) -> bool:
    """Whether a program takes several sequences, so that vector states fill a matrix product."""
    body, of_state = program.body, depends_on(program.body, ("state",))
    vectors = all(len(body[p].axes) <= 1 for p in live(body, program.roots()) if of_state[p])
    return vectors and not _makes_matrices(program) and bool(_matrix_products(program))


def _makes_matrices(program: Program) -> bool:
    """Whether a step computes with, or puts out, matrices that every sequence has its own of."""
    body, varies = program.body, depends_on(program.body, ("state", "input"))
    computed = [
        body[p] for p in live(body, program.roots()) if varies[p] and body[p].op not in ("leaf", "index", "slice")
    ]
    axes = [instr.axes for instr in computed] + [output.axes for output in program.outputs]
    axes += [body[arg].axes for instr in computed for arg in instr.args if varies[arg]]
    return any(len(sides) > 1 for sides in axes)


def _largest(program: Program, blocks: Mapping[str, int], rows: int) -> int:
    """Elements of the largest tile that a program holds: a state, or a value or product of a step."""
    body, varies = program.body, depends_on(program.body, ("state", "input"))
    matrix = _matrix_products(program)
    found = [_elements(state.axes, blocks) for state in program.states]
    found += [_elements(output.axes, blocks) for output in program.outputs]
    for position in live(body, program.roots()):
        instr = body[position]
        if not varies[position] or instr.op == "leaf":
            continue
        found.append(_elements(instr.axes, blocks))
        if instr.op == "contract":
            pair = tuple(body[arg].axes for arg in instr.args)
            if pair not in matrix and pair[::-1] not in matrix:  # those take the matrix unit
                sides = dict(zip((*instr.attrs[0], *instr.attrs[1]), (*pair[0], *pair[1]), strict=True))
                found.append(_elements(tuple(sides.values()), blocks))
    return max(found, default=1) * rows


def _elements(axes: Axes, blocks: Mapping[str, int]) -> int:
    return math.prod(blocks[axis.name] for axis in axes)


def _shared_block(program: Program, blocks: Mapping[str, int], name: str, rows: int) -> int:
    """The block of an independent axis that keeps the largest state within its share of a program."""
    others = [
        math.prod(blocks[axis.name] for axis in state.axes if axis.name != name) * rows
        for state in program.states
        if any(axis.name == name for axis in state.axes)
    ]
    rest = max(others, default=1)
    budget = VECTOR_ELEMENTS if rest == 1 else TILE_ELEMENTS
    return max(1, min(blocks[name], budget // rest))


def _warps(elements: int) -> int:
    """Warps for a tile: about 16 elements a thread, at most 8 warps."""
    return max(1, min(8, power_of_two(max(1, elements // 512))))
